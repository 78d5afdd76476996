"""Turn tasks, interruptions, the join and the session: what is cancelled, in what time, and what stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from pipecat.frames.frames import CancelFrame, EndFrame, Frame, InterruptionFrame, StartFrame, TextFrame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from leibniz_voice.pipeline import Parallel, Pipeline, Processor, Session, TurnContextFrame, UserTurnFrame, consumes
from leibniz_voice.pipeline.errors import ConfigurationError, ServiceError
from leibniz_voice.pipeline.frames import BranchAnswerFrame, ReplyInterruptedFrame
from leibniz_voice.pipeline.session import SessionFailed
from leibniz_voice.pipeline.testing import run_virtual


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


class Ears(Processor):
    """Collects frames of the given types."""

    def __init__(self, *types: type[Frame]) -> None:
        super().__init__()
        self.types = types
        self.heard: list[tuple[float, Frame]] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, self.types):
            self.heard.append((asyncio.get_running_loop().time(), frame))
        await self.push_frame(frame, direction)


@asynccontextmanager
async def started(*chain: FrameProcessor) -> AsyncIterator[Session]:
    session = Session("s", input=chain[0], output=chain[-1])
    await session.start(lambda s: Pipeline(chain))
    try:
        yield session
    finally:
        await session.cancel()


def test_an_interruption_of_a_turn_cancels_its_tasks_and_older_ones_only() -> None:
    async def main() -> None:
        worker, ears = Worker(), Ears(InterruptionFrame)
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
        worker, ears = Worker(), Ears(InterruptionFrame)
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

        before, after = Ears(InterruptionFrame), Ears(InterruptionFrame)
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

        guest, counter, seen = Busy(), Counter(), Ears(TextFrame)
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

        ears, worker = Ears(ErrorFrame), Worker()

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


# -- the join --------------------------------------------------------------------------------------------------


def after(seconds: float, answer: Any) -> Any:
    async def branch(turn: UserTurnFrame) -> Any:
        await asyncio.sleep(seconds)
        if isinstance(answer, Exception):
            raise answer
        return answer if not callable(answer) else answer(turn)

    return branch


class Answerer(Processor):
    """A branch of one processor: answers with the text's length after a while."""

    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: UserTurnFrame, direction: FrameDirection) -> None:
        self.turn_task(self._answer(frame), turn_id=frame.turn_id)

    async def _answer(self, frame: UserTurnFrame) -> None:
        await asyncio.sleep(0.05)
        await self.push_frame(BranchAnswerFrame(turn_id=frame.turn_id, answer=len(frame.text)))


class Slowpoke(FrameProcessor):
    """A queued guest inside a branch."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


@pytest.mark.parametrize(
    ("branches", "answers", "late", "at"),
    [
        ({"a": after(0.05, 1), "b": after(0.08, 2)}, {"a": 1, "b": 2}, (), 0.08),
        ({"a": after(0.05, 1), "b": after(99, 2)}, {"a": 1, "b": "B"}, ("b",), 1.0),
        ({"a": after(0.05, ValueError("x")), "b": after(0.01, 2)}, {"a": "A", "b": 2}, ("a",), 0.05),
        ({"a": [Answerer()], "b": after(0.08, 2)}, {"a": 5, "b": 2}, (), 0.08),
        ({"a": [Slowpoke(), Answerer(), Slowpoke()], "b": after(0.01, 2)}, {"a": 5, "b": 2}, (), 0.05),
    ],
    ids=["both", "one hangs", "one fails", "a processor", "guests"],
)
def test_branches_join_when_all_have_answered_else_at_the_deadline(
    branches: Any, answers: dict[str, Any], late: tuple[str, ...], at: float
) -> None:
    async def main() -> None:
        join = Parallel(branches, deadline_s=1.0, fallback={"a": "A", "b": "B"})
        ears = Ears(TurnContextFrame, UserTurnFrame)
        async with started(join, ears):
            begun = asyncio.get_running_loop().time()
            await join.queue_frame(UserTurnFrame(turn_id=1, text="hello"))
            await asyncio.sleep(2)
            (_, turn), (joined_at, context) = ears.heard
            assert isinstance(turn, UserTurnFrame)
            assert isinstance(context, TurnContextFrame)
            assert (context.answers, context.late) == (answers, late)
            assert joined_at - begun == pytest.approx(at, abs=0.005)
            assert context.join_ms == pytest.approx(at * 1000, abs=5)

    run_virtual(main())


@pytest.mark.parametrize("turns", [300, pytest.param(10_000, marks=pytest.mark.full)])
def test_a_cut_turn_never_answers_and_leaves_nothing_behind(turns: int) -> None:
    async def main() -> None:
        late: list[int] = []

        async def stubborn(turn: UserTurnFrame) -> int:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                late.append(turn.turn_id)
            return turn.turn_id

        join = Parallel(
            {"a": stubborn, "b": [Answerer()], "c": after(0.08, 3)}, fallback=dict.fromkeys("abc"), deadline_s=1
        )
        ears = Ears(TurnContextFrame)
        async with started(join, ears):
            tasks = len(asyncio.all_tasks())
            for turn in range(1, turns + 1):
                await join.queue_frame(UserTurnFrame(turn_id=turn, text="hello"))
                await asyncio.sleep(0.0001 * (turn % 400))
                await join.queue_frame(ReplyInterruptedFrame(turn_id=turn))
            await asyncio.sleep(1)
            assert ears.heard == []
            assert len(late) == turns
            assert len(asyncio.all_tasks()) <= tasks
            assert join.conductor.turn_tasks == 0
            await join.queue_frame(UserTurnFrame(turn_id=turns + 1, text="hello"))
            await asyncio.sleep(1)
            assert [f.turn_id for _, f in ears.heard] == [turns + 1]  # type: ignore[attr-defined]

    run_virtual(main())


def test_an_interruption_of_an_older_turn_leaves_the_join_of_the_newer_one_alone() -> None:
    async def main() -> None:
        join, ears = Parallel({"a": after(0.05, 1)}, fallback={"a": 0}), Ears(TurnContextFrame)
        async with started(join, ears):
            await join.queue_frame(UserTurnFrame(turn_id=2, text="x"))
            await join.queue_frame(ReplyInterruptedFrame(turn_id=1))
            await asyncio.sleep(0.1)
            assert len(ears.heard) == 1

    run_virtual(main())


@pytest.mark.parametrize(
    ("branches", "options", "match"),
    [
        ({}, {}, "needs branches"),
        ({"a": after(0, 0)}, {}, "no fallback for a"),
        ({"a": after(0, 0)}, {"deadline_s": 0, "fallback": {"a": 1}}, "deadline_s is 0"),
    ],
)
def test_a_join_that_cannot_work_is_refused(branches: Any, options: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        Parallel(branches, **options)


# -- the session -----------------------------------------------------------------------------------------------


class DropsEnd(FrameProcessor):
    """A guest that loses EndFrame and CancelFrame."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, (EndFrame, CancelFrame)):
            await self.push_frame(frame, direction)


