"""How a client gets through a server's door: its address, the handshake, `hello` and `ready`, and why it may fail."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from ...pipeline.errors import ConfigurationError, LeibnizError
from ..dialects.protocol import MAX_MESSAGE_BYTES, is_session_id

PATH = "/orchestrate"
OPEN_S = 5.0  # handshake and `ready` together
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class ConnectionFailed(LeibnizError):
    """The server cannot be reached, refuses, or has ended the session; the message says which."""


def address_of(url: str, session_id: str | None = None) -> tuple[str, str]:
    """Return (address without query, session id) from what a person may type. Raises `ConfigurationError`.

    `127.0.0.1:8004`, `http://host/`, `ws://host/orchestrate?session_id=x` are all understood; without a session id
    a new one is made.
    """
    text = url.strip() if "://" in url else f"ws://{url.strip()}"
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for what is no port
    except ValueError as error:
        raise ConfigurationError(f"{url!r} is no address: {error}") from error
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise ConfigurationError(f"{url!r} is no address such as ws://127.0.0.1:8004")
    path = quote(parts.path, safe="/%") if parts.path not in ("", "/") else PATH
    if session_id is None:
        session_id = parse_qs(parts.query).get("session_id", [None])[0] or f"py-{secrets.token_hex(6)}"
    if not is_session_id(session_id):
        raise ConfigurationError(f"the session id is {session_id!r}; give 1 to 64 letters, digits, '_' or '-'")
    return f"{scheme}://{parts.netloc}{path}", session_id


async def open_socket(url: str, session_id: str, hello: str) -> tuple[ClientConnection, dict[str, Any]]:
    """Connect, say `hello`; return the socket and the server's `ready`. Raises `ConnectionFailed`."""
    socket = None
    try:
        async with asyncio.timeout(OPEN_S):
            socket = await connect(
                f"{url}?session_id={session_id}",
                compression=None,
                max_size=MAX_MESSAGE_BYTES,
                ping_interval=5,
                ping_timeout=5,
                close_timeout=1,
                proxy=None if urlsplit(url).hostname in LOOPBACK else True,
            )
            await socket.send(hello)
            return socket, _ready(url, decode(await socket.recv()))
    except BaseException as error:
        if socket is not None:
            socket.transport.abort()
            await socket.wait_closed()
        failure = _failure(url, error)
        if failure is None:
            raise
        raise failure from error


def _ready(url: str, message: dict[str, Any]) -> dict[str, Any]:
    if message.get("type") == "error":
        raise ConnectionFailed(f"{url} refuses: {message.get('message')}")
    if message.get("type") != "ready":
        raise ConnectionFailed(f"{url} is no Leibniz server: its first message is not `ready`")
    return message


def _failure(url: str, error: BaseException) -> ConnectionFailed | None:
    """Say in one sentence what went wrong; None for what is not the connection's fault."""
    match error:
        case InvalidStatus():
            sentence = (error.response.body or b"").decode(errors="replace").strip().partition("\n")[0]
            status = error.response.status_code
            is_other = status in (403, 404) and not url.rstrip("/").endswith(PATH)
            hint = f"; the endpoint of a mounted app is {url.rstrip('/')}{PATH}" if is_other else ""
            return ConnectionFailed(f"{url} refuses: HTTP {status} {sentence[:200]}".rstrip() + hint)
        case ConnectionClosed():
            return closed(error)
        case TimeoutError():  # before OSError, which it is too
            return ConnectionFailed(f"{url} does not answer within {OPEN_S:.0f} s")
        case InvalidURI():
            return ConnectionFailed(f"{url} is no WebSocket address")
        case ConnectionRefusedError():
            return ConnectionFailed(f"nothing listens at {url}")
        case OSError():
            return ConnectionFailed(f"{url} cannot be reached: {error.strerror or error}")
        case InvalidHandshake() | EOFError():
            return ConnectionFailed(f"{url} does not speak WebSocket: {error}")
    return None


def closed(error: ConnectionClosed) -> ConnectionFailed:
    """Say why a connection ended."""
    return closed_with(error.rcvd.code, error.rcvd.reason) if error.rcvd else closed_with(None, None)


def closed_with(code: int | None, reason: str | None) -> ConnectionFailed:
    """Say why a connection ended, from its close frame; (None, None) where there was none."""
    if code in (None, 1006):
        return ConnectionFailed("the connection was lost")
    return ConnectionFailed(f"the server ended the conversation: {reason or 'no reason given'} ({code})")


def decode(message: str | bytes) -> dict[str, Any]:
    """Return a message's fields; {} for what is no JSON object."""
    try:
        fields = json.loads(message)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}
