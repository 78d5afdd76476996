"""`ConversationHost`: all conversations of a process, whatever server their sockets belong to.

A client is let in within the limits, its session belongs to its newest connection, and at the end everybody may finish
the turn and is told to reconnect.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Counts
from typing import Any

from loguru import logger
from prometheus_client import Counter, Gauge

from ...pipeline.conversation.store import StateStore
from ...pipeline.errors import ProtocolError
from ...pipeline.session import Build
from ..access.limits import REFUSED, Limits
from ..access.token_gate import SpentTokens, TokenGate
from ..access.token_key import TokenKey
from ..dialects.protocol import CloseCode
from ..state.memory_store import MemoryStore
from ..state.mirror import Mirror
from ..state.redis_store import RedisStore
from .client_socket import ClientGone, ClientSocket
from .connection import Connection
from .entrances import Arrival
from .load_shaping import LoadShaping
from .peers import Peers, exposition
from .watchdog import Watchdog

SESSIONS = Gauge("leibniz_sessions", "Conversations going on")
CONNECTIONS = Counter("leibniz_connections", "Conversations begun", ["kind"])
UPTIME = Gauge("leibniz_uptime_seconds", "Since the server was made")


class ConversationHost:
    """Hosts conversations between `start` and `stop`. `key`: tokens are asked for; `peers`: the other workers."""

    def __init__(
        self,
        build: Build,
        *,
        store: StateStore | None = None,
        key: TokenKey | None = None,
        limits: Limits | None = None,
        lead_ms: float = 60.0,
        peers: Peers | None = None,
    ) -> None:
        self.is_draining = False  # no new conversations
        self._build = build  # makes the pipeline of a session
        self._store = store or MemoryStore()  # where conversations survive
        self._mirror = Mirror(self._store)  # writes them there
        self._limits = limits or Limits()
        spent = SpentTokens(ledger=self._store, folder=peers.spent if peers else None)
        self.tokens = TokenGate(key, spent=spent, session_s=self._limits.session_s)
        self._lead_ms = lead_ms  # how far audio may run ahead of real time
        self._peers = peers  # the other workers; None for a single process
        self._places = 0  # WebSockets, those included whose call is not answered yet
        self._by_address: Counts[str] = Counts()  # of each address
        self._load_shaping = LoadShaping()  # space out beginnings, turns and ends
        self._running: set[Connection] = set()  # every connection, from its handshake to its end
        self._connections: dict[str, Connection] = {}  # session id -> its one connection
        self._watchdog = Watchdog()  # says what blocks the loop
        self._started = time.monotonic()  # for the uptime
        UPTIME.set_function(lambda: time.monotonic() - self._started)

    async def start(self) -> None:
        """Before the first client."""
        await self._mirror.start()
        if self._peers is not None:
            await self._peers.start(health=self.health, on_taken=self._yield_session)
        self._watchdog.start()

    async def drain(self, drain_s: float) -> None:
        """Let each conversation finish its turn, for at most so long, and let none begin."""
        self.is_draining = True
        if not drain_s or not self._running:
            return
        logger.info("draining: calls that may finish their turn: {}, at most {:.0f} s", len(self._running), drain_s)
        ends = [asyncio.create_task(connection.wait()) for connection in self._running]
        for connection in list(self._running):
            connection.leave(CloseCode.RESTART, "restart")
        _, late = await asyncio.wait(ends, timeout=drain_s)
        for end in late:
            end.cancel()

    async def close_all(self) -> None:
        """Tell every client to reconnect, and end the conversations."""
        self.is_draining = True
        await asyncio.gather(*(c.close(CloseCode.RESTART, "restart") for c in list(self._running)))

    async def stop(self) -> None:
        """After the last client: write what is unsaved."""
        unsaved = await self._mirror.drain(2.0)
        if unsaved:
            logger.warning("{} conversations could not be written to the state store", unsaved)
        await self._mirror.stop()
        self._watchdog.stop()
        if self._peers is not None:
            await self._peers.stop()

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
        if self.is_draining:
            return "draining"
        if self._places >= self._limits.connections:
            return "full"
        return "overloaded" if self._watchdog.is_overloaded else ""

    async def whole_health(self) -> dict[str, Any]:
        """`health` of all workers, now."""
        if isinstance(self._store, RedisStore):
            await self._store.ping()  # nobody may have asked it anything for hours
        return await self._peers.health(self.health()) if self._peers is not None else self.health()

    async def metrics(self) -> bytes:
        """What `/metrics` answers, of all workers: Prometheus' text format."""
        return await self._peers.metrics() if self._peers is not None else await exposition()

    def crowded(self, address: str) -> CloseCode | None:
        """The close code that a further client of `address` would get now; None while there is room for it."""
        if self._places >= self._limits.connections:
            return CloseCode.FULL
        is_too_many = self._by_address[address] >= self._limits.connections_per_address
        return CloseCode.TOO_MANY if is_too_many else None

    async def host(self, socket: ClientSocket, arrival: Arrival, *, address: str, has_token: bool = False) -> None:
        """Host one client's conversation to its end; close the socket at once if there is no room for it.

        `has_token`: its token was taken before; else its `hello` must bring one, where one is needed.
        """
        crowded = self.crowded(address)
        if crowded is not None:
            REFUSED.labels("full" if crowded is CloseCode.FULL else "per_address").inc()
            await socket.close(
                crowded, "full" if crowded is CloseCode.FULL else "too many connections from this address"
            )
            return
        self._places += 1
        self._by_address[address] += 1
        try:
            await self._host(socket, arrival, has_token)
        finally:
            self._places -= 1
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    async def _host(self, socket: ClientSocket, arrival: Arrival, has_token: bool) -> None:
        session_id = arrival.session_id
        if arrival.answer is not None:
            try:
                socket, session_id = await arrival.answer(socket, self._limits.hello_s)
            except ClientGone:
                return
            except ProtocolError as error:
                REFUSED.labels("call").inc()
                await socket.close(CloseCode.POLICY, error.message)
                return
        connection = Connection(
            socket,
            session_id,
            mirror=self._mirror,
            build=self._build,
            limits=self._limits,
            lead_ms=self._lead_ms,
            dialect=arrival.dialect,
            tokens=None if has_token else self.tokens,
            next_token=self.tokens.next,
            on_admitted=self._take_over,
            load_shaping=self._load_shaping,
        )
        self._running.add(connection)
        SESSIONS.inc()
        try:
            if self.is_draining:
                connection.leave(CloseCode.RESTART, "restart")
            await connection.run()
        finally:
            SESSIONS.dec()
            self._running.discard(connection)
            if connection.has_begun:
                CONNECTIONS.labels("resumed" if connection.is_resumed else "new").inc()
            if self._connections.get(connection.session_id) is connection:
                del self._connections[connection.session_id]

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
