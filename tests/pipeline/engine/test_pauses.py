"""Pauses of a processor: each of Pipecat's public ways, on its own base and on ours, which is to do the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pipecat.frames.frames import ErrorFrame, Frame, StartFrame, TextFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from pipecat.workers.runner import WorkerRunner

from leibniz_voice.pipeline import Processor
from leibniz_voice.pipeline.testing import run_virtual
from leibniz_voice.pipeline.testing.bench import UnknownSystemFrame

BASES = pytest.mark.parametrize("base", [FrameProcessor, Processor])
Step = Callable[["Run"], Awaitable[None]]
Log = list[tuple[str, float]]


class Run:
    """A processor in a pipeline, in virtual time: what it handled, and when."""

    def __init__(self, base: type[FrameProcessor], *, at_setup: Step | None = None, at_start: Step | None = None):
        self.log: Log = []
        self.errors: list[str] = []
        self.ended = 0.0
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


@BASES
def test_paused_data_waits_and_system_frames_do_not(base: type[FrameProcessor]) -> None:
    async def script(it: Run) -> None:
        await it.processor.pause_processing_frames()
        await it.send("a", UnknownSystemFrame(), "b")
        await asyncio.sleep(1)
        await it.processor.resume_processing_frames()
        await asyncio.sleep(0.1)

    assert run(base, script).handled == [("UnknownSystemFrame", 0.0), ("a", 1.0), ("b", 1.0)]


@BASES
def test_paused_system_frames_hold_up_all_others(base: type[FrameProcessor]) -> None:
    async def script(it: Run) -> None:
        await it.processor.pause_processing_system_frames()
        await it.send("a", "b")
        await asyncio.sleep(1)
        await it.processor.resume_processing_system_frames()
        await asyncio.sleep(0.1)

    assert run(base, script).handled == [("a", 1.0), ("b", 1.0)]


@BASES
def test_a_handler_that_pauses_and_resumes_hands_nothing_on_twice(base: type[FrameProcessor]) -> None:
    class Nervous(base):  # type: ignore[misc,valid-type]
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame):
                await self.pause_processing_frames()
                await self.resume_processing_frames()

    async def script(it: Run) -> None:
        await it.processor.pause_processing_frames()
        await it.send("a", "b")
        await it.processor.resume_processing_frames()
        await asyncio.sleep(0.1)

    assert [text for text, _ in run(Nervous, script).handled] == ["a", "b"]


@BASES
def test_two_who_resume_hand_nothing_on_twice(base: type[FrameProcessor]) -> None:
    class Slow(base):  # type: ignore[misc,valid-type]
        async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
            await super().push_frame(frame, direction)
            if isinstance(frame, TextFrame):
                await asyncio.sleep(0.1)

    async def script(it: Run) -> None:
        await it.processor.pause_processing_frames()
        await it.send("a", "b")
        await asyncio.gather(*(it.processor.resume_processing_frames() for _ in range(2)))
        await asyncio.sleep(0.5)

    assert [text for text, _ in run(Slow, script).handled] == ["a", "b"]


@BASES
def test_a_resume_that_is_cancelled_strands_nothing(base: type[FrameProcessor]) -> None:
    class Slow(base):  # type: ignore[misc,valid-type]
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame):
                await asyncio.sleep(0.1)

    async def script(it: Run) -> None:
        await it.processor.pause_processing_frames()
        await it.send("a", "b")
        resuming = asyncio.create_task(it.processor.resume_processing_frames())
        await asyncio.sleep(0.01)
        resuming.cancel()
        await asyncio.sleep(0.3)

    assert run(Slow, script).handled[-1][0] == "b"
