"""What was heard of a reply, as the conversation keeps it, beside what the client really played.

Every word of the bot is a stretch of one sample value, so the audio that the client played says which words it has
heard. The client plays in real time what comes, and drops what it holds when it is told of the interruption.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import numpy as np
from pipecat.frames.frames import OutputAudioRawFrame, TTSAudioRawFrame, TTSTextFrame
from pipecat.processors.frame_processor import FrameDirection

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, Processor, RetrievalResult, Session, consumes
from leibniz_voice.pipeline.frames import ReplyAudioFrame, ReplyPlayedFrame, ReplySpeechFrame
from leibniz_voice.pipeline.testing import Call, run_offline
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator
from leibniz_voice.transports.client.playback import Playback
from leibniz_voice.transports.dialects.protocol import UserSpeaking

RATE = 16_000
WORDS = 14  # of a reply


class Voice(Processor):
    """Says `w0 w1 w2 ...`, word n with the value n + 1, each 120 to 600 ms long; with word times, or without.

    Without, the words of a sentence of five follow its audio in one `TTSTextFrame`, as a stock voice tells them.
    """

    def __init__(self, dice: random.Random, *, has_times: bool) -> None:
        super().__init__()
        self._dice = dice
        self._has_times = has_times

    @consumes(ReplySpeechFrame)
    async def _on_speech(self, frame: ReplySpeechFrame, direction: FrameDirection) -> None:
        begins_ms, sentence = 0.0, b""
        for number in range(WORDS):
            length_ms = self._dice.randrange(120, 600, 20) if self._has_times else 300
            pcm = np.full(RATE * length_ms // 1000, number + 1, np.int16).tobytes()
            if self._has_times:
                words = ((f"w{number}", begins_ms),)
                await self.push_frame(ReplyAudioFrame(pcm, RATE, 1, turn_id=frame.turn_id, words=words))
            else:
                sentence += pcm
                if number % 5 == 4 or number == WORDS - 1:
                    await self.push_frame(TTSAudioRawFrame(sentence, RATE, 1))
                    text = " ".join(f"w{n}" for n in range(number // 5 * 5, number + 1))
                    await self.push_frame(TTSTextFrame(text, text_type="sentence"))
                    sentence = b""
            begins_ms += length_ms


class TellsWhatWasSent(Processor):
    """A deliberate mistake, between tracker and output: takes all words that went out for heard."""

    def __init__(self) -> None:
        super().__init__()
        self._sent: list[str] = []

    @consumes(OutputAudioRawFrame)
    async def _on_audio(self, frame: OutputAudioRawFrame, direction: FrameDirection) -> None:
        self._sent += [word for word, _ in getattr(frame, "words", ())]
        await self.push_frame(frame, direction)

    @consumes(ReplyPlayedFrame)
    async def _on_played(self, frame: ReplyPlayedFrame, direction: FrameDirection) -> None:
        frame.heard, self._sent = " ".join(self._sent), []
        await self.push_frame(frame, direction)


def errors(cuts: int, seed: int, *, has_times: bool = True, broken: Callable[[], Processor] | None = None) -> list[int]:
    """Cut so many replies at random; of each, how many words more (or, negative, fewer) are kept than were heard."""
    dice = random.Random(seed)

    async def intent(turn: object) -> IntentResult:
        return IntentResult("say", 1.0)

    async def retrieval(turn: object) -> RetrievalResult:
        return RetrievalResult(context=" ".join(f"w{number}" for number in range(WORDS)))

    def build(session: Session) -> Pipeline:
        return Pipeline(
            [
                session.input,
                TurnAggregator(),
                Parallel({"intent": intent, "retrieval": retrieval}, fallback={"intent": None, "retrieval": None}),
                Responder(templates={"say": "{context}"}),
                Voice(dice, has_times=has_times),
                InterruptionGate(),
                StateTracker(record=session.record),
                *([broken()] if broken else []),
                session.output,
            ]
        )

    kept: list[str] = []

    async def script(call: Call) -> None:
        for number in range(cuts):
            await call.types(f"question {number}")
            await call.until_state("speaking")
            await asyncio.sleep(dice.uniform(0.0, 3.4))
            await call.sends(UserSpeaking(confidence=1.0))
            await call.until(lambda n=number: len(call.wire.of_type("interrupted")) == n + 1, "interruption")
            kept.append(call.record.fields.history[-1]["heard"])

    call = run_offline(build, script)
    return [len(words.split()) - truth for words, truth in zip(kept, _played(call), strict=True)]


def _played(call: Call) -> list[int]:
    """For each interruption, how many words of the reply the client had played."""
    events = [(at, "audio", pcm) for at, pcm in call.wire.audio]
    events += [(at, message["type"], message.get("turn")) for at, message in call.wire.messages]
    playback, truths, begun = Playback(sample_rate=RATE, max_s=1e6), [], 0
    playback.start(0.0)
    for at, kind, what in sorted(events, key=lambda event: (event[0], event[1] == "interrupted")):
        if kind == "audio":
            playback.push(what, at)
        elif kind == "response_ready":
            playback.begin(what, at)
            begun = len(playback.heard)
        elif kind == "interrupted":
            playback.drop(at)
            truths.append(int(np.frombuffer(bytes(playback.heard[begun:]), np.int16).max(initial=0)))
    return truths
