"""What is logged as a trouble while a test runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from loguru import logger


@contextmanager
def logged_troubles() -> Iterator[list[str]]:
    """What is logged from WARNING on; not that the loop is blocked, which a busy machine brings about."""
    lines: list[str] = []
    sink = logger.add(
        lambda line: lines.append(line.record["message"]),
        level="WARNING",
        filter=lambda record: "loop is blocked" not in record["message"],
    )
    try:
        yield lines
    finally:
        logger.remove(sink)
