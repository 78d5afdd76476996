"""Log lines that cost the step they tell of nothing but a note: written within 20 ms, in order, with their own time.

Formatting and writing a line takes a logger 10 to 50 us, more than all the rest of a state change. A process that is
killed loses the lines of its last 20 ms.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from loguru import logger

WRITE_S = 0.02  # how long a line waits at most; a loop that is busy writes later
MAX_WAITING = 4096  # lines; past it the oldest is lost, which needs 200,000 moves a second

_waiting: deque[tuple[float, str, tuple[Any, ...]]] = deque(maxlen=MAX_WAITING)
_writer: asyncio.AbstractEventLoop | None = None  # the loop that is going to write; None while nothing waits


def info_later(message: str, *args: Any) -> None:
    """Log at INFO soon; needs a running event loop. `args` are formatted then, so give what does not change."""
    global _writer
    _waiting.append((time.monotonic(), message, args))
    if _writer is not None and not _writer.is_closed():
        return
    _writer = asyncio.get_running_loop()
    _writer.call_later(WRITE_S, write_lines)


def write_lines() -> None:
    """Write what waits, now."""
    global _writer
    _writer = None
    while _waiting:
        at, message, args = _waiting.popleft()
        logger.patch(_aged(time.monotonic() - at)).info(message, *args)


def _aged(seconds: float) -> Callable[[Any], None]:
    """A change of a log record: it happened so long ago."""

    def age(record: Any) -> None:
        record["time"] -= timedelta(seconds=seconds)

    return age
