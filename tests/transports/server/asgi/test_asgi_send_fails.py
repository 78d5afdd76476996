"""What an ASGI server's `send` raises: for a client that has gone it is nothing, and anything else comes to the log."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from leibniz_voice.transports import AsgiApp
from tests.support.asgi_serving import joined, listening
from tests.support.serving import bot, until
from tests.support.troubles import logged_troubles

FORMAT = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
CALL = (  # a telephone call, and a second of silence in it
    json.dumps({"event": "start", "start": {"callSid": "CA1", "mediaFormat": FORMAT}}),
    json.dumps({"event": "media", "media": {"payload": base64.b64encode(b"\xff" * 8000).decode()}}),
)


@pytest.fixture
def troubles() -> Iterator[list[str]]:
    with logged_troubles() as lines:
        yield lines


class WebSocketDisconnect(Exception):
    """Starlette's, which is no `OSError`."""


class AsgiServer:
    """An ASGI server's side of one WebSocket: its `send` raises `error` for the first message of type `kind`.

    The client says `texts`. `is_told`: `receive` says after the error that it has gone; else it stays.
    """

    def __init__(
        self,
        error: Exception,
        *,
        kind: str = "websocket.send",
        texts: tuple[str, ...] = (),
        is_told: bool = False,
    ) -> None:
        said = [{"type": "websocket.receive", "text": text} for text in texts]
        self._coming = deque([{"type": "websocket.connect"}, *said])
        self._error = error
        self._kind = kind
        self._is_told = is_told
        self._has_failed = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self._coming:
            return self._coming.popleft()
        await self._has_failed.wait()
        if not self._is_told:
            await asyncio.Event().wait()
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(self, message: Any) -> None:
        if message["type"] == self._kind:
            self._has_failed.set()
            raise self._error


async def converse(voice: AsgiApp, server: AsgiServer, path: str = "/orchestrate") -> None:
    """Serve one client to its end."""
    query = b"session_id=s1" if path == "/orchestrate" else b""
    scope = {"type": "websocket", "path": path, "query_string": query, "headers": [], "client": ("127.0.0.1", 5)}
    async with asyncio.timeout(5):
        await voice(scope, server.receive, server.send)
    assert voice.health()["active_sessions"] == 0


@pytest.mark.parametrize(
    ("error", "is_told"),
    [
        (OSError("a subclass of it, since ASGI 2.4"), False),
        (ConnectionResetError("gone"), False),
        (RuntimeError("Unexpected ASGI message 'websocket.send', after sending 'websocket.close'"), True),  # uvicorn
        (WebSocketDisconnect(1006), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_client_that_has_gone_is_no_trouble(troubles: list[str], error: Exception, is_told: bool) -> None:
    async def main() -> None:
        async with AsgiApp(bot("echo.py").build) as voice:
            await converse(voice, AsgiServer(error, is_told=is_told))

    asyncio.run(main())
    assert troubles == []


@pytest.mark.parametrize(
    ("path", "texts", "session"),
    [("/orchestrate", (), "s1"), ("/twilio", CALL, "CA1")],
    ids=["named by its address", "named by its first message"],
)
def test_any_other_error_is_logged_with_its_session_and_ends_it(
    troubles: list[str], path: str, texts: tuple[str, ...], session: str
) -> None:
    async def main() -> None:
        async with AsgiApp(bot("echo.py").build) as voice:
            await converse(voice, AsgiServer(TypeError("a bug in a middleware"), texts=texts), path)

    asyncio.run(main())
    assert len(troubles) == 1
    assert troubles[0].startswith(f"session {session}: its connection failed: Traceback")
    assert "TypeError: a bug in a middleware" in troubles[0]


def test_an_error_of_the_close_is_logged_too(troubles: list[str]) -> None:
    async def main() -> None:
        async with AsgiApp(bot("echo.py").build) as voice:
            server = AsgiServer(TypeError("a bug in a middleware"), kind="websocket.close")
            serving = asyncio.create_task(converse(voice, server))
            while not voice.health()["active_sessions"]:
                await asyncio.sleep(0.01)
            await voice.stop()
            await serving

    asyncio.run(main())
    assert len(troubles) == 1
    assert "session s1: its connection failed" in troubles[0]


def wrapped(app: Any, fails_at: int) -> Any:
    """A middleware with a bug: it cannot send the message of that number."""

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        sent = 0

        async def counting(message: Any) -> None:
            nonlocal sent
            sent += 1
            if sent == fails_at:
                raise KeyError("missing")
            await send(message)

        await app(scope, receive, counting if scope["type"] == "websocket" else send)

    return middleware


async def say_until_closed(socket: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        while True:
            await socket.send(bytes(640))
            await asyncio.sleep(0.02)


@pytest.mark.slow
def test_a_broken_middleware_ends_the_conversation_in_a_real_server(troubles: list[str]) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra `fastapi`")

    async def main() -> None:
        async with (
            AsgiApp(bot("echo.py").build) as voice,
            listening(wrapped(voice, fails_at=4)) as host,
            joined(host, path="/orchestrate") as socket,
        ):
            await until(socket, type="ready")
            async with asyncio.timeout(5):
                await say_until_closed(socket)
            assert voice.health()["active_sessions"] == 0

    asyncio.run(main())
    assert len(troubles) == 1
    assert "session s1: its connection failed" in troubles[0]
    assert "KeyError" in troubles[0]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["close", "abort"])
def test_a_client_that_leaves_while_the_bot_speaks_is_no_trouble_for_a_real_server(
    troubles: list[str], how: str
) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra `fastapi`")

    async def main() -> None:
        async with AsgiApp(bot("echo.py").build) as voice, listening(voice) as host:
            for _ in range(5):
                async with joined(host, path="/orchestrate") as socket:
                    await until(socket, type="ready")
                    await socket.send(bytes(32_000))
                    while not isinstance(await socket.recv(), bytes):
                        pass
                    if how == "abort":
                        socket.transport.abort()
                async with asyncio.timeout(5):
                    while voice.health()["active_sessions"]:
                        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert troubles == []
