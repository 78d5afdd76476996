"""What an audio frame costs on its way through a chain of processors, and what a session costs.

    python benchmarks/frames.py [--plot docs/images/frames.svg] [--sessions 10000]

Ours, stock Pipecat and a chain of bare awaits in one run. Stock is measured as most run it (queues, its default
observers), queued without any observer, and as well as it can be tuned: direct mode, no observer. A frame enters at
the first processor; the figure is CPU time of the process until the last one has it, divided by the frames. The rounds
of all variants are interleaved, so a drift of the machine meets all of them; the median round is reported.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from loguru import logger

logger.remove()

from pipecat.frames.frames import Frame, InputAudioRawFrame, TextFrame  # noqa: E402 - the log is silenced first
from pipecat.observers.base_observer import BaseObserver  # noqa: E402
from pipecat.pipeline.pipeline import Pipeline as StockPipeline  # noqa: E402
from pipecat.pipeline.worker import PipelineWorker  # noqa: E402
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor  # noqa: E402
from pipecat.workers.runner import WorkerRunner  # noqa: E402

from leibniz_voice.pipeline import Pipeline, Processor, consumes  # noqa: E402

LENGTHS = (5, 10, 20, 40)
FRAMES = {"ours": 4000, "bare": 4000, "ours, observed": 800, "stock": 400}  # per round, by kind
ROUNDS = 9
LONG = "ours, 3 interested of 40"


class Interested(Processor):
    """Ours: handles audio, passes it on."""

    @consumes(InputAudioRawFrame)
    async def _on_audio(self, frame: Frame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)


class Uninterested(Processor):
    """Ours: handles something else."""

    @consumes(TextFrame)
    async def _on_text(self, frame: Frame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)


class Last(Processor):
    """Ours: counts what arrives."""

    seen = 0

    @consumes(InputAudioRawFrame)
    async def _on_audio(self, frame: Frame, direction: FrameDirection) -> None:
        self.seen += 1


class Stock(FrameProcessor):
    """Pipecat's: every frame comes by; this one passes it on."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


class StockLast(FrameProcessor):
    """Pipecat's: counts what arrives."""

    seen = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            self.seen += 1
        else:
            await self.push_frame(frame, direction)


class Idle(BaseObserver):
    """An observer that does nothing."""


def bare(length: int) -> Callable[[Frame, FrameDirection], Awaitable[None]]:
    """A chain of `length` coroutines that await the next: the floor."""

    async def last(frame: Frame, direction: FrameDirection) -> None:
        return None

    link: Callable[[Frame, FrameDirection], Awaitable[None]] = last
    for _ in range(length - 1):

        async def hop(frame: Frame, direction: FrameDirection, after: Callable = link) -> None:
            await after(frame, direction)

        link = hop
    return link


def our_chain(length: int, interested: int) -> list[Processor]:
    """`length` of ours, of which `interested` handle audio: the first, the last, and others spread between."""
    step = max(1, (length - 1) // max(1, interested - 1))
    spots = {i * step for i in range(interested - 1)} if interested > 1 else set()
    return [*(Interested() if i in spots else Uninterested() for i in range(length - 1)), Last()]


class Running:
    """A pipeline that runs, and the way to drive a frame through it."""

    def __init__(
        self, name: str, chain: Sequence[FrameProcessor], *, observers: Sequence[BaseObserver] = (), plain: bool = True
    ) -> None:
        self.name = name
        self.chain = chain
        ours = isinstance(chain[0], Processor)
        tuned = {"enable_rtvi": False, "enable_turn_tracking": False, "idle_timeout_secs": None} if plain else {}
        pipeline = Pipeline(chain) if ours else StockPipeline(list(chain))
        self.worker = PipelineWorker(pipeline, observers=list(observers), **tuned)
        self._run: asyncio.Task[None] | None = None

    async def start(self) -> None:
        started = asyncio.Event()

        async def on_started(*_: object) -> None:
            started.set()

        self.worker.add_event_handler("on_pipeline_started", on_started)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self.worker)
        self._run = asyncio.create_task(runner.run())
        await started.wait()

    async def stop(self) -> None:
        await self.worker.cancel()
        assert self._run is not None
        await self._run

    async def round(self, frames: int) -> float:
        """CPU microseconds per frame of one round."""
        first, last = self.chain[0], self.chain[-1]
        sound = [InputAudioRawFrame(bytes(640), 16000, 1) for _ in range(frames)]
        before = last.seen
        start = time.process_time_ns()
        for frame in sound:
            await first.queue_frame(frame, FrameDirection.DOWNSTREAM)
        while last.seen < before + frames:
            await asyncio.sleep(0)
        return (time.process_time_ns() - start) / 1000 / frames


