"""Endpointing by the smart-turn model: a pause in the middle of a sentence does not end the turn."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from pipecat.frames.frames import (
    InputAudioRawFrame,
    SystemFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)

from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.frames import SpeechChunkFrame, TurnPredictionFrame
from leibniz_voice.pipeline.listening.utterance import Committed, Guessed, Utterance
from leibniz_voice.pipeline.testing import Bench, run_virtual
from leibniz_voice.processors.smart_turn import SmartTurn, SmartTurnModel


class Oracle(SmartTurnModel):
    """Answers what it is told, after a while."""

    def __init__(self, answer: float | Exception, seconds: float = 0.05) -> None:
        super().__init__()
        self.answer, self.seconds, self.heard = answer, seconds, []

    async def predict(self, pcm: bytes, sample_rate: int) -> float:
        self.heard.append(len(pcm) / 2 / sample_rate)
        await asyncio.sleep(self.seconds)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def spoken() -> Utterance:
    utterance = Utterance(unfinished_s=1.2)
    utterance.on_speech_started(0)
    utterance.on_words("i would like", True, 0.9)
    return utterance


def test_an_unfinished_turn_waits_and_goes_on() -> None:
    utterance = spoken()
    utterance.on_prediction(False)
    assert utterance.on_speech_stopped(1) == [Guessed("i would like")]
    utterance.on_speech_started(1.8)
    utterance.on_words("a bike", True, 2.5)
    utterance.on_prediction(True)
    assert utterance.on_speech_stopped(2.6) == [Committed("i would like a bike")]


def test_silence_ends_even_an_unfinished_turn() -> None:
    utterance = spoken()
    utterance.on_prediction(False)
    utterance.on_speech_stopped(1)
    assert utterance.deadline == pytest.approx(2.2)
    assert utterance.on_deadline(2.2) == [Committed("i would like")]


def test_a_late_prediction_ends_the_turn_at_once() -> None:
    utterance = spoken()
    utterance.on_prediction(False)
    utterance.on_speech_stopped(1)
    assert utterance.on_prediction(True) == [Committed("i would like")]


def test_a_late_final_of_an_unfinished_turn_does_not_end_it() -> None:
    utterance = Utterance(unfinished_s=1.2)
    utterance.on_speech_started(0)
    utterance.on_prediction(False)
    utterance.on_speech_stopped(1)
    assert Committed("i would like") not in utterance.on_words("i would like", True, 1.1)
    assert utterance.deadline == pytest.approx(2.2)


async def silence_after_speech(bench: Bench, *, quiet_s: float, channels: int = 1) -> list[tuple[str, bool]]:
    audio = InputAudioRawFrame(bytes(32000 * channels), 16000, channels)
    await bench.send(audio)
    await bench.send(VADUserStartedSpeakingFrame(start_secs=0.064))
    await bench.send(audio)
    await bench.send(SpeechChunkFrame(confidence=0.1, speech_ms=1000))
    if quiet_s:
        await bench.send(InputAudioRawFrame(bytes(6400 * channels), 16000, channels))
    await asyncio.sleep(quiet_s)
    await bench.send(VADUserStoppedSpeakingFrame(stop_secs=0.3))
    await asyncio.sleep(0.2)
    wanted = (TurnPredictionFrame, VADUserStoppedSpeakingFrame)
    told = [frame for frame in bench.below(SystemFrame) if isinstance(frame, wanted)]
    return [(type(frame).__name__[:4], getattr(frame, "is_complete", None)) for frame in told]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("answer", "quiet_s", "told"),
    [
        (0.9, 0.1, [("Turn", True), ("VADU", None)]),
        (0.1, 0.1, [("Turn", False), ("VADU", None)]),
        (0.9, 0.0, [("Turn", False), ("VADU", None), ("Turn", True)]),
        (ValueError("no model"), 0.1, [("Turn", True), ("VADU", None)]),
    ],
    ids=["complete", "unfinished", "late", "broken"],
)
def test_the_prediction_comes_before_the_stop_or_is_made_good_later(
    answer: float | Exception, quiet_s: float, told: list[tuple[str, bool]], channels: int
) -> None:
    async def main(channels: int) -> None:
        model = Oracle(answer)
        async with Bench(SmartTurn(model=model)) as bench:
            assert await silence_after_speech(bench, quiet_s=quiet_s, channels=channels) == told
        assert model.heard == [1.7 if quiet_s else 1.5]  # the pre-roll of half a second, the speech, the silence

    run_virtual(main(channels))


@pytest.mark.slow
def test_the_real_model_answers_with_a_probability() -> None:
    noise = np.random.default_rng(1).integers(-3000, 3000, 32000, np.int16).tobytes()
    assert 0 <= asyncio.run(SmartTurnModel().predict(noise, 16000)) <= 1


def test_a_threshold_that_is_no_probability_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="threshold"):
        SmartTurn(threshold=1.5)
