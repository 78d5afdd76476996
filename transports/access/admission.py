"""Who may come in: sockets by address, WebSockets by origin and token. No I/O but the token ledger's."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from websockets.datastructures import Headers

from ...pipeline.errors import ConfigurationError
from .limits import REFUSED, Limits
from .spent import SpentTokens
from .token_key import MAX_S, NEXT_S, TokenKey, TokenRefused

TOKEN_PREFIX = "token."  # of the subprotocol that carries a token, as browsers can set no other header
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")


class TokenGate:
    """Checks a connection's token, uses it up, and mints the next one. Without a key everybody may come in.

    `session_s` is how long a connection lasts at most: the next token is good for that and an hour more.
    """

    def __init__(
        self,
        key: TokenKey | None,
        *,
        spent: SpentTokens | None = None,
        session_s: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._next_s = min(session_s + NEXT_S, MAX_S)  # lifetime of the next token
        self._key = key  # None: no tokens are asked for
        self._spent = SpentTokens(clock=clock) if spent is None else spent  # an empty one is false
        self._clock = clock  # unix seconds

    @property
    def is_open(self) -> bool:
        """Whether no token is needed."""
        return self._key is None

    async def admit(self, token: str | None, session_id: str) -> None:
        """Take the token. Raises `TokenRefused`, counted, for one that is missing, wrong or used."""
        if self._key is None:
            return
        try:
            if token is None:
                raise TokenRefused("A token is needed; `leibniz token SESSION` makes one.")
            await self._spent.take(self._key.check(token, session_id, now=self._clock()))
        except TokenRefused:
            REFUSED.labels("token").inc()
            raise

    def next(self, session_id: str) -> str | None:
        """A token for the session's next connection; None where none is needed."""
        if self._key is None:
            return None
        return self._key.mint(session_id, now=self._clock(), lifetime_s=self._next_s)


def token_in(headers: Headers) -> str | None:
    """The token of the Authorization header, else of the subprotocols; None if there is none."""
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    for name in subprotocols_in(headers):
        if name.startswith(TOKEN_PREFIX):
            return name.removeprefix(TOKEN_PREFIX)
    return None


def subprotocols_in(headers: Headers) -> list[str]:
    """The subprotocols that a client offers, its favourite first."""
    return [name.strip() for line in headers.get_all("Sec-WebSocket-Protocol") for name in line.split(",")]


class Origins:
    """Exact origins that may talk to the server, besides its own and loopback; `*` is all.

    A server that anybody on this machine may talk to (not `trusts_host`) takes for its own only an address, no name: a
    page of evil.example could have its name resolved to 127.0.0.1, and would then be of the server's own origin.
    Raises `ConfigurationError` for what no browser would ever send as an origin.
    """

    def __init__(self, allowed: Sequence[str] = (), *, trusts_host: bool = True) -> None:
        self._allowed = frozenset(map(_as_browsers_say, allowed))
        self._trusts_host = trusts_host  # tokens are asked for, or nobody minds

    def allows(self, origin: str, host: str) -> bool:
        """Whether a browser page of `origin` may talk to this server, reached as `host`."""
        if "*" in self._allowed or origin in self._allowed:
            return True
        try:
            parts = urlsplit(origin)
            name = parts.hostname
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or name is None:
            return False
        return name in _LOOPBACK or (parts.netloc == host and (self._trusts_host or _is_address(name)))


def _as_browsers_say(origin: str) -> str:
    """A listed origin as browsers spell it: lower case, no slash at the end, no port that goes without saying."""
    if origin in ("*", "null"):
        return origin
    parts = urlsplit(origin.lower())
    is_origin = parts.scheme and parts.hostname and parts.path in ("", "/") and not (parts.query or parts.fragment)
    if not is_origin or "@" in parts.netloc:
        raise ConfigurationError(f"{origin!r} is no origin; write scheme and host, as in https://shop.example, or *")
    return f"{parts.scheme}://{parts.netloc.removesuffix(_DEFAULT_PORTS.get(parts.scheme, ''))}"


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class Door:
    """Counts sockets, of any kind and state, so that handshakes that never end cannot use up the process."""

    def __init__(self, limits: Limits, *, is_behind_proxy: bool = False) -> None:
        self._most = limits.connections + limits.connections // 3 + 32  # the WebSockets, and handshakes and HTTP
        self._most_per_address = self._most if is_behind_proxy else 2 * limits.connections_per_address
        self._by_address: Counter[str] = Counter()  # open sockets; addresses without any are deleted
        self._count = 0  # of all of them

    def enter(self, address: str) -> bool:
        """Whether one more socket of `address` may be open; counts it if so."""
        if self._count >= self._most or self._by_address[address] >= self._most_per_address:
            REFUSED.labels("sockets").inc()
            if not self._by_address[address]:
                del self._by_address[address]
            return False
        self._by_address[address] += 1
        self._count += 1
        return True

    def leave(self, address: str) -> None:
        """One that entered is gone."""
        self._count -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
