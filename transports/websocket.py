"""`WebSocketServer`: one port, one pipeline per connection, from a factory `build(session) -> Pipeline`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Counts
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from loguru import logger
from prometheus_client import Counter, Gauge, generate_latest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from ..pipeline.errors import ConfigurationError
from ..pipeline.session import Build
from ..pipeline.store import StateStore
from .admission import Door, Origins, TokenGate, subprotocols_in, token_in
from .client_socket import WebSocketsSocket
from .connection import Connection
from .dialect import Dialect, JsonDialect
from .guarded import GuardedConnection
from .http import PIPECAT_PATH, Routes, query_of, refusal, session_id_of
from .library_log import library_logger
from .limits import REFUSED, Limits
from .mirror import Mirror
from .peers import Peers
from .protocol import CloseCode
from .rtvi import RtviDialect
from .spent import SpentTokens
from .store_memory import MemoryStore
from .tokens import TokenKey, TokenRefused
from .turnstile import Turnstiles
from .watchdog import Watchdog

SESSIONS = Gauge("leibniz_sessions", "Conversations going on")
CONNECTIONS = Counter("leibniz_connections", "Conversations begun", ["kind"])
UPTIME = Gauge("leibniz_uptime_seconds", "Since the server was made")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
DRAIN_S = 10.0  # how long a conversation may go on for its turn to be finished, when the server ends
DIALECTS: dict[str, type[Any]] = {dialect.subprotocol: dialect for dialect in (JsonDialect, RtviDialect)}


class WebSocketServer:
    """Serves conversations at `/orchestrate` (and `/pipecat`); `/`, `/health`, `/ready`, `/metrics` beside them.

    `secret`: tokens are asked for, signed with it. Raises `ConfigurationError` for one of less than 32 bytes, and for
    an address that is not loopback without any, unless `insecure`. `peers`: the other workers of this port.
    """

    def __init__(
        self,
        build: Build,
        *,
        host: str = "127.0.0.1",
        port: int = 8004,
        store: StateStore | None = None,
        secret: str | bytes | None = None,
        origins: Sequence[str] = (),
        insecure: bool = False,
        limits: Limits | None = None,
        lead_ms: float = 60.0,
        trust_proxy: bool = False,
        peers: Peers | None = None,
    ) -> None:
        key = TokenKey(secret) if secret else None
        if host not in LOOPBACK and key is None and not insecure:
            raise ConfigurationError(
                f"host is {host}, which others can reach, and there is no secret for tokens: set LEIBNIZ_SECRET "
                "(openssl rand -hex 32), serve on 127.0.0.1, or say --insecure"
            )
        self._build = build  # makes the pipeline of a session
        self._host = host
        self._port = port  # 0: any free one
        self._limits = limits or Limits()
        self._store = store or MemoryStore()  # where conversations survive
        self._mirror = Mirror(self._store)  # writes them there
        self._peers = peers  # the other workers; None for a single process
        self._tokens = TokenGate(key, spent=SpentTokens(ledger=self._store, folder=peers.spent if peers else None))
        self._routes = Routes(
            origins=Origins(origins), health=self._whole_health, metrics=self._metrics, unready=self.unready
        )
        self._lead_ms = lead_ms  # how far audio may run ahead of real time
        self._trust_proxy = trust_proxy  # the address is the last of X-Forwarded-For
        self._door = Door(self._limits, is_behind_proxy=trust_proxy)  # counts sockets
        self._by_address: Counts[str] = Counts()  # WebSockets of each address
        self._turnstiles = Turnstiles()  # space out beginnings, turns and ends
        self._running: set[Connection] = set()  # every connection, from its handshake to its end
        self._connections: dict[str, Connection] = {}  # session id -> its one connection
        self._server: Server | None = None  # None until `start`
        self._watchdog = Watchdog()  # says what blocks the loop
        self._is_draining = False  # no new conversations
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
        if self._peers is not None:
            await self._peers.start(health=self.health, on_taken=self._yield_session)
        try:
            self._server = await self._listen()
        except OSError:
            await self._mirror.stop()
            if self._peers is not None:
                await self._peers.stop()
            raise
        self._watchdog.start()

    async def _listen(self) -> Server:
        return await serve(
            self._serve,
            self._host,
            self._port,
            process_request=self._process_request,
            select_subprotocol=_select_subprotocol,
            create_connection=self._make_connection,  # type: ignore[arg-type]  # any callable will do
            compression=None,
            max_size=self._limits.message_bytes,
            ping_interval=5,
            ping_timeout=5,
            close_timeout=1,
            open_timeout=self._limits.handshake_s,
            write_limit=4096,
            max_queue=64,
            server_header=None,
            logger=library_logger(),
            reuse_port=True if self._peers is not None else None,
        )

    async def stop(self, *, drain_s: float = 0.0) -> None:
        """Tell every client to reconnect, end the conversations, write what is unsaved. Idempotent.

        With `drain_s`, each conversation may finish its turn first, for at most so long; none begins meanwhile.
        """
        if self._server is None:
            return
        self._is_draining = True
        if drain_s and self._running:
            await self._drain(drain_s)
        server, self._server = self._server, None
        server.close(close_connections=False)
        await asyncio.gather(*(c.close(CloseCode.RESTART, "restart") for c in list(self._running)))
        server.close()
        await server.wait_closed()
        unsaved = await self._mirror.drain(2.0)
        if unsaved:
            logger.warning("{} conversations could not be written to the state store", unsaved)
        await self._mirror.stop()
        self._watchdog.stop()
        if self._peers is not None:
            await self._peers.stop()

    async def _drain(self, drain_s: float) -> None:
        logger.info("draining: {} conversations may finish their turn, at most {:.0f} s", len(self._running), drain_s)
        ends = [asyncio.create_task(connection.wait()) for connection in self._running]
        for connection in list(self._running):
            connection.leave(CloseCode.RESTART, "restart")
        _, late = await asyncio.wait(ends, timeout=drain_s)
        for end in late:
            end.cancel()

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
        """What `/health` answers, of this process alone."""
        return {
            "status": "healthy",
            "service": "orchestrator",
            "active_sessions": len(self._connections),
            "redis_connected": self._store.healthy and not isinstance(self._store, MemoryStore),
            "store": self._store.describe(),
            "uptime_seconds": round(time.monotonic() - self._started, 1),
        }

    def unready(self) -> str:
        """Why no further conversation should be sent here; "" while there is room."""
        if self._is_draining:
            return "draining"
        if len(self._running) >= self._limits.connections:
            return "full"
        return "overloaded" if self._watchdog.is_overloaded else ""

    async def _whole_health(self) -> dict[str, Any]:
        return await self._peers.health(self.health()) if self._peers is not None else self.health()

    async def _metrics(self) -> bytes:
        return await self._peers.metrics() if self._peers is not None else generate_latest()

    # -- connections -----------------------------------------------------------------------------------------------

    def _make_connection(self, protocol: Any, server: Server, **options: Any) -> GuardedConnection:
        return GuardedConnection(protocol, server, door=self._door, limits=self._limits, **options)

    async def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        response = await self._routes.answer(request)
        if response is not None:
            return response
        origin = request.headers.get("Origin")
        if self._is_draining:
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, "The server is ending; connect again.", origin)
        is_pipecat = request.path.startswith(PIPECAT_PATH)
        token = token_in(request.headers) or (query_of(request.path, "token") or None if is_pipecat else None)
        if token is not None and not self._tokens.is_open:
            try:
                await self._tokens.admit(token, session_id_of(request.path))
            except TokenRefused as error:
                return refusal(HTTPStatus.UNAUTHORIZED, str(error), origin)
            connection.has_token = True  # type: ignore[attr-defined] # ours: GuardedConnection
        return None

    async def _serve(self, socket: ServerConnection) -> None:
        assert isinstance(socket, GuardedConnection)
        address = self._address_of(socket)
        if len(self._running) >= self._limits.connections:
            REFUSED.labels("full").inc()
            await socket.close(CloseCode.FULL, "full")
            return
        if self._by_address[address] >= self._limits.connections_per_address:
            REFUSED.labels("per_address").inc()
            await socket.close(CloseCode.TOO_MANY, "too many connections from this address")
            return
        connection = self._connection(socket)
        self._running.add(connection)
        self._by_address[address] += 1
        SESSIONS.inc()
        try:
            if self._is_draining:
                connection.leave(CloseCode.RESTART, "restart")
            await connection.run()
        finally:
            SESSIONS.dec()
            self._running.discard(connection)
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
            if connection.is_admitted:
                CONNECTIONS.labels("resumed" if connection.is_resumed else "new").inc()
            if self._connections.get(connection.session_id) is connection:
                del self._connections[connection.session_id]

    def _connection(self, socket: GuardedConnection) -> Connection:
        assert socket.request is not None
        return Connection(
            WebSocketsSocket(socket),
            session_id_of(socket.request.path),
            mirror=self._mirror,
            build=self._build,
            limits=self._limits,
            lead_ms=self._lead_ms,
            dialect=_dialect_of(socket),
            tokens=None if socket.has_token else self._tokens,
            next_token=self._tokens.next,
            on_admitted=self._take_over,
            turnstiles=self._turnstiles,
        )

    async def _take_over(self, connection: Connection) -> None:
        """The newest connection of a session has it; the one before is closed."""
        older = self._connections.get(connection.session_id)
        self._connections[connection.session_id] = connection
        if older is not None:
            await older.close(CloseCode.TAKEN_OVER, "taken over by a newer connection")
        if self._peers is not None:
            await self._peers.take(connection.session_id, connection.began)

    async def _yield_session(self, session_id: str, since: float) -> None:
        """Another worker has a newer connection. (One on another machine is noticed at the next write.)"""
        ours = self._connections.get(session_id)
        if ours is not None and ours.began < since:
            await ours.close(CloseCode.TAKEN_OVER, "taken over by a newer connection")

    def _address_of(self, socket: GuardedConnection) -> str:
        assert socket.request is not None
        if self._trust_proxy:
            forwarded = ",".join(socket.request.headers.get_all("X-Forwarded-For"))
            return forwarded.rpartition(",")[2].strip() or socket.address
        return socket.address


def _select_subprotocol(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The client's favourite among ours; a token is never repeated."""
    return next((name for name in offered if name in DIALECTS), None)


def _dialect_of(socket: ServerConnection) -> Dialect:
    assert socket.request is not None
    if socket.request.path.startswith(PIPECAT_PATH):
        return RtviDialect()
    offered = subprotocols_in(socket.request.headers)
    return DIALECTS[next((name for name in offered if name in DIALECTS), JsonDialect.subprotocol)]()
