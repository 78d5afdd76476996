"""`AsgiSocket`: a conversation's WebSocket in an ASGI server, as a `ClientSocket`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from loguru import logger

from ...access.flood import Bucket
from ...access.limits import REFUSED, Limits
from ...dialects.protocol import CloseCode
from ..client_socket import ClientGone
from ..guarded import BURST_S

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_UNSENT = 8  # messages handed to the server and not taken; with 20 ms of audio each, 5 KiB
CLOSE_S = 1.0  # for what was said before, and the close itself
TOLD_S = 0.2  # for the server to say that the client has gone, once it cannot send


class AsgiSocket:
    """Sends by a task of its own, as an ASGI server's `send` may wait; ends with the connection.

    The server decides how much it and the kernel buffer for a client that does not read: up to a minute of audio, where
    `WebSocketServer` allows 4 s. Such a client is dropped by its silence only.
    """

    def __init__(self, receive: Receive, send: Send, *, limits: Limits) -> None:
        self.failure: Exception | None = None  # see `ClientSocket.failure`
        self._receive = receive
        self._send = send
        self._limits = limits
        self._frames = Bucket(capacity=BURST_S * limits.frames_per_s, rate_per_s=limits.frames_per_s)
        self._unsent: deque[Message] = deque()  # at most MAX_UNSENT
        self._is_unsent = asyncio.Event()  # something waits
        self._gone = asyncio.get_running_loop().create_future()  # done: nothing more comes or goes
        self._coming: asyncio.Future[Message] | None = None  # the next message; kept when whoever waits is cancelled
        self._closing: asyncio.Task[None] | None = None  # says goodbye; None until somebody wants to
        self._sender = asyncio.create_task(self._send_all(), name="asgi socket")

    async def receive(self) -> str | bytes:
        """See `ClientSocket.receive`."""
        coming = self._ask()
        await asyncio.wait({coming, self._gone}, return_when=asyncio.FIRST_COMPLETED)
        if self._gone.done():
            raise ClientGone
        self._coming = None
        message = coming.result()
        if message["type"] != "websocket.receive":
            self._leave()
            raise ClientGone
        text = message.get("text")
        return await self._checked(message.get("bytes") or b"" if text is None else text)

    def _ask(self) -> asyncio.Future[Message]:
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._receive())
        return self._coming

    async def _checked(self, message: str | bytes) -> str | bytes:
        if not self._frames.takes(1.0, asyncio.get_running_loop().time()):
            REFUSED.labels("frames").inc()
            await self.close(CloseCode.POLICY, "too many messages")
            raise ClientGone
        if len(message) > self._limits.message_bytes:
            REFUSED.labels("message_bytes").inc()
            await self.close(CloseCode.TOO_LARGE, f"a message may have {self._limits.message_bytes} bytes")
            raise ClientGone
        return message

    async def is_reading(self) -> bool:
        """See `ClientSocket.is_reading`: an application cannot ping."""
        return True

    def try_send(self, message: str | bytes) -> bool:
        """See `ClientSocket.try_send`."""
        if len(self._unsent) >= MAX_UNSENT and not self._gone.done():
            return False
        if not self._gone.done() and self._closing is None:
            self._unsent.append({"type": "websocket.send", "text" if isinstance(message, str) else "bytes": message})
            self._is_unsent.set()
        return True

    async def close(self, code: int, reason: str) -> None:
        """See `ClientSocket.close`."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(int(code), reason), name="asgi close")
        await asyncio.wait({self._closing})

    async def _close(self, code: int, reason: str) -> None:
        if not self._gone.done():
            self._unsent.append({"type": "websocket.close", "code": code, "reason": reason})
            self._is_unsent.set()
            await asyncio.wait({self._sender}, timeout=CLOSE_S)
        self.abort()

    def _leave(self) -> None:
        if not self._gone.done():
            self._gone.set_result(None)

    def abort(self) -> None:
        """See `ClientSocket.abort`: the application returns, and the server drops what is left."""
        self._leave()
        self._unsent.clear()
        self._sender.cancel()
        if self._coming is not None:
            self._coming.cancel()

    async def _send_all(self) -> None:
        try:
            while True:
                while self._unsent:
                    message = self._unsent[0]
                    await self._send(message)
                    self._unsent.popleft()
                    if message["type"] == "websocket.close":
                        return
                self._is_unsent.clear()
                await self._is_unsent.wait()
        except OSError as error:  # what servers raise, since ASGI 2.4, when the client has gone
            logger.debug("the client of an ASGI server has gone: {!r}", error)
        except Exception as error:  # top of a task, and middleware may raise anything: kept for the session's log
            if await self._is_told():
                logger.debug("the client of an ASGI server has gone, so it cannot send: {!r}", error)
            else:
                self.failure = error
        finally:
            self._leave()

    async def _is_told(self) -> bool:
        """Whether the server says that the client has gone. Then it may refuse to send, as uvicorn, in its own way."""
        coming = self._ask()
        await asyncio.wait({coming, self._gone}, timeout=TOLD_S, return_when=asyncio.FIRST_COMPLETED)
        if self._gone.done() or not coming.done():
            return self._gone.done()
        return coming.exception() is None and coming.result()["type"] == "websocket.disconnect"
