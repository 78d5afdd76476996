"""Writes to a store: in order, each judged by itself, and the log of transitions."""

from __future__ import annotations

import pytest
from redis import Redis

from leibniz_voice.pipeline.conversation.snapshot import ConversationFields
from leibniz_voice.pipeline.conversation.store import LogLine, Write, WriteOutcome
from leibniz_voice.transports.state.memory_store import MemoryStore
from leibniz_voice.transports.state.redis_store import RedisStore
from tests.support.storing import a_write, outcomes, run
from tests.support.tools import needs

pytestmark = needs("redis")


@pytest.fixture
def redis(real_redis):
    """A plain client, as an operator would look."""
    with Redis.from_url(real_redis, decode_responses=True) as client:
        yield client


@pytest.fixture(params=["redis", "memory"])
def any_store(request, real_redis):
    return RedisStore(real_redis) if request.param == "redis" else MemoryStore()


def test_every_write_renews_the_lifetime(real_redis, redis):
    """3600 s from the last write."""
    store = RedisStore(real_redis)

    async def body():
        claim = await store.claim("s", "a")
        first = redis.ttl("session:s")
        redis.expire("session:s", 10)
        await store.write([a_write(claim)])
        return first, redis.ttl("session:s")

    assert all(3598 <= ttl <= 3600 for ttl in run(store, body))


def test_an_older_sequence_number_is_refused(any_store):
    """A write that a frozen server finds late does not undo a newer one; the same one again is harmless."""

    async def body():
        claim = await any_store.claim("s", "a")
        newer = a_write(claim, 7, state="speaking")
        results = [await any_store.write([write]) for write in (newer, a_write(claim, 6), newer)]
        return results, await any_store.claim("s", "b")

    results, after = run(any_store, body)
    assert [outcomes(result) for result in results] == [
        [WriteOutcome.STORED],
        [WriteOutcome.STALE],
        [WriteOutcome.STORED],
    ]
    assert after.fields.state == "speaking"


def test_scripts_forgotten_by_the_server_are_sent_again(real_redis, redis):
    """A restart or failover answers NOSCRIPT; the caller does not notice."""
    store = RedisStore(real_redis)

    async def body():
        claim = await store.claim("s", "a")
        redis.script_flush()
        results = await store.write([a_write(claim)])
        redis.script_flush()
        return results, await store.claim("s", "b")

    results, claim = run(store, body)
    assert outcomes(results) == [WriteOutcome.STORED]
    assert claim.resumed


def test_one_bad_key_fails_alone(real_redis, redis):
    """Each reply of a batch is judged by itself."""
    store = RedisStore(real_redis)

    async def body():
        claims = [await store.claim(name, "a") for name in ("s", "t", "u")]
        redis.set("session:t", "a text")
        return await store.write([a_write(claim) for claim in claims])

    results = run(store, body)
    assert outcomes(results) == [WriteOutcome.STORED, WriteOutcome.FAILED, WriteOutcome.STORED]
    assert "WRONGTYPE" in results[1].detail


def test_out_of_memory_is_a_failed_write_not_a_dead_store(real_redis, redis):
    """The server answers, so nothing is in doubt."""
    store = RedisStore(real_redis)

    async def body():
        claim = await store.claim("s", "a")
        redis.config_set("maxmemory", "1")
        try:
            return await store.write([a_write(claim)])
        finally:
            redis.config_set("maxmemory", "0")

    assert outcomes(run(store, body)) == [WriteOutcome.FAILED]


def test_the_transition_log_holds_each_line_once(any_store, redis):
    """Lines sent again after a lost answer are skipped."""
    lines = [LogLine("idle", "listening", "stt_start", 0, 1.5), LogLine("listening", "thinking", "vad_end", 1, 2.5)]

    async def body():
        claim = await any_store.claim("s", "a")
        await any_store.write([a_write(claim, 1, log=lines[:1])])
        await any_store.write([a_write(claim, 2, log=lines)])
        await any_store.write([a_write(claim, 3, log=lines[1:], log_start=2)])

    run(any_store, body)
    if isinstance(any_store, MemoryStore):
        assert any_store.log("s") == lines
        return
    entries = [fields for _, fields in redis.xrange("{session:s}:log")]
    assert [entry["trigger"] for entry in entries] == ["stt_start", "vad_end"]
    assert entries[1] == {"from": "listening", "to": "thinking", "trigger": "vad_end", "turn_id": "1", "at": "2.5"}
    assert 3590 < redis.ttl("{session:s}:log") <= 3600


def test_the_transition_log_is_bounded(real_redis, redis):
    """About 200 lines, however long the conversation."""
    store = RedisStore(real_redis)
    line = LogLine("idle", "listening", "stt_start", 0, 1.5)

    async def body():
        claim = await store.claim("s", "a")
        for number in range(20):
            await store.write([a_write(claim, number, log=[line] * 50, log_start=1 + 50 * number)])

    run(store, body)
    assert 200 <= redis.xlen("{session:s}:log") <= 300


@pytest.mark.parametrize(
    ("kept", "found"),
    [
        ({"state": "speaking", "turn_id": "7"}, 7),
        ({"state": "dreaming"}, None),
        (None, None),
    ],
    ids=["a conversation", "a damaged one", "not a hash"],
)
def test_a_first_write_claims_and_tells_what_it_found(real_redis, redis, kept, found):
    """The claim got no answer: nothing unread is overwritten."""
    store = RedisStore(real_redis)

    async def body():
        old = await store.claim("s", "a")
        if kept is None:
            redis.delete("session:s")
            redis.set("session:s", "a text")
        else:
            await store.write([a_write(old)])
            redis.hset("session:s", mapping=kept)
        fields = ConversationFields(state="listening").to_fields()
        first = [Write("s", "b", store.next_epoch(), n, fields, is_first=True) for n in (1, 2)]
        return [(await store.write([write]))[0] for write in first], await store.write([a_write(old, 9)])

    (claimed, again), late = run(store, body)
    if kept is None:
        assert claimed.outcome is WriteOutcome.STORED
    else:
        assert claimed.outcome is WriteOutcome.CLAIMED
        assert (claimed.found.turn_id if claimed.found else None) == found
        assert again.outcome is WriteOutcome.CLAIMED  # the first answer may have been lost, too
    assert outcomes(late) == [WriteOutcome.FENCED]
    assert len(redis.keys("{session:s}:damaged:*")) == (found is None)
