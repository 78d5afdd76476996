"""SileroVAD in a real pipeline: when speech starts and stops, what is no speech, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import cache

import numpy as np
import pytest
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)

from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.frames import SpeechChunkFrame
from leibniz_voice.pipeline.listening.speech import Offset, Onset, SpeechDetector
from leibniz_voice.processors.embedded.silero.batching import shared_model
from leibniz_voice.processors.embedded.silero.network import RecurrentState, infer
from leibniz_voice.processors.vad import SileroVAD
from tests.support.chains import Recorder, chain
from tests.support.speech import spoken as sentence
from tests.support.tools import needs

LEAD_S = 1.5  # quiet before the speech of the tests
CHUNK = 512


@cache
def speech(rate: int = 16000, lead_s: float = LEAD_S) -> tuple[np.ndarray, float, float]:
    """int16 audio of a sentence between quiet parts, and the seconds at which it truly begins and ends."""
    said = sentence("Where is my order? I have waited for it since Monday.", by="espeak-ng", rate=rate)
    audio = np.concatenate([np.zeros(round(lead_s * rate)), said, np.zeros(rate)])
    audio += np.random.default_rng(1).normal(0, 30, len(audio))
    return np.clip(audio, -32768, 32767).astype(np.int16), lead_s, lead_s + len(said) / rate


def frames_of(audio: np.ndarray, rate: int = 16000, ms: int = 20, channels: int = 1) -> list[InputAudioRawFrame]:
    size = rate * ms // 1000
    return [
        InputAudioRawFrame(np.repeat(audio[at : at + size], channels).tobytes(), rate, channels)
        for at in range(0, len(audio), size)
    ]


def run(vad: SileroVAD, frames: list[Frame], end: type[Frame] = EndFrame) -> Recorder:
    """Run these frames through a real worker, then end it."""
    recorder = Recorder()

    async def main() -> None:
        async with chain(vad, recorder, ends=end) as worker:
            await worker.queue_frames(frames)

    asyncio.run(main())
    return recorder


def spoken(recorder: Recorder) -> list[Frame]:
    return recorder.of(VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame)


class ScriptedModel:
    """Answers at once from a list, then with 0; counts what it was asked."""

    def __init__(self, *probabilities: float) -> None:
        self.left = list(probabilities)
        self.resets: list[int] = []  # chunks heard before each reset
        self.asked = 0
        self.chunk_samples = CHUNK
        self.dropped = 0
        self.is_closed = False

    def stream(self, sample_rate: int) -> ScriptedModel:
        self.chunk_samples = sample_rate * 32 // 1000
        return self

    def submit(self, chunk: np.ndarray, callback: Callable[[float], None]) -> None:
        assert chunk.shape == (self.chunk_samples,)
        self.asked += 1
        callback(self.left.pop(0) if self.left else 0.0)

    def reset(self) -> None:
        self.resets.append(self.asked)

    def close(self) -> None:
        self.is_closed = True


def silence(chunks: int) -> np.ndarray:
    return np.zeros(chunks * CHUNK, np.int16)


def test_audio_passes_unchanged_and_before_its_results():
    audio = frames_of(silence(4), ms=32)
    recorder = run(SileroVAD(model=ScriptedModel(0.9, 0.9, 0.9, 0.9)), audio)
    assert recorder.of(InputAudioRawFrame) == audio
    assert recorder.frames.index(audio[1]) < recorder.frames.index(spoken(recorder)[0])


def test_chunks_tell_how_long_speech_has_lasted_until_it_falls_silent():
    script = ScriptedModel(0.1, 0.9, 0.8, 0.2, 0.9, *[0.1] * 5)
    recorder = run(SileroVAD(model=script, hangover_ms=64), frames_of(silence(12)))
    told = [(c.confidence, c.speech_ms) for c in recorder.of(SpeechChunkFrame)]
    assert told == [(0.9, 32), (0.8, 64), (0.2, 64), (0.9, 96), (0.1, 96), (0.1, 0)]


def test_a_blip_is_told_as_a_chunk_and_soon_as_silence_without_a_start():
    recorder = run(SileroVAD(model=ScriptedModel(0.9)), frames_of(silence(6)))
    assert [c.speech_ms for c in recorder.of(SpeechChunkFrame)] == [32, 32, 32, 0]
    assert spoken(recorder) == []


def test_a_hint_of_voice_is_told_before_voice_begins():
    recorder = run(SileroVAD(model=ScriptedModel(0.1, 0.4, 0.3, 0.9, 0.9)), frames_of(silence(20)))
    told = [(c.confidence, c.speech_ms) for c in recorder.of(SpeechChunkFrame)]
    assert told[:4] == [(0.4, 32), (0.3, 32), (0.9, 32), (0.9, 64)]
    assert spoken(recorder)[0].metadata["speech_ms"] == 64


def test_start_and_stop_carry_their_times_and_the_confidence():
    script = ScriptedModel(*[0.1] * 10, 0.8, 0.95, *[0.9] * 3)
    recorder = run(SileroVAD(model=script, onset_ms=64, hangover_ms=300, preroll_ms=100), frames_of(silence(40)))
    started, stopped = spoken(recorder)
    assert started.start_secs == 0.064
    assert started.metadata == {"confidence": 0.95, "speech_ms": 64, "preroll_ms": 164}
    assert stopped.stop_secs == 0.32  # the hangover, at the end of a chunk
    assert stopped.metadata == {"silence_ms": 320}


@pytest.mark.parametrize(("rate", "ms"), [(16000, 10), (16000, 20), (16000, 100), (8000, 30), (48000, 20), (44100, 20)])
def test_any_block_length_and_rate_becomes_the_models_chunks(rate, ms):
    script = ScriptedModel()
    recorder = run(SileroVAD(model=script), frames_of(np.zeros(rate, np.int16), rate, ms))
    assert 30 <= script.asked <= 31
    assert len(recorder.of(InputAudioRawFrame)) == -(-1000 // ms)


def test_a_change_of_rate_ends_the_speech_of_the_old_one_and_goes_on():
    script = ScriptedModel(*[0.9] * 6)
    recorder = run(SileroVAD(model=script), [*frames_of(silence(4)), *frames_of(np.zeros(8000, np.int16), 8000)])
    assert [type(f).__name__[7:11] for f in spoken(recorder)] == ["Star", "Stop", "Star", "Stop"]


def test_odd_bytes_empty_audio_and_two_channels_are_heard_as_far_as_they_go():
    script = ScriptedModel()
    odd = [InputAudioRawFrame(b"", 16000, 1), InputAudioRawFrame(bytes(2 * CHUNK + 1), 16000, 1)]
    run(SileroVAD(model=script), [*odd, *frames_of(silence(1), channels=2)])
    assert script.asked == 2


def test_the_model_forgets_in_quiet_and_never_while_speech_goes_on():
    script = ScriptedModel(*[0.01] * 70, *[0.9] * 100, *[0.01] * 8, *[0.9] * 60)
    run(SileroVAD(model=script), frames_of(silence(300)))
    assert len(script.resets) >= 2
    assert script.resets[0] == 63  # 63 * 32 ms: the first chunk past 2 s
    assert not any(70 < at < 238 for at in script.resets)


def test_the_end_comes_after_the_last_results_and_closes_the_stream():
    script = ScriptedModel(0.9, 0.9)
    recorder = run(SileroVAD(model=script), frames_of(silence(2)))
    assert isinstance(recorder.frames[-1], EndFrame)
    assert len(spoken(recorder)) == 1
    assert script.is_closed


def test_a_cancel_ends_it_at_once():
    script = ScriptedModel(0.9, 0.9)
    recorder = run(SileroVAD(model=script), frames_of(silence(2)), end=CancelFrame)
    assert script.is_closed
    assert isinstance(recorder.frames[-1], CancelFrame)


def test_thresholds_that_cannot_work_are_refused_at_once():
    with pytest.raises(ConfigurationError):
        SileroVAD(threshold=0.4, stop_threshold=0.6)


def offline(audio: np.ndarray) -> list[tuple[int, Onset | Offset]]:
    """The unbatched model and the detector, one chunk after the other; events with the chunk that told them."""
    state, detector = RecurrentState(16000), SpeechDetector()
    chunks = audio[: len(audio) // CHUNK * CHUNK].reshape(-1, CHUNK)
    told = [(n, detector.feed(float(infer([state], [c])[0]), CHUNK)) for n, c in enumerate(chunks)]
    return [(n, event) for n, event in told if event is not None]


@pytest.mark.slow
@needs("espeak-ng")
def test_speech_is_started_and_stopped_where_it_is():
    audio, begin_s, end_s = speech()
    recorder = run(SileroVAD(), frames_of(audio))
    started, stopped = spoken(recorder)
    chunks = recorder.of(SpeechChunkFrame)
    (_, onset), (at, offset) = offline(audio)
    assert abs(onset.start_sample / 16000 - begin_s) <= 0.032
    assert -0.032 <= offset.end_sample / 16000 - end_s <= 0.15  # the model itself lets go 1-4 chunks late
    assert started.metadata["speech_ms"] == 64
    assert started.metadata["confidence"] == pytest.approx(onset.confidence, abs=1e-5)
    assert stopped.metadata["silence_ms"] == ((at + 1) * CHUNK - offset.end_sample) / 16
    assert len(chunks) == at + 1 - onset.start_sample // CHUNK
    assert chunks[-1].speech_ms == 0


@pytest.mark.slow
@needs("espeak-ng")
@pytest.mark.parametrize("rate", [8000, 24000, 48000])
def test_speech_at_other_rates_is_heard_as_well(rate):
    audio, begin_s, end_s = speech(rate)
    recorder = run(SileroVAD(), frames_of(audio, rate))
    assert len(spoken(recorder)) == 2
    heard_s = (len(recorder.of(SpeechChunkFrame)) * 32 - spoken(recorder)[1].metadata["silence_ms"]) / 1000
    assert abs(heard_s - (end_s - begin_s)) <= 0.2


@pytest.mark.slow
@needs("espeak-ng")
def test_speech_after_long_quiet_is_heard_in_time():
    audio, _, _ = speech(lead_s=12.0)
    recorder = run(SileroVAD(), frames_of(audio))
    assert len(spoken(recorder)) == 2


@pytest.mark.slow
@needs("espeak-ng")
def test_conversations_that_share_the_model_hear_only_themselves():
    audio, _, _ = speech()
    shifts = [0, 3000, 7777, 16000]
    recorders = [Recorder() for _ in shifts]

    async def main() -> None:
        async with AsyncExitStack() as stack:
            for shift, recorder in zip(shifts, recorders, strict=True):
                worker = await stack.enter_async_context(chain(SileroVAD(), recorder, ends=EndFrame))
                await worker.queue_frames(frames_of(audio[shift:]))
        assert shared_model().failures == 0

    asyncio.run(main())
    for shift, recorder in zip(shifts, recorders, strict=True):
        assert len(offline(audio[shift:])) == len(spoken(recorder)) == 2


@pytest.mark.parametrize(
    "noise",
    [
        silence(60),
        np.random.default_rng(3).normal(0, 500, 60 * CHUNK).astype(np.int16),
        np.where(np.arange(60 * CHUNK) // 32 == 700, 30000, 0).astype(np.int16),
    ],
    ids=["silence", "hiss", "click"],
)
def test_what_is_no_speech_starts_nothing(noise):
    assert spoken(run(SileroVAD(), frames_of(noise))) == []
