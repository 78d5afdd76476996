"""Replays a recorded conversation in virtual time: the same inputs, every decision anew.

 from the recording   the client's messages and microphone at their times; what is outside the bot: probabilities of
                      the speech model, words of the recogniser, answers of branches and LLM, audio of the voice
 computed anew        speech and its end, turns, states, pauses, interruptions, playback: whatever the bot decides

`again` names what is asked again instead ("vad", "stt", "branches", "llm", "voice"), for settings that change what it
would have been asked. Then a replay is no longer the same in every run, by what those parts themselves vary.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.llm_service import LLMService
from pipecat.services.stt_service import STTService
from pipecat.services.tts_service import TTSService

from ...pipeline.conversation.conversation_record import ConversationRecord
from ...pipeline.conversation.snapshot import DamagedSnapshot, parse
from ...pipeline.engine.parallel import Branch, Parallel
from ...pipeline.engine.stages import Stage
from ...pipeline.errors import ServiceError
from ...pipeline.frames import UserTurnFrame
from ...pipeline.pipeline import Pipeline
from ...pipeline.session import Build, Session
from ...pipeline.testing.clock import run_virtual
from ...processors import EmbeddedSTT, EmbeddedTTS, SileroVAD, SmartTurn
from ...transports.memory import MemoryTransport
from ..recording.events import RecordedEvent, RecordingError
from ..recording.frame_fields import answer_of, frame_of
from ..recording.recorded_model import ReplayedModel
from ..recording.recorder import Tape
from ..recording.recording import Recording
from ..recording.settings import chain_of, changed, names_of, with_parts
from .lateness import Lateness
from .stand_ins import RecordedEars, RecordedLLM, RecordedVoice, answers_of, replies_of

PARTS = ("vad", "stt", "branches", "llm", "voice", "embedded")  # the last: stt and voice, where they are no service
LEAD_S = 0.05  # before the first input, where a recording has it at once: the pipeline must be up
Lifespan = Callable[[], AbstractAsyncContextManager[Any]]


@dataclass
class Replayed:
    """What came of a replay, and how much of what was outside came from where."""

    recording: Recording
    counts: Counter[str] = field(default_factory=Counter)  # "voice recorded", "voice estimated", "branches missing" ...


def replay(
    recording: Recording,
    build: Build,
    *,
    again: Collection[str] = (),
    changes: Mapping[str, str] | None = None,
    lifespan: Lifespan | None = None,
) -> Replayed:
    """Replay in virtual time. `changes` are settings by name; `lifespan` is entered where a part is asked again.

    Raises `RecordingError` for a recording that cannot be replayed, `ConfigurationError` for settings that are none.
    """
    return run_virtual(_Replay(recording, build, again, changes or {}, lifespan).run())


class _Replay:
    def __init__(
        self,
        recording: Recording,
        build: Build,
        again: Collection[str],
        changes: Mapping[str, str],
        lifespan: Lifespan | None,
    ) -> None:
        _check(recording, again)
        self._recording = recording
        self._build = build
        self._again = frozenset(again)
        self._changes = changes
        self._lifespan = lifespan if again and lifespan is not None else nullcontext
        self._is_strict = not again and not changes  # whatever was late then is as late now
        self._began = 0.0  # loop time of the recording's time 0
        self._counts: Counter[str] = Counter()
        self._counted: dict[str, Counter[str]] = {}  # part -> its stand-in's counts
        self._by_processor: dict[str, list[RecordedEvent]] = defaultdict(list)
        for event in recording.events:
            self._by_processor[event.processor].append(event)

    async def run(self) -> Replayed:
        async with self._lifespan():
            tape = Tape()
            transport = MemoryTransport()
            session = Session(
                self._recording.session_id or "replay",
                input=transport.input,
                output=transport.output,
                record=_record_of(self._recording),
                resumed=_is_resumed(self._recording),
            )
            self._began = asyncio.get_running_loop().time()
            await session.start(tape.records(self._rebuild))
            try:
                await self._feed(transport.input)
            finally:
                await session.cancel("the recording is over")
        for part, counts in self._counted.items():
            self._counts.update({f"{part} {name}": count for name, count in counts.items()})
        return Replayed(tape.recording, self._counts)

    # -- the bot -----------------------------------------------------------------------------------------------

    async def _rebuild(self, session: Session) -> Pipeline:
        built = self._build(session)
        pipeline = built if isinstance(built, Pipeline) else await built
        chain = chain_of(pipeline)
        names = names_of(chain)
        parts = [self._part(*each) for each in zip(changed(chain, self._changes), names, strict=True)]
        if self._is_strict:
            lateness = Lateness(self._recording, self._began)
            for part, name in zip(parts, names, strict=True):
                lateness.impose(part, name)
        return with_parts(pipeline, {id(each): part for each, part in zip(chain, parts, strict=True)})

    def _part(self, processor: FrameProcessor, name: str) -> FrameProcessor:
        """The processor, or who stands for it."""
        events, everything = self._by_processor[name], self._recording.events
        stage = getattr(processor, "stage", None)
        is_embedded = isinstance(processor, EmbeddedSTT | EmbeddedTTS | SmartTurn)
        if is_embedded and "embedded" in self._again and self._recording.has_audio:
            return processor
        if isinstance(processor, SileroVAD) and "vad" not in self._again:
            answers = [event for event in events if event.kind == "Probability"]
            processor.wrap_model(lambda model: ReplayedModel(answers, self._began))
        elif isinstance(processor, Parallel) and "branches" not in self._again:
            answers = _Answers(events, self._counts, may_ask=not self._is_strict)
            processor.wrap_branches(answers.stand_in)
        elif (stage is Stage.STT or isinstance(processor, STTService)) and "stt" not in self._again:
            return RecordedEars(events=events, began=self._began, stands_for=name)
        elif isinstance(processor, LLMService) and "llm" not in self._again:
            began = self._began if self._is_strict else None
            llm = RecordedLLM(answers=answers_of(everything, name), stands_for=name, began=began)
            self._counted["llm"] = llm.counts
            return llm
        elif (stage is Stage.VOICE or isinstance(processor, TTSService)) and "voice" not in self._again:
            is_standby = getattr(processor, "is_standby", False)
            voice = RecordedVoice(
                replies=replies_of(everything, name),
                stands_for=name,
                is_standby=is_standby,
                began=self._began if self._is_strict else None,
            )
            self._counted["voice"] = voice.counts
            return voice
        return processor

    # -- the client --------------------------------------------------------------------------------------------

    async def _feed(self, head: FrameProcessor) -> None:
        loop = asyncio.get_running_loop()
        levels = _Levels(self._recording) if not self._recording.has_audio else None
        first = self._recording.processors[0]
        for event in self._by_processor[first]:
            if event.direction != "downstream" or (event.kind not in _INPUTS and not _is_pushed(event)):
                continue
            wait_s = self._began + event.at - loop.time()
            if wait_s > 0:  # what came in one step comes in one step: not even a sleep of 0 between
                await asyncio.sleep(wait_s)
            frame = frame_of(event)
            if levels is not None and event.kind == "InputAudioRawFrame":
                frame.audio = levels.take(event)  # type: ignore[attr-defined] # it has audio
            await head.push_frame(frame)
        ended = self._recording.frames("Ended")
        over = ended[-1].at if ended else self._recording.length_s
        await asyncio.sleep(max(0.0, self._began + over - loop.time()))


_INPUTS = frozenset({"InputAudioRawFrame", "ClientFragmentFrame", "ClientTurnEndFrame", "UserSpeakingFrame"})


def _is_pushed(event: RecordedEvent) -> bool:
    """Whether a test let this frame enter behind the input."""
    return event.kind.endswith("Frame") and event.kind not in ("ErrorFrame",)


class _Answers:
    """The branches' recorded answers."""

    def __init__(self, events: Sequence[RecordedEvent], counts: Counter[str], *, may_ask: bool) -> None:
        self._counts = counts
        self._may_ask = may_ask  # what was never asked; else it fails
        self._answers: dict[tuple[Any, Any], list[RecordedEvent]] = defaultdict(list)  # (branch, text) -> in order
        for event in events:
            if event.kind == "BranchAnswer":
                self._answers[event.fields.get("branch"), event.fields.get("text")].append(event)

    def stand_in(self, name: str, branch: Branch) -> Branch:
        """Return a branch that answers as recorded, after the same time; what was never asked fails."""

        async def answer(turn: UserTurnFrame) -> Any:
            events = self._answers[name, turn.text]
            if not events:
                self._counts["branches missing"] += 1
                if self._may_ask:
                    return await branch(turn)
                raise ServiceError(f"{name} was not asked about this in the recording")
            event = events.pop(0) if len(events) > 1 else events[0]
            self._counts["branches recorded"] += 1
            took_ms = event.fields.get("took_ms", 0.0)
            if isinstance(took_ms, int | float) and took_ms > 0:
                await asyncio.sleep(took_ms / 1000)
            return answer_of(event.fields.get("answer"))

        return answer


