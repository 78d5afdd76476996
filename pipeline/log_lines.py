"""Log lines that cost the step they tell of nothing but a note: written in the loop's next round, in order.

A line takes a logger 20 to 50 us, more than all the rest of a state change. A process that is killed loses the lines
of its last round.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from loguru import logger

MAX_WAITING = 4096  # lines; past it the oldest is lost, which needs thousands of moves in one round of the loop

_waiting: deque[tuple[str, tuple[Any, ...]]] = deque(maxlen=MAX_WAITING)
_writer: asyncio.AbstractEventLoop | None = None  # the loop whose next round writes; None while nothing waits


def info_later(message: str, *args: Any) -> None:
    """Log at INFO soon; needs a running event loop. `args` are formatted then, so give what does not change."""
    global _writer
    loop = asyncio.get_running_loop()
    if _writer is not loop:  # the first line of a round, or an earlier loop ended before it wrote
        _writer = loop
        loop.call_soon(write_lines)
    _waiting.append((message, args))


def write_lines() -> None:
    """Write what waits, now."""
    global _writer
    _writer = None
    while _waiting:
        message, args = _waiting.popleft()
        logger.info(message, *args)
