"""The playback's ticks of a recorded conversation: told as they come, and given again.

A machine that was busy ticked late, and playback waited; a replay that ticked on time would play ahead of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from ...transports.playout.ticker import PERIOD_S, Tick, Ticker
from .events import RecordedEvent
from .watched import Watched


def watched_ticker(ticker: Ticker, note: Callable[[float], None]) -> Ticker:
    """Return the ticker, each of whose ticks is told."""
    called: dict[Tick, Tick] = {}  # who asked -> what the ticker calls

    def add(its: Callable[[Tick], None], tick: Tick) -> None:
        def watched(now_s: float) -> None:
            note(now_s)
            tick(now_s)

        its(called.setdefault(tick, watched))  # the same one again, so that it knows it

    def remove(its: Callable[[Tick], None], tick: Tick) -> None:
        its(called.pop(tick, tick))

    return cast("Ticker", Watched(ticker, {"add": add, "remove": remove}))


class ReplayedTicker:
    """Ticks when the recorded one did; where that has nothing to say, every 20 ms."""

    def __init__(self, ticks: Sequence[RecordedEvent], began: float) -> None:
        self._ticks = list(ticks)
        self._began = began  # loop time of the recording's time 0
        self._next = 0  # of `_ticks`
        self._timer: asyncio.TimerHandle | None = None  # None while nobody asks

    def add(self, tick: Tick) -> None:
        """See `Ticker.add`."""
        self._plan(tick)

    def remove(self, tick: Tick) -> None:
        """See `Ticker.remove`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self, tick: Tick) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._next < len(self._ticks) and self._began + self._ticks[self._next].at < now - 1e-6:
            self._next += 1
        event = self._ticks[self._next] if self._next < len(self._ticks) else None
        at = planned = now + PERIOD_S
        if event is not None and self._began + event.at < now + 1.0:
            at = self._began + event.at
            planned = self._began + _number(event.fields.get("now"), event.at)
            self._next += 1
        self._timer = loop.call_at(at, self._run, tick, planned)

    def _run(self, tick: Tick, now_s: float) -> None:
        self._plan(tick)  # before it runs, as it may be the last one and then takes itself away
        tick(now_s)


def _number(value: object, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default
