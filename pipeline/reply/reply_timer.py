"""`ReplyTimer`: looks at a reply when its next wait is over. The waits are `reply_watch`'s."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..engine.conductor import Conductor
from .reply_watch import Overdue, ReplyBounds, ReplyWatch


class ReplyTimer:
    """One timer for one reply at a time. Waits that have grown in the meantime are found out when it fires."""

    def __init__(self, on_overdue: Callable[[ReplyWatch, Overdue], object]) -> None:
        self.watch: ReplyWatch | None = None  # the reply that is watched
        self._on_overdue = on_overdue  # told what did not come
        self._conductor: Conductor | None = None  # knows what has passed the gate; None before the first `arm`
        self._timer: asyncio.TimerHandle | None = None  # None while nothing is awaited

    def begin(self, turn_id: int, now: float, bounds: ReplyBounds, *, has_gate: bool, text: str = "") -> ReplyWatch:
        """Watch a new reply; `text` is all of it, if that is known."""
        self.watch = ReplyWatch(turn_id, now, bounds, has_gate=has_gate)
        self.watch.text = text
        return self.watch

    def arm(self, conductor: Conductor) -> None:
        """The watched reply awaits something, perhaps something new."""
        self._conductor = conductor
        due = self.watch.next_due() if self.watch is not None else None
        if due is None:
            self._disarm()
        elif self._timer is None or self._timer.when() > due[0]:
            self._disarm()
            self._timer = asyncio.get_running_loop().call_at(due[0], self._fire)

    def forget(self) -> ReplyWatch | None:
        """Watch nothing any more; returns what was watched."""
        watch, self.watch = self.watch, None
        self._disarm()
        return watch

    def _fire(self) -> None:
        self._timer = None
        if self.watch is None or self._conductor is None:
            return
        is_voiced(self.watch, self._conductor)
        due = self.watch.next_due()
        if due is not None and due[0] <= asyncio.get_running_loop().time():
            self._on_overdue(self.watch, due[1])
        else:
            self.arm(self._conductor)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def is_voiced(watch: ReplyWatch, conductor: Conductor) -> bool:
    """Whether any audio of this reply has passed the gate; the watch learns what else has."""
    if conductor.voiced_turn == watch.turn_id:
        watch.heard(conductor.voiced_at)
    if conductor.closed_turn == watch.turn_id:
        watch.over()
    return watch.is_audible
