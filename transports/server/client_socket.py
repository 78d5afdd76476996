"""`ClientSocket`: what a conversation needs of a WebSocket, and how the one of `websockets` gives it.

Another server (Starlette, aiohttp) is one more class with these methods; nothing else here knows whose socket it is.
"""

from __future__ import annotations

import socket
from typing import Any, Protocol

from websockets.asyncio.server import ServerConnection, broadcast
from websockets.exceptions import ConnectionClosed

NOTSENT_LOWAT = 4096  # bytes the kernel may hold unsent; its default hides 90 s of stale audio (docs/operations.md)
USER_TIMEOUT_MS = 10_000  # unacknowledged data ends the connection after this
MAX_UNSENT = 4096  # bytes in the transport's buffer past which a client counts as not reading just now


class ClientGone(Exception):  # noqa: N818 - it is an event report, and reads as one
    """The connection is closed, by whomever."""


class ClientSocket(Protocol):
    """One client's WebSocket."""

    @property
    def failure(self) -> Exception | None:
        """What has broken the connection, and was no doing of the client's; None mostly."""
        ...

    async def receive(self) -> str | bytes:
        """The next message. Raises `ClientGone` when there will be none."""
        ...

    async def is_reading(self) -> bool:
        """Return True as soon as the client has shown that it reads, False when it is gone; else wait.

        A server that cannot know says True at once.
        """
        ...

    def try_send(self, message: str | bytes) -> bool:
        """Send now, without waiting; False, and nothing sent, while the client does not keep up. Never raises."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Close; returns when the connection is gone, in bounded time. Idempotent."""
        ...

    def abort(self) -> None:
        """Drop the connection, now, with all that was not sent."""
        ...


class WebSocketsSocket:
    """A connection of the `websockets` server."""

    __slots__ = ("_connection", "_receive")

    failure = None  # the library logs its own: see guarded.py

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._receive = connection.recv  # looked up once: it is called for every message
        tune(connection.transport.get_extra_info("socket"))

    async def receive(self) -> str | bytes:
        """See `ClientSocket.receive`."""
        try:
            return await self._receive()
        except ConnectionClosed:
            raise ClientGone from None

    async def is_reading(self) -> bool:
        """See `ClientSocket.is_reading`: whoever reads answers a ping, without any code of its own."""
        try:
            await (await self._connection.ping())
        except ConnectionClosed:
            return False
        return True

    def try_send(self, message: str | bytes) -> bool:
        """See `ClientSocket.try_send`."""
        transport = self._connection.transport
        if transport.get_write_buffer_size() > MAX_UNSENT and not transport.is_closing():
            return False
        broadcast((self._connection,), message)  # the library's synchronous way to send
        return True

    async def close(self, code: int, reason: str) -> None:
        """See `ClientSocket.close`."""
        await self._connection.close(code, reason)

    def abort(self) -> None:
        """See `ClientSocket.abort`."""
        self._connection.transport.abort()


def tune(sock: Any) -> None:
    """Set the socket options of a conversation on a TCP socket; others are left alone."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in (("TCP_NOTSENT_LOWAT", NOTSENT_LOWAT), ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS)):
        option = getattr(socket, name, None)
        if option is not None:  # Linux has both, other systems not all
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
