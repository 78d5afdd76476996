"""`SendQueue`: a conversation's messages onto a socket, never waiting in the pipeline, never without end."""

from __future__ import annotations

import asyncio
from collections import deque

from loguru import logger

from ..access.limits import REFUSED
from .client_socket import ClientSocket

MAX_WAITING = 256  # messages; a client that reads has a handful, so this one does not
RETRY_S = 0.02  # how soon a client that did not keep up is tried again


class SendQueue:
    """Sends at once, without a task; what a slow client cannot take waits here, in order.

    A client that takes nothing for `send_s`, or has `MAX_WAITING` messages wait, is disconnected, not waited for.
    """

    __slots__ = (
        "_blocked_since",
        "_is_closed",
        "_is_started",
        "_send_s",
        "_socket",
        "_timer",
        "_waiting",
        "is_aborted",
    )

    def __init__(self, socket: ClientSocket, *, send_s: float = 2.0) -> None:
        self.is_aborted = False  # the client did not read and was cut off
        self._socket = socket
        self._send_s = send_s  # a client that takes nothing for longer does not read
        self._waiting: deque[bytes | str] = deque()  # messages not sent yet
        self._timer: asyncio.TimerHandle | None = None  # the next attempt; None while nothing waits
        self._blocked_since: float | None = None  # loop time of the last progress; None while nothing is blocked
        self._is_started = False  # before, messages wait
        self._is_closed = False  # nothing more is taken

    def start(self, *first: str | bytes | None) -> None:
        """Begin to send: `first`, as far as it is anything, ahead of all that waits."""
        self._waiting.extendleft(message for message in reversed(first) if message is not None)
        self._is_started = True
        self._flush()

    def send_audio(self, chunk: str | bytes) -> None:
        """Send one chunk of audio."""
        self._put(chunk)

    def send_text(self, message: str | bytes) -> None:
        """Send one message that is no audio."""
        self._put(message)

    async def close(self, *, drain_s: float = 0.0) -> None:
        """Take nothing more; wait at most `drain_s` for what is queued."""
        self._is_closed = True
        for _ in range(round(drain_s / RETRY_S)):
            if not self._waiting or not self._is_started:
                break
            await asyncio.sleep(RETRY_S)
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _put(self, message: bytes | str) -> None:
        if self._is_closed:
            return
        if self._is_started and not self._waiting and self._socket.try_send(message):
            return
        if len(self._waiting) >= MAX_WAITING:
            self._abort(f"{MAX_WAITING} messages wait")
            return
        self._waiting.append(message)
        if self._is_started and self._timer is None:
            self._try_later()

    def _flush(self) -> None:
        self._timer = None
        while self._waiting and self._socket.try_send(self._waiting[0]):
            self._waiting.popleft()
            self._blocked_since = None
        if self._waiting:
            self._try_later()
        else:
            self._blocked_since = None

    def _try_later(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._blocked_since is None:
            self._blocked_since = now
        if now - self._blocked_since > self._send_s:
            self._abort(f"nothing was taken for {self._send_s:g} s")
        else:
            self._timer = loop.call_later(RETRY_S, self._flush)

    def _abort(self, reason: str) -> None:
        logger.warning("a client does not read ({}); its connection is aborted", reason)
        REFUSED.labels("not_reading").inc()
        self._is_closed = self.is_aborted = True
        self._waiting.clear()
        self._socket.abort()
