"""`pause_processing_all_frames_until`, on Pipecat's own base and on ours, which is to do the same."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from pipecat.frames.frames import EndFrame, InterruptionFrame, TextFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from leibniz_voice.pipeline import Processor, consumes
from leibniz_voice.pipeline.testing import run_virtual
from leibniz_voice.pipeline.testing.bench import UnknownSystemFrame
from tests.support.pausing import BASES, Log, Run, run


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


@pytest.mark.parametrize("at_most_s", [5.0, None])
@pytest.mark.parametrize("error", [ValueError("no connection"), TimeoutError("no answer"), TimeoutError()])
def test_a_condition_that_fails_is_reported_and_the_pause_lifted(error: Exception, at_most_s: float | None) -> None:
    """Pipecat's own stays paused then, for good: a CancelFrame does not reach it either."""

    async def fail() -> None:
        await asyncio.sleep(0.5)
        raise error

    async def script(it: Run) -> None:
        await it.processor.pause_processing_all_frames_until(fail, timeout=at_most_s)  # type: ignore[arg-type]
        await it.send("a")
        await asyncio.sleep(1)

    done = run(Processor, script)
    assert done.handled == [("a", 0.5)]
    assert [repr(error) in told for told in done.errors] == [True]


@pytest.mark.parametrize("what", ["future", "task", "turn task"])
def test_a_condition_that_is_cancelled_lifts_the_pause(what: str) -> None:
    """Pipecat's own stays paused here too."""

    async def script(it: Run) -> None:
        assert isinstance(it.processor, Processor)
        loop = asyncio.get_running_loop()
        waited: asyncio.Future[None] = {
            "future": loop.create_future,
            "task": lambda: loop.create_task(asyncio.sleep(9)),
            "turn task": lambda: it.processor.turn_task(asyncio.sleep(9), turn_id=7),  # type: ignore[attr-defined]
        }[what]()

        async def ready() -> None:
            await waited

        await it.processor.pause_processing_all_frames_until(ready)
        await it.send("a")
        await asyncio.sleep(0.5)
        if what == "turn task":
            await it.processor.conductor.cancel_turn_tasks(7)
        else:
            waited.cancel()
        await asyncio.sleep(0.5)
        await it.worker.queue_frame(EndFrame())
        await asyncio.sleep(0.1)

    assert run(Processor, script).log == [("StartFrame", 0.0), ("a", 0.5), ("EndFrame", 1.0)]


def test_a_condition_that_does_not_end_when_told_to_holds_nothing_longer() -> None:
    async def stubborn() -> None:
        for _ in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(20)

    async def script(it: Run) -> None:
        await it.processor.pause_processing_all_frames_until(stubborn, timeout=2)
        await it.send("a")
        await asyncio.sleep(3)

    assert run(Processor, script).handled == [("a", 2.0)]


def test_a_condition_that_pauses_again_itself_does_not_stand_in_its_own_way() -> None:
    """Pipecat's own recurses without end."""

    async def script(it: Run) -> None:
        async def ready() -> None:
            await it.processor.pause_processing_all_frames_until(lambda: asyncio.sleep(2))

        await it.processor.pause_processing_all_frames_until(ready)
        await it.send("a")
        await asyncio.sleep(3)

    assert run(Processor, script).handled == [("a", 2.0)]


def test_a_watch_that_a_stranger_cancels_lifts_the_pause() -> None:
    async def script(it: Run) -> None:
        await it.until_ready()
        await it.send("a")
        await asyncio.sleep(0.5)
        watch = next(task for task in asyncio.all_tasks() if "pause_watch" in task.get_name())
        watch.cancel()
        await asyncio.sleep(0.5)

    assert run(Processor, script).handled == [("a", 0.5)]


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
