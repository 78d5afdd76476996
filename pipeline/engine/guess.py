"""A guess at the coming turn, and the branches that have begun on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from prometheus_client import Counter

from ..frames import SpeculativeTurnFrame
from ..listening.words import key_of

GUESSES = Counter("leibniz_speculation", "Guesses at turns, by what became of them", ["outcome"])
SAVED = Counter("leibniz_speculation_saved_seconds", "Waiting that right guesses have saved")


class Guess:
    """The branches without side effects, asked about a guess. The answers are nobody's until the turn is committed."""

    def __init__(
        self,
        frame: SpeculativeTurnFrame,
        branches: Mapping[str, Callable[[Any], Awaitable[Any]]],
        now: float,
        *,
        on_answer: Callable[[Guess], None] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.frame = frame
        self._on_answer = on_answer  # told when one more branch has answered; None: nobody
        self.key = key_of(frame.text)
        self.begun_at = now  # loop time
        self.ended_at: dict[str, float] = {}  # branch -> when it answered
        self._tasks = {  # branch -> its answer to come
            name: loop.create_task(_ask(branch, frame), name=f"branch {name}") for name, branch in branches.items()
        }
        for name, task in self._tasks.items():
            task.add_done_callback(lambda task, name=name: self._note(name, task))

    def take(self, name: str, fallback: Any) -> asyncio.Task[Any] | None:
        """Hand a branch's answer over, if it is there or on its way; None if it failed or was never asked."""
        task = self._tasks.pop(name, None)
        if task is None or (task.done() and (task.cancelled() or task.exception() or task.result() == fallback)):
            return None
        return task

    def answers(self, fallback: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the answer of each branch in `fallback`; None unless all are there and none has failed."""
        tasks = self._tasks
        if any(name not in tasks or not tasks[name].done() or tasks[name].exception() for name in fallback):
            return None
        answers = {name: tasks[name].result() for name in fallback}
        return None if any(answers[name] == stand_in for name, stand_in in fallback.items()) else answers

    def saved_s(self, joined_at: float, committed_at: float) -> float:
        """How much longer the answers would have taken, had they been asked at the commit."""
        longest = max((ended - self.begun_at for ended in self.ended_at.values()), default=0.0)
        return max(0.0, longest - (joined_at - committed_at))

    def drop(self) -> None:
        """Nobody wants the answers any more. Harmless twice."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    def _note(self, name: str, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # seen: a failed guess is asked again
            self.ended_at[name] = asyncio.get_running_loop().time()
            if self._on_answer is not None:
                self._on_answer(self)


async def _ask(branch: Callable[[Any], Awaitable[Any]], frame: SpeculativeTurnFrame) -> Any:
    return await branch(frame)
