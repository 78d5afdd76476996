"""What the processors of one conversation share: turn ids, turn tasks, and the one task that sends interruptions.

A *turn task* is slow work for one turn (a branch, a synthesis). An interruption first cancels every turn task of the
turn it cuts and of older ones, then waits once, at most `SETTLE_S`, and abandons by name whatever swallowed its
cancellation. It is sent from the conductor's own task: the handler that asks for it may run in a task which the
interruption itself is going to cancel, and would then be cut short half-way through its broadcast.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar

from loguru import logger
from pipecat.frames.frames import InterruptionFrame

from ..conversation.resume import Resumption
from ..listening.words import key_of

if TYPE_CHECKING:
    from ..reply.preparation import Prepared

SETTLE_S = 0.1  # how long an interruption waits for cancelled turn tasks; Pipecat waits 1 s per processor
MAX_ACTIONS = 256  # waiting actions; past it the oldest is dropped with an error, which no honest pipeline reaches
STUCK_S = 5.0  # from sending an interruption until the gate has seen it; Pipecat's processors take a second at most
MAX_TURN_TASKS = 256  # turn tasks alive at once; past it a new one is refused

Action = Callable[[], Awaitable[None]]


class Conductor:
    """One per conversation (per Pipecat worker); reached as `processor.conductor`."""

    _by_worker: ClassVar[weakref.WeakKeyDictionary[Any, Conductor]] = weakref.WeakKeyDictionary()

    def __init__(self) -> None:
        self.turn_id = 0  # the newest turn id given out
        self.session_id = ""  # the conversation's; "" where no state tracker says
        self.resumption: Resumption | None = None  # where an earlier conversation goes on; None for a new one
        self.prepares = False  # somebody prepares replies, so branches tell their answers to a guess
        self.prepared: Prepared | None = None  # a reply whose turn is not committed; None: none, or it is now
        self.voiced_turn = 0  # the newest turn whose audio has passed the gate; 0: none
        self.voiced_at = 0.0  # when that audio passed last, in loop seconds
        self.closed_turn = 0  # the newest turn whose end marker has passed the gate
        self.on_stuck: Callable[[str], None] | None = None  # ends a conversation that cannot be saved; None: nobody
        self._cut_turn: int | None = None  # the newest turn whose interruption the gate has seen; None: no gate
        self._awaited: set[asyncio.TimerHandle] = set()  # when an interruption that was sent is too late at the gate
        self.abandoned: deque[str] = deque(maxlen=64)  # names of turn tasks that swallowed their cancellation
        self._tasks: dict[asyncio.Task[Any], int | None] = {}  # turn task -> its turn, None: dies with any interruption
        self._actions: deque[Action] = deque()  # what the own task has still to do, oldest first
        self._wake: asyncio.Event | None = None  # set when an action is posted; None until the own task exists
        self._own_task: asyncio.Task[None] | None = None  # made by the first `post`
        self._members = 0  # processors set up and not cleaned up
        self._seen: deque[int] = deque(maxlen=64)  # ids of interruptions already handled, both twins

    @classmethod
    def of(cls, worker: Any) -> Conductor:
        """Return the conductor of a Pipecat worker, made on first use."""
        conductor = cls._by_worker.get(worker)
        if conductor is None:
            conductor = cls._by_worker[worker] = cls()
        return conductor

    def mint_turn_id(self) -> int:
        """Return a turn id that was never used in this conversation."""
        self.turn_id += 1
        return self.turn_id

    def commit_turn_id(self, text: str) -> int:
        """Return the id of a new turn with these words: that of the reply prepared for them, else a new one."""
        prepared, self.prepared = self.prepared, None
        if prepared is not None and prepared.turn_id == self.turn_id and prepared.key == key_of(text):
            return prepared.turn_id
        return self.mint_turn_id()

    def join(self) -> None:
        """Count a processor in."""
        self._members += 1

    async def leave(self, tasks: set[asyncio.Task[Any]]) -> None:
        """Count a processor out and end its turn tasks; with the last one the own task ends too."""
        self._members -= 1
        await self._cancel(tasks & self._tasks.keys())
        while self._members <= 0 and self._awaited:
            self._awaited.pop().cancel()
        if self._members <= 0 and self._own_task is not None:
            own, self._own_task = self._own_task, None
            await self._cancel({own})

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

    def gate_saw(self, turn_id: int) -> None:
        """The gate is there (0), or the interruption of a turn has come to it."""
        self._cut_turn = max(self._cut_turn or 0, turn_id)

    def await_gate(self, turn_id: int) -> None:
        """The interruption of a turn was sent: where a guest holds it up for good, the conversation is ended."""
        if self._cut_turn is not None and self._cut_turn < turn_id:
            late = asyncio.get_running_loop().call_later(STUCK_S, lambda: self._is_late(late, turn_id))
            self._awaited.add(late)

    def _is_late(self, timer: asyncio.TimerHandle, turn_id: int) -> None:
        self._awaited.discard(timer)
        if (self._cut_turn or 0) < turn_id:
            reason = f"a processor has held up the interruption of turn {turn_id} for {STUCK_S:g} s"
            logger.error(f"{reason}: the conversation is ended")
            if self.on_stuck is not None:
                self.on_stuck(reason)

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
        """Have `action` run in the conductor's own task, after those posted before. Never waits."""
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
