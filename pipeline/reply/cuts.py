"""`Cuts`: interruptions on their way from the owner of a reply, and what waits behind them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..engine.processor import Processor
from ..frames import GenerationStopFrame, ReplyEndedFrame


class Cuts:
    """Of one responder. All are sent from the conductor's own task, in order, each with the end marker still owed."""

    def __init__(self, owner: Processor) -> None:
        self.upto = 0  # turns up to this one were interrupted
        self._owner = owner  # sends them
        self.waiting = 0  # asked for and not yet sent; later frames wait behind them

    def cut(self, turn_id: int, *, left_open: int) -> None:
        """Interrupt a reply, both ways; `left_open`: its turn id if its end marker is still to come, else 0."""

        conductor = self._owner.conductor

        async def sent() -> None:
            self.waiting -= 1
            conductor.await_gate(turn_id)
            await self._end(left_open)

        self.upto = max(self.upto, turn_id)
        self.waiting += 1
        self._owner.interrupt_reply(turn_id, then=sent)

    def withdraw(self, turn_id: int, *, left_open: int) -> None:
        """End a reply that was prepared for nothing: only LLM, voice and gate know of it."""

        async def stop() -> None:
            self.waiting -= 1
            await self._owner.push_frame(GenerationStopFrame(turn_id=turn_id))
            await self._end(left_open)

        self.waiting += 1
        self._owner.conductor.post(stop, self._owner.create_task)

    async def after(self, action: Callable[[], Awaitable[Any]]) -> None:
        """Run `action` now, or behind the interruptions that are on their way."""
        if self.waiting:
            self._owner.conductor.post(action, self._owner.create_task)
        else:
            await action()

    async def _end(self, left_open: int) -> None:
        if left_open:
            await self._owner.push_frame(ReplyEndedFrame(turn_id=left_open))
