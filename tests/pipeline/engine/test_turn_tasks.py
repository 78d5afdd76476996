"""Turn tasks and interruptions: what is cancelled, in what time, and what stays behind."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from pipecat.frames.frames import Frame, InterruptionFrame, TextFrame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from leibniz_voice.pipeline import Processor, consumes
from leibniz_voice.pipeline.errors import ServiceError
from leibniz_voice.pipeline.testing import run_virtual
from tests.support.chains import Recorder, started


class Worker(Processor):
    """Does slow work per text; notes what was finished and what was cancelled."""

    def __init__(self) -> None:
        super().__init__(name="worker")
        self.finished: list[str] = []
        self.cancelled: list[str] = []

    @consumes(TextFrame)
    async def _on_text(self, frame: TextFrame, direction: FrameDirection) -> None:
        turn = int(frame.text.split()[0])
        self.turn_task(self._work(frame.text), turn_id=turn or None, name=f"work {frame.text}")

    async def _work(self, text: str) -> None:
        try:
            await asyncio.sleep(1)
            self.finished.append(text)
        except asyncio.CancelledError:
            self.cancelled.append(text)
            while "stubborn" in text and asyncio.get_running_loop().time() < 100:  # swallows every cancellation
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(200)
            raise


def test_an_interruption_of_a_turn_cancels_its_tasks_and_older_ones_only() -> None:
    async def main() -> None:
        worker, ears = Worker(), Recorder(InterruptionFrame)
        async with started(worker, ears):
            for text in ("1 old", "2 cut", "3 new", "0 any"):
                await worker.queue_frame(TextFrame(text=text))
            await asyncio.sleep(0.1)
            worker.interrupt_reply(2)
            await asyncio.sleep(2)
            assert sorted(worker.cancelled) == ["0 any", "1 old", "2 cut"]
            assert worker.finished == ["3 new"]
            assert [f.turn_id for _, f in ears.heard] == [2]  # type: ignore[attr-defined]

    run_virtual(main())


def test_any_other_interruption_cancels_all_of_the_pipelines_tasks() -> None:
    async def main() -> None:
        first, second = Worker(), Worker()
        async with started(first, second):
            for worker in (first, second):
                worker.turn_task(worker._work("7 mine"), turn_id=7)
            await asyncio.sleep(0.1)
            await first.queue_frame(InterruptionFrame())
            assert first.cancelled == second.cancelled == ["7 mine"]

    run_virtual(main())


def test_a_task_that_swallows_its_cancellation_costs_a_tenth_of_a_second_once_and_is_named() -> None:
    async def main() -> None:
        worker, ears = Worker(), Recorder(InterruptionFrame)
        async with started(worker, ears):
            loop = asyncio.get_running_loop()
            await worker.queue_frame(TextFrame(text="1 stubborn"))
            await worker.queue_frame(TextFrame(text="1 meek"))
            await asyncio.sleep(0.1)
            at = loop.time()
            worker.interrupt_reply(1)
            await asyncio.sleep(0.5)
            assert ears.heard[0][0] - at == pytest.approx(0.1, abs=0.001)
            assert [name.endswith("work 1 stubborn") for name in worker.conductor.abandoned] == [True]
            at = loop.time()
            worker.interrupt_reply(1)
            await asyncio.sleep(0.5)
            assert ears.heard[1][0] == pytest.approx(at, abs=0.001)

    run_virtual(main())


def test_an_interruption_is_whole_although_the_task_that_asked_for_it_is_cancelled() -> None:
    """A guest's task runs the handler that asks; the interruption cancels that very task."""

    async def main() -> None:
        class Asker(Processor):
            @consumes(TextFrame)
            async def _on_text(self, frame: Frame, direction: FrameDirection) -> None:
                self.interrupt_reply(1)
                await self.push_frame(frame, direction)

        class Guest(FrameProcessor):
            async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
                await super().process_frame(frame, direction)
                await self.push_frame(frame, direction)
                if isinstance(frame, TextFrame):
                    await asyncio.sleep(10)  # still busy with it when the interruption comes

        before, after = Recorder(InterruptionFrame), Recorder(InterruptionFrame)
        async with started(before, Guest(), Asker(), after):
            await before.queue_frame(TextFrame(text="1"))
            await asyncio.sleep(0.5)
            assert (len(before.heard), len(after.heard)) == (1, 1)

    run_virtual(main())


@pytest.mark.parametrize("suspends", [False, True])
def test_a_handler_in_a_task_that_is_cancelled_runs_whole_unless_it_suspends(suspends: bool) -> None:
    """Interruptions cancel the guest's task at any await; ours run in it."""

    async def main() -> tuple[int, int, int]:
        class Busy(FrameProcessor):
            async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
                await super().process_frame(frame, direction)
                await self.push_frame(frame, direction)
                await asyncio.sleep(0)

        class Counter(Processor):
            begun = ended = 0

            @consumes(TextFrame)
            async def _on_text(self, frame: Frame, direction: FrameDirection) -> None:
                self.begun += 1
                if suspends:
                    await asyncio.sleep(0)
                await self.push_frame(frame, direction)
                self.ended += 1

        guest, counter, seen = Busy(), Counter(), Recorder(TextFrame)
        async with started(guest, counter, Busy(), seen):
            for number in range(400):
                await guest.queue_frame(TextFrame(text=str(number)))
                for _ in range(number % 7):
                    await asyncio.sleep(0)
                await guest.queue_frame(InterruptionFrame())
                await asyncio.sleep(0)
            await asyncio.sleep(0.1)
        return counter.begun, counter.ended, len(seen.heard)

    begun, ended, _ = run_virtual(main())
    assert begun > 100
    assert (ended < begun) is suspends


def test_a_failing_turn_task_becomes_an_error_and_too_many_are_refused() -> None:
    async def main() -> None:
        from pipecat.frames.frames import ErrorFrame

        ears, worker = Recorder(ErrorFrame), Worker()

        async def fails() -> None:
            raise ValueError("no such word")

        async with started(ears, worker):
            worker.turn_task(fails())
            await asyncio.sleep(0.01)
            assert "no such word" in ears.heard[0][1].error  # type: ignore[attr-defined]
            for _ in range(256):
                worker.turn_task(worker._work("1"))
            with pytest.raises(ServiceError, match="256"):
                worker.turn_task(worker._work("1"))

    run_virtual(main())
