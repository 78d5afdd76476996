"""What a store does with damage: a hash that cannot be read, a server that talks nonsense, one that fails to close."""

from __future__ import annotations

import asyncio

import pytest
from loguru import logger
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from leibniz_voice.pipeline.conversation.store import WriteOutcome
from leibniz_voice.pipeline.errors import ConfigurationError, StoreError
from leibniz_voice.transports.state.redis_store import RedisStore
from tests.support.storing import a_write, outcomes, run
from tests.support.tools import needs

pytestmark = needs("redis")


@pytest.fixture
def redis(real_redis):
    """A plain client, as an operator would look."""
    with Redis.from_url(real_redis, decode_responses=True) as client:
        yield client


@pytest.mark.parametrize(
    "spoil",
    [
        lambda redis: redis.hset("session:s", "intent", "{broken"),
        lambda redis: redis.hset("session:s", "schema", "99"),
        lambda redis: redis.hset("session:s", "llm_response", b"\xff\xfe"),
        lambda redis: redis.hdel("session:s", "state"),
        lambda redis: redis.hset("session:s", mapping={"epoch": "inf", "state": "dreaming"}),
        lambda redis: redis.set("session:s", "a text"),
    ],
    ids=["bad json", "newer schema", "not utf-8", "no state", "bad epoch", "not a hash"],
)
def test_a_damaged_hash_is_put_aside_and_the_session_starts_anew(real_redis, redis, spoil):
    """Never half-loaded, never lost: it is kept beside for a day, and the new session works."""
    store = RedisStore(real_redis)

    async def body():
        await store.claim("s", "a")
        spoil(redis)
        claim = await store.claim("s", "b")
        return claim, await store.write([a_write(claim)])

    claim, result = run(store, body)
    assert not claim.resumed
    assert claim.last_turn_id > 1e12  # nobody knows which turn ids it had used, and with them idempotency keys
    assert outcomes(result) == [WriteOutcome.STORED]
    (aside,) = redis.keys("{session:s}:damaged:*")
    assert 86_000 < redis.ttl(aside) <= 86_400
    assert redis.hget("session:s", "state") == "thinking"
    assert 1e15 < int(redis.hget("session:s", "epoch")) < 9e15


def test_nonsense_from_the_server_is_a_store_error(tmp_path):
    """Something else listens there: an error of ours, within the limit, and no session is confused."""
    path = str(tmp_path / "nonsense.sock")

    async def body(answer):
        async def babble(reader, writer):
            while await reader.read(65536):
                writer.write(answer)
            writer.close()

        peer = await asyncio.start_unix_server(babble, path)
        store = RedisStore(f"unix://{path}", timeout_s=0.05, claim_timeout_s=0.2)
        await store.start()
        claim = a_write(type("C", (), {"session_id": "s", "owner": "a", "epoch": 1}))
        with pytest.raises(StoreError):
            await store.claim("s", "a")
        with pytest.raises(StoreError):
            await store.write([claim])
        await store.close()
        peer.close()
        return store.healthy

    for answer in (
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"+PONG\r\n",
        b":-1\r\n",
        b"*-1\r\n",
        b"*3\r\n+ok\r\n:x",
        b"\0",
    ):
        assert asyncio.run(body(answer)) is False


def test_a_url_that_is_none_is_a_configuration_error_without_the_password():
    """Its message can be logged."""
    with pytest.raises(ConfigurationError) as caught:
        RedisStore("http://user:secret@cache:6379/0")
    assert "secret" not in str(caught.value)
    assert "secret" not in RedisStore("rediss://user:secret@cache:6379/0").describe()


class OurServer:
    """A server that the store starts and stops."""

    def __init__(self):
        self.stopped = 0

    async def start(self): ...

    async def stop(self):
        self.stopped += 1


@pytest.mark.parametrize(
    ("error", "levels"),
    [(ConnectionResetError("gone"), []), (TimeoutError(), []), (AttributeError("no such name"), ["ERROR"])],
    ids=["a peer that is gone", "one that is frozen", "a fault"],
)
def test_only_a_fault_in_closing_is_an_error_and_the_server_stops_in_any_case(monkeypatch, error, levels):
    async def fails(self):
        raise error

    monkeypatch.setattr(AsyncRedis, "aclose", fails)
    lines, server = [], OurServer()
    sink = logger.add(lines.append, level="WARNING")
    asyncio.run(RedisStore("redis://127.0.0.1:6379", server=server).close())
    logger.remove(sink)
    assert [line.record["level"].name for line in lines] == levels
    assert server.stopped == 1
