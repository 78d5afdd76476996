"""The write-behind mirror: conversations change at memory speed, a store follows within milliseconds.

    update() --marks--> dirty sessions --at most every 20 ms, newest state only--> store.write(batch) --> verdicts
       |                    ^                                                                          |
       +-- ~1 us, no I/O    +---- not stored: marked again ---- back-off 50 .. 500 ms <--- no answer --+

One flusher per process serves every conversation. It asks the live object for its fields when it writes, so however
long the store is away each session costs one mark, not a queue, and what is written afterwards is the newest state.
A first change after a quiet spell is written at once; the 20 ms are the least distance between two batches.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from traceback import format_exception

from loguru import logger
from prometheus_client import Counter, Histogram

from ...pipeline.conversation.conversation_record import ConversationRecord
from ...pipeline.conversation.snapshot import ConversationFields
from ...pipeline.conversation.store import Claim, StateStore, Write, WriteOutcome, WriteResult, unused_turn_id
from ...pipeline.errors import ConfigurationError, StoreError
from .mirrored_session import ERRORS, MirroredSession, Snapshottable

_LAG_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30)
LAG = Histogram("leibniz_mirror_lag_seconds", "From a change to the store's word that it has it", buckets=_LAG_BUCKETS)
FENCED = Counter("leibniz_fenced_writes", "Writes refused because a newer owner has the session")
RESTARTS = Counter("leibniz_mirror_restarts", "Flushers started again after one died")
DROPPED = Counter("leibniz_mirror_dropped_sessions", "Ended sessions given up because too many waited for the store")

_YIELD_EVERY = 32


class Mirror:
    """Writes every conversation of the process behind its back into `store`.

    Memory is bounded: live sessions are marked, not queued; of ended ones that a missing store has not taken, the
    newest `ended_limit` are kept and the others counted in `leibniz_mirror_dropped_sessions_total`.
    """

    def __init__(
        self,
        store: StateStore,
        *,
        interval_s: float = 0.02,
        batch: int = 256,
        first_retry_s: float = 0.05,
        longest_retry_s: float = 0.5,
        ended_limit: int = 10_000,
    ) -> None:
        self.store = store  # started and closed by its owner, not by the mirror
        self._interval_s = interval_s  # least seconds between two batches
        self._batch = batch  # sessions in one pipeline
        self._first_retry_s = first_retry_s  # back-off after the first failure
        self._longest_retry_s = longest_retry_s  # back-off never grows beyond this
        self._ended_limit = ended_limit  # ended, unsent sessions kept at most
        self._sessions: dict[str, MirroredSession] = {}  # by session id: all live ones, and ended ones not yet stored
        self._dirty: dict[MirroredSession, None] = {}  # marked, the longest waiting first
        self._sending: dict[MirroredSession, float] = {}  # in the batch under way, with the time of its oldest change
        self._parked: dict[MirroredSession, asyncio.TimerHandle] = {}  # refused by the store one by one, waiting
        self._ended: dict[MirroredSession, None] = {}  # closed and not yet stored, the oldest first
        self._wake = asyncio.Event()  # something is dirty
        self._urgent = asyncio.Event()  # and must not wait for the interval
        self._settled = asyncio.Event()  # a batch got its verdicts; for drain
        self._task: asyncio.Task[None] | None = None  # the flusher; None before start and after stop
        self._loop: asyncio.AbstractEventLoop | None = None  # set by start
        self._delay_s = first_retry_s  # next back-off
        self._is_doubtful = False  # something failed, so the store may not hold all that it confirmed
        self._away_since: float | None = None  # loop time of the first unanswered batch; None while answered

    async def start(self) -> None:
        """Start the flusher in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._launch()

    async def stop(self) -> None:
        """End the flusher; what is unsent is forgotten, so `drain` first. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        for timer in self._parked.values():
            timer.cancel()

    async def claim(self, session_id: str, owner: str | None = None) -> Claim:
        """Own the session and learn its conversation; never fails because of the store.

        `owner` must be new for every connection; by default a random one. Without an answer from the store the claim
        goes out with the first write. What this process itself knows of the session and has not stored yet is newer
        than what the store says, unless somebody else had it since. Takes no longer than the store's claim timeout.
        """
        owner = owner or uuid.uuid4().hex
        before = self._sessions.get(session_id)
        try:
            claim = await self.store.claim(session_id, owner)
        except StoreError as error:
            ERRORS.labels("claim").inc()
            logger.warning("session {}: goes on without the state store: {}", session_id, error)
            first = unused_turn_id()
            claim = Claim(session_id, owner, self.store.next_epoch(), stored=False, last_turn_id=first)
        ours = self._sessions.get(session_id) or before  # it may have ended, or been fenced by this very claim
        if ours is None:
            return claim
        if claim.previous_owner == ours.claim.owner or not (claim.stored or ours.fenced):
            claim = replace(claim, fields=ours.conversation() or claim.fields, previous_owner=ours.claim.owner)
        elif not (ours.is_known or ours.fenced) and claim.previous_epoch < ours.claim.epoch:
            claim = replace(claim, fields=_joined(claim, ours.conversation()))  # begun while the store was away
        return claim  # `ours` ends when the new connection opens, or is fenced by the store before

    def open(
        self,
        claim: Claim,
        source: Snapshottable,
        *,
        on_fenced: Callable[[str], None] | None = None,
        on_found: Callable[[ConversationFields], None] | None = None,
    ) -> MirroredSession:
        """Follow `source` from now on, beginning with its present state.

        `on_fenced(session_id)` is called once, in the loop, when a newer owner has the session: stop speaking and
        close. `on_found(fields)` is called, in the loop, when the claim could not be answered and the store, back
        again, holds an earlier conversation: put it in front of this one. The source must be able to say its fields
        until `close`.
        """
        if self._loop is None:
            raise ConfigurationError("start the mirror before a conversation")
        session = MirroredSession(self, claim, source, on_fenced, on_found)
        other = self._sessions.get(claim.session_id)
        if other is not None and other.claim.epoch > claim.epoch:
            self._loop.call_soon(session.lose)
            return session
        if other is not None:
            self._forget(other)
            other.lose()
        self._sessions[claim.session_id] = session
        session.update()
        return session

    def flush(self) -> None:
        """Write what is dirty now, without waiting for the interval; returns at once."""
        self._urgent.set()

    @property
    def pending(self) -> int:
        """Sessions whose newest state is not stored."""
        return len(self._dirty) + len(self._parked) + sum(not session.queued for session in self._sending)

    async def drain(self, timeout_s: float) -> int:
        """Wait until everything is stored, at most `timeout_s`; returns how many sessions are not."""
        self.flush()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.pending:
                    self._settled.clear()
                    await self._settled.wait()
        return self.pending

    def mark(self, session: MirroredSession, since: float | None = None) -> None:
        """For sessions: it has something to store, since now or since an earlier loop time."""
        session.queued = True
        session.since = self._loop.time() if since is None else since  # type: ignore[union-attr] # open saw to it
        self._dirty[session] = None
        self._wake.set()

    def closing(self, session: MirroredSession) -> None:
        """For sessions: its last state is here; beyond the limit the oldest ended one is given up."""
        if session.fenced or self._sessions.get(session.claim.session_id) is not session:
            return
        self._ended[session] = None
        session.update()
        if len(self._ended) > self._ended_limit:
            DROPPED.inc()
            self._forget(next(iter(self._ended)))

    def _forget(self, session: MirroredSession) -> None:
        self._dirty.pop(session, None)
        self._ended.pop(session, None)
        timer = self._parked.pop(session, None)
        if timer is not None:
            timer.cancel()
        if self._sessions.get(session.claim.session_id) is session:
            del self._sessions[session.claim.session_id]

    def _launch(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._task = self._loop.create_task(self._run(), name="state mirror")
            self._task.add_done_callback(self._flusher_ended)

    def _flusher_ended(self, task: asyncio.Task[None]) -> None:
        """Whatever ended it, unless `stop` did, another one takes over."""
        if task is not self._task or self._loop is None:
            return
        RESTARTS.inc()
        error = None if task.cancelled() else task.exception()
        # Formatted here: the logger's own tracebacks can show local variables, and those hold what users said.
        why = "".join(format_exception(error)) if error is not None else "cancelled"
        logger.error("the state mirror's flusher died and is started again: {}", why)
        self._loop.call_later(self._first_retry_s, self._launch)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self._wake.wait()
            if len(self._dirty) < self._batch and loop.time() < due:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._urgent.wait()
            due = loop.time() + self._interval_s
            try:
                await self._send()
            except StoreError as error:
                self._went_away(error)
                await asyncio.sleep(self._delay_s)
                self._delay_s = min(2 * self._delay_s, self._longest_retry_s)
            finally:
                self._settled.set()

    async def _send(self) -> None:
        """Write one batch; whatever of it got no verdict is marked again, however this ends."""
        try:
            writes = await self._collect()
            if writes:
                results = await self.store.write(writes)
                self._came_back()
                now = asyncio.get_running_loop().time()
                for write, result in zip(writes, results, strict=True):
                    self._judge(write, result, now)
        finally:
            for session, since in self._sending.items():
                self._again(session, since)
            self._sending = {}

    async def _collect(self) -> list[Write]:
        """The newest state of the sessions that wait longest, read from the live objects."""
        writes: list[Write] = []
        for session in list(self._dirty)[: self._batch]:
            if self._dirty.pop(session, 0) == 0:  # forgotten while we yielded
                continue
            session.queued = False
            write = session.next_write()
            if write is None:
                self._done(session)
                continue
            self._sending[session] = session.since
            writes.append(write)
            if len(writes) % _YIELD_EVERY == 0:
                await asyncio.sleep(0)  # other conversations' audio is due
        if not self._dirty:
            self._wake.clear()
            self._urgent.clear()
        return writes

    def _judge(self, write: Write, result: WriteResult, now: float) -> None:
        session = next(iter(self._sending))  # in the order of the writes
        since = self._sending.pop(session)
        if result.outcome is WriteOutcome.CLAIMED:
            session.was_claimed(result.found)
            self._again(session, since)
        elif result.outcome is WriteOutcome.FAILED:
            self._is_doubtful = True
            ERRORS.labels("refused").inc()
            self._park(session, since, result.detail)
        elif result.outcome is WriteOutcome.FENCED:
            FENCED.inc()
            self._forget(session)
            session.lose()
        else:
            LAG.observe(now - since)
            session.was_stored(write)
            self._done(session)
            if self._is_doubtful and not self._parked:
                self._write_all()

    def _write_all(self) -> None:
        """Something failed and is well again. It may be another server now, which lost writes that ours had confirmed.

        So every conversation is written once more; to a store that lost nothing this changes nothing.
        """
        self._is_doubtful = False
        for session in self._sessions.values():
            session.update()

    def _done(self, session: MirroredSession) -> None:
        if session.closed and not session.queued:
            self._forget(session)

    def _park(self, session: MirroredSession, since: float, reason: str) -> None:
        """The store answers but refuses this session: try it again by itself, the others go on."""
        if not session.delay_s:
            logger.warning("session {}: not stored: {}", session.claim.session_id, reason)
        session.delay_s = min(2 * session.delay_s or self._first_retry_s, self._longest_retry_s)
        self._dirty.pop(session, None)
        if self._sessions.get(session.claim.session_id) is session:
            session.queued = True
            loop = asyncio.get_running_loop()
            self._parked[session] = loop.call_later(session.delay_s, self._unpark, session, since)

    def _unpark(self, session: MirroredSession, since: float) -> None:
        self._parked.pop(session, None)
        self.mark(session, since)

    def _again(self, session: MirroredSession, since: float) -> None:
        if self._sessions.get(session.claim.session_id) is session:
            self.mark(session, since)

    def _went_away(self, error: StoreError) -> None:
        ERRORS.labels("unanswered").inc()
        if self._away_since is None:
            self._away_since = asyncio.get_running_loop().time()
            logger.warning("state store is away, conversations go on in memory: {}", error)

    def _came_back(self) -> None:
        self._delay_s = self._first_retry_s
        if self._away_since is not None:
            self._is_doubtful = True
            away_s = asyncio.get_running_loop().time() - self._away_since
            self._away_since = None
            logger.warning("state store is back after {:.1f} s, {} sessions to write", away_s, self.pending)


def _joined(claim: Claim, ours: ConversationFields | None) -> ConversationFields | None:
    """Our conversation with the stored one in front of it."""
    if ours is None or claim.fields is None:
        return ours or claim.fields
    record = ConversationRecord(claim.session_id, fields=ours)
    record.adopt(claim.fields)
    return record.fields
