"""The state store of last resort: this process's memory, with the same ownership and lifetime rules as Redis."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from loguru import logger

from ...pipeline.conversation.snapshot import ConversationFields, DamagedSnapshot, parse
from ...pipeline.conversation.store import (
    LOG_LENGTH,
    TTL_S,
    Claim,
    LogLine,
    Write,
    WriteOutcome,
    WriteResult,
    session_key,
    unused_turn_id,
)


@dataclass
class _Record:
    owner: str
    epoch: int
    sequence: int
    fields: dict[str, str]
    expires: float  # on the store's clock
    logged: int = 0  # number of the owner's last log line
    log: deque[LogLine] = field(default_factory=deque)


class MemoryStore:
    """A `StateStore` that dies with its process. Give the same object to all of the process's conversations.

    It holds a session for `ttl_s` after its last write; expired ones go when another is claimed.
    """

    def __init__(
        self, *, ttl_s: float = TTL_S, log_length: int = LOG_LENGTH, clock: Callable[[], float] = time.time
    ) -> None:
        self.healthy = True  # always: memory answers
        self._ttl_s = ttl_s  # lifetime of a session after its last write
        self._log_length = log_length  # lines kept per session
        self._clock = clock  # unix seconds; epochs are minted from it
        self._records: dict[str, _Record] = {}  # by key, the one that expires first in front
        self._newest_epoch = 0  # the highest epoch minted

    async def start(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do: what is stored stays until the object goes."""

    def describe(self) -> str:
        """A phrase for logs."""
        return "memory (lost when the process ends)"

    def next_epoch(self) -> int:
        """See `StateStore.next_epoch`."""
        self._newest_epoch = max(self._newest_epoch + 1, int(self._clock() * 1e6))
        return self._newest_epoch

    async def claim(self, session_id: str, owner: str) -> Claim:
        """See `StateStore.claim`. Damaged fields are dropped with a warning: nobody could look at them later."""
        self._drop_expired()
        key = session_key(session_id)
        old = self._records.pop(key, None)
        epoch = max(self.next_epoch(), old.epoch + 1 if old else 0)
        self._newest_epoch = epoch
        fields = self._read(session_id, old)
        new = _Record(owner, epoch, 0, ConversationFields(last_update=time.time()).to_fields(), 0.0)
        if old is not None:
            new.log = old.log
            new.fields = old.fields if fields is not None else new.fields
        self._keep(key, new)
        first = unused_turn_id() if old is not None and fields is None else 0
        before = (old.owner, old.epoch) if old is not None else (None, 0)
        return Claim(session_id, owner, epoch, fields, *before, last_turn_id=first)

    async def write(self, batch: Sequence[Write]) -> list[WriteResult]:
        """See `StateStore.write`."""
        return [self._store(write) for write in batch]

    def fields(self, session_id: str) -> Mapping[str, str] | None:
        """What is stored of a session now, as HGETALL would show it; None for nothing."""
        record = self._records.get(session_key(session_id))
        return dict(record.fields) if record is not None and record.expires > self._clock() else None

    def log(self, session_id: str) -> list[LogLine]:
        """The transitions kept of a session, oldest first."""
        record = self._records.get(session_key(session_id))
        return list(record.log) if record is not None else []

    def _store(self, write: Write) -> WriteResult:
        key = session_key(write.session_id)
        record = self._records.get(key)
        if record is None or record.expires <= self._clock():
            record = _Record(write.owner, write.epoch, 0, {}, 0.0)
        elif record.owner != write.owner:
            if record.epoch >= write.epoch:
                return WriteResult(write.session_id, WriteOutcome.FENCED)
            record.owner, record.epoch, record.logged, record.sequence = write.owner, write.epoch, 0, 0
        elif write.sequence < record.sequence:
            return WriteResult(write.session_id, WriteOutcome.STALE)
        if write.is_first and record.sequence == 0 and record.fields:
            found = self._read(write.session_id, record)
            if found is None:
                record.fields = ConversationFields(last_update=time.time()).to_fields()
            return WriteResult(write.session_id, WriteOutcome.CLAIMED, found=found)
        record.sequence = write.sequence
        record.fields.update(write.fields)
        fresh = write.log[max(0, record.logged + 1 - write.log_start) :]
        record.log.extend(fresh)
        while len(record.log) > self._log_length:
            record.log.popleft()
        record.logged = max(record.logged, write.log_start + len(write.log) - 1)
        self._records.pop(key, None)
        self._keep(key, record)
        return WriteResult(write.session_id, WriteOutcome.STORED)

    def _keep(self, key: str, record: _Record) -> None:
        record.expires = self._clock() + self._ttl_s
        self._records[key] = record  # at the end: it expires last

    def _drop_expired(self) -> None:
        now = self._clock()
        while self._records:
            key = next(iter(self._records))
            if self._records[key].expires > now:
                return
            del self._records[key]

    def _read(self, session_id: str, record: _Record | None) -> ConversationFields | None:
        try:
            return parse(record.fields) if record is not None else None
        except DamagedSnapshot as error:
            logger.warning("session {}: stored state is unreadable ({}), starting anew", session_id, error)
            return None
