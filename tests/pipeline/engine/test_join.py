"""The join: branches that answer, hang, fail or are cut."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pipecat.processors.frame_processor import FrameDirection

from leibniz_voice.pipeline import Parallel, Processor, TurnContextFrame, UserTurnFrame, consumes
from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.frames import BranchAnswerFrame, ReplyInterruptedFrame
from leibniz_voice.pipeline.testing import run_virtual
from tests.support.chains import Guest, Recorder, started


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


@pytest.mark.parametrize(
    ("branches", "answers", "late", "at"),
    [
        ({"a": after(0.05, 1), "b": after(0.08, 2)}, {"a": 1, "b": 2}, (), 0.08),
        ({"a": after(0.05, 1), "b": after(99, 2)}, {"a": 1, "b": "B"}, ("b",), 1.0),
        ({"a": after(0.05, ValueError("x")), "b": after(0.01, 2)}, {"a": "A", "b": 2}, ("a",), 0.05),
        ({"a": [Answerer()], "b": after(0.08, 2)}, {"a": 5, "b": 2}, (), 0.08),
        ({"a": [Guest(), Answerer(), Guest()], "b": after(0.01, 2)}, {"a": 5, "b": 2}, (), 0.05),
    ],
    ids=["both", "one hangs", "one fails", "a processor", "guests"],
)
def test_branches_join_when_all_have_answered_else_at_the_deadline(
    branches: Any, answers: dict[str, Any], late: tuple[str, ...], at: float
) -> None:
    async def main() -> None:
        join = Parallel(branches, deadline_s=1.0, fallback={"a": "A", "b": "B"})
        ears = Recorder(TurnContextFrame, UserTurnFrame)
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
        ears = Recorder(TurnContextFrame)
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
        join, ears = Parallel({"a": after(0.05, 1)}, fallback={"a": 0}), Recorder(TurnContextFrame)
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
