"""CPU of voice detection per conversation: SileroVAD on the shared model, beside Pipecat's analyzer, in real time.

    .venv/bin/python benchmarks/vad.py [--seconds 5] [--runs 3] [--conversations 1 8 32 64] [--together]
    .venv/bin/python benchmarks/vad.py --equal-minutes 30

Every conversation sends 20 ms blocks of speech-like audio at real time, each at its own random phase; `--together`
sends all at the same moment, the best case for batches. The floor is the feed with nobody listening. Pipecat's analyzer
is driven as its own `VADController` drives it: one `await analyze_audio(block)` at a time for each conversation. CPU is
that of the process, in percent of one core for each conversation, floor included; the ratio is given with and without
it. "at once" is SileroVAD on a model whose calls wait for nobody (`gather_s=0`). Runs alternate. Lag: for SileroVAD
from each chunk to its result on the loop; for the analyzers of every block, also of those that complete no chunk, so
the two are not the same measure. chunks/call is of the last run, warm-up included.
`--equal-minutes` compares the batched probabilities of 8 streams with Pipecat's own model, one chunk at a time and
without its resets, on espeak-ng speech in noise.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial

import numpy as np
import soxr
from loguru import logger
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import InputAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection

from leibniz_voice.processors.embedded.silero.batching import SileroModel, shared_model
from leibniz_voice.processors.vad import SileroVAD
from leibniz_voice.processors.vad_analyzer import SileroAnalyzer

RATE = 16000
BLOCK_S = 0.02
SEED = 7
Hear = Callable[[bytes], Awaitable[None]]


def audio(seconds: float) -> list[bytes]:
    """Blocks of a buzz that comes and goes, in noise: work for the model, no file needed."""
    t = np.arange(int(seconds * RATE)) / RATE
    buzz = np.sign(np.sin(2 * np.pi * 130 * t)) * np.clip(np.sin(2 * np.pi * 0.4 * t), 0, 1) * 4000
    pcm = (buzz + np.random.default_rng(SEED).normal(0, 200, len(t))).astype(np.int16).tobytes()
    size = int(RATE * BLOCK_S) * 2
    return [pcm[at : at + size] for at in range(0, len(pcm), size)]


async def talk(hear: Hear, blocks: list[bytes], begin: float) -> None:
    """Send the blocks at real time from `begin` (loop time) on."""
    loop = asyncio.get_running_loop()
    for n, block in enumerate(blocks):
        await asyncio.sleep(max(begin + n * BLOCK_S - loop.time(), 0))
        await hear(block)


async def measure(
    make: Callable[[list[float]], Hear], conversations: int, seconds: float, together: bool
) -> tuple[float, list[float]]:
    """Percent of a core for each conversation, and the lags seen (ms)."""
    blocks, lags = audio(seconds), []
    ears = [make(lags) for _ in range(conversations)]
    for ear in ears:
        for block in blocks[:10]:  # models loaded, threads started
            await ear(block)
    await asyncio.sleep(0.2)
    lags.clear()
    begin = asyncio.get_running_loop().time() + 0.05
    phases = np.random.default_rng(SEED).random(conversations) * (not together)
    cpu, wall = time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for ear, phase in zip(ears, phases, strict=True):
            group.create_task(talk(ear, blocks, begin + phase * BLOCK_S))
    share = (time.process_time() - cpu) / (time.perf_counter() - wall)
    return share * 100 / conversations, lags


def floor(lags: list[float]) -> Hear:
    """Nobody listens."""

    async def hear(block: bytes) -> None:
        InputAudioRawFrame(block, RATE, 1)

    return hear


def analyzer(kind: type) -> Callable[[list[float]], Hear]:
    """A Pipecat VADAnalyzer."""

    def make(lags: list[float]) -> Hear:
        vad = kind(sample_rate=RATE)
        vad.set_sample_rate(RATE)

        async def hear(block: bytes) -> None:
            frame, asked = InputAudioRawFrame(block, RATE, 1), time.perf_counter()
            await vad.analyze_audio(frame.audio)
            lags.append((time.perf_counter() - asked) * 1000)

        return hear

    return make


class TimedModel:
    """A model with a clock on each chunk."""

    def __init__(self, model: SileroModel, lags: list[float]) -> None:
        self._model = model  # the real one
        self._lags = lags  # ms from submit to callback

    def stream(self, sample_rate: int) -> TimedStream:
        """A stream of the model."""
        return TimedStream(self._model.stream(sample_rate), self._lags)


class TimedStream:
    """Passes everything on."""

    def __init__(self, stream, lags: list[float]) -> None:
        self._stream = stream  # the real one
        self._lags = lags  # ms, one for each chunk
        self.chunk_samples, self.reset, self.close = stream.chunk_samples, stream.reset, stream.close

    @property
    def dropped(self) -> int:
        """Chunks that overload cost."""
        return self._stream.dropped

    def submit(self, chunk, callback) -> None:
        """Time one chunk."""
        asked = time.perf_counter()

        def answered(probability: float) -> None:
            self._lags.append((time.perf_counter() - asked) * 1000)
            callback(probability)

        self._stream.submit(chunk, answered)


def leibniz(model: SileroModel, lags: list[float]) -> Hear:
    """SileroVAD without neighbours: its own work, not the pipeline's."""
    vad = SileroVAD(model=TimedModel(model, lags))

    async def hear(block: bytes) -> None:
        await vad.queue_frame(InputAudioRawFrame(block, RATE, 1), FrameDirection.DOWNSTREAM)

    vad._engine_holding.is_open = True  # stands for the StartFrame of a pipeline
    return hear


