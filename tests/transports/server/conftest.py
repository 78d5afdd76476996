"""What the tests of the servers share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loguru import logger


@pytest.fixture
def troubles() -> Iterator[list[str]]:
    """What is logged from WARNING on; not that the loop is blocked, which a busy machine brings about."""
    lines: list[str] = []
    sink = logger.add(
        lambda line: lines.append(line.record["message"]),
        level="WARNING",
        filter=lambda record: "loop is blocked" not in record["message"],
    )
    yield lines
    logger.remove(sink)
