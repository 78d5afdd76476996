"""Sessions in a real Redis: what others can read there, who owns them, what happens to damaged ones."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from redis import Redis

from leibniz_voice.pipeline.conversation.snapshot import ConversationFields
from leibniz_voice.pipeline.conversation.store import LogLine, Outcome, StateStore, Write
from leibniz_voice.pipeline.errors import ConfigurationError, StoreError
from leibniz_voice.transports.state.memory_store import MemoryStore
from leibniz_voice.transports.state.redis_store import RedisStore
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


def run(store, body):
    async def whole():
        await store.start()
        try:
            return await body()
        finally:
            await store.close()

    return asyncio.run(whole())


def a_write(claim, sequence=1, *, state="thinking", log=(), log_start=1, **more):
    fields = ConversationFields(state=state, **more).to_fields()
    return Write(claim.session_id, claim.owner, claim.epoch, sequence, fields, log, log_start)


def outcomes(results):
    return [result.outcome for result in results]


def test_a_plain_hgetall_shows_the_contracts_fields(real_redis, redis):
    """A new session is there at connect, with its empty values; a write shows in the same hash."""
    store = RedisStore(real_redis)

    async def body():
        claim = await store.claim("caller-1", "a")
        fresh = redis.hgetall("session:caller-1")
        await store.write([a_write(claim, turn_number=3, text_buffer=["hello"], intent={"label": "hours"})])
        return claim, fresh

    claim, fresh = run(store, body)
    assert not claim.resumed
    assert fresh["state"] == "idle"
    assert (fresh["text_buffer"], fresh["intent"], fresh["rag_results"], fresh["llm_response"]) == (
        "[]",
        "{}",
        "{}",
        "",
    )
    assert abs(float(fresh["last_update"]) - time.time()) < 60
    stored = redis.hgetall("session:caller-1")
    assert stored["state"] == "thinking"
    assert stored["turn_number"] == "3"
    assert stored["text_buffer"] == '["hello"]'
    assert stored["intent"] == '{"label": "hours"}'


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


def test_a_claim_returns_the_stored_conversation(any_store):
    """All fields come back, to another owner, with a higher epoch."""

    async def body():
        first = await any_store.claim("s", "a")
        await any_store.write([a_write(first, state="speaking", turn_id=4, llm_response="Nine to five.")])
        return first, await any_store.claim("s", "b")

    first, second = run(any_store, body)
    assert second.resumed
    assert second.fields == ConversationFields(state="speaking", turn_id=4, llm_response="Nine to five.")
    assert second.epoch > first.epoch
    assert second.previous_owner == "a"
    assert isinstance(any_store, StateStore)


def test_an_older_owner_is_refused(any_store):
    """After the second claim nothing of the first owner arrives, alone in its batch or not."""

    async def body():
        old = await any_store.claim("s", "a")
        other = await any_store.claim("t", "a")
        new = await any_store.claim("s", "b")
        refused = await any_store.write([a_write(old, 9), a_write(other)])
        stored = await any_store.write([a_write(new, state="listening")])
        return refused, stored, await any_store.claim("s", "c")

    refused, stored, third = run(any_store, body)
    assert outcomes(refused) == [Outcome.FENCED, Outcome.STORED]
    assert outcomes(stored) == [Outcome.STORED]
    assert third.fields.state == "listening"


def test_two_owners_with_one_epoch_are_told_apart(any_store):
    """A failover can hand an epoch out twice: the owner decides, the first one there stays."""

    async def body():
        claim = await any_store.claim("s", "a")
        twin = Write("s", "b", claim.epoch, 50, ConversationFields(state="speaking").to_fields())
        return await any_store.write([twin]), await any_store.claim("s", "c")

    result, after = run(any_store, body)
    assert outcomes(result) == [Outcome.FENCED]
    assert after.fields.state == "idle"


def test_an_older_sequence_number_is_refused(any_store):
    """A write that a frozen server finds late does not undo a newer one; the same one again is harmless."""

    async def body():
        claim = await any_store.claim("s", "a")
        newer = a_write(claim, 7, state="speaking")
        results = [await any_store.write([write]) for write in (newer, a_write(claim, 6), newer)]
        return results, await any_store.claim("s", "b")

    results, after = run(any_store, body)
    assert [outcomes(result) for result in results] == [[Outcome.STORED], [Outcome.STALE], [Outcome.STORED]]
    assert after.fields.state == "speaking"


def test_a_lost_claim_is_made_again_by_the_next_write(real_redis, redis):
    """A failover forgets the newer owner's claim: its next write takes the session back from the older one."""
    store = RedisStore(real_redis)

    async def body():
        old = await store.claim("s", "a")
        before = redis.dump("session:s")
        new = await store.claim("s", "b")
        redis.restore("session:s", 0, before, replace=True)  # the claim is lost
        zombie = await store.write([a_write(old, 2)])
        taken = await store.write([a_write(new, state="speaking")])
        return zombie, taken, await store.write([a_write(old, 3)])

    zombie, taken, late = run(store, body)
    assert outcomes(zombie) == [Outcome.STORED]  # nobody there knows better
    assert outcomes(taken) == [Outcome.STORED]
    assert outcomes(late) == [Outcome.FENCED]
    assert redis.hget("session:s", "state") == "speaking"


