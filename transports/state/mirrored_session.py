"""One conversation as the mirror sees it: whether it is stored, and how to read its newest state."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from traceback import format_exception
from typing import Protocol

from loguru import logger
from prometheus_client import Counter

from ...pipeline.conversation.conversation_record import ConversationRecord
from ...pipeline.conversation.snapshot import ConversationFields, parse
from ...pipeline.conversation.store import Claim, LogLine, Write
from ...pipeline.errors import StoreError

ERRORS = Counter("leibniz_store_errors", "State that could not be stored or claimed", ["kind"])

_LOG_LINES = 64


class Snapshottable(Protocol):
    """A conversation that can say its stored fields at any time, in one step."""

    def to_fields(self) -> dict[str, str]:
        """The fields now. Called by the flusher, not by whoever changed them."""
        ...


class _Flusher(Protocol):
    """What a session asks of its mirror."""

    def mark(self, session: MirroredSession) -> None:
        """The session has something to store."""
        ...

    def flush(self) -> None:
        """Store what is marked at once."""
        ...

    def closing(self, session: MirroredSession) -> None:
        """The session has ended and holds its last fields."""
        ...


class MirroredSession:
    """One conversation's line to the store; made by `Mirror.open`.

    Its owner calls `update`, `flush`, `close` and reads `claim` and `fenced`; the rest is the mirror's.
    """

    __slots__ = (
        "_count",
        "_is_known",
        "_log",
        "_mirror",
        "_on_fenced",
        "_on_found",
        "_sequence",
        "_source",
        "claim",
        "closed",
        "delay_s",
        "fenced",
        "queued",
        "since",
    )

    def __init__(
        self,
        mirror: _Flusher,
        claim: Claim,
        source: Snapshottable,
        on_fenced: Callable[[str], None] | None = None,
        on_found: Callable[[ConversationFields], None] | None = None,
    ) -> None:
        self.claim = claim  # who we are to the store
        self.fenced = False  # True once a newer owner has the session: nothing is written any more
        self.closed = False  # the conversation has ended; what is unsent is still sent
        self.queued = False  # marked: the flusher, or a timer after a failure, will come to it
        self.since = 0.0  # loop time of the oldest change that is not stored
        self.delay_s = 0.0  # back-off of this session alone, while the store refuses it and takes others
        self._mirror = mirror
        self._source = source  # the live object; its last fields once closed
        self._on_fenced = on_fenced  # called once, with the session id
        self._on_found = on_found  # called with what another owner had stored, if the claim could not tell
        self._is_known = claim.stored  # whether it is known here what another owner stored
        self._sequence = 0  # number of the last write made
        self._log: deque[LogLine] = deque(maxlen=_LOG_LINES)  # transitions not stored yet; the oldest give way
        self._count = 0  # transitions ever logged; the number of the newest one

    def update(self, line: LogLine | None = None) -> None:
        """Something changed; `line` goes to the transition log. A microsecond, no I/O, no errors."""
        if line is not None:
            self._log.append(line)
            self._count += 1
        if not self.queued and not self.fenced:
            self._mirror.mark(self)

    def flush(self) -> None:
        """Do not wait out the 20 ms: `vad_end`, the end of a turn. Nobody waits here either."""
        self._mirror.flush()

    def close(self) -> None:
        """The conversation ends: keep its last fields, let go of the object. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self._source = _Frozen(self.fields() or {})
        self._mirror.closing(self)

    def fields(self) -> dict[str, str] | None:
        """The fields now, or at the end; None (logged, counted) if the object cannot say them."""
        # Broad: the object is not ours, and one that fails must not stop the other sessions' writes.
        try:
            return self._source.to_fields()
        except Exception as error:
            ERRORS.labels("unreadable").inc()
            logger.error("session {}: no fields to store: {!r}", self.claim.session_id, error)
            return None

    def conversation(self) -> ConversationFields | None:
        """The fields now as a new connection of the session would load them; None if it could not."""
        try:
            return parse(self.fields() or {})
        except StoreError:
            return None

    def next_write(self) -> Write | None:
        """The newest state under the next sequence number; None if there is none to store."""
        fields = self.fields()
        if not fields:
            return None
        self._sequence += 1
        claim, log = self.claim, tuple(self._log)
        start = self._count - len(log) + 1
        is_first = not self._is_known
        return Write(claim.session_id, claim.owner, claim.epoch, self._sequence, fields, log, start, is_first)

    def was_stored(self, write: Write) -> None:
        """The store has it: its transitions need not be sent again."""
        self.delay_s, self._is_known = 0.0, True
        last = write.log_start + len(write.log) - 1
        while self._log and self._count - len(self._log) + 1 <= last:
            self._log.popleft()

    @property
    def is_known(self) -> bool:
        """Whether what is written now replaces nothing that was never read."""
        return self._is_known

    def was_claimed(self, found: ConversationFields | None) -> None:
        """The session is ours now, and this is what an earlier owner had stored of it; None for nothing readable."""
        self._is_known = True
        if found is None:
            return
        if self.closed:
            record = ConversationRecord(self.claim.session_id, fields=self.conversation())
            record.adopt(found)
            self._source = _Frozen(record.to_fields())
        elif self._on_found is not None:
            # Broad: a callback of the session's own code must not end the flusher of all sessions.
            try:
                self._on_found(found)
            except Exception as error:
                logger.error("session {}: on_found failed: {!r}", self.claim.session_id, error)

    def lose(self) -> None:
        """A newer owner has the session: stop writing, tell our owner, once."""
        if self.fenced:
            return
        self.fenced = True
        if self._on_fenced is not None and not self.closed:
            # Broad: a callback of the session's own code must not end the flusher of all sessions.
            try:
                self._on_fenced(self.claim.session_id)
            except Exception as error:
                logger.error(
                    "session {}: on_fenced failed: {}", self.claim.session_id, "".join(format_exception(error))
                )


class _Frozen:
    """The last fields of a conversation that has ended."""

    def __init__(self, fields: dict[str, str]) -> None:
        self._kept = dict(fields)

    def to_fields(self) -> dict[str, str]:
        return self._kept
