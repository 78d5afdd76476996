"""What stops a bot that speaks: real speech through the real detector, in virtual time. The figures for many clips
are benchmarks/selectivity.py's."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

import pytest
from pipecat.processors.frame_processor import FrameDirection

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, Processor, RetrievalResult, Session, consumes
from leibniz_voice.pipeline.frames import ReplyAudioFrame, ReplySpeechFrame
from leibniz_voice.pipeline.interruption.policy import BargeInPolicy
from leibniz_voice.pipeline.testing import AsyncCall, Heard, ScriptedSTT, run_offline
from leibniz_voice.pipeline.testing.audio import at_level, cough, gain, noise, speech
from leibniz_voice.processors import EmbeddedSTT, InterruptionGate, Responder, SileroVAD, StateTracker, TurnAggregator
from leibniz_voice.processors.embedded.workers.shared import close_all

pytestmark = pytest.mark.slow
ANSWER = b"\x10\x27\xf0\xd8" * 8000 * 4  # 4 s
QUESTION = "where is my order"
PHRASES = (QUESTION, "what are your opening hours", "do you sell helmets", "stop", "wait")


class Voice(Processor):
    """Hands over the whole answer at once."""

    @consumes(ReplySpeechFrame)
    async def _on_speech(self, frame: ReplySpeechFrame, direction: FrameDirection) -> None:
        await self.push_frame(ReplyAudioFrame(ANSWER, 16_000, 1, turn_id=frame.turn_id))


@cache
def say(text: str, voice: str = "en+f3") -> bytes:
    """Speech at -23 dBFS."""

    async def main() -> bytes:
        try:
            return await speech(text, voice=voice)
        finally:
            await close_all()

    return at_level(asyncio.run(main()), -23)


def talk_over(pcm: bytes, words: str | None = "", policy: BargeInPolicy | None = None) -> tuple[list[str], float]:
    """Ask aloud, then play `pcm` over the answer; what the client was told to do, and the ms of audio it got.

    `words` is what is heard of it; None: the embedded recogniser listens.
    """
    stt = EmbeddedSTT(phrases=PHRASES) if words is None else ScriptedSTT([Heard(QUESTION), Heard(words)])
    question = say(QUESTION)

    async def branch(turn: Any) -> IntentResult:
        return IntentResult("order_status", 1.0)

    async def passages(turn: Any) -> RetrievalResult:
        return RetrievalResult(context="It is on its way.")

    def build(session: Session) -> Pipeline:
        return Pipeline(
            [
                session.input,
                SileroVAD(),
                stt,
                TurnAggregator(),
                Parallel({"intent": branch, "retrieval": passages}, fallback={"intent": None, "retrieval": None}),
                Responder(),
                Voice(),
                InterruptionGate(policy=policy),
                StateTracker(record=session.record),
                session.output,
            ]
        )

    async def script(call: AsyncCall) -> None:
        await call.says(question, then_silence_s=0.0)
        while not call.wire.audio:
            await call.is_silent(0.1)
        await call.is_silent(0.5)
        await call.says(pcm, then_silence_s=1.0)
        while call.states[-1] == "speaking" and not call.wire.of_type("interrupted"):
            await call.is_silent(0.2)

    call = run_offline(build, script)
    told = [message["type"] for _, message in call.wire.messages]
    return [kind for kind in told if kind in ("pause", "resume", "interrupted")], call.wire.audio_ms


def is_whole(told: list[str], audio_ms: float) -> bool:
    """Every sample was sent, and each pause was lifted."""
    return told == ["pause", "resume"] * (len(told) // 2) and audio_ms >= 4000


@pytest.mark.parametrize("pcm", [noise(800, dbfs=-20), cough(dbfs=-12)], ids=["noise", "cough"])
def test_noise_leaves_the_answer_whole(pcm: bytes) -> None:
    assert is_whole(*talk_over(pcm))


@pytest.mark.parametrize("db", [-12, -20], ids=["another voice", "echo"])
def test_a_quieter_voice_leaves_the_answer_whole_even_if_it_is_understood(db: float) -> None:
    pcm = gain(say("did you put the dishes away", "en+m3"), db)
    assert is_whole(*talk_over(pcm, "did you put the dishes away"))


@pytest.mark.parametrize("words", ["okay", None], ids=["told", "embedded"])
def test_a_backchannel_leaves_the_answer_whole(words: str | None) -> None:
    told, audio_ms = talk_over(say("okay"), words)
    assert told
    assert is_whole(told, audio_ms)


@pytest.mark.parametrize("ears", ["told", "embedded"])
@pytest.mark.parametrize("text", ["stop", "no that's wrong"])
def test_an_interruption_stops_it(text: str, ears: str) -> None:
    told, _ = talk_over(say(text), text if ears == "told" else None)
    assert told == ["pause", "interrupted"]


def test_speech_is_patient_only_where_somebody_tells_words() -> None:
    told, _ = talk_over(say("mhm okay yes"), "", BargeInPolicy(patient_ms=250))
    assert told == ["pause", "interrupted"]
    told, audio_ms = talk_over(say("mhm okay yes"), "mhm okay yes")
    assert is_whole(told, audio_ms)
