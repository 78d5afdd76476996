"""What the `websockets` library logs, into ours: only at DEBUG, without tracebacks, and never a header or a message."""

from __future__ import annotations

import logging

from loguru import logger


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        logger.debug("websockets: {}{}", record.getMessage(), f" ({type(cause).__name__})" if cause else "")


def library_logger() -> logging.Logger:
    """A logger for the server. From INFO on: at DEBUG the library prints headers, tokens among them, and messages."""
    quiet = logging.getLogger("leibniz.websockets")
    if not quiet.handlers:
        quiet.addHandler(_Forward())
        quiet.propagate = False
        quiet.setLevel(logging.INFO)
    return quiet