class Bare:
    """The floor, with the same interface."""

    def __init__(self, length: int) -> None:
        self.name = "bare"
        self._entry = bare(length)

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    async def round(self, frames: int) -> float:
        """CPU microseconds per frame of one round."""
        sound = [InputAudioRawFrame(bytes(640), 16000, 1) for _ in range(frames)]
        start = time.process_time_ns()
        for frame in sound:
            await self._entry(frame, FrameDirection.DOWNSTREAM)
        return (time.process_time_ns() - start) / 1000 / frames


def variants(length: int) -> list[Running | Bare]:
    """Everything that is measured at one length."""

    def stock(direct: bool) -> list[FrameProcessor]:
        return [*(Stock(enable_direct_mode=direct) for _ in range(length - 1)), StockLast(enable_direct_mode=direct)]

    return [
        Bare(length),
        *(Running(f"ours, {k} interested", our_chain(length, k)) for k in (1, 3)),
        *([Running(LONG, our_chain(40, 3))] if length == 10 else []),  # beside the short one, for the ratio
        Running("ours, all interested", our_chain(length, length)),
        Running("ours, observed", our_chain(length, 3), observers=[Idle()]),
        Running("stock, direct", stock(True)),
        Running("stock, direct, observed", stock(True), observers=[Idle()]),
        Running("stock, queued", stock(False)),
        Running("stock, default", stock(False), plain=False),
    ]


async def measure(length: int) -> dict[str, float]:
    """Median CPU us per frame of every variant at one length."""
    running = variants(length)
    for variant in running:
        await variant.start()
    results: dict[str, list[float]] = {variant.name: [] for variant in running}
    gc.collect()
    gc.disable()
    try:
        for number in range(ROUNDS + 1):
            for variant in running:
                kind = next(k for k in ("ours, observed", "ours", "bare", "stock") if variant.name.startswith(k))
                cost = await variant.round(FRAMES[kind])
                if number:  # the first round warms up
                    results[variant.name].append(cost)
            gc.collect()
    finally:
        gc.enable()
    for variant in running:
        await variant.stop()
    return {name: statistics.median(costs) for name, costs in results.items()}


async def session_cost(make: Callable[[], Sequence[FrameProcessor]], count: int = 100) -> tuple[float, float, float]:
    """(tasks, KiB of memory, ms of CPU to start) of one session of 10 processors."""
    warm = Running("warm", make())
    await warm.start()
    await warm.stop()
    gc.collect()
    tasks, memory, cpu = len(asyncio.all_tasks()), _rss(), time.process_time()
    sessions = [Running(str(i), make()) for i in range(count)]
    for session in sessions:
        await session.start()
    cpu = time.process_time() - cpu
    gc.collect()
    figures = (len(asyncio.all_tasks()) - tasks) / count, (_rss() - memory) / count / 1024, cpu / count * 1000
    for session in sessions:
        await session.stop()
    return figures


def in_own_process(kind: str) -> tuple[float, float, float]:
    """`session_cost` in a fresh process, whose memory nothing else has grown."""
    out = subprocess.run([sys.executable, __file__, "--session-cost", kind], check=True, capture_output=True, text=True)
    tasks, memory, cpu = out.stdout.split()
    return float(tasks), float(memory), float(cpu)


async def churn(count: int) -> dict[str, int]:
    """Begin and end `count` sessions, every third aborted before it has started; what is left of them."""
    from leibniz_voice.pipeline import Session

    async def one(number: int) -> None:
        head, tail = Interested(), Last()
        session = Session(f"s{number}", input=head, output=tail)
        starting = asyncio.create_task(session.start(lambda s: Pipeline([s.input, *our_chain(9, 3)[:8], s.output])))
        if number % 3:
            await starting
            await session.cancel()
        else:
            for _ in range(number % 40):
                await asyncio.sleep(0)
            starting.cancel()
            await asyncio.wait({starting})
            await session.cancel()

    for number in range(200):
        await one(number)
    gc.collect()
    tasks, files, memory = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd")), _rss()
    for number in range(count):
        await one(number)
        if number % 1000 == 999:
            print(f"  {number + 1} sessions", file=sys.stderr, flush=True)
    await asyncio.sleep(0.1)
    gc.collect()
    return {
        "tasks": len(asyncio.all_tasks()) - tasks,
        "file descriptors": len(os.listdir("/proc/self/fd")) - files,
        "RSS KiB": (_rss() - memory) // 1024,
    }


