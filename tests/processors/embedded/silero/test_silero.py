"""The shared Silero model: company changes no probability, order is kept, closing is clean."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams, VADState

from leibniz_voice.pipeline.engine import outside
from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.processors.embedded.silero import batching as silero
from leibniz_voice.processors.embedded.silero.batching import SileroModel, shared_model
from leibniz_voice.processors.embedded.silero.network import RecurrentState, infer, model_path
from leibniz_voice.processors.vad_analyzer import SileroAnalyzer
from tests.support.speech import spoken
from tests.support.tools import needs

SENTENCE = "I would like to know where my order is, please. It was a red bike, and a lamp."
pytestmark = needs("espeak-ng")


@cache
def noisy_speech(rate: int, seed: int = 1) -> np.ndarray:
    """About 7 s of int16: quiet, speech, quiet, with some noise; chunks of 32 ms only."""
    said = spoken(SENTENCE, by="espeak-ng", rate=rate)
    gap = np.zeros(rate)
    audio = np.concatenate([gap, said, gap])
    audio += np.random.default_rng(seed).normal(0, 200, len(audio))
    size = rate * 32 // 1000
    return np.clip(audio[: len(audio) // size * size], -32768, 32767).astype(np.int16)


def chunks_of(rate: int, seed: int = 1) -> list[np.ndarray]:
    return list(noisy_speech(rate, seed).reshape(-1, rate * 32 // 1000))


def one_at_a_time(chunks, rate: int) -> np.ndarray:
    state = RecurrentState(rate)
    return np.array([infer([state], [chunk])[0] for chunk in chunks])


async def until(condition) -> None:
    """Let the loop turn until it holds; results come from a thread."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [16000, 8000])
def test_probabilities_do_not_depend_on_company(rate):
    streams_of_chunks = [chunks_of(rate, seed)[seed:] for seed in range(6)]  # shifted, so no two rows are alike
    answers: list[list[float]] = [[] for _ in streams_of_chunks]

    async def ask():
        model = shared_model()
        streams = [model.stream(rate) for _ in streams_of_chunks]
        for at in range(max(map(len, streams_of_chunks))):
            for stream, chunks, answer in zip(streams, streams_of_chunks, answers, strict=True):
                if at < len(chunks):
                    stream.submit(chunks[at], answer.append)
            if at % 7 == 0:
                await asyncio.sleep(0)
        await until(lambda: [len(a) for a in answers] == [len(c) for c in streams_of_chunks])
        assert model.chunks > 2 * model.calls
        model.close()

    asyncio.run(ask())
    for chunks, answer in zip(streams_of_chunks, answers, strict=True):
        assert np.abs(one_at_a_time(chunks, rate) - answer).max() < 1e-5
        assert max(answer) > 0.9
        assert min(answer) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("rate", [16000, 8000])
def test_probabilities_are_those_of_pipecats_own_model(rate):
    theirs = SileroVADAnalyzer(sample_rate=rate)
    theirs.set_sample_rate(rate)
    ours = SileroAnalyzer(sample_rate=rate)
    ours.set_sample_rate(rate)
    speech = chunks_of(rate)[:62]  # before either forgets for the first time
    assert theirs.num_frames_required() == ours.num_frames_required() == len(speech[0])
    expected = [theirs.voice_confidence(chunk.tobytes()).item() for chunk in speech]
    assert np.abs(np.array([ours.voice_confidence(c.tobytes()) for c in speech]) - expected).max() < 1e-5
    assert np.abs(one_at_a_time(speech, rate) - expected).max() < 1e-5


@pytest.mark.slow
def test_a_stock_bot_hears_the_same_starts_and_stops():
    async def states(analyzer) -> list[VADState]:
        analyzer.set_sample_rate(16000)
        audio = np.tile(noisy_speech(16000), 2).tobytes()
        heard = [await analyzer.analyze_audio(audio[at : at + 640]) for at in range(0, len(audio), 640)]
        await analyzer.cleanup()
        return heard

    params = VADParams(min_volume=0.0)
    ours = asyncio.run(states(SileroAnalyzer(params=params)))
    assert ours == asyncio.run(states(SileroVADAnalyzer(params=params)))
    assert VADState.SPEAKING in ours


def test_both_rates_share_a_call():
    answers: dict[int, list[float]] = {16000: [], 8000: []}

    async def ask():
        model = shared_model()
        for rate, answer in answers.items():
            stream = model.stream(rate)
            for chunk in chunks_of(rate)[30:40]:
                stream.submit(chunk, answer.append)
        await until(lambda: all(len(a) == 10 for a in answers.values()))
        model.close()

    asyncio.run(ask())
    for rate, answer in answers.items():
        assert np.abs(one_at_a_time(chunks_of(rate)[30:40], rate) - answer).max() < 1e-5


def test_results_of_a_stream_come_in_the_order_of_its_chunks():
    heard: list[int] = []

    async def ask():
        model = shared_model()
        streams = [model.stream(16000) for _ in range(3)]
        for n in range(40):
            for which, stream in enumerate(streams):
                stream.submit(chunks_of(16000)[n], lambda _, at=(which, n): heard.append(at))
            if n % 9 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(heard) == 120)
        model.close()

    asyncio.run(ask())
    for which in range(3):
        assert [n for w, n in heard if w == which] == list(range(40))


def test_more_streams_than_one_call_holds_are_all_answered():
    heard: list[float] = []

    async def ask():
        model = shared_model()
        for _ in range(silero.MAX_ROWS * 2 + 5):
            model.stream(16000).submit(chunks_of(16000)[40], heard.append)
        await until(lambda: len(heard) == silero.MAX_ROWS * 2 + 5)
        assert model.calls == 3
        model.close()

    asyncio.run(ask())
    assert max(heard) - min(heard) < 1e-5


