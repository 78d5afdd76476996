"""`SocketWire`: a conversation's messages onto a WebSocket, never waiting in the pipeline, never without end."""

from __future__ import annotations

import asyncio
import socket
from collections import deque

from loguru import logger
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

MAX_WAITING = 256  # messages; a client that reads has a handful, so this one does not
SEND_S = 2.0  # a send that takes longer than this is to a client that stopped reading
NOTSENT_LOWAT = 4096  # bytes the kernel may hold unsent; its default hides 90 s of stale audio (docs/operations.md)
USER_TIMEOUT_MS = 10_000  # unacknowledged data ends the connection after this


class SocketWire:
    """Queues messages and sends them from one task. A client that does not read is disconnected, not waited for."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection  # the WebSocket
        self._waiting: deque[bytes | str] = deque()  # messages not sent yet
        self._wake = asyncio.Event()  # set when there is something to send or to stop for
        self._is_closed = False  # nothing more is taken
        self.is_aborted = False  # the client did not read and was cut off
        self._task: asyncio.Task[None] | None = None  # sends; None before `start`
        _tune(connection.transport.get_extra_info("socket"))

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._send_all(), name="wire")

    def send_audio(self, pcm: bytes) -> None:
        """Queue one chunk of audio."""
        self._put(pcm)

    def send_text(self, message: str) -> None:
        """Queue one JSON message."""
        self._put(message)

    async def close(self, *, drain_s: float = 0.0) -> None:
        """Take nothing more; wait at most `drain_s` for what is queued."""
        self._is_closed = True
        self._wake.set()
        if self._task is not None:
            if drain_s:
                await asyncio.wait({self._task}, timeout=drain_s)
            self._task.cancel()
            await asyncio.wait({self._task})

    def _put(self, message: bytes | str) -> None:
        if self._is_closed:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._abort(f"{MAX_WAITING} messages wait")
            return
        self._waiting.append(message)
        self._wake.set()

    def _abort(self, reason: str) -> None:
        logger.warning("a client does not read ({}); its connection is aborted", reason)
        self._is_closed = self.is_aborted = True
        self._waiting.clear()
        self._connection.transport.abort()

    async def _send_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                try:
                    async with asyncio.timeout(SEND_S):
                        await self._connection.send(self._waiting.popleft())
                except TimeoutError:
                    self._abort(f"a send took more than {SEND_S:.0f} s")
                    return
                except ConnectionClosed:
                    self._is_closed = True
                    return
            if self._is_closed:
                return


def _tune(sock: socket.socket | None) -> None:
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in (("TCP_NOTSENT_LOWAT", NOTSENT_LOWAT), ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS)):
        option = getattr(socket, name, None)
        if option is not None:  # Linux has both, other systems not all
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
