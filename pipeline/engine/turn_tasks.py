"""`TurnTasks`: slow work for one turn, and the one task that sends interruptions.

A *turn task* is slow work for one turn (a branch, a synthesis). An interruption first cancels every turn task of the
turn it cuts and of older ones, then waits once, at most `SETTLE_S`, and abandons by name whatever swallowed its
cancellation. It is sent from the conversation's own task: the handler that asks for it may run in a task which the
interruption itself is going to cancel, and would then be cut short half-way through its broadcast.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from loguru import logger
from pipecat.frames.frames import InterruptionFrame

SETTLE_S = 0.1  # how long an interruption waits for cancelled turn tasks; Pipecat waits 1 s per processor
MAX_ACTIONS = 256  # waiting actions; past it the oldest is dropped with an error, which no honest pipeline reaches
MAX_TURN_TASKS = 256  # turn tasks alive at once; past it a new one is refused

Action = Callable[[], Awaitable[None]]


class TurnTasks:
    """The tasks of one conversation that stand under the interruptions' rule."""

    def __init__(self) -> None:
        self.abandoned: deque[str] = deque(maxlen=64)  # names of turn tasks that swallowed their cancellation
        self._tasks: dict[asyncio.Task[Any], int | None] = {}  # turn task -> its turn, None: dies with any interruption
        self._actions: deque[Action] = deque()  # what the own task has still to do, oldest first
        self._wake: asyncio.Event | None = None  # set when an action is posted; None until the own task exists
        self._own_task: asyncio.Task[None] | None = None  # made by the first `post`
        self._seen: deque[int] = deque(maxlen=64)  # ids of interruptions already handled, both twins

    def add(self, task: asyncio.Task[Any], turn_id: int | None) -> None:
        """Put a task under the interruptions' rule; it leaves by itself when done."""
        self._tasks[task] = turn_id
        task.add_done_callback(self._forget)

    @property
    def is_full(self) -> bool:
        """Whether no further turn task is taken."""
        return len(self._tasks) >= MAX_TURN_TASKS

    @property
    def turn_tasks(self) -> int:
        """Number of turn tasks alive."""
        return len(self._tasks)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)

    async def on_interruption(self, frame: InterruptionFrame) -> None:
        """Cancel what `frame` cuts: every turn task up to its `turn_id`, or all if it names none. Once a broadcast."""
        if frame.id in self._seen or frame.broadcast_sibling_id in self._seen:
            return
        self._seen.append(frame.id)
        await self.cancel_turn_tasks(getattr(frame, "turn_id", None))

    async def cancel_turn_tasks(self, up_to: int | None = None) -> None:
        """Cancel the turn tasks of turn `up_to` and older (None: all), and wait for them at most `SETTLE_S`."""
        current = asyncio.current_task()
        doomed = {
            task
            for task, turn_id in self._tasks.items()
            if task is not current and (up_to is None or turn_id is None or turn_id <= up_to)
        }
        await self._cancel(doomed)

    async def cancel_these(self, tasks: set[asyncio.Task[Any]]) -> None:
        """Cancel those of `tasks` that are turn tasks, and wait for them as long."""
        await self._cancel(tasks & self._tasks.keys())

    async def end_own_task(self) -> None:
        """Send nothing more, until the next `post`."""
        if self._own_task is not None:
            own, self._own_task = self._own_task, None
            await self._cancel({own})

    async def _cancel(self, tasks: set[asyncio.Task[Any]]) -> None:
        tasks.discard(asyncio.current_task())  # type: ignore[arg-type]
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        _, stuck = await asyncio.wait(tasks, timeout=SETTLE_S)
        for task in stuck:
            self._forget(task)
            self.abandoned.append(task.get_name())
            logger.warning(f"turn task {task.get_name()} swallowed its cancellation and is abandoned")

    def post(self, action: Action, spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]) -> None:
        """Have `action` run in the conversation's own task, after those posted before. Never waits."""
        if len(self._actions) >= MAX_ACTIONS:
            self._actions.popleft()
            logger.error(f"more than {MAX_ACTIONS} interruptions wait; the oldest is dropped")
        self._actions.append(action)
        if self._own_task is None or self._own_task.done():
            self._wake = asyncio.Event()
            self._own_task = spawn(self._run(self._wake), "conductor")
        assert self._wake is not None
        self._wake.set()

    async def _run(self, wake: asyncio.Event) -> None:
        while True:
            await wake.wait()
            wake.clear()
            while self._actions:
                action = self._actions.popleft()
                try:
                    await action()
                except Exception:  # top of the task: one failed action must not cost the next interruption
                    logger.exception("an interruption failed half-way")