@pytest.mark.parametrize(("options", "calls"), [({}, 0), ({"gather_s": 0}, 1)])
def test_among_many_a_chunk_waits_for_company_unless_told_not_to(options, calls):
    async def ask():
        model = SileroModel(**options)
        streams = [model.stream(16000) for _ in range(silero.ALONE_STREAMS + 1)]
        streams[0].submit(np.zeros(512, np.int16), lambda _: None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert model.calls == calls
        await until(lambda: model.chunks == 1)
        model.close()

    asyncio.run(ask())


@pytest.mark.parametrize("gather_s", [-0.001, 0.033, float("nan")])
def test_a_wait_of_more_than_a_chunk_is_refused(gather_s):
    with pytest.raises(ConfigurationError, match=f"gather_s is {gather_s}; give it 0 to 0.032 seconds"):
        SileroModel(gather_s=gather_s)


def test_a_reset_forgets_before_the_next_chunk_and_not_before_those_submitted():
    chunks = chunks_of(16000)[35:45]
    heard: list[float] = []

    async def ask():
        model = shared_model()
        stream = model.stream(16000)
        for chunk in chunks[:5]:
            stream.submit(chunk, heard.append)
        stream.reset()
        for chunk in chunks[5:]:
            stream.submit(chunk, heard.append)
        await until(lambda: len(heard) == 10)
        model.close()

    asyncio.run(ask())
    expected = [*one_at_a_time(chunks[:5], 16000), *one_at_a_time(chunks[5:], 16000)]
    assert np.abs(np.array(heard) - expected).max() < 1e-5


def test_closing_in_mid_flight_calls_nobody_back_and_leaves_the_others_alone():
    closed: list[float] = []
    other: list[float] = []

    async def ask():
        model = shared_model()
        leaving, staying = model.stream(16000), model.stream(16000)
        for chunk in chunks_of(16000)[:10]:
            leaving.submit(chunk, closed.append)
            staying.submit(chunk, other.append)
        await asyncio.sleep(0)
        assert outside.in_flight(asyncio.get_running_loop()) == 1
        leaving.close()
        leaving.close()
        leaving.submit(chunks_of(16000)[0], closed.append)
        await until(lambda: len(other) == 10)
        staying.close()
        again = model.stream(16000)  # the thread ended with the last stream; a new one begins
        again.submit(chunks_of(16000)[0], other.append)
        await until(lambda: len(other) == 11)
        model.close()
        assert outside.in_flight(asyncio.get_running_loop()) == 0

    asyncio.run(ask())
    assert closed == []
    assert other[10] == pytest.approx(other[0], abs=1e-5)


def test_a_loop_that_closes_in_mid_flight_is_no_error():
    async def ask():
        shared_model().stream(16000).submit(chunks_of(16000)[0], lambda p: None)
        await asyncio.sleep(0)

    for _ in range(3):
        asyncio.run(ask())


def test_a_callback_that_raises_costs_only_itself():
    heard: list[float] = []

    def fail(probability: float) -> None:
        raise ValueError("not mine")

    async def ask():
        model = shared_model()
        stream, other = model.stream(16000), model.stream(16000)
        stream.submit(chunks_of(16000)[0], fail)
        stream.submit(chunks_of(16000)[1], heard.append)
        other.submit(chunks_of(16000)[1], heard.append)
        await until(lambda: len(heard) == 2)
        model.close()

    asyncio.run(ask())


def test_a_full_backlog_drops_the_oldest_and_counts_it():
    heard: list[int] = []

    async def ask():
        model = shared_model()
        stream = model.stream(16000)
        for n in range(silero.BACKLOG_CHUNKS + 3):
            stream.submit(chunks_of(16000)[0], lambda _, n=n: heard.append(n))
        assert stream.dropped == 3
        await until(lambda: len(heard) == silero.BACKLOG_CHUNKS)
        model.close()

    asyncio.run(ask())
    assert heard == list(range(3, silero.BACKLOG_CHUNKS + 3))


def test_chunks_of_the_wrong_shape_and_rates_it_cannot_hear_are_refused():
    async def ask():
        model = shared_model()
        with pytest.raises(ConfigurationError):
            model.stream(44100)
        stream = model.stream(16000)
        for bad in (np.zeros(256, np.int16), np.zeros(512, np.float32), np.zeros((1, 512), np.int16)):
            with pytest.raises(ConfigurationError):
                stream.submit(bad, lambda p: None)
        model.close()

    asyncio.run(ask())
    with pytest.raises(ConfigurationError):
        SileroAnalyzer().set_sample_rate(44100)


def test_each_loop_has_one_model():
    async def models():
        return shared_model(), shared_model()

    first, second = asyncio.run(models()), asyncio.run(models())
    assert first[0] is first[1]
    assert first[0] is not second[0]


@pytest.mark.slow
def test_the_weights_are_found_without_importing_torch_or_the_wheel():
    code = (
        "import sys; from leibniz_voice.processors.embedded.silero import network as n; n.step(16000); "
        "assert not {'torch', 'silero_vad', 'torchaudio'} & set(sys.modules); print(n.model_path())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip().endswith("silero_vad.onnx")
    assert model_path().is_file()


def test_without_the_wheel_pipecats_copy_is_taken(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "silero_vad" else find(n, *a))
    assert "pipecat" in model_path().parts
    assert model_path().is_file()
