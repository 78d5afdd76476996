"""Processors that stand for what is outside a bot, and bring what it brought when the conversation was recorded.

 recogniser   each of its frames at its recorded time
 voice        of the reply with the same first words: each frame so long after them as it came then
 LLM          of the question with the same words, else of the same place in order: likewise after the question

A reply or an answer that was never recorded is estimated: silence of the length that its words take.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipecat.frames.frames import (
    AggregatedTextFrame,
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    OutputAudioRawFrame,
    StartFrame,
    TTSSpeakFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from ...pipeline.engine.consumes import consumes
from ...pipeline.engine.processor import Processor
from ...pipeline.engine.stages import Stage
from ...pipeline.frames import ReplyAudioFrame, ReplyEndedFrame, ReplySpeechFrame, ReplyStartedFrame, SecondVoiceFrame
from ..recording.events import RecordedEvent, as_int
from ..recording.frame_fields import frame_of

WORD_S = 0.36  # a spoken word of a reply that was never recorded: 165 a minute
RATE = 16_000
DOWN, UP = FrameDirection.DOWNSTREAM, FrameDirection.UPSTREAM


class RecordedEars(Processor):
    """Stands for a recogniser, or whoever else only listens.

    Consumes: the start
    Emits: what the recorded one did, at the same times
    On barge-in: goes on.
    """

    stage = Stage.STT

    def __init__(self, *, events: Sequence[RecordedEvent], began: float, stands_for: str) -> None:
        super().__init__(name=f"recorded {stands_for}")
        self.stands_for = stands_for  # its name in recordings
        self._events = events
        self._began = began  # loop time of the recording's time 0

    @consumes(StartFrame)
    async def _on_start(self, frame: StartFrame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)
        self.create_task(self._bring(), "recorded words")

    async def _bring(self) -> None:
        loop = asyncio.get_running_loop()
        for event in self._events:
            await asyncio.sleep(max(0.0, self._began + event.at - loop.time()))
            await self.push_frame(frame_of(event), UP if event.direction == "upstream" else DOWN)


@dataclass
class Spoken:
    """What the voice brought for one reply."""

    turn_id: int
    text: str = ""  # the first words that it was given
    began: float = 0.0  # when
    events: list[RecordedEvent] = field(default_factory=list)


def replies_of(events: Sequence[RecordedEvent], voice: str) -> list[Spoken]:
    """Sort what a voice brought by reply: by its turn id, else by the reply opened last."""
    replies: dict[int, Spoken] = {}
    marker = 0
    for event in events:
        turn_id = as_int(event.fields.get("turn_id"))
        if event.kind == "ReplyStartedFrame":
            marker = turn_id
            replies.setdefault(turn_id, Spoken(turn_id))
        elif event.kind in ("ReplySpeechFrame", "LLMTextFrame", "TTSSpeakFrame", "SecondVoiceFrame"):
            reply = replies.setdefault(turn_id or marker, Spoken(turn_id or marker))
            if not reply.text:
                reply.text, reply.began = _plain(event.fields.get("text")), event.at
        elif event.processor == voice and event.direction == "downstream":
            replies.setdefault(turn_id or marker, Spoken(turn_id or marker)).events.append(event)
    return [reply for reply in replies.values() if reply.text]


class RecordedVoice(Processor):
    """Stands for a voice.

    Consumes: reply markers, texts to be spoken (end here), interruptions
    Emits: what the recorded one did of the reply with the same first words, after the same time
    On barge-in: what has not come of the cut reply does not come.
    """

    stage = Stage.VOICE

    def __init__(
        self,
        *,
        replies: Sequence[Spoken],
        stands_for: str,
        is_standby: bool = False,
        began: float | None = None,
    ) -> None:
        super().__init__(name=f"recorded {stands_for}")
        self.stands_for = stands_for  # its name in recordings
        self._began = began  # loop time of the recording's time 0, where everything is to come at its own; else None
        self.is_standby = is_standby  # speaks only what the first voice could not
        self.counts: Counter[str] = Counter()  # recorded, estimated: replies
        self._replies = list(replies)  # not used yet
        self._speaking: dict[int, _Speech] = {}  # turn -> its reply
        self._marker = 0  # the reply opened last
        self._text = ""  # of a response that comes in pieces: not estimated yet

    @consumes(ReplyStartedFrame)
    async def _on_started(self, frame: ReplyStartedFrame, direction: FrameDirection) -> None:
        self._marker = frame.turn_id
        await self.push_frame(frame, direction)

    @consumes(TTSSpeakFrame, LLMTextFrame, SecondVoiceFrame)
    async def _on_text(self, frame: Any, direction: FrameDirection) -> None:
        if self.is_standby is not isinstance(frame, SecondVoiceFrame):
            await self.push_frame(frame, direction)
            return
        has_turn = isinstance(frame, ReplySpeechFrame | SecondVoiceFrame)
        turn_id = frame.turn_id if has_turn else self._marker
        speech = self._speaking.get(turn_id)
        if speech is None:
            speech = self._speaking[turn_id] = _Speech(turn_id, self._take(turn_id, frame.text))
            self.turn_task(self._speak(speech), turn_id=turn_id, name=f"recorded voice of turn {turn_id}")
        elif speech.spoken is None:
            speech.words.put_nowait(frame.text)
        if speech.spoken is None and speech.is_new:
            speech.is_new = False
            speech.words.put_nowait(frame.text)

    @consumes(ReplyEndedFrame)
    async def _on_ended(self, frame: ReplyEndedFrame, direction: FrameDirection) -> None:
        speech = self._speaking.get(frame.turn_id)
        if speech is None:
            await self.push_frame(frame, direction)
        else:
            speech.end = (frame, direction)
            speech.words.put_nowait(None)

    @consumes(InterruptionFrame)
    async def _on_interruption(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        cut = getattr(frame, "turn_id", None)
        for turn_id in [each for each in self._speaking if cut is None or each <= cut]:
            del self._speaking[turn_id]
        await self.push_frame(frame, direction)

    def _take(self, turn_id: int, text: str) -> Spoken | None:
        """The recorded reply with these first words: of the same turn, else the first one not used."""
        same = [reply for reply in self._replies if reply.text == _plain(text)]
        found = next((reply for reply in same if reply.turn_id == turn_id), same[0] if same else None)
        self.counts["recorded" if found else "estimated"] += 1
        if found is not None and found.turn_id == turn_id:
            self._replies.remove(found)
        return found

    async def _speak(self, speech: _Speech) -> None:
        loop = asyncio.get_running_loop()
        if speech.spoken is not None:
            is_same = self._began is not None and speech.spoken.turn_id == speech.turn_id
            began = self._began if is_same else loop.time() - speech.spoken.began
            for event in speech.spoken.events:
                await asyncio.sleep(max(0.0, (began or 0.0) + event.at - loop.time()))
                frame = frame_of(event)
                if isinstance(frame, OutputAudioRawFrame | AggregatedTextFrame) or hasattr(frame, "turn_id"):
                    # A service's own ids were minted in the recording; nobody knows them here.
                    frame.turn_id, frame.context_id = speech.turn_id, None  # type: ignore[attr-defined]
                await self.push_frame(frame)
            while speech.end is None:
                await speech.words.get()
        else:
            await self._estimate(speech)
        if speech.end is not None:
            await self.push_frame(*speech.end)
        if self._speaking.get(speech.turn_id) is speech:
            del self._speaking[speech.turn_id]

    async def _estimate(self, speech: _Speech) -> None:
        """Silence for each word, with its time."""
        at_ms = 0.0
        while (text := await speech.words.get()) is not None:
            for word in text.split():
                audio = bytes(2 * int(WORD_S * RATE))
                frame = ReplyAudioFrame(audio, RATE, 1, turn_id=speech.turn_id, words=((word, at_ms),))
                await self.push_frame(frame)
                at_ms += WORD_S * 1000


@dataclass
class _Speech:
    turn_id: int
    spoken: Spoken | None  # None: it is estimated
    words: asyncio.Queue[str | None] = field(default_factory=lambda: asyncio.Queue(4096))  # None: all of them came
    end: tuple[Frame, FrameDirection] | None = None  # the marker, kept until the last audio is out
    is_new: bool = True


@dataclass
class _Answered:
    """What the LLM brought for one question."""

    text: str
    began: float
    events: list[RecordedEvent] = field(default_factory=list)


def answers_of(events: Sequence[RecordedEvent], llm: str) -> list[_Answered]:
    """Sort what an LLM brought by question."""
    answers: list[_Answered] = []
    for event in events:
        if event.kind == "LLMContextFrame" and event.direction == "downstream":
            answers.append(_Answered(_plain(event.fields.get("text")), event.at))
        elif event.processor == llm and answers:
            answers[-1].events.append(event)
    return answers


class RecordedLLM(FrameProcessor):
    """Stands for an LLM. A guest, like those of Pipecat, so that the responder takes it for one."""

    def __init__(self, *, answers: Sequence[_Answered], stands_for: str, began: float | None = None) -> None:
        super().__init__(name=f"recorded {stands_for}")
        self.stands_for = stands_for  # its name in recordings
        self._began = began  # as of `RecordedVoice`
        self.counts: Counter[str] = Counter()  # recorded, borrowed, missing: answers
        self._answers = list(answers)  # not given yet
        self._task: asyncio.Task[None] | None = None  # gives one; None while nothing is asked

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answer a context; everything else goes on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InterruptionFrame | EndFrame | CancelFrame):
            await self._stop()
        if isinstance(frame, LLMContextFrame) and direction is DOWN:
            await self._stop()
            asked = [m.get("content") for m in frame.context.get_messages() if isinstance(m, dict) and "content" in m]
            self._task = self.create_task(self._answer(self._take(_plain(asked[-1] if asked else ""))))
        else:
            await self.push_frame(frame, direction)

    async def cleanup(self) -> None:
        """Stop answering."""
        await self._stop()
        await super().cleanup()

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await self.cancel_task(task)

    def _take(self, text: str) -> _Answered | None:
        found = next((answer for answer in self._answers if answer.text == text), None)
        self.counts["recorded" if found else "borrowed" if self._answers else "missing"] += 1
        found = found or next(iter(self._answers), None)
        if found is not None:
            self._answers.remove(found)
        return found

    async def _answer(self, answer: _Answered | None) -> None:
        loop = asyncio.get_running_loop()
        if answer is None:
            await self.push_frame(LLMFullResponseStartFrame())
            await self.push_frame(LLMFullResponseEndFrame())
            return
        began = loop.time() - answer.began if self._began is None else self._began
        for event in answer.events:
            await asyncio.sleep(max(0.0, began + event.at - loop.time()))
            await self.push_frame(frame_of(event), UP if event.direction == "upstream" else DOWN)


def _plain(text: Any) -> str:
    return " ".join(text.split()) if isinstance(text, str) else ""
