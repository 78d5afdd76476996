"""`WebSocketServer`: one port, one pipeline per connection, from a factory `build(session) -> Pipeline`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from loguru import logger
from prometheus_client import Counter, Gauge
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from ..pipeline.errors import ConfigurationError
from ..pipeline.session import Build
from ..pipeline.store import StateStore
from .connection import Connection
from .http import Routes, session_id_of
from .mirror import Mirror
from .protocol import MAX_MESSAGE_BYTES, CloseCode
from .store_memory import MemoryStore

SESSIONS = Gauge("leibniz_sessions", "Conversations going on")
CONNECTIONS = Counter("leibniz_connections", "Conversations begun", ["kind"])
UPTIME = Gauge("leibniz_uptime_seconds", "Since the server was made")
MAX_CONNECTIONS = 512  # open WebSockets; a further one is told 1013 (try again later)
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class WebSocketServer:
    """Serves conversations at `/orchestrate`, and `/`, `/health`, `/metrics` beside them.

    Raises `ConfigurationError` for an address that is not loopback unless `insecure`.
    """

    def __init__(
        self,
        build: Build,
        *,
        host: str = "127.0.0.1",
        port: int = 8004,
        store: StateStore | None = None,
        origins: Sequence[str] = (),
        insecure: bool = False,
        idle_s: float = 30.0,
        lead_ms: float = 60.0,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        if host not in LOOPBACK and not insecure:
            raise ConfigurationError(
                f"host is {host}, which others can reach; there are no tokens yet, so serve on 127.0.0.1 behind a proxy, "
                "or say --insecure"
            )
        self._build = build  # makes the pipeline of a session
        self._host = host
        self._port = port  # 0: any free one
        self._store = store or MemoryStore()  # where conversations survive
        self._mirror = Mirror(self._store)  # writes them there
        self._routes = Routes(origins=origins, health=self.health)
        self._idle_s = idle_s  # silence that ends a session
        self._lead_ms = lead_ms  # how far audio may run ahead of real time
        self._max_connections = max_connections
        self._connections: dict[str, Connection] = {}  # session id -> its one connection
        self._server: Server | None = None  # None until `start`
        self._started = time.monotonic()  # for the uptime
        UPTIME.set_function(lambda: time.monotonic() - self._started)

    async def __aenter__(self) -> WebSocketServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen. Raises OSError if the address is taken."""
        await self._mirror.start()
        self._server = await serve(
            self._serve,
            self._host,
            self._port,
            process_request=self._process_request,
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            ping_interval=5,
            ping_timeout=5,
            close_timeout=1,
            open_timeout=5,
            write_limit=4096,
            max_queue=64,
            server_header=None,
        )

    async def stop(self) -> None:
        """Tell every client to reconnect, end the conversations, write what is unsaved. Idempotent."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close(close_connections=False)
        await asyncio.gather(*(c.close(CloseCode.RESTART, "restart") for c in list(self._connections.values())))
        server.close()
        await server.wait_closed()
        unsaved = await self._mirror.drain(2.0)
        if unsaved:
            logger.warning("{} conversations could not be written to the state store", unsaved)
        await self._mirror.stop()

    async def serve_forever(self) -> None:
        """Return when the server is stopped."""
        if self._server is not None:
            await self._server.wait_closed()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        if self._server is None:
            return self._port
        return next(iter(self._server.sockets)).getsockname()[1]

    @property
    def address(self) -> str:
        """The address of conversations, without a session id."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"ws://{host}:{self.port}/orchestrate"

    def health(self) -> dict[str, Any]:
        """What `/health` answers."""
        return {
            "status": "healthy",
            "service": "orchestrator",
            "active_sessions": len(self._connections),
            "redis_connected": self._store.healthy and not isinstance(self._store, MemoryStore),
            "store": self._store.describe(),
        }

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        return self._routes.answer(request)

    async def _serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        session_id = session_id_of(socket.request.path)
        if len(self._connections) >= self._max_connections:
            await socket.close(CloseCode.FULL, "full")
            return
        older = self._connections.get(session_id)
        connection = Connection(
            socket, session_id, mirror=self._mirror, build=self._build, idle_s=self._idle_s, lead_ms=self._lead_ms
        )
        self._connections[session_id] = connection
        SESSIONS.inc()
        try:
            if older is not None:
                await older.close(CloseCode.TAKEN_OVER, "taken over by a newer connection")
            await connection.run()
        finally:
            SESSIONS.dec()
            CONNECTIONS.labels("resumed" if connection.is_resumed else "new").inc()
            if self._connections.get(session_id) is connection:
                del self._connections[session_id]