def _rss() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def plot(table: dict[int, dict[str, float]], path: Path) -> None:
    """Draw the costs over the length of the chain, on a logarithmic scale."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    styles = {"ours": ("#1a7f37", "o"), "stock": ("#b35900", "s"), "bare": ("#666666", "x")}
    dashes = ["-", "--", ":", "-."]
    seen = dict.fromkeys(styles, 0)
    for name in table[LENGTHS[0]]:  # which LONG is not in
        kind = next(kind for kind in styles if name.startswith(kind))
        color, marker = styles[kind]
        axes.plot(
            LENGTHS, [table[n][name] for n in LENGTHS], dashes[seen[kind] % 4], color=color, marker=marker, label=name
        )
        seen[kind] += 1
    axes.set(xlabel="processors in the chain", ylabel="CPU per audio frame (us)", yscale="log", xticks=LENGTHS)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8, handlelength=5)  # long enough to tell the dashes apart
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures into FILE (.svg or .png)")
    parser.add_argument("--sessions", type=int, default=1000, help="sessions to begin and end (default: %(default)s)")
    parser.add_argument("--session-cost", choices=["ours", "stock"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.session_cost:
        direct = {"enable_direct_mode": True}
        make = {
            "ours": lambda: our_chain(10, 3),
            "stock": lambda: [*(Stock(**direct) for _ in range(9)), StockLast(**direct)],
        }
        print(*asyncio.run(session_cost(make[options.session_cost])))
        return
    print(
        f"{platform.platform()}, Python {platform.python_version()}, pipecat-ai {version('pipecat-ai')}, "
        f"{os.cpu_count()} cores, n = {ROUNDS} rounds of {FRAMES['ours']} (ours) / {FRAMES['stock']} (stock) frames"
    )
    table = {}
    for length in LENGTHS:
        table[length] = asyncio.run(measure(length))
        print(f"\nCPU us per audio frame, {length} processors")
        for name, cost in table[length].items():
            print(f"  {name:26}{cost:9.2f}")
    ten = table[10]
    print("\nratios")
    for label, ratio in {
        "10 processors, 3 interested: stock direct / ours": ten["stock, direct"] / ten["ours, 3 interested"],
        "10 processors, all interested: stock direct / ours": ten["stock, direct"] / ten["ours, all interested"],
        "10 processors, all interested: stock queued / ours": ten["stock, queued"] / ten["ours, all interested"],
        "10 processors, one observer: stock direct / ours": ten["stock, direct, observed"] / ten["ours, observed"],
        "ours, 3 interested: 40 processors / 10": ten[LONG] / ten["ours, 3 interested"],
        "ours, all of 10 interested / bare": ten["ours, all interested"] / ten["bare"],
    }.items():
        print(f"  {label:55}{ratio:8.2f}")
    pairs = [(in_own_process("ours"), in_own_process("stock")) for _ in range(7)]  # in turn, the medians count
    ours, stock = (
        tuple(statistics.median(column) for column in zip(*side, strict=True)) for side in zip(*pairs, strict=True)
    )
    print("\none session of 10 processors    tasks   KiB   ms CPU to start")
    print(f"  ours                          {ours[0]:5.1f}{ours[1]:7.0f}{ours[2]:8.2f}")
    print(f"  stock, direct                 {stock[0]:5.1f}{stock[1]:7.0f}{stock[2]:8.2f}")
    ratios = [mine / theirs for mine, theirs in zip(ours, stock, strict=True)]
    print(f"  ours / stock                  {ratios[0]:5.2f}{ratios[1]:7.2f}{ratios[2]:8.2f}")
    left = asyncio.run(churn(options.sessions))
    print(f"\nleft after {options.sessions} sessions, a third aborted: {left}")
    if options.plot:
        plot(table, options.plot)
        print(f"\nplot: {options.plot}")


if __name__ == "__main__":
    main()
