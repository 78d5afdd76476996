"""Pauses of a processor: each of Pipecat's public ways, on its own base and on ours, which is to do the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pipecat.frames.frames import CancelFrame, EndFrame, ErrorFrame, Frame, InterruptionFrame, StartFrame, TextFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from pipecat.workers.runner import WorkerRunner

from leibniz_voice.pipeline import Processor, consumes
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
        self.ready = asyncio.Event()
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


# -- pause_processing_all_frames_until ---------------------------------------------------------------------------


@BASES
@pytest.mark.parametrize("where", ["at_setup", "at_start", "a task"])
def test_every_frame_waits_until_it_is_ready(base: type[FrameProcessor], where: str) -> None:
    async def script(it: Run) -> None:
        if where == "a task":
            await asyncio.create_task(it.until_ready())
        await it.send("a", "b")
        await asyncio.sleep(1 - it.now)
        await it.send("c")
        it.ready.set()
        await asyncio.sleep(0.5)
        await it.send("d")
        await asyncio.sleep(0.1)

    async def make_ready(it: Run) -> None:
        asyncio.get_running_loop().call_later(0.5, it.ready.set)
        await it.until_ready()

    if where == "at_setup":  # it starts when it is ready
        assert run(base, script, at_setup=make_ready).log[:3] == [("StartFrame", 0.5), ("a", 0.5), ("b", 0.5)]
    else:
        done = run(base, script, **({"at_start": Run.until_ready} if where == "at_start" else {}))
        assert done.log[0] == ("StartFrame", 0.0)
        assert done.handled == [("a", 1.0), ("b", 1.0), ("c", 1.0), ("d", 1.5)]


@BASES
def test_system_frames_wait_too(base: type[FrameProcessor]) -> None:
    async def script(it: Run) -> None:
        await it.until_ready()
        await it.send("a", UnknownSystemFrame(), "b")
        await asyncio.sleep(1)
        it.ready.set()
        await asyncio.sleep(0.1)

    handled = run(base, script).handled
    assert [name for name, _ in handled if len(name) == 1] == ["a", "b"]
    assert ("UnknownSystemFrame", 1.0) in handled
    assert {at for _, at in handled} == {1.0}


@BASES
def test_it_goes_on_unready_after_its_time(base: type[FrameProcessor]) -> None:
    async def script(it: Run) -> None:
        await it.until_ready(at_most_s=2)
        await it.send("a")
        await asyncio.sleep(3)
        await it.send("b")

    assert run(base, script).handled == [("a", 2.0), ("b", 3.0)]


@BASES
def test_what_is_ready_at_once_holds_nothing_for_long(base: type[FrameProcessor]) -> None:
    async def ready() -> None:
        pass

    async def script(it: Run) -> None:
        await it.processor.pause_processing_all_frames_until(ready)
        await it.send("a")
        await asyncio.sleep(0)

    assert run(base, script).handled == [("a", 0.0)]


@BASES
@pytest.mark.parametrize("is_held", [False, True])
def test_a_second_pause_takes_the_place_of_the_first(base: type[FrameProcessor], is_held: bool) -> None:
    async def script(it: Run) -> None:
        first = asyncio.Event()
        await it.processor.pause_processing_all_frames_until(first.wait)
        if is_held:
            await it.send("a")
        await asyncio.sleep(0.1)
        await it.until_ready()
        await it.send("b")
        first.set()
        await asyncio.sleep(1)
        it.ready.set()
        await asyncio.sleep(0.1)

    assert run(base, script).handled == [*([("a", 1.1)] if is_held else []), ("b", 1.1)]


@BASES
def test_an_interruption_waits_and_drops_what_was_held_before_it(base: type[FrameProcessor]) -> None:
    async def script(it: Run) -> None:
        await it.until_ready()
        for frame in ("a", InterruptionFrame(), "b"):
            await it.send(frame)
            await asyncio.sleep(0.01)
        await asyncio.sleep(1 - it.now)
        it.ready.set()
        await asyncio.sleep(0.1)

    assert run(base, script).handled == [("InterruptionFrame", 1.0), ("b", 1.0)]


@BASES
def test_a_cancel_waits_and_drops_what_was_held_before_it(base: type[FrameProcessor]) -> None:
    async def script(it: Run) -> None:
        await it.until_ready()
        await it.send("a")

    done = run(base, script)
    assert done.log == [("StartFrame", 0.0), ("CancelFrame", 5.0)]
    assert done.ended == 5.0


@BASES
def test_a_cancel_that_would_wait_too_long_ends_it_all_the_same(base: type[FrameProcessor]) -> None:
    async def script(it: Run) -> None:
        await it.until_ready(at_most_s=100)
        await it.send("a")

    done = run(base, script, cancel_timeout_s=3)
    assert done.log == [("StartFrame", 0.0)]
    assert done.ended == pytest.approx(3.0, abs=0.02)


@BASES
def test_an_end_waits_behind_the_frames_before_it(base: type[FrameProcessor]) -> None:
    async def script(it: Run) -> None:
        await it.until_ready()
        await it.send("a")
        await it.worker.queue_frame(EndFrame())
        await asyncio.sleep(6)

    assert run(base, script).log == [("StartFrame", 0.0), ("a", 5.0), ("EndFrame", 5.0)]


@BASES
def test_the_pause_can_be_lifted_by_hand(base: type[FrameProcessor]) -> None:
    async def script(it: Run) -> None:
        await it.until_ready()
        await it.send("a", UnknownSystemFrame())
        await asyncio.sleep(1)
        await it.processor.resume_processing_system_frames()
        await asyncio.sleep(1)
        await it.processor.resume_processing_frames()
        await asyncio.sleep(0.1)

    assert run(base, script).handled == [("UnknownSystemFrame", 1.0), ("a", 2.0)]


@BASES
def test_nothing_is_left_of_the_wait_when_the_processor_is_cleaned_up(base: type[FrameProcessor]) -> None:
    left: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            left.append("waiting")

    async def script(it: Run) -> None:
        await it.processor.pause_processing_all_frames_until(wait, timeout=1000)

    done = run(base, script, cancel_timeout_s=1)
    assert left == ["waiting"]
    assert done.ended == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("error", [ValueError("no connection"), TimeoutError()])
def test_a_condition_that_fails_is_reported_and_the_pause_lifted(error: Exception) -> None:
    """Pipecat's own stays paused then, for good: a CancelFrame does not reach it either."""

    async def fail() -> None:
        await asyncio.sleep(0.5)
        raise error

    async def script(it: Run) -> None:
        await it.processor.pause_processing_all_frames_until(fail)
        await it.send("a")
        await asyncio.sleep(1)

    done = run(Processor, script)
    assert done.handled == [("a", 0.5)]
    assert [str(error) in told for told in done.errors] == [True] * isinstance(error, ValueError)


