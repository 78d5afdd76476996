"""`Origins`: which browser pages may talk to the server."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from ...pipeline.errors import ConfigurationError

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")


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
