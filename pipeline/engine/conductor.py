"""`Conductor`: what the processors of one conversation share."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any, ClassVar

from ..conversation.facts import ConversationFacts
from .turn_tasks import TurnTasks


class Conductor(TurnTasks, ConversationFacts):
    """One per conversation (per Pipecat worker); reached as `processor.conductor`: its turn tasks and its facts."""

    _by_worker: ClassVar[weakref.WeakKeyDictionary[Any, Conductor]] = weakref.WeakKeyDictionary()

    def __init__(self) -> None:
        TurnTasks.__init__(self)
        ConversationFacts.__init__(self)
        self._members = 0  # processors set up and not cleaned up

    @classmethod
    def of(cls, worker: Any) -> Conductor:
        """Return the conductor of a Pipecat worker, made on first use."""
        conductor = cls._by_worker.get(worker)
        if conductor is None:
            conductor = cls._by_worker[worker] = cls()
        return conductor

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
