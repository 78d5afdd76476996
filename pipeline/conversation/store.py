"""The small protocol that every state store follows, and what goes in and out of it.

Ownership. A claim names an owner, a fresh id per connection, and mints an epoch that only grows. Every write carries
both, so every write is its own claim again: a store that lost the claim in a failover gets it back with the next
write. The store compares them with what it holds:

 stored owner   stored epoch      the write is
 the same       any               stored, unless its sequence number is older than the stored one ("stale")
 another        lower             stored: the newer owner takes over
 another        same or higher    refused ("fenced"): this owner stops speaking and closes

A connection whose claim got no answer does not know what is stored. Its first write says so (`is_first`), and is
answered by that, with nothing overwritten ("claimed"); the next one is an ordinary write.

An epoch is max(stored + 1, the store's clock in us). Counting alone breaks: a failover that loses a claim hands its
number out twice.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol, runtime_checkable

from ..errors import ConfigurationError
from .snapshot import ConversationFields

SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

TTL_S = 3600.0
DAMAGED_TTL_S = 86_400.0
LOG_LENGTH = 200


class LogLine(NamedTuple):
    """One transition in the bounded log beside the hash. `at` is unix seconds."""

    previous: str
    state: str
    trigger: str
    turn_id: int
    at: float


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to "this session is mine now"."""

    session_id: str
    owner: str
    epoch: int
    fields: ConversationFields | None = None  # the stored conversation; None for a new one
    previous_owner: str | None = None  # who held it before, None for nobody
    previous_epoch: int = 0  # and the epoch of that
    stored: bool = True  # False: the store did not answer, the first write claims
    last_turn_id: int = 0  # turn ids begin above this: `unused_turn_id` where what is stored could not be read

    @property
    def resumed(self) -> bool:
        """Whether an earlier conversation goes on."""
        return self.fields is not None


@dataclass(frozen=True, slots=True)
class Write:
    """The newest state of one session. `sequence` grows with every write of an owner."""

    session_id: str
    owner: str
    epoch: int
    sequence: int
    fields: Mapping[str, str]
    log: Sequence[LogLine] = ()  # lines not yet known to be stored, oldest first
    log_start: int = 1  # number of the first of them; the store skips those it has
    is_first: bool = False  # the claim got no answer: what another owner stored is not known here


class WriteOutcome(Enum):
    """What became of one write."""

    STORED = "stored"
    CLAIMED = "claimed"  # the session is ours now and nothing was written: `found` was there. Write again
    STALE = "stale"  # a later write of the same owner is there already: nothing to do
    FENCED = "fenced"  # another owner has the session: never write again
    FAILED = "failed"  # the store answered with an error: send the newest state again later


@dataclass(frozen=True, slots=True)
class WriteResult:
    """The verdict on one write; `detail` is the store's own words when it failed."""

    session_id: str
    outcome: WriteOutcome
    detail: str = ""
    found: ConversationFields | None = None  # with CLAIMED: what another owner had stored; None if it was unreadable


@runtime_checkable
class StateStore(Protocol):
    """Keeps conversations between connections and processes.

    One store serves one event loop. `claim` and `write` raise `StoreError` when the store as a whole does not answer;
    then nothing is known, and the same write may be sent again.
    """

    @property
    def healthy(self) -> bool:
        """Whether the last thing asked of the store was answered."""
        ...

    async def start(self) -> None:
        """Get ready. A server that is down is no error: `healthy` says so, and later calls try again."""
        ...

    async def claim(self, session_id: str, owner: str) -> Claim:
        """Take the session and return what was stored of it; a new one is written with its empty values."""
        ...

    async def write(self, batch: Sequence[Write]) -> list[WriteResult]:
        """Store a batch of different sessions; one result per write, in order, each judged alone."""
        ...

    def next_epoch(self) -> int:
        """An epoch above all that this process has seen, for a connection whose claim got no answer."""
        ...

    async def close(self) -> None:
        """Release everything. Idempotent."""
        ...

    def describe(self) -> str:
        """One phrase for logs and `/health`, without passwords."""
        ...


def unused_turn_id() -> int:
    """A turn id above all that a session can have used, whatever it was: nobody has a turn every millisecond."""
    return time.time_ns() // 1_000_000


def session_key(session_id: str) -> str:
    """The hash's key. Raises ConfigurationError for an id that is not `[A-Za-z0-9_-]{1,64}`."""
    if SESSION_ID.fullmatch(session_id) is None:
        raise ConfigurationError("session id must be 1 to 64 letters, digits, '_' or '-'")
    return f"session:{session_id}"


def log_key(session_id: str) -> str:
    """The stream of transitions; in braces, so that a Cluster keeps it on the hash's node."""
    return f"{{{session_key(session_id)}}}:log"


def damaged_key(session_id: str, at_us: int) -> str:
    """Where a hash goes that cannot be read; in braces for the same reason."""
    return f"{{{session_key(session_id)}}}:damaged:{at_us}"