WAYS = {
    "floor": floor,
    "SileroVAD": None,  # made for each run, as its model is the loop's
    "at once": None,
    "SileroAnalyzer": analyzer(SileroAnalyzer),
    "Pipecat": analyzer(SileroVADAnalyzer),
}


async def batch(
    way: str, conversations: int, seconds: float, together: bool = False
) -> tuple[float, list[float], float]:
    """One run, and the mean number of chunks in a call of the model."""
    model = SileroModel(gather_s=0) if way == "at once" else shared_model()
    cpu, lags = await measure(WAYS[way] or partial(leibniz, model), conversations, seconds, together)
    size = model.chunks / model.calls if model.calls else 0.0
    model.close()
    return cpu, lags, size


def speech(random: np.random.Generator, samples: int) -> np.ndarray:
    """int16: sentences of one voice with pauses, at some loudness, in some noise."""
    voice = random.choice(["en-us", "en-gb", "en-us+f3", "en-us+m5"])
    text = "Where is my order? " * 3 + "I would like to return a bicycle that is too small for me, and a lamp."
    say = ["espeak-ng", "-v", voice, "-s", str(random.integers(120, 220)), "--stdout", text]
    wav = subprocess.run(say, capture_output=True, check=True).stdout
    spoken = soxr.resample(np.frombuffer(wav[44:], np.int16).astype(np.float32), 22050, RATE)
    spoken = np.concatenate([spoken, np.zeros(random.integers(RATE, 4 * RATE))])
    pcm = np.resize(spoken, samples) * random.uniform(0.1, 1) + random.normal(0, random.uniform(5, 500), samples)
    return np.clip(pcm, -32768, 32767).astype(np.int16)


async def equality(minutes: float, streams: int = 8) -> None:
    """Print the largest difference between batched and Pipecat's probabilities over that much audio."""
    size, worst, count, voiced = RATE * 32 // 1000, 0.0, 0, 0
    model, random = shared_model(), np.random.default_rng(SEED)
    theirs = SileroVADAnalyzer(sample_rate=RATE)._model
    for first in range(0, int(minutes), streams):
        minute = [speech(random, 60 * RATE) for _ in range(min(streams, int(minutes) - first))]
        rows = [pcm[: len(pcm) // size * size].reshape(-1, size) for pcm in minute]
        answers: list[list[float]] = [[] for _ in rows]
        ears = [model.stream(RATE) for _ in rows]
        for at in range(len(rows[0])):
            for ear, row, answer in zip(ears, rows, answers, strict=True):
                ear.submit(row[at], answer.append)
            while at - len(answers[-1]) > 100:  # stay within the backlog
                await asyncio.sleep(0.001)
        while any(len(answer) < len(rows[0]) for answer in answers):
            await asyncio.sleep(0.001)
        for row, answer in zip(rows, answers, strict=True):
            theirs.reset_states()
            expected = [theirs((chunk / np.float32(32768))[None], RATE).item() for chunk in row]
            voiced += sum(p > 0.5 for p in expected)
            worst, count = max(worst, float(np.abs(np.array(expected) - answer).max())), count + len(row)
    print(
        f"{count} chunks ({count * 0.032 / 60:.0f} min), {voiced} voiced, {model.chunks / model.calls:.1f} a call: ",
        end="",
    )
    print(f"largest difference from Pipecat's own model {worst:.2e}")
    model.close()


def main() -> None:
    """Run all ways at all sizes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--equal-minutes", type=float, default=0)
    parser.add_argument("--conversations", type=int, nargs="+", default=[1, 8, 32, 64])
    args = parser.parse_args()
    logger.remove()
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("pipecat-ai", "onnxruntime", "numpy"))
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ", end=""
    )
    print(f"Python {sys.version.split()[0]}, {versions}; seed {SEED}, {args.runs} runs of {args.seconds} s")
    if args.equal_minutes:
        asyncio.run(equality(args.equal_minutes))
        return
    print(f"{'n':>4} {'way':<15} {'% core/conv p50':>16} {'max':>7} {'lag ms p50':>11} {'p95':>7} {'chunks/call':>12}")
    for n in args.conversations:
        shares: dict[str, list[float]] = {way: [] for way in WAYS}
        lags: dict[str, list[float]] = {way: [] for way in WAYS}
        sizes: dict[str, float] = {}
        for _ in range(args.runs):
            for way in WAYS:
                share, seen, sizes[way] = asyncio.run(batch(way, n, args.seconds, args.together))
                shares[way].append(share)
                lags[way] += seen
        for way in WAYS:
            p50, p95 = np.percentile(lags[way], [50, 95]) if lags[way] else (0, 0)
            print(f"{n:>4} {way:<15} {np.median(shares[way]):>16.3f} {max(shares[way]):>7.3f} ", end="")
            print(f"{p50:>11.2f} {p95:>7.2f} {sizes[way]:>12.1f}")
        theirs, feed = (np.median(shares[way]) for way in ("Pipecat", "floor"))
        for way in ("SileroVAD", "at once"):
            ours = np.median(shares[way])
            print(f"     Pipecat / {way}: {theirs / ours:.1f} times the CPU, ", end="")
            print(f"{(theirs - feed) / (ours - feed):.1f} without the floor", flush=True)


if __name__ == "__main__":
    main()
