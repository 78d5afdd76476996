"""Where and when the bot goes on after a pause for nothing: at once, at the sample, or with the word that was cut."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from pipecat.processors.frame_processor import FrameDirection

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, Processor, RetrievalResult, Session, consumes
from leibniz_voice.pipeline.frames import ReplyAudioFrame, ReplySpeechFrame, SpeechChunkFrame
from leibniz_voice.pipeline.testing import AsyncCall, run_offline
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator
from leibniz_voice.transports.client.playback import Playback

RATE = 16_000
WORD_MS = 400  # word n is a stretch of the value n + 1
WORDS = 6


class Voice(Processor):
    """Says six words."""

    @consumes(ReplySpeechFrame)
    async def _on_speech(self, frame: ReplySpeechFrame, direction: FrameDirection) -> None:
        for number in range(WORDS):
            pcm = np.full(RATE * WORD_MS // 1000, number + 1, np.int16).tobytes()
            words = ((f"w{number}", float(number * WORD_MS)),)
            await self.push_frame(ReplyAudioFrame(pcm, RATE, 1, turn_id=frame.turn_id, words=words))


def paused_call(*, at_word: bool) -> tuple[AsyncCall, float]:
    """A pause of 96 ms in the second word or later; the call, and when the detector told that it was nothing."""
    decided: list[float] = []

    async def answer(turn: object) -> IntentResult:
        return IntentResult("say", 1.0)

    async def look_up(turn: object) -> RetrievalResult:
        return RetrievalResult(context="w0 w1 w2 w3 w4 w5")

    def build(session: Session) -> Pipeline:
        return Pipeline(
            [
                session.input,
                TurnAggregator(),
                Parallel({"intent": answer, "retrieval": look_up}, fallback={"intent": None, "retrieval": None}),
                Responder(templates={"say": "{context}"}),
                Voice(),
                InterruptionGate(resume_at_word=at_word),
                StateTracker(record=session.record),
                session.output,
            ]
        )

    async def script(call: AsyncCall) -> None:
        await call.types("what is it")
        await call.until_heard(700)
        for chunk in range(1, 4):
            await call.pushes(SpeechChunkFrame(confidence=0.9, speech_ms=32.0 * chunk))
            await asyncio.sleep(0.032)
        decided.append(asyncio.get_running_loop().time())
        await call.pushes(SpeechChunkFrame())
        await call.until_state("idle")

    return run_offline(build, script), decided[0]


def heard_by_client(call: AsyncCall) -> np.ndarray:
    """What a client plays that obeys."""
    playback = Playback(sample_rate=RATE)
    playback.start(0.0)
    events = [(at, "audio", pcm) for at, pcm in call.wire.audio] + [(at, m["type"], m) for at, m in call.wire.messages]
    for at, kind, what in sorted(events, key=lambda event: event[0]):
        if kind == "audio":
            playback.push(what, at)
        elif kind == "pause":
            playback.pause(at)
        elif kind == "resume":
            playback.resume(at, what.get("back_ms", 0.0))
    playback.advance(events[-1][0] + 10)
    return np.frombuffer(bytes(playback.heard), np.int16)


@pytest.mark.parametrize("at_word", [False, True])
def test_it_goes_on_within_300_ms_of_the_decision(at_word: bool) -> None:
    call, decided_s = paused_call(at_word=at_word)
    resumed_s = next(at for at, message in call.wire.messages if message["type"] == "resume")
    assert 0 <= resumed_s - decided_s <= 0.3


def test_it_goes_on_at_the_sample_where_it_stopped() -> None:
    call, _ = paused_call(at_word=False)
    assert "back_ms" not in call.wire.of_type("resume")[0]
    counts = np.bincount(heard_by_client(call))[1:]
    assert all(abs(count - RATE * WORD_MS // 1000) <= 2 * RATE * 5 // 1000 for count in counts)  # fades at the edges


def test_it_goes_on_with_the_word_that_was_cut_in_two() -> None:
    call, _ = paused_call(at_word=True)
    back_ms = call.wire.of_type("resume")[0]["back_ms"]
    assert 0 < back_ms < WORD_MS
    counts = np.bincount(heard_by_client(call), minlength=WORDS + 1)[1:]
    longest = int(counts.argmax())
    assert counts[longest] / RATE * 1000 == pytest.approx(WORD_MS + back_ms, abs=12)
    others = np.delete(counts, longest) / RATE * 1000
    assert others == pytest.approx([WORD_MS] * (WORDS - 1), abs=12)
