"""`Wire`: what carries one conversation's bytes; a WebSocket, or a list in a test."""

from __future__ import annotations

from typing import Protocol


class Wire(Protocol):
    """Takes messages without waiting; bounded inside, and gone for good once it is closed."""

    def send_audio(self, chunk: str | bytes) -> None:
        """Send one 20 ms chunk, as the dialect spells it."""
        ...

    def send_text(self, message: str | bytes) -> None:
        """Send one message that is no audio."""
        ...
