"""A processor on Pipecat's base or on ours that is paused, in virtual time: what it handled, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from pipecat.frames.frames import ErrorFrame, Frame, StartFrame, TextFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from pipecat.workers.runner import WorkerRunner

from leibniz_voice.pipeline import Processor
from leibniz_voice.pipeline.testing import run_virtual

BASES = pytest.mark.parametrize("base", [FrameProcessor, Processor])
Step = Callable[["Run"], Awaitable[None]]
Log = list[tuple[str, float]]


class Run:
    """A processor in a pipeline, in virtual time: what it handled, and when."""

    def __init__(self, base: type[FrameProcessor], *, at_setup: Step | None = None, at_start: Step | None = None):
        self.log: Log = []
        self.errors: list[str] = []
        self.ready = asyncio.Event()
        self.ended = 0.0
        self.tasks: list[asyncio.Task[None]] = []  # what the script does not wait for
        run = self

        class Holder(base):  # type: ignore[misc,valid-type]
            async def setup(self, setup: FrameProcessorSetup) -> None:
                await super().setup(setup)
                run.processor = self
                if at_setup:
                    await at_setup(run)

            async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
                await super().process_frame(frame, direction)
                if isinstance(frame, StartFrame) and at_start:
                    await at_start(run)
                run.log.append((getattr(frame, "text", type(frame).__name__), run.now))
                await self.push_frame(frame, direction)

        self.processor: FrameProcessor = Holder()

    @property
    def now(self) -> float:
        return round(asyncio.get_running_loop().time() - self.began, 2)

    @property
    def handled(self) -> Log:
        """What was handled, but for start, end and cancel."""
        return [each for each in self.log if each[0] not in ("StartFrame", "EndFrame", "CancelFrame")]

    async def send(self, *frames: Frame | str) -> None:
        for frame in frames:
            await self.processor.queue_frame(TextFrame(frame) if isinstance(frame, str) else frame)

    def aside(self, step: Coroutine[Any, Any, None]) -> None:
        """Begin a step that the script does not wait for."""
        self.tasks.append(asyncio.create_task(step))

    async def until_ready(self, at_most_s: float = 5.0) -> None:
        await self.processor.pause_processing_all_frames_until(self.ready.wait, timeout=at_most_s)

    async def over(self, script: Step, cancel_timeout_s: float) -> None:
        self.began = asyncio.get_running_loop().time()
        self.worker = PipelineWorker(
            Pipeline([self.processor]),
            enable_rtvi=False,
            enable_turn_tracking=False,
            idle_timeout_secs=None,
            cancel_timeout_secs=cancel_timeout_s,
        )
        started = asyncio.Event()

        async def on_started(*_: Any) -> None:
            started.set()

        async def on_error(_: Any, frame: ErrorFrame) -> None:
            self.errors.append(frame.error)

        self.worker.add_event_handler("on_pipeline_started", on_started)
        self.worker.add_event_handler("on_pipeline_error", on_error)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self.worker)
        running = asyncio.create_task(runner.run())
        await started.wait()
        try:
            await script(self)
            await asyncio.sleep(0.01)
        finally:
            await self.worker.cancel()
            await running
        self.ended = self.now


def run(base: type[FrameProcessor], script: Step, *, cancel_timeout_s: float = 20.0, **at: Step) -> Run:
    """Run `script` once the pipeline has started; cancelled afterwards."""
    done: list[Run] = []

    async def main() -> None:
        done.append(Run(base, **at))
        await done[0].over(script, cancel_timeout_s)

    run_virtual(main())
    return done[0]
