"""`Conductor`: what the processors of one conversation share."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any, ClassVar

from ..conversation.facts import ConversationFacts
from .turn_tasks import TurnTasks


class Conductor(TurnTasks, ConversationFacts):
    """The tasks and facts of one conversation (of one Pipecat worker, see `of`), reached as `processor.conductor`."""

    # id of a worker or task manager -> it, and its conductor. By id, as a stand-in may equal others or have no hash.
    _by_owner: ClassVar[dict[int, tuple[weakref.ref[Any], Conductor]]] = {}

    def __init__(self) -> None:
        TurnTasks.__init__(self)
        ConversationFacts.__init__(self)
        self._members = 0  # processors set up and not cleaned up

    @classmethod
    def of(cls, worker: Any, task_manager: Any = None) -> Conductor:
        """Return the conductor of a Pipecat worker, made on first use and kept as long as the worker.

        A processor that is set up by hand may have None for a worker, or a stand-in that cannot be referenced weakly
        (a `SimpleNamespace`). Its conversation is then that of its task manager, as each test makes one; where that
        cannot be told apart either, it has a conversation of its own, shared with nobody.
        """
        for owner in (worker, task_manager):
            try:
                return cls._kept_with(owner)
            except TypeError:  # it cannot be referenced weakly
                continue
        return cls()

    @classmethod
    def _kept_with(cls, owner: Any) -> Conductor:
        key = id(owner)
        if key not in cls._by_owner:
            cls._by_owner[key] = weakref.ref(owner, lambda _: cls._by_owner.pop(key)), cls()
        return cls._by_owner[key][1]

    def join(self) -> None:
        """Count a processor in."""
        self._members += 1

    async def leave(self, tasks: set[asyncio.Task[Any]]) -> None:
        """Count a processor out and end its turn tasks; with the last one the own task ends too."""
        self._members -= 1
        await self.cancel_these(tasks)
        if self._members <= 0:
            self.await_nothing()
            await self.end_own_task()
