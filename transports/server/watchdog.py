"""`Watchdog`: says where the event loop is stuck, while it is."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from types import FrameType

from loguru import logger
from prometheus_client import Counter, Histogram

BEAT_S = 0.02  # how often the loop shows that it is alive, and how often that is looked at
BLOCKED_S = 0.08  # a beat this late is reported: 60 to 100 ms after the block began, and what waking a thread takes
OVERLOADED_LAG_S = 0.5  # a block of this length: the process has more than it can do
OVERLOADED_S = 5.0  # how long after one no new conversations are asked for
MAX_STACK = 12  # lines of stack in the log

BLOCKED = Counter("leibniz_loop_blocked", "Times the event loop did not run for 80 ms")
LAG = Histogram(
    "leibniz_loop_lag_seconds", "Lateness of the event loop", buckets=(0.001, 0.005, 0.02, 0.05, 0.1, 0.5, 1)
)


class Watchdog:
    """A thread that logs the loop's stack as soon as the loop has not run for 80 ms; once for each block.

    The stack names files, lines and functions, never values, so nothing that users said is in it. Code that holds the
    GIL for long (a C extension) also holds up the thread: it is then reported when it lets go.
    """

    def __init__(self, *, blocked_s: float = BLOCKED_S) -> None:
        self._blocked_s = blocked_s  # lateness that is reported
        self._loop: asyncio.AbstractEventLoop | None = None  # None while stopped
        self._loop_thread = 0  # id of the thread whose stack is shown
        self._beat_at = 0.0  # perf_counter of the last beat
        self._blocked_at = 0.0  # perf_counter of the last long block's end; 0: none so far
        self._timer: asyncio.TimerHandle | None = None  # the next beat
        self._end = threading.Event()  # ends the thread

    @property
    def is_overloaded(self) -> bool:
        """Whether the loop was blocked for long in the last seconds."""
        return self._blocked_at > 0 and time.perf_counter() - self._blocked_at < OVERLOADED_S

    def start(self) -> None:
        """Watch the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._beat_at = time.perf_counter()
        self._end.clear()
        self._beat()
        threading.Thread(target=self._watch, name="leibniz-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no more. Idempotent."""
        self._loop = None
        self._end.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self) -> None:
        if self._loop is None:
            return
        now = time.perf_counter()
        lag = max(0.0, now - self._beat_at - BEAT_S)
        LAG.observe(lag)
        if lag > OVERLOADED_LAG_S:
            self._blocked_at = now
        self._beat_at = now
        self._timer = self._loop.call_later(BEAT_S, self._beat)

    def _watch(self) -> None:
        """On the thread."""
        reported = 0.0  # the beat whose lateness was reported
        while not self._end.wait(BEAT_S):
            beat = self._beat_at
            late = time.perf_counter() - beat - BEAT_S
            if late < self._blocked_s - BEAT_S or beat == reported:
                continue
            reported = beat
            frame = sys._current_frames().get(self._loop_thread)
            if frame is not None and frame.f_code.co_name == "select":
                continue  # it waits, and was only not scheduled: the machine is busy, not this loop
            BLOCKED.inc()
            blocked = (
                "the event loop is blocked for {:.0f} ms; nothing has failed, but every call waits for this code:\n{}"
            )
            logger.warning(blocked, late * 1000, _stack(frame))


def _stack(frame: FrameType | None) -> str:
    return "".join(traceback.format_stack(frame)[-MAX_STACK:]) if frame is not None else "(the thread has ended)"
