"""`TokenGate`: takes a connection's token, each once, whichever worker or machine it is shown to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from loguru import logger

from ...pipeline.errors import StoreError
from .limits import REFUSED
from .token_key import MAX_S, NEXT_S, Ticket, TokenKey, TokenRefused

__all__ = ["SpentTokens", "TokenGate", "TokenLedger", "token_in"]

TOKEN_PREFIX = "token."  # of the subprotocol that carries a token, as browsers can set no other header
SKEW_S = 60  # how far the clocks of machines that share a store may differ
MAX_REMEMBERED = 100_000  # token ids kept in memory, 15 MB; full, no token is taken until the first expire


@runtime_checkable
class TokenLedger(Protocol):
    """A store that all workers and machines share, and that remembers names."""

    async def spend(self, name: str, ttl_s: float) -> bool:
        """Remember `name` for `ttl_s`; False if it was there. Raises StoreError without an answer."""
        ...


class SpentTokens:
    """Takes each ticket once.

    Asked in this order: this process; a folder that the workers of one machine share, where there is one (so that they
    agree without a store too); the store, for several machines. A store that does not answer is passed over with a
    warning: conversations do not depend on it, so for as long as it is away a used token could be used at another
    machine again.
    """

    def __init__(
        self, *, ledger: object = None, folder: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._ledger = ledger if isinstance(ledger, TokenLedger) else None  # None: nothing is shared with others
        self._folder = folder  # one empty file per used token; None: a single process
        self._clock = clock  # unix seconds
        self._here: dict[str, float] = {}  # token id -> when it may be forgotten

    def __len__(self) -> int:
        return len(self._here)

    async def take(self, ticket: Ticket) -> None:
        """Use the ticket up. Raises `TokenRefused` if it was used before."""
        self._forget()
        if ticket.id in self._here:
            raise TokenRefused("The token was used before.")
        if len(self._here) >= MAX_REMEMBERED:
            raise TokenRefused("Too many tokens were used lately; try again later.")
        self._here[ticket.id] = ticket.expires + SKEW_S  # before any await: a second use meanwhile is refused
        if self._folder is not None and not self._take_in_folder(self._folder, ticket):
            raise TokenRefused("The token was used before.")
        if self._ledger is not None:
            try:
                is_new = await self._ledger.spend(ticket.id, max(1.0, ticket.expires + SKEW_S - self._clock()))
            except StoreError as error:
                logger.warning("a token could not be checked against the state store: {}", error)
            else:
                if not is_new:
                    raise TokenRefused("The token was used before.")

    def _take_in_folder(self, folder: Path, ticket: Ticket) -> bool:
        try:
            (folder / f"{ticket.id}.{ticket.expires}").touch(exist_ok=False)
        except FileExistsError:
            return False
        except OSError as error:
            logger.warning("a used token could not be noted in {}: {}", folder, error)
        return True

    def _forget(self) -> None:
        now = self._clock()
        while self._here:
            token_id = next(iter(self._here))  # in order of use, which is about that of expiry
            if self._here[token_id] > now:
                return
            del self._here[token_id]


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


def token_in(authorization: str, subprotocols: Sequence[str]) -> str | None:
    """The token of the Authorization header, else of the subprotocols that a client offers; None if there is none."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    for name in subprotocols:
        if name.startswith(TOKEN_PREFIX):
            return name.removeprefix(TOKEN_PREFIX)
    return None
