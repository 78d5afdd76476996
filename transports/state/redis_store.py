"""The state store on Redis: `session:<id>` as a plain hash, every step one Lua call.

The library's own retries are off and every time limit is explicit: who calls decides when to try again, and a claim
is never left in doubt for longer than its deadline (redis-py's defaults take 3.9 s to report a dead server).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from traceback import format_exception
from typing import Any, Protocol

from loguru import logger
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoScriptError, RedisError, ResponseError

from ...pipeline.conversation.snapshot import ConversationFields, DamagedSnapshot, parse
from ...pipeline.conversation.store import (
    DAMAGED_TTL_S,
    LOG_LENGTH,
    TTL_S,
    Claim,
    Write,
    WriteOutcome,
    WriteResult,
    damaged_key,
    log_key,
    session_key,
    unused_turn_id,
)
from ...pipeline.engine import outside
from ...pipeline.errors import StoreError
from .redis_scripts import ALL, CLAIM, QUARANTINE, WRITE, LuaScript
from .redis_url import close, connect, without_password

_VERDICTS = {
    outcome.value.encode(): outcome for outcome in (WriteOutcome.STORED, WriteOutcome.STALE, WriteOutcome.FENCED)
}
_BOOKKEEPING = frozenset({"owner", "epoch", "sequence", "logged"})
_ASKED_AT_ONCE = 8
PING_S = 1.0  # a sign of life that is younger is not asked for again


class _RedisServer(Protocol):
    """A server that the store starts and stops, such as `EmbeddedRedis`."""

    async def start(self) -> None:
        """Return when it answers. Raises StoreError when it cannot run."""
        ...

    async def stop(self) -> None:
        """Stop it. Idempotent."""
        ...


class RedisStore:
    """A `StateStore` on Redis: one server, over TLS or not, a Sentinel set-up, or a Cluster; see `redis_url`.

    `timeout_s` bounds connecting and each answer, twice that a whole batch; `claim_timeout_s` a claim, a quarter of
    that while the server is known to be away. Keys of one session share a Cluster slot, and no command needs more.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 0.5,
        claim_timeout_s: float = 1.0,
        ttl_s: float = TTL_S,
        damaged_ttl_s: float = DAMAGED_TTL_S,
        log_length: int = LOG_LENGTH,
        server: _RedisServer | None = None,
    ) -> None:
        self.healthy = False  # whether the last thing asked was answered; False before the first
        # Those who are asked for at once open sockets, the writes one, a ping one. Lazy: opens none by itself.
        self._client = connect(url, timeout_s=timeout_s, max_connections=_ASKED_AT_ONCE + 2)
        self._is_cluster = isinstance(self._client, RedisCluster)
        self._name = without_password(url)  # for logs
        self._timeout_s = timeout_s  # seconds for connecting, and for one answer
        self._claim_timeout_s = claim_timeout_s  # seconds for a whole claim
        self._ttl_ms = round(ttl_s * 1000)  # lifetime of a hash after its last write
        self._damaged_ttl_ms = round(damaged_ttl_s * 1000)  # lifetime of a hash put aside
        self._log_length = log_length  # lines of the transition log, about
        self._server = server  # started and stopped with the store; None if somebody else runs it
        self._turns = asyncio.Semaphore(_ASKED_AT_ONCE)  # bounds the sockets that claims and tokens open
        self._asked_at = -math.inf  # monotonic time of the last question
        self._ahead_us = 0  # the server's clock minus ours, as of its last claim
        self._newest_epoch = 0  # the highest epoch seen

    async def start(self) -> None:
        """See `StateStore.start`. Raises StoreError only for a server of our own that cannot run."""
        if self._server is not None:
            await self._server.start()
        try:
            async with self._asking(self._claim_timeout_s):
                if not self._is_cluster:  # whose nodes have a clock each; the claims tell
                    seconds, micros = await self._client.time()
                    self._ahead_us = int(seconds) * 1_000_000 + int(micros) - _now_us()
                for script in ALL:
                    await self._client.script_load(script.source)
        except StoreError as error:
            logger.warning("state store is away at the start, conversations go on without it: {}", error)

    async def close(self) -> None:
        """See `StateStore.close`."""
        self.healthy = False
        try:
            async with asyncio.timeout(self._timeout_s):
                await close(self._client)
        except (OSError, RedisError) as error:  # a peer that is gone; there is nothing left to lose
            logger.debug("{} could not be closed: {!r}", self.describe(), error)
        except Exception as error:  # what else is stopped, the server below and the caller's, must not wait for it
            logger.error("{} could not be closed: {}", self.describe(), "".join(format_exception(error)))
        if self._server is not None:
            await self._server.stop()

    def describe(self) -> str:
        """A phrase for logs."""
        return f"Redis at {self._name}"

    def next_epoch(self) -> int:
        """See `StateStore.next_epoch`; on the server's clock, as far as it is known."""
        self._newest_epoch = max(self._newest_epoch + 1, _now_us() + self._ahead_us)
        return self._newest_epoch

    async def claim(self, session_id: str, owner: str) -> Claim:
        """See `StateStore.claim`. A hash that cannot be read is kept aside as `{session:<id>}:damaged:<us>`."""
        key = session_key(session_id)
        timeout_s = self._claim_timeout_s if self.healthy else self._claim_timeout_s / 4
        async with self._asking(timeout_s), self._turns:
            aside = damaged_key(session_id, _now_us())
            reply = await self._claim_once(key, aside, owner, timeout_s)
            if reply[0] == b"late":  # our clocks differ by more than the limit; now the difference is known
                reply = await self._claim_once(key, aside, owner, timeout_s)
            if reply[0] != b"ok":
                raise StoreError(f"{self.describe()}: claim answered {reply[0]!r:.60}")
            epoch = int(reply[1])
            self._newest_epoch = max(self._newest_epoch, epoch)
            fields, bookkeeping, damage = _read(reply[3], reply[4:])
            if reply[3]:
                logger.warning("session {}: stored state put aside as {} ({})", session_id, aside, damage)
            elif damage:
                await self._quarantine(session_id, owner, epoch, damage)
            before = _epoch_of(bookkeeping.get("epoch", ""))
            first = unused_turn_id() if damage else 0
            return Claim(session_id, owner, epoch, fields, bookkeeping.get("owner"), before, last_turn_id=first)

    async def write(self, batch: Sequence[Write]) -> list[WriteResult]:
        """See `StateStore.write`."""
        if not batch:
            return []
        commands = [self._command(write) for write in batch]
        async with self._asking(2 * self._timeout_s):
            replies = await self._pipeline(commands)
            missing = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if missing:  # a server that was restarted or failed over has forgotten the scripts
                await self._client.script_load(WRITE.source)
                again = await self._pipeline([commands[index] for index in missing])
                for index, reply in zip(missing, again, strict=True):
                    replies[index] = reply
            if any(_is_demoted(reply) for reply in replies):
                await self._forget_connections()
                raise StoreError(f"{self.describe()}: it has become a replica")
            return [await self._judge(write, reply) for write, reply in zip(batch, replies, strict=True)]

    async def spend(self, name: str, ttl_s: float) -> bool:
        """Remember `name` (of a token) for `ttl_s`; False if it was there. Raises StoreError without an answer."""
        key = f"leibniz:spent:{name}"
        async with self._asking(self._timeout_s), self._turns:
            reply = await self._client.execute_command("SET", key, b"1", "NX", "PX", round(ttl_s * 1000))
        return reply is not None

    async def ping(self) -> None:
        """Let `healthy` be true of now, give or take a second. Never raises."""
        if time.monotonic() - self._asked_at < PING_S:
            return
        with suppress(StoreError):
            async with self._asking(self._timeout_s):
                await self._client.ping()

    async def _claim_once(self, key: str, aside: str, owner: str, timeout_s: float) -> list[Any]:
        deadline = _now_us() + self._ahead_us + round(timeout_s * 1e6)
        limits = (self._newest_epoch + 1, deadline, self._ttl_ms, self._damaged_ttl_ms)
        reply = await self._call(CLAIM, (key, aside), (owner, *limits, *_new_session()))
        if not isinstance(reply, list) or len(reply) < 3:
            raise StoreError(f"{self.describe()}: claim answered {reply!r:.60}")
        self._ahead_us = int(reply[2]) - _now_us()
        return reply

    async def _quarantine(self, session_id: str, owner: str, epoch: int, damage: str) -> None:
        aside = damaged_key(session_id, _now_us())
        logger.warning("session {}: stored state put aside as {} ({})", session_id, aside, damage)
        args = (owner, epoch, self._ttl_ms, self._damaged_ttl_ms, *_new_session())
        await self._call(QUARANTINE, (session_key(session_id), aside), args)

    async def _call(self, script: LuaScript, keys: Sequence[str], args: Sequence[Any]) -> Any:
        try:
            return await self._client.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await self._client.execute_command("EVAL", script.source, len(keys), *keys, *args)

    async def _pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return await pipe.execute(raise_on_error=False)

    def _command(self, write: Write) -> list[Any]:
        session = write.session_id
        aside, aside_ttl_ms = damaged_key(session, _now_us()), self._damaged_ttl_ms if write.is_first else 0
        command = ["EVALSHA", WRITE.sha, 3, session_key(session), log_key(session), aside, write.owner, write.epoch]
        command += (write.sequence, self._ttl_ms, self._log_length, write.log_start, len(write.log), aside_ttl_ms)
        for line in write.log:
            command += line
        for pair in write.fields.items():
            command += pair
        return command

    async def _forget_connections(self) -> None:
        """A failover made a replica of our server: ask again who the master is. Cluster clients do by themselves."""
        if not self._is_cluster:
            await self._client.connection_pool.disconnect(inuse_connections=False)

    async def _judge(self, write: Write, reply: Any) -> WriteResult:
        if isinstance(reply, Exception):
            return WriteResult(write.session_id, WriteOutcome.FAILED, str(reply))
        if isinstance(reply, list) and reply[:1] == [b"claimed"]:
            fields, _, damage = _read(b"", reply[1:])
            if damage:
                await self._quarantine(write.session_id, write.owner, write.epoch, damage)
            return WriteResult(write.session_id, WriteOutcome.CLAIMED, damage, fields)
        outcome = _VERDICTS.get(reply) if isinstance(reply, bytes) else None
        if outcome is None:
            raise StoreError(f"{self.describe()}: write answered {reply!r:.60}")
        return WriteResult(write.session_id, outcome)

    @asynccontextmanager
    async def _asking(self, timeout_s: float) -> AsyncIterator[None]:
        """A request to the server: bounded, counted as outside (no virtual clock jumps), its errors ours."""
        outside.enter()
        self._asked_at = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                yield
            self.healthy = True
        except StoreError:
            self.healthy = False
            raise
        # Broad: what a nonsense reply makes the client library raise is not limited to its own errors.
        except Exception as error:
            self.healthy = False
            raise StoreError(f"{self.describe()}: {type(error).__name__}: {error}") from error
        finally:
            outside.leave()


def _is_demoted(reply: Any) -> bool:
    """Whether a replica refused to write. From within a script it is no `ReadOnlyError`, only its text says so."""
    return isinstance(reply, ResponseError) and "READONLY" in str(reply)


def _read(damage: bytes, flat: list[bytes]) -> tuple[ConversationFields | None, dict[str, str], str]:
    """The conversation, the store's own fields, and what is wrong with it ("" for nothing)."""
    if damage or not flat:
        return None, {}, damage.decode()
    try:
        texts = [value.decode() for value in flat]
        stored = dict(zip(texts[::2], texts[1::2], strict=True))
        fields = parse({name: text for name, text in stored.items() if name not in _BOOKKEEPING})
    except (ValueError, DamagedSnapshot) as error:
        return None, {}, str(error) if isinstance(error, DamagedSnapshot) else "not UTF-8"
    return fields, {name: stored[name] for name in _BOOKKEEPING & stored.keys()}, ""


def _epoch_of(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _new_session() -> list[str]:
    fields = ConversationFields(last_update=time.time()).to_fields()
    return [text for pair in fields.items() for text in pair]


def _now_us() -> int:
    return time.time_ns() // 1000