def test_an_epoch_is_not_handed_out_twice_after_a_lost_claim(real_redis, redis):
    """A counter would give the claim after a failover the number of the claim that was lost."""
    stores = [RedisStore(real_redis) for _ in range(3)]  # three processes

    async def body():
        await stores[0].claim("s", "a")
        before = redis.dump("session:s")
        lost = await stores[1].claim("s", "b")
        redis.restore("session:s", 0, before, replace=True)
        new = await stores[2].claim("s", "c")
        results = [await stores[2].write([a_write(new)]), await stores[1].write([a_write(lost, 2)])]
        for store in stores:
            await store.close()
        return lost.epoch, new.epoch, results

    lost, new, (stored, refused) = asyncio.run(body())
    assert new > lost
    assert outcomes(stored) == [Outcome.STORED]
    assert outcomes(refused) == [Outcome.FENCED]


def test_a_session_that_was_never_claimed_there_is_written(any_store):
    """A connection that found no store mints its epoch itself and writes later."""

    async def body():
        old = await any_store.claim("s", "a")
        write = Write("s", "b", any_store.next_epoch(), 1, ConversationFields(state="listening").to_fields())
        return await any_store.write([write]), await any_store.write([a_write(old, 2)])

    taken, old = run(any_store, body)
    assert outcomes(taken) == [Outcome.STORED]
    assert outcomes(old) == [Outcome.FENCED]


def test_a_claim_found_late_by_a_frozen_server_takes_nothing(real_redis, redis):
    """The caller has given up and another process may own the session by then."""
    store = RedisStore(real_redis, claim_timeout_s=0.2)

    async def body():
        await store.claim("s", "a")
        pid = redis.info()["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(StoreError):
                await store.claim("s", "ghost")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert not store.healthy
        return await store.claim("t", "a")

    assert run(store, body).epoch
    assert redis.hget("session:s", "owner") == "a"


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
    assert outcomes(result) == [Outcome.STORED]
    (aside,) = redis.keys("{session:s}:damaged:*")
    assert 86_000 < redis.ttl(aside) <= 86_400
    assert redis.hget("session:s", "state") == "thinking"
    assert 1e15 < int(redis.hget("session:s", "epoch")) < 9e15


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
    assert outcomes(results) == [Outcome.STORED]
    assert claim.resumed


def test_one_bad_key_fails_alone(real_redis, redis):
    """Each reply of a batch is judged by itself."""
    store = RedisStore(real_redis)

    async def body():
        claims = [await store.claim(name, "a") for name in ("s", "t", "u")]
        redis.set("session:t", "a text")
        return await store.write([a_write(claim) for claim in claims])

    results = run(store, body)
    assert outcomes(results) == [Outcome.STORED, Outcome.FAILED, Outcome.STORED]
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

    assert outcomes(run(store, body)) == [Outcome.FAILED]


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


def test_memory_forgets_a_session_after_its_lifetime():
    """The same 3600 s, on the store's clock."""
    now = [1_000_000.0]
    store = MemoryStore(clock=lambda: now[0])

    async def body():
        await store.write([a_write(await store.claim("s", "a"), state="speaking")])
        now[0] += 3599
        second = await store.claim("s", "b")
        now[0] += 3601
        return second, await store.claim("s", "c")

    second, third = run(store, body)
    assert second.resumed
    assert not third.resumed


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


@pytest.mark.parametrize("session_id", ["", "a b", "a{b}", "x" * 65, "a:b", "a\n"])
def test_ids_that_could_leave_their_keys_are_refused(any_store, session_id):
    """Braces would move a key to another Cluster slot, colons into another key."""
    with pytest.raises(ConfigurationError):
        run(any_store, lambda: any_store.claim(session_id, "a"))


def test_a_url_that_is_none_is_a_configuration_error_without_the_password():
    """Its message can be logged."""
    with pytest.raises(ConfigurationError) as caught:
        RedisStore("http://user:secret@cache:6379/0")
    assert "secret" not in str(caught.value)
    assert "secret" not in RedisStore("rediss://user:secret@cache:6379/0").describe()


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
        assert claimed.outcome is Outcome.STORED
    else:
        assert claimed.outcome is Outcome.CLAIMED
        assert (claimed.found.turn_id if claimed.found else None) == found
        assert again.outcome is Outcome.CLAIMED  # the first answer may have been lost, too
    assert outcomes(late) == [Outcome.FENCED]
    assert len(redis.keys("{session:s}:damaged:*")) == (found is None)
