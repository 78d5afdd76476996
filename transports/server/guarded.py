"""`GuardedConnection`: a connection of `websockets` that bounds what a client can make the process do at once.

What that library logs comes into our log at DEBUG, without tracebacks, and never with a header or a message: it is
about clients. Only a fault of our own, which the library catches too, is an error there.
"""

from __future__ import annotations

import asyncio
import logging
from traceback import format_exception
from typing import Any

from loguru import logger
from websockets.asyncio.server import Server, ServerConnection
from websockets.exceptions import WebSocketException
from websockets.http11 import Request
from websockets.protocol import Event, State
from websockets.server import ServerProtocol

from ..access.door import Door
from ..access.flood import Bucket
from ..access.limits import REFUSED, Limits
from ..dialects.protocol import CloseCode
from ..playout.ticker import shared_ticker

READ_BYTES = 2048  # of one client at a time: asyncio's 256 KiB may hold 40,000 tiny frames, half a second of work
MAX_REQUEST_BYTES = 32 * 1024  # of the HTTP request, cookies and all; the library itself would keep a megabyte
BURST_S = 1.5  # frames that may come at once, as a time at the allowed rate
LAST_WORDS_S = 1.0  # until a client that was told to go is dropped


class GuardedConnection(ServerConnection):
    """Enters through a `Door`, reads little at a time, and is closed with 1008 if it floods frames, pings included."""

    def __init__(self, protocol: ServerProtocol, server: Server, *, door: Door, limits: Limits, **options: Any) -> None:
        super().__init__(protocol, server, **options)
        self.address = ""  # the peer's, without the port
        self.has_token = False  # its handshake brought a token, which was taken
        self._door = door
        self._is_in = False  # the door let it in
        self._request_bytes = 0  # received before the WebSocket was open
        rate = limits.frames_per_s
        self._frames = Bucket(capacity=BURST_S * rate, rate_per_s=rate)
        self._ticker = shared_ticker()  # the bot's voices: they come before what anybody sends

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake, or hang up."""
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else "unix"
        self._is_in = self._door.enter(self.address)
        if not self._is_in:
            transport.abort()  # type: ignore[attr-defined] # a socket's transport
            return
        if hasattr(transport, "max_size"):
            transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # what asyncio reads at once
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client."""
        self._ticker.catch_up()  # a hundred clients may have sent something in the same step
        if not self._is_in:
            return
        if self.protocol.state is State.CONNECTING:
            self._request_bytes += len(data)
            if self._request_bytes > MAX_REQUEST_BYTES:
                REFUSED.labels("request_bytes").inc()
                self.transport.abort()
                return
        super().data_received(data)

    def eof_received(self) -> None:
        """The client will send no more."""
        if self._is_in:
            super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        if self._is_in:
            self._door.leave(self.address)
            super().connection_lost(exc)

    def process_event(self, event: Event) -> None:
        """Take one frame, ping or close, or the request."""
        if isinstance(event, Request) or self._frames.takes(1.0, self.loop.time()):
            super().process_event(event)
        elif self.protocol.state is State.OPEN:
            REFUSED.labels("frames").inc()
            self.protocol.fail(CloseCode.POLICY, "too many messages")
            self.send_data()
            self.transport.pause_reading()  # or it would be read, and thrown away, as fast as it comes
            self.loop.call_later(LAST_WORDS_S, self.transport.abort)


# What the library says when a callback of ours has raised. "unexpected internal error" is its own, and some clients
# bring it about.
_OURS = ("process_request failed", "connection handler failed")


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        if record.msg in _OURS and cause is not None and not isinstance(cause, WebSocketException | OSError | EOFError):
            why = "".join(format_exception(cause))  # without the values of variables
            logger.error("websockets: {}: {}", record.getMessage(), why)
        else:
            logger.debug("websockets: {}{}", record.getMessage(), f" ({type(cause).__name__})" if cause else "")


def library_logger() -> logging.Logger:
    """A logger for the server. From INFO on: at DEBUG the library prints headers, tokens among them, and messages."""
    quiet = logging.getLogger("leibniz.websockets")
    if not quiet.handlers:
        quiet.addHandler(_Forward())
        quiet.propagate = False
        quiet.setLevel(logging.INFO)
    return quiet
