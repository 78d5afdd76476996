"""Voices and clients at every rate: a reply is heard to its last sample, and nothing of a cut one in the next."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from loguru import logger
from pipecat.frames.frames import TTSSpeakFrame
from pipecat.processors.frame_processor import FrameDirection

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, Processor, RetrievalResult, Session, consumes
from leibniz_voice.pipeline.engine.stages import Stage
from leibniz_voice.pipeline.frames import ReplyAudioFrame
from leibniz_voice.pipeline.testing import AsyncCall, run_offline
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator
from leibniz_voice.transports.dialects.protocol import UserSpeaking
from leibniz_voice.transports.playout.resampler import Resampler

LEVELS = {1: 8000, 2: -8000}  # of the audio of each turn, all the time
REPLY_S = 0.51


class LevelVoice(Processor):
    """Answers each turn by a constant, so every sample that is heard tells whose it is."""

    stage = Stage.VOICE

    def __init__(self, sample_rate: int, channels: int) -> None:
        super().__init__()
        self.sample_rate, self.channels = sample_rate, channels

    @consumes(TTSSpeakFrame)
    async def _on_speech(self, frame: Any, direction: FrameDirection) -> None:
        pcm = np.full((int(self.sample_rate * REPLY_S), self.channels), LEVELS[frame.turn_id], np.int16)
        for chunk in np.array_split(pcm, 17):
            audio = ReplyAudioFrame(chunk.tobytes(), self.sample_rate, self.channels, turn_id=frame.turn_id)
            await self.push_frame(audio)


async def intent(turn: Any) -> IntentResult:
    return IntentResult("say", 1.0)


def audio_of(voice_rate: int, client_rate: int, *, channels: int = 1) -> tuple[Any, Any]:
    """What was heard of a reply that was cut, and of the one after it."""

    def build(session: Session) -> Pipeline:
        session.output.set_rate(client_rate)  # type: ignore[attr-defined]
        fallback = {"intent": IntentResult(), "retrieval": RetrievalResult()}
        return Pipeline(
            [
                session.input,
                TurnAggregator(),
                Parallel({"intent": intent}, fallback=fallback),
                Responder(templates={"say": "so it is"}),
                LevelVoice(voice_rate, channels),
                InterruptionGate(),
                StateTracker(record=session.record),
                session.output,
            ]
        )

    async def script(call: AsyncCall) -> None:
        call.wire.sample_rate = client_rate
        await call.types("one")
        await call.until_heard(200)
        await call.sends(UserSpeaking(confidence=1.0))
        await call.until_state("listening")
        await call.types("two")
        await call.until_state("speaking")
        await call.until_state("idle")

    call = run_offline(build, script)
    assert call.states[-4:] == ["listening", "thinking", "speaking", "idle"]
    cut = next(n for n, (kind, _) in enumerate(call.wire.log) if kind == "interrupted")
    return tuple(
        np.frombuffer(b"".join(told for kind, told in part if kind == "audio"), np.int16)
        for part in (call.wire.log[:cut], call.wire.log[cut:])
    )


@pytest.mark.parametrize("voice_rate", [8000, 16000, 22050, 24000, 48000])
@pytest.mark.parametrize("client_rate", [8000, 16000, 24000, 48000])
def test_nothing_of_a_cut_reply_is_heard_in_the_next_one_and_all_of_that(voice_rate: int, client_rate: int) -> None:
    first, second = audio_of(voice_rate, client_rate)
    assert first.mean() > LEVELS[1] / 2
    assert second.max() < LEVELS[1] / 4  # a filter rings a little where the audio begins and ends
    heard_s = np.count_nonzero(second < LEVELS[2] / 2) / client_rate
    assert heard_s == pytest.approx(REPLY_S, abs=0.002)


@pytest.mark.parametrize("voice_rate", [16000, 24000])
def test_the_channels_of_a_voice_are_mixed_into_one(voice_rate: int) -> None:
    _, second = audio_of(voice_rate, 16000, channels=2)
    assert np.count_nonzero(second < LEVELS[2] / 2) / 16000 == pytest.approx(REPLY_S, abs=0.002)


@pytest.mark.parametrize(("from_rate", "to_rate"), [(24000, 16000), (16000, 8000), (16000, 48000), (16000, 16000)])
def test_flushed_a_resampler_is_as_new(from_rate: int, to_rate: int) -> None:
    resampler = Resampler(from_rate, to_rate)
    pcm = np.arange(from_rate // 10, dtype=np.int16).tobytes()
    first, again = (np.frombuffer(resampler(pcm) + resampler.flush(), np.int16).astype(int) for _ in range(2))
    assert len(first) == to_rate / 10
    assert resampler.flush() == b""
    assert np.abs(again - first).max() <= 2  # it dithers


def test_a_forgetful_resampler_continues_nothing() -> None:
    resampler = Resampler(24000, 16000)
    resampler(np.full(2400, 9000, np.int16).tobytes())
    resampler.forget()
    silence = np.frombuffer(resampler(bytes(4800)) + resampler.flush(), np.int16)
    assert np.abs(silence.astype(int)).max() <= 1  # it dithers


def test_a_reply_too_long_to_be_kept_is_warned_of_once() -> None:
    async def script(call: AsyncCall) -> None:
        for _ in range(13):
            await call.pushes(ReplyAudioFrame(bytes(2 * 10 * 16000), 16000, 1, turn_id=1))

    warnings: list[str] = []
    sink = logger.add(lambda line: warnings.append(line.record["message"]), level="WARNING")
    try:
        run_offline(lambda session: Pipeline([session.input, session.output]), script)
    finally:
        logger.remove(sink)
    assert [text for text in warnings if "to be played" in text] == [
        "turn 1: 120 s wait to be played; what follows is lost"
    ]
