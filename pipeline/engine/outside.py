"""Work in flight outside the event loop, counted per loop.

What is asked of threads, processes and sockets is counted here so that a virtual clock does not jump over it: a clock
that is moved to the next timer whenever the loop is idle would let a deadline of 3 s pass while a worker process
needs its honest 5 ms. Whoever asks calls `enter` before and `leave` when the answer has arrived (or nobody waits for
it any more); the clock of `pipeline.testing` waits in real time while `in_flight` is above zero. Real loops ignore it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

_counts: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()


def enter(loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Count one request in, for `loop` or the running one (raises RuntimeError if neither is there)."""
    loop = loop or asyncio.get_running_loop()
    _counts[loop] = _counts.get(loop, 0) + 1


def leave(loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Count one request out; once per `enter`, in the same thread, whatever became of the request."""
    loop = loop or asyncio.get_running_loop()
    _counts[loop] = max(0, _counts.get(loop, 0) - 1)


def in_flight(loop: asyncio.AbstractEventLoop | None = None) -> int:
    """Return how many requests of `loop`, or of the running one, are in flight outside it."""
    return _counts.get(loop or asyncio.get_running_loop(), 0)


@contextmanager
def outside(loop: asyncio.AbstractEventLoop | None = None) -> Iterator[None]:
    """Count one request for as long as the block runs."""
    loop = loop or asyncio.get_running_loop()
    enter(loop)
    try:
        yield
    finally:
        leave(loop)
