"""`WebSocketServer`: one port, one pipeline per connection, from a factory `build(session) -> Pipeline`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from ...pipeline.conversation.store import StateStore
from ...pipeline.errors import ConfigurationError
from ...pipeline.session import Build
from ..access.door import Door
from ..access.limits import Limits
from ..access.token_key import TokenKey
from ..playout.ticker import shared_ticker
from .client_socket import WebSocketsSocket
from .entrances import arrival_of, subprotocol_of
from .guarded import GuardedConnection, library_logger
from .handshake import Handshake
from .host import ConversationHost
from .peers import Peers

LOOPBACK = ("127.0.0.1", "localhost", "::1")
DRAIN_S = 10.0  # how long a conversation may go on for its turn to be finished, when the server ends


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
        self._host = host
        self._port = port  # 0: any free one
        self._limits = limits or Limits()
        self._is_shared = peers is not None  # other workers listen on the port too
        self._conversations = ConversationHost(
            build, store=store, key=key, limits=self._limits, lead_ms=lead_ms, peers=peers
        )
        self._handshake = Handshake(self._conversations, origins=origins, trusts_host=insecure or key is not None)
        self._trust_proxy = trust_proxy  # the address is the last of X-Forwarded-For
        self._door = Door(self._limits, is_behind_proxy=trust_proxy)  # counts sockets
        self._server: Server | None = None  # None until `start`

    async def __aenter__(self) -> WebSocketServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen. Raises OSError if the address is taken."""
        await self._conversations.start()
        try:
            self._server = await self._listen()
        except OSError:
            await self._conversations.stop()
            raise

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
            reuse_port=self._is_shared or None,
        )

    async def stop(self, *, drain_s: float = 0.0) -> None:
        """Tell every client to reconnect, end the conversations, write what is unsaved. Idempotent.

        With `drain_s`, each conversation may finish its turn first, for at most so long; none begins meanwhile.
        """
        if self._server is None:
            return
        await self._conversations.drain(drain_s)
        server, self._server = self._server, None
        server.close(close_connections=False)
        await self._conversations.close_all()
        server.close()
        await server.wait_closed()
        await self._conversations.stop()

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
        return self._conversations.health()

    def unready(self) -> str:
        """Why no further conversation should be sent here; "" while there is room."""
        return self._conversations.unready()

    # -- connections -----------------------------------------------------------------------------------------------

    def _make_connection(self, protocol: Any, server: Server, **options: Any) -> GuardedConnection:
        return GuardedConnection(protocol, server, door=self._door, limits=self._limits, **options)

    async def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        shared_ticker().catch_up()  # a hundred may ask in the same step
        assert isinstance(connection, GuardedConnection)
        response, connection.has_token = await self._handshake.answer(request, self._address_of(connection, request))
        return response

    async def _serve(self, socket: ServerConnection) -> None:
        assert isinstance(socket, GuardedConnection)
        assert socket.request is not None
        await self._conversations.host(
            WebSocketsSocket(socket),
            arrival_of(socket.request.path, socket.request.headers),
            address=self._address_of(socket, socket.request),
            has_token=socket.has_token,
        )

    def _address_of(self, socket: GuardedConnection, request: Request) -> str:
        if self._trust_proxy:
            forwarded = ",".join(request.headers.get_all("X-Forwarded-For"))
            return forwarded.rpartition(",")[2].strip() or socket.address
        return socket.address


def _select_subprotocol(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Any:
    return subprotocol_of(offered)
