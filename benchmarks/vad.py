"""CPU of voice detection per conversation: SileroVAD on the shared model, beside Pipecat's analyzer, in real time.

    .venv/bin/python benchmarks/vad.py [--seconds 5] [--runs 3] [--conversations 1 8 32 64]

Every conversation sends 20 ms blocks of speech-like audio at real time, at its own phase. The floor is the feed with
nobody listening; it is shown and not subtracted. Pipecat's analyzer is driven as its own `VADController` drives it: one
`await analyze_audio(block)` at a time for each conversation. CPU is that of the process, in percent of one core for
each conversation. Lag is from the block that completes a chunk to the result on the loop. Runs alternate.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable

import numpy as np
from loguru import logger
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import InputAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection

from leibniz_voice.processors.embedded.silero import shared_model
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


async def measure(make: Callable[[list[float]], Hear], conversations: int, seconds: float) -> tuple[float, list[float]]:
    """Percent of a core for each conversation, and the lags seen (ms)."""
    blocks, lags = audio(seconds), []
    ears = [make(lags) for _ in range(conversations)]
    for ear in ears:
        for block in blocks[:10]:  # models loaded, threads started
            await ear(block)
    await asyncio.sleep(0.2)
    lags.clear()
    begin, phases = asyncio.get_running_loop().time() + 0.05, np.random.default_rng(SEED).random(conversations)
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
    """The shared model, with a clock on each chunk."""

    def __init__(self, lags: list[float]) -> None:
        self._lags = lags  # ms from submit to callback

    def stream(self, sample_rate: int) -> TimedStream:
        """A stream of the shared model."""
        return TimedStream(shared_model().stream(sample_rate), self._lags)


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


def leibniz(lags: list[float]) -> Hear:
    """SileroVAD without neighbours: its own work, not the pipeline's."""
    vad = SileroVAD(model=TimedModel(lags))

    async def hear(block: bytes) -> None:
        await vad.queue_frame(InputAudioRawFrame(block, RATE, 1), FrameDirection.DOWNSTREAM)

    vad._is_open = True  # stands for the StartFrame of a pipeline
    return hear


WAYS = {
    "floor": floor,
    "SileroVAD": leibniz,
    "SileroAnalyzer": analyzer(SileroAnalyzer),
    "Pipecat": analyzer(SileroVADAnalyzer),
}


async def batch(way: str, conversations: int, seconds: float) -> tuple[float, list[float], float]:
    """One run, and the mean number of chunks in a call of the shared model."""
    cpu, lags = await measure(WAYS[way], conversations, seconds)
    model = shared_model()
    size = model.chunks / model.calls if model.calls else 0.0
    model.close()
    return cpu, lags, size


def main() -> None:
    """Run all ways at all sizes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--conversations", type=int, nargs="+", default=[1, 8, 32, 64])
    args = parser.parse_args()
    logger.remove()
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("pipecat-ai", "onnxruntime", "numpy"))
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ", end=""
    )
    print(f"Python {sys.version.split()[0]}, {versions}; seed {SEED}, {args.runs} runs of {args.seconds} s")
    print(f"{'n':>4} {'way':<15} {'% core/conv p50':>16} {'max':>7} {'lag ms p50':>11} {'p95':>7} {'chunks/call':>12}")
    for n in args.conversations:
        shares: dict[str, list[float]] = {way: [] for way in WAYS}
        lags: dict[str, list[float]] = {way: [] for way in WAYS}
        sizes: dict[str, float] = {}
        for _ in range(args.runs):
            for way in WAYS:
                share, seen, sizes[way] = asyncio.run(batch(way, n, args.seconds))
                shares[way].append(share)
                lags[way] += seen
        for way in WAYS:
            p50, p95 = np.percentile(lags[way], [50, 95]) if lags[way] else (0, 0)
            print(f"{n:>4} {way:<15} {np.median(shares[way]):>16.3f} {max(shares[way]):>7.3f} ", end="")
            print(f"{p50:>11.2f} {p95:>7.2f} {sizes[way]:>12.1f}")
        ours = np.median(shares["SileroVAD"])
        print(f"     Pipecat / SileroVAD: {np.median(shares['Pipecat']) / ours:.1f} times the CPU", flush=True)


if __name__ == "__main__":
    main()