class Swallows(FrameProcessor):
    """A guest whose handler swallows every cancellation."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        while isinstance(frame, TextFrame):
            if asyncio.get_running_loop().time() > 100:
                return
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(200)


class NeverStarts(FrameProcessor):
    """A guest that keeps StartFrame."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, StartFrame):
            await self.push_frame(frame, direction)


@pytest.mark.parametrize("guest", [DropsEnd, Swallows, Slowpoke])
@pytest.mark.parametrize("how", ["end", "cancel"])
def test_a_session_ends_in_bounded_time_whatever_a_guest_does(guest: type[FrameProcessor], how: str) -> None:
    async def main() -> None:
        loop, head = asyncio.get_running_loop(), Worker()
        async with started(Ears(), guest(), head) as session:
            await session.input.queue_frame(TextFrame(text="1"))
            await asyncio.sleep(0.01)
            at = loop.time()
            await (session.end(timeout_s=1.0) if how == "end" else session.cancel())
            assert loop.time() - at <= (6.0 if how == "end" else 5.0)
            await asyncio.wait_for(session.wait(), 1) if not session.abandoned else None
            await asyncio.sleep(200)  # let the stubborn one go, for the loop to close

    run_virtual(main())


def test_a_pipeline_that_never_starts_fails_with_a_reason_and_is_taken_down() -> None:
    async def main() -> None:
        before = len(asyncio.all_tasks())
        with pytest.raises(SessionFailed, match="did not start: nothing happened for 10 s"):
            async with started(Ears(), NeverStarts(), Ears()):
                pass
        await asyncio.sleep(1)
        assert len(asyncio.all_tasks()) == before
        with pytest.raises(SessionFailed, match="must return a Pipeline"):
            await Session("s", input=Ears(), output=Ears()).start(lambda s: None)  # type: ignore[arg-type,return-value]

    run_virtual(main())


class Broken(Processor):
    """Fails in one of the two places where a processor starts."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    async def setup(self, setup: Any) -> None:
        await super().setup(setup)
        if self.where == "setup":
            raise ValueError("no such voice")

    @consumes(StartFrame)
    async def _on_start(self, frame: Frame, direction: FrameDirection) -> None:
        if self.where == "start":
            raise ValueError("no such voice")
        await self.push_frame(frame, direction)


@pytest.mark.parametrize("where", ["setup", "start"])
def test_a_processor_that_cannot_start_fails_the_session_at_once_with_its_reason(where: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        at = loop.time()
        with pytest.raises(SessionFailed, match="no such voice"):
            async with started(Ears(), Broken(where), Ears()):
                pass
        assert loop.time() - at < 5

    run_virtual(main())


def test_a_start_that_is_cancelled_leaves_nothing_running() -> None:
    async def main() -> None:
        before = len(asyncio.all_tasks())
        session = Session("s", input=Ears(), output=Ears())
        starting = asyncio.create_task(session.start(lambda s: Pipeline([s.input, NeverStarts(), s.output])))
        await asyncio.sleep(0.5)
        starting.cancel()
        await asyncio.wait({starting})
        await asyncio.sleep(1)
        assert len(asyncio.all_tasks()) == before

    run_virtual(main())
