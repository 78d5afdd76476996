"""What sounds like silence: the speech detector decides it, and whoever listens behind it takes its word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)

from leibniz_voice.pipeline.frames import SILENCE_BELOW, EarlyWordsFrame, SpeculativeTurnFrame, SpeechChunkFrame
from leibniz_voice.pipeline.testing.audio import RATE, speech
from leibniz_voice.pipeline.testing.bench import Bench
from leibniz_voice.processors import EmbeddedSTT, SileroVAD, SmartTurn, TurnAggregator
from leibniz_voice.processors.embedded.workers.shared import close_all
from leibniz_voice.processors.smart_turn import ASK_MS, SmartTurnModel

CHUNK = 512  # samples
THRESHOLDS = (0.5, 0.6, 0.9)
STOPS = {0.5: 0.35, 0.6: 0.45, 0.9: 0.75}  # where SileroVAD then takes a chunk for silence, after voice
A_BIT = 0.01
PHRASE = "where is my order"


class ScriptedModel:
    """Answers at once from a list."""

    def __init__(self, probabilities: list[float]) -> None:
        self.left = list(probabilities)
        self.chunk_samples = CHUNK
        self.dropped = 0

    def stream(self, sample_rate: int) -> ScriptedModel:
        return self

    def submit(self, chunk: np.ndarray, callback: Callable[[float], None]) -> None:
        callback(self.left.pop(0))

    def reset(self) -> None: ...

    def close(self) -> None: ...


class Oracle(SmartTurnModel):
    """Counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def predict(self, pcm: bytes, sample_rate: int) -> float:
        self.asked += 1
        return 1.0


def audio(samples: int) -> InputAudioRawFrame:
    return InputAudioRawFrame(bytes(2 * samples), RATE, 1)


async def told(threshold: float, *probabilities: float) -> list[SpeechChunkFrame]:
    """What SileroVAD says of these chunks."""
    async with Bench(SileroVAD(threshold=threshold, model=ScriptedModel([*probabilities]))) as bench:
        await bench.send(audio(CHUNK * len(probabilities)))
        end = EndFrame()
        await bench.send(end)
        assert await bench.until_seen(end, 5.0)
        return bench.below(SpeechChunkFrame)[: len(probabilities)]


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_a_chunk_says_what_the_detector_takes_it_for(threshold: float) -> None:
    voice, stop = threshold + A_BIT, STOPS[threshold]
    chunks = asyncio.run(told(threshold, voice, voice, stop + A_BIT, stop - A_BIT, stop + A_BIT, voice))
    assert [chunk.is_silent for chunk in chunks] == [False, False, False, True, True, False]


def test_of_another_makers_chunk_the_confidence_decides() -> None:
    assert SILENCE_BELOW == STOPS[0.6] == 0.45
    assert SpeechChunkFrame(confidence=0.44).is_silent
    assert not SpeechChunkFrame(confidence=0.45).is_silent


async def after_voice(threshold: float, offset: float, bench: Bench) -> SpeechChunkFrame:
    """Let the detector hear voice, then tell what it says of a chunk so far from where silence begins."""
    voice, chunk = (await told(threshold, *[threshold + A_BIT] * 3, STOPS[threshold] + offset))[-2:]
    await bench.send(VADUserStartedSpeakingFrame(start_secs=0.064))
    await bench.send(voice)
    return chunk


CASES = [(threshold, offset) for threshold in THRESHOLDS for offset in (-A_BIT, A_BIT)]


@pytest.mark.parametrize(("threshold", "offset"), CASES)
def test_the_turn_aggregator_guesses_at_the_detectors_silence(threshold: float, offset: float) -> None:
    async def main() -> list[Frame]:
        async with Bench(TurnAggregator()) as bench:
            chunk = await after_voice(threshold, offset, bench)
            await bench.send(InterimTranscriptionFrame("where is it", "", ""))
            before = len(bench.below(SpeculativeTurnFrame))
            await bench.send(chunk)
            return bench.below(SpeculativeTurnFrame)[before:]

    assert bool(asyncio.run(main())) == (offset < 0)


@pytest.mark.parametrize(("threshold", "offset"), CASES)
def test_smart_turn_is_asked_after_the_detectors_silence(threshold: float, offset: float) -> None:
    async def main() -> int:
        model = Oracle()
        async with Bench(SmartTurn(model=model)) as bench:
            await bench.send(audio(RATE))
            await bench.send(await after_voice(threshold, offset, bench))
            await bench.send(audio(RATE * ASK_MS // 1000))
            await asyncio.sleep(0)
            return model.asked

    assert asyncio.run(main()) == (offset < 0)


@pytest.mark.slow
@pytest.mark.parametrize(("threshold", "offset"), CASES)
def test_the_recogniser_begins_early_at_the_detectors_silence(threshold: float, offset: float) -> None:
    async def main() -> list[Frame]:
        spoken = InputAudioRawFrame(await speech(PHRASE), RATE, 1)
        async with Bench(EmbeddedSTT(phrases=[PHRASE])) as bench:
            await bench.send(audio(RATE // 2))
            chunk = await after_voice(threshold, offset, bench)
            await bench.send(spoken)
            for _ in range(5):
                await bench.send(chunk)
                await bench.send(audio(CHUNK))
            stop = VADUserStoppedSpeakingFrame(stop_secs=0.3)
            if chunk.is_silent:
                await until(lambda: bool(bench.below(EarlyWordsFrame)))
            await bench.send(stop)
            await until(lambda: bool(bench.below(TranscriptionFrame)))
            early: list[Frame] = [*bench.below(EarlyWordsFrame)]
        await close_all()
        return early

    assert bool(asyncio.run(main())) == (offset < 0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)
