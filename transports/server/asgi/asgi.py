"""`AsgiApp`: the same conversations inside somebody else's program, mounted in FastAPI, Starlette or any ASGI server.

    voice = AsgiApp(build)
    app = FastAPI(lifespan=voice.lifespan)
    app.mount("/voice", voice)          ws://HOST/voice/orchestrate?session_id=ID, console at /voice/

It needs none of these packages itself: the protocol is https://asgi.readthedocs.io/en/latest/specs/www.html.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from ....pipeline.conversation.store import StateStore
from ....pipeline.session import Build
from ...access.limits import Limits
from ...access.token_key import TokenKey
from ..entrances import arrival_of, subprotocol_of
from ..handshake import Handshake
from ..host import ConversationHost
from ..http_routes import refusal
from .asgi_socket import AsgiSocket, Receive, Send

LOOPBACK = ("127.0.0.1", "::1")
WITHOUT_SECRET = (
    "This server has no secret for tokens, so it takes loopback clients only: give AsgiApp a secret, or insecure=True."
)


class AsgiApp:
    """Serves what `WebSocketServer` does, below wherever it is mounted. Hosts conversations inside `async with`.

    `secret`: tokens are asked for, signed with it. Raises `ConfigurationError` for one of less than 32 bytes. Without
    one only clients on this machine are served, unless `insecure`. (Behind a proxy all seem to be: give a secret.)
    Compression, pings and buffers are the ASGI server's own: see docs/operations.md.
    """

    def __init__(
        self,
        build: Build,
        *,
        store: StateStore | None = None,
        secret: str | bytes | None = None,
        origins: Sequence[str] = (),
        insecure: bool = False,
        limits: Limits | None = None,
        lead_ms: float = 60.0,
    ) -> None:
        key = TokenKey(secret) if secret else None
        self._limits = limits or Limits()
        self._takes_all = insecure or key is not None  # else loopback only
        self._conversations = ConversationHost(build, store=store, key=key, limits=self._limits, lead_ms=lead_ms)
        self._handshake = Handshake(self._conversations, origins=origins, trusts_host=self._takes_all)
        self._is_started = False  # between start and stop

    async def __aenter__(self) -> AsgiApp:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """For `FastAPI(lifespan=...)` and its like."""
        async with self:
            yield

    async def start(self) -> None:
        """Before the first client."""
        await self._conversations.start()
        self._is_started = True

    async def stop(self, *, drain_s: float = 0.0) -> None:
        """End all conversations, after their turn if `drain_s` allows; clients are told to reconnect. Idempotent."""
        if not self._is_started:
            return
        self._is_started = False
        await self._conversations.drain(drain_s)
        await self._conversations.close_all()
        await self._conversations.stop()

    def health(self) -> dict[str, Any]:
        """What `/health` answers."""
        return self._conversations.health()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request. Raises `RuntimeError` before `start`: a server answers it with a 500."""
        if scope["type"] not in ("http", "websocket"):
            raise RuntimeError(f"AsgiApp answers http and websocket, not {scope['type']}; start it in your lifespan")
        if not self._is_started:
            raise RuntimeError("AsgiApp is not started: `async with` it in your application's lifespan")
        request = _request_of(scope)
        client = (scope.get("client") or ("unix", 0))[0]
        if self._takes_all or client in LOOPBACK:
            response, has_token = await self._handshake.answer(request, client)
        else:
            response, has_token = refusal(HTTPStatus.UNAUTHORIZED, WITHOUT_SECRET), False
        if scope["type"] == "http":
            if response is None or scope["method"] not in ("GET", "HEAD"):
                response = refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET is answered here.")
            await _respond(send, response, "http")
        elif response is not None:
            await receive()  # the server's `websocket.connect`
            await self._refuse(scope, send, response)
        else:
            await receive()
            await self._converse(scope, receive, send, request, client, has_token)

    async def _refuse(self, scope: MutableMapping[str, Any], send: Send, response: Response) -> None:
        if "websocket.http.response" in (scope.get("extensions") or {}):
            await _respond(send, response, "websocket.http")
        else:  # the server can only say 403
            await send({"type": "websocket.close", "code": 1008, "reason": ""})

    async def _converse(
        self,
        scope: MutableMapping[str, Any],
        receive: Receive,
        send: Send,
        request: Request,
        client: str,
        has_token: bool,
    ) -> None:
        await send({"type": "websocket.accept", "subprotocol": subprotocol_of(scope.get("subprotocols") or ())})
        socket = AsgiSocket(receive, send, limits=self._limits)
        try:
            await self._conversations.host(
                socket, arrival_of(request.path, request.headers), address=client, has_token=has_token
            )
        finally:
            socket.abort()


def _request_of(scope: MutableMapping[str, Any]) -> Request:
    """The request as it would look below the place where the application is mounted."""
    root, path = scope.get("root_path") or "", scope["path"]
    below = path.removeprefix(root) if path.startswith(root) else path
    query = scope.get("query_string", b"").decode("latin-1")
    headers = Headers()
    for name, value in scope["headers"]:
        headers[name.decode("latin-1").title()] = value.decode("latin-1")
    headers.pop("Upgrade", None)
    if scope["type"] == "websocket":
        headers["Upgrade"] = "websocket"  # HTTP/2 has no such header, and a plain request no use for it
    return Request((below or "/") + (f"?{query}" if query else ""), headers)


async def _respond(send: Send, response: Response, prefix: str) -> None:
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.raw_items()
    ]
    kept = [(name, value) for name, value in headers if name != b"connection"]  # HTTP/2 forbids it
    await send({"type": f"{prefix}.response.start", "status": response.status_code, "headers": kept})
    await send({"type": f"{prefix}.response.body", "body": bytes(response.body or b"")})
