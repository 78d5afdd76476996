"""Virtual time: an event loop whose clock jumps to the next timer whenever nothing is going on.

    real loop      ...wait 3 s...          virtual loop   clock += 3 s, at once

Waiting costs nothing, so a minute of conversation takes milliseconds, and every run of one script is the same. The
clock stands still, and the loop waits in real time, while work is in flight outside the loop: executor threads, and
what `pipeline.outside` counts (worker processes, sockets, batched inference). Sockets that nobody counts, such as those
of a service's own client library, get `grace_s` of real time before each jump.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..engine import outside
from ..errors import LeibnizError

T = TypeVar("T")

STUCK_S = 10.0  # real seconds that the loop waits for something outside before it gives up
_SLICE_S = 0.05  # real seconds of one look at what is in flight
_LOOK_EVERY = (
    8  # turns of a loop without sockets and work in flight, until it looks whether a stray thread has woken it
)


class StuckError(LeibnizError):
    """Nothing can ever happen: no timer is set and nothing outside answers."""


class _JumpingSelector(selectors.DefaultSelector):
    """Selects without waiting, and moves its loop's clock instead."""

    def __init__(self, grace_s: float) -> None:
        super().__init__()
        self.loop: VirtualLoop | None = None  # whose clock it moves
        self._grace_s = grace_s  # real time that open sockets get before a jump
        self._waiting_since: float | None = None  # real time since when nothing happened
        self._turns = 0  # of the loop, since it last looked
        self.waited_s = 0.0  # real time spent waiting for what is in flight outside

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = [] if self._is_alone() else super().select(0)
        if events or self.loop is None or (timeout is not None and timeout <= 0):
            self._waiting_since = None
            return events
        if timeout is not None and not outside.in_flight(self.loop):
            self._waiting_since = None
            if self._grace_s and len(self.get_map()) > 1:  # one is the loop's own
                events = super().select(min(self._grace_s, timeout))
                if events:
                    return events
            self.loop.jump(timeout)
            return []
        now = time.monotonic()
        self._waiting_since = self._waiting_since or now
        if now - self._waiting_since > STUCK_S:
            raise StuckError(f"no timer is set and nothing outside the loop has answered for {STUCK_S:.0f} s")
        events = super().select(_SLICE_S)
        self.waited_s += time.monotonic() - now
        return events

    def _is_alone(self) -> bool:
        """Whether nothing can have come: no sockets, nothing in flight. A look would cost a third of the turn."""
        if self.loop is None or len(self.get_map()) > 1 or outside.in_flight(self.loop):
            return False
        self._turns = (self._turns + 1) % _LOOK_EVERY
        return self._turns != 0


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop on virtual time. `loop.time()` starts at 0."""

    def __init__(self, *, grace_s: float = 0.0) -> None:
        self._virtual_s = 0.0  # the clock
        self._jumping = _JumpingSelector(grace_s)
        super().__init__(self._jumping)
        self._jumping.loop = self

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._virtual_s

    @property
    def waited_s(self) -> float:
        """Real seconds spent so far waiting for threads and processes, which is what models cost."""
        return self._jumping.waited_s

    def jump(self, seconds: float) -> None:
        """Move the clock on."""
        self._virtual_s += seconds

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """As asyncio's, counted as in flight until it is done."""
        future = super().run_in_executor(executor, func, *args)
        outside.enter(self)
        future.add_done_callback(lambda _: outside.leave(self))
        return future


class VirtualTime:
    """Virtual time for plain code: `with VirtualTime() as clock: clock.run(coroutine)`, as often as one likes.

    Between two runs everything stands still, tasks in the background too. `grace_s`: see the module.
    """

    def __init__(self, *, grace_s: float = 0.0) -> None:
        self._runner = asyncio.Runner(loop_factory=lambda: VirtualLoop(grace_s=grace_s))  # the one loop

    def __enter__(self) -> VirtualTime:
        self._runner.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()

    @property
    def now(self) -> float:
        """The virtual time in seconds; it begins at 0."""
        return self._runner.get_loop().time()

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and return its result."""
        return self._runner.run(main)


def run_virtual(main: Coroutine[Any, Any, T], *, grace_s: float = 0.0) -> T:
    """Run a coroutine to its end in virtual time and return its result; like `asyncio.run`."""
    with VirtualTime(grace_s=grace_s) as clock:
        return clock.run(main)
