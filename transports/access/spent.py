"""Which tokens were used: each once, whichever worker or machine it is shown to."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from loguru import logger

from ...pipeline.errors import StoreError
from .token_key import Ticket, TokenRefused

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
