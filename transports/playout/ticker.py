"""One clock tick for all conversations of a process, every 20 ms, without drift."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from weakref import WeakKeyDictionary

from loguru import logger

PERIOD_S = 0.02

Tick = Callable[[float], None]


class Ticker:
    """Calls `tick(now_s)` of everyone registered, every `period_s` of `loop.time()`.

    Tick n is due at start + n * period, and `now_s` is that time, not the moment it ran: with real times, what is due
    at a tick would come one tick early or late by a hair. Lateness does not add up; ticks that were missed are skipped.
    Runs from the first registration to the last. A chain of timers and no task: there is nothing to cancel or to leak,
    and it begins and ends in the step that asks for it. Callbacks are sync and quick; one that raises is logged and
    removed, the others do not notice. Belongs to one event loop.
    """

    def __init__(self, *, period_s: float = PERIOD_S) -> None:
        self.period_s = period_s
        self._ticks: dict[Tick, None] = {}  # who is called, in order of registration
        self._loop: asyncio.AbstractEventLoop | None = None  # the loop it runs on; None when it does not run
        self._timer: asyncio.TimerHandle | None = None  # the next tick; None when it does not run, and during a tick
        self._start_s = 0.0  # loop time of tick 0
        self._count = 0  # number of the next tick

    @property
    def is_running(self) -> bool:
        """Whether a tick is planned."""
        return self._loop is not None

    def __len__(self) -> int:
        return len(self._ticks)

    def add(self, tick: Tick) -> None:
        """Call `tick` from the next tick on. Needs a running event loop. A second registration changes nothing."""
        loop = asyncio.get_running_loop()
        self._ticks[tick] = None
        if self._loop is None:
            self._loop, self._start_s, self._count = loop, loop.time(), 1
            self._plan(loop)

    def remove(self, tick: Tick) -> None:
        """Call it no more, not even in the tick that is going on. Unknown ones are ignored."""
        self._ticks.pop(tick, None)
        if not self._ticks:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop = None

    def catch_up(self) -> None:
        """Tick now if a tick is due. For those who work long in a step, or one after another in many: audio first."""
        loop = self._loop
        if loop is not None and self._timer is not None and loop.time() >= self._timer.when():
            self._timer.cancel()
            contextvars.Context().run(self._run)

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        due_s = self._start_s + self._count * self.period_s
        # An empty context: the ticker outlives whoever registered first, and must not keep their variables alive.
        self._timer = loop.call_at(due_s, self._run, context=contextvars.Context())

    def _run(self) -> None:
        loop = self._loop
        if loop is None:
            return
        self._timer = None
        self._count = max(self._count, int((loop.time() - self._start_s) / self.period_s + 1e-6))
        now_s = self._start_s + self._count * self.period_s
        for tick in tuple(self._ticks):
            if tick not in self._ticks:  # removed by one before it
                continue
            try:
                tick(now_s)
            except Exception:  # one conversation's fault must not silence the others
                logger.exception("A ticker callback raised and is removed")
                self.remove(tick)
        if self._ticks and self._timer is None:  # one that emptied and refilled the list has planned its own
            self._count = max(self._count, int((loop.time() - self._start_s) / self.period_s + 1e-6)) + 1
            self._plan(loop)


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, Ticker] = WeakKeyDictionary()  # one per running loop


def shared_ticker() -> Ticker:
    """The 20 ms ticker of the running event loop; the same one for every caller."""
    loop = asyncio.get_running_loop()
    ticker = _shared.get(loop)
    if ticker is None:
        ticker = _shared[loop] = Ticker()
    return ticker