class _Levels:
    """A microphone without audio: what the speech model's chunks were loud, as a constant."""

    def __init__(self, recording: Recording) -> None:
        chunks = recording.frames("Probability")
        levels = [float(event.fields.get("dbfs", -120.0)) for event in chunks]
        loud = np.clip(np.round(32768 * 10 ** (np.array(levels, float) / 20)), 0, 32767)
        self._samples = np.repeat(loud.astype(np.int16), 512)  # of a chunk at 16 kHz
        self._taken = 0

    def take(self, event: RecordedEvent) -> bytes:
        """The next samples, as many as the event had."""
        start, self._taken = self._taken, self._taken + len(event.pcm()) // 2
        samples = self._samples[start : self._taken]
        return np.pad(samples, (0, self._taken - start - len(samples))).tobytes()


def _check(recording: Recording, again: Collection[str]) -> None:
    unknown = set(again) - set(PARTS)
    if unknown:
        raise RecordingError(f"{', '.join(sorted(unknown))} cannot be asked again; there are {', '.join(PARTS)}")
    if recording.side != "server" or not recording.processors:
        raise RecordingError("it was recorded at a client, so the bot's side is not in it; only `show` can read it")
    if not recording.has_text:
        raise RecordingError("it was recorded without text, so it cannot be replayed")
    if not recording.has_audio and {"stt", "vad"} & set(again):
        raise RecordingError("it was recorded without audio, so nobody can hear it again")


def _is_resumed(recording: Recording) -> bool:
    return any(event.fields.get("resumed") is True for event in recording.frames("Conversation"))


def _record_of(recording: Recording) -> ConversationRecord:
    """The conversation as it stood at the beginning."""
    session_id = recording.session_id or "replay"
    for event in recording.frames("Conversation"):
        stored = event.fields.get("fields")
        if isinstance(stored, dict):
            try:
                fields = parse({str(key): str(value) for key, value in stored.items()})
            except DamagedSnapshot as error:
                raise RecordingError(f"the conversation's beginning is damaged: {error}") from None
            if _is_resumed(recording):
                return ConversationRecord(session_id, fields=fields)
            return ConversationRecord(session_id, last_turn_id=fields.turn_id)
    return ConversationRecord(session_id)
