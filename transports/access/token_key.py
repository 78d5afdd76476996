"""Tokens that open one session once: made by whoever holds the secret, checked before any audio. Pure.

    lv1.<session id>.<expires, unix seconds>.<id, 16 bytes hex>.<HMAC-SHA256 of what stands before it, base64url>

Every part is of letters that a header, a WebSocket subprotocol and a URL take as they are. The signature is compared as
text, so there is exactly one spelling of a token: no padding, no unused bits, no other case.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from ...pipeline.errors import ConfigurationError, LeibnizError

MIN_SECRET_BYTES = 32  # as long as the hash: shorter keys weaken it (RFC 2104, section 3)
FIRST_S = 300.0  # lifetime of a token that an application hands to a page
NEXT_S = 3600.0  # of the one in `ready`, after its connection: a conversation is kept so long after its last change
MAX_S = 7 * 86_400.0  # of any
MAX_TOKEN_CHARS = 256  # the longest valid one has 167

_TOKEN = re.compile(r"(lv1\.([A-Za-z0-9_-]{1,64})\.([0-9]{1,12})\.([0-9a-f]{32}))\.([A-Za-z0-9_-]{43})", re.ASCII)


class TokenRefused(LeibnizError):  # noqa: N818 - it is an event report, and reads as one
    """A token is malformed, forged, expired, used, or another session's; the message may be shown to the client."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A token whose signature, session and time are right. `id` may be spent once."""

    id: str
    expires: int


class TokenKey:
    """Makes and checks tokens with one secret. Raises `ConfigurationError` for a secret of less than 32 bytes.

    The secret is not shown by `repr`, and no message of an error contains it or a token.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: str | bytes) -> None:
        key = secret.encode() if isinstance(secret, str) else secret
        if len(key) < MIN_SECRET_BYTES:
            raise ConfigurationError(
                f"the secret has {len(key)} bytes, but needs {MIN_SECRET_BYTES}; make one with: openssl rand -hex 32"
            )
        self._secret = key  # of the HMAC

    def mint(self, session_id: str, *, now: float, lifetime_s: float = FIRST_S) -> str:
        """A token for the next connection of `session_id`, good until `now + lifetime_s` (unix seconds)."""
        body = f"lv1.{session_id}.{int(now + lifetime_s)}.{secrets.token_hex(16)}"
        token = f"{body}.{self._sign(body)}"
        if _TOKEN.fullmatch(token) is None:
            raise ConfigurationError(f"the session id is {session_id!r}; give 1 to 64 letters, digits, '_' or '-'")
        return token

    def check(self, token: str, session_id: str, *, now: float) -> Ticket:
        """What the token says, if it is ours, for this session and not expired; else raises `TokenRefused`."""
        found = _TOKEN.fullmatch(token) if len(token) <= MAX_TOKEN_CHARS else None
        if found is None:
            raise TokenRefused("The token is malformed.")
        body, session, expires, token_id, signature = found.groups()
        if not hmac.compare_digest(signature, self._sign(body)):
            raise TokenRefused("The token is not valid here.")
        if session != session_id:
            raise TokenRefused("The token is for another session.")
        if now > int(expires):
            raise TokenRefused("The token has expired.")
        return Ticket(token_id, int(expires))

    def _sign(self, body: str) -> str:
        digest = hmac.new(self._secret, body.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