def test_a_handler_may_pause_again_while_the_held_frames_go_on() -> None:
    log: Log = []

    class Again(Processor):
        @consumes(TextFrame)
        async def _on_text(self, frame: TextFrame, direction: FrameDirection) -> None:
            log.append((frame.text, round(asyncio.get_running_loop().time() - began, 2)))
            if frame.text == "a":
                await self.pause_processing_all_frames_until(lambda: asyncio.sleep(1))

    async def main() -> None:
        nonlocal began
        began = asyncio.get_running_loop().time()
        again = Again()
        worker = PipelineWorker(Pipeline([again]), enable_rtvi=False, idle_timeout_secs=None)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0.1)
        await again.pause_processing_all_frames_until(lambda: asyncio.sleep(0.9))
        for text in "ab":
            await again.queue_frame(TextFrame(text))
        await asyncio.sleep(2)
        await worker.cancel()
        await running

    began = 0.0
    run_virtual(main())
    assert log == [("a", 1.0), ("b", 2.0)]


# -- the others --------------------------------------------------------------------------------------------------


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
def test_has_queued_frame_sees_what_a_pause_holds(base: type[FrameProcessor]) -> None:
    found: list[bool] = []

    async def script(it: Run) -> None:
        async def look() -> None:
            await asyncio.sleep(0.1)
            found.append(it.processor.has_queued_frame(TextFrame))
            found.append(it.processor.has_queued_frame(UnknownSystemFrame))

        await look()
        await it.processor.pause_processing_frames()
        await it.send("a", "b", UnknownSystemFrame())
        await look()
        await it.processor.resume_processing_frames()
        await look()

    run(base, script)
    assert found == [False, False, True, False, False, False]


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


def test_a_cancel_frame_that_comes_by_itself_is_held_like_any_other() -> None:
    async def script(it: Run) -> None:
        await it.until_ready()
        await it.send("a", CancelFrame(), "b")
        await asyncio.sleep(1)
        it.ready.set()
        await asyncio.sleep(0.1)

    assert run(Processor, script).log == [("StartFrame", 0.0), ("CancelFrame", 1.0)]
