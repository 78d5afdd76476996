"""`answer_call`: a telephone call's socket, read up to the message that says which conversation it is."""

from __future__ import annotations

import asyncio

from ...pipeline.errors import ProtocolError
from ..dialects.twilio import call_sid_of, is_greeting
from .client_socket import ClientSocket


class _AnsweredCall:
    """A call's socket after its `start`, which is received once more: it is the conversation's `hello`."""

    def __init__(self, socket: ClientSocket, start: str | bytes) -> None:
        self.try_send, self.close, self.abort = socket.try_send, socket.close, socket.abort
        self.is_reading = socket.is_reading
        self._socket = socket
        self._start: str | bytes | None = start  # None once it was received again

    @property
    def failure(self) -> Exception | None:
        """See `ClientSocket.failure`."""
        return self._socket.failure

    async def receive(self) -> str | bytes:
        """See `ClientSocket.receive`."""
        start, self._start = self._start, None
        return start if start is not None else await self._socket.receive()


async def answer_call(socket: ClientSocket, wait_s: float) -> tuple[ClientSocket, str]:
    """Read up to `start`; return the call and what names its conversation: Twilio's id of the call.

    Raises `ProtocolError` if `start` does not come in `wait_s`, or is none that could be served; `ClientGone`.
    """
    try:
        async with asyncio.timeout(wait_s):
            message = await socket.receive()
            if is_greeting(message):
                message = await socket.receive()
    except TimeoutError:
        raise ProtocolError("missing_field", f"No `start` came within {wait_s:g} s.") from None
    return _AnsweredCall(socket, message), call_sid_of(message)
