"""Processors in a pipeline that really runs: under Pipecat's worker (`chain`), or in a session of ours (`started`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pipecat.frames.frames import Frame, InputAudioRawFrame, TextFrame
from pipecat.observers.base_observer import BaseObserver
from pipecat.pipeline.pipeline import Pipeline as StockPipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from leibniz_voice.pipeline import Pipeline, Processor, Session, Stage, consumes
from leibniz_voice.pipeline.testing import run_virtual

PATIENCE_S = 20.0  # for a pipeline to end, and for a frame to come


class Recorder(Processor):
    """Keeps the frames that reach it, from either side: those of the given types, or all; and wakes who waits for some.

    With a `stage` it stands for the processor of that stage.
    """

    def __init__(self, *types: type[Frame], stage: Stage | None = None) -> None:
        super().__init__()
        self.types = types or (Frame,)
        self.stage = stage
        self.heard: list[tuple[float, Frame]] = []  # (loop time in s, frame)
        self._news = asyncio.Event()  # set with each frame

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, self.types):
            self.heard.append((asyncio.get_running_loop().time(), frame))
            self._news.set()
        await self.push_frame(frame, direction)

    @property
    def frames(self) -> list[Frame]:
        return [frame for _, frame in self.heard]

    def of(self, *types: type[Frame]) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, types)]

    async def until(self, found: Callable[[], object]) -> None:
        """Wait until a condition holds that a frame brings about."""
        async with asyncio.timeout(PATIENCE_S):
            while not found():
                self._news.clear()
                await self._news.wait()


Log = list[tuple[str, str]]  # (a processor's name, the text that came to it)


class Texts(Processor):
    """Logs texts and passes them on."""

    def __init__(self, name: str, log: Log) -> None:
        super().__init__(name=name)
        self.log = log

    @consumes(TextFrame)
    async def _on_text(self, frame: TextFrame, direction: FrameDirection) -> None:
        self.log.append((self.name, frame.text))
        await self.push_frame(frame, direction)


class Audio(Processor):
    """Cares for audio only."""

    @consumes(InputAudioRawFrame)
    async def _on_audio(self, frame: Frame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)


class Guest(FrameProcessor):
    """A queued processor of Pipecat's kind, which passes everything on after a short think."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await asyncio.sleep(0)
        await self.push_frame(frame, direction)


@asynccontextmanager
async def chain(
    *processors: FrameProcessor,
    is_stock: bool = False,
    ends: Callable[[], Frame] | None = None,
    observers: Sequence[BaseObserver] = (),
) -> AsyncIterator[PipelineWorker]:
    """Run processors under Pipecat's worker, in a pipeline of ours or a stock one; a single pipeline runs as it is.

    The block begins when the pipeline has started. Afterwards it is cancelled at once, or it `ends`, with such a frame
    behind all that was queued.
    """
    if len(processors) == 1 and isinstance(processors[0], StockPipeline):
        pipeline = processors[0]
    else:
        pipeline = (StockPipeline if is_stock else Pipeline)(list(processors))
    worker = PipelineWorker(
        pipeline, enable_rtvi=False, enable_turn_tracking=False, idle_timeout_secs=None, observers=list(observers)
    )
    has_started = asyncio.Event()

    async def on_started(*_: Any) -> None:
        has_started.set()

    worker.add_event_handler("on_pipeline_started", on_started)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    try:
        await has_started.wait()
        yield worker
        if ends:
            await worker.queue_frame(ends())
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.shield(running)
    finally:
        await worker.cancel()
        await running


def run_chain(
    pipeline: StockPipeline, script: Callable[[PipelineWorker], Awaitable[None]], observers: Sequence[BaseObserver] = ()
) -> None:
    """Run a pipeline in virtual time, the script once it has started, and cancel it afterwards."""

    async def main() -> None:
        async with chain(pipeline, observers=observers) as worker:
            await script(worker)
            await asyncio.sleep(0.01)

    run_virtual(main())


def texts(*words: str) -> list[TextFrame]:
    return [TextFrame(text=word) for word in words]


@asynccontextmanager
async def started(*processors: FrameProcessor) -> AsyncIterator[Session]:
    """Run processors as a session of ours whose input is the first and whose output is the last; then cancel it."""
    session = Session("s", input=processors[0], output=processors[-1])
    await session.start(lambda _: Pipeline(list(processors)))
    try:
        yield session
    finally:
        await session.cancel()
