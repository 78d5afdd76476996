"""Claims on a session in a store: what others can read there, and who owns it."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from redis import Redis

from leibniz_voice.pipeline.conversation.snapshot import ConversationFields
from leibniz_voice.pipeline.conversation.store import StateStore, Write, WriteOutcome
from leibniz_voice.pipeline.errors import ConfigurationError, StoreError
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
    assert outcomes(refused) == [WriteOutcome.FENCED, WriteOutcome.STORED]
    assert outcomes(stored) == [WriteOutcome.STORED]
    assert third.fields.state == "listening"


def test_two_owners_with_one_epoch_are_told_apart(any_store):
    """A failover can hand an epoch out twice: the owner decides, the first one there stays."""

    async def body():
        claim = await any_store.claim("s", "a")
        twin = Write("s", "b", claim.epoch, 50, ConversationFields(state="speaking").to_fields())
        return await any_store.write([twin]), await any_store.claim("s", "c")

    result, after = run(any_store, body)
    assert outcomes(result) == [WriteOutcome.FENCED]
    assert after.fields.state == "idle"


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
    assert outcomes(zombie) == [WriteOutcome.STORED]  # nobody there knows better
    assert outcomes(taken) == [WriteOutcome.STORED]
    assert outcomes(late) == [WriteOutcome.FENCED]
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
    assert outcomes(stored) == [WriteOutcome.STORED]
    assert outcomes(refused) == [WriteOutcome.FENCED]


def test_a_session_that_was_never_claimed_there_is_written(any_store):
    """A connection that found no store mints its epoch itself and writes later."""

    async def body():
        old = await any_store.claim("s", "a")
        write = Write("s", "b", any_store.next_epoch(), 1, ConversationFields(state="listening").to_fields())
        return await any_store.write([write]), await any_store.write([a_write(old, 2)])

    taken, old = run(any_store, body)
    assert outcomes(taken) == [WriteOutcome.STORED]
    assert outcomes(old) == [WriteOutcome.FENCED]


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


@pytest.mark.parametrize("session_id", ["", "a b", "a{b}", "x" * 65, "a:b", "a\n"])
def test_ids_that_could_leave_their_keys_are_refused(any_store, session_id):
    """Braces would move a key to another Cluster slot, colons into another key."""
    with pytest.raises(ConfigurationError):
        run(any_store, lambda: any_store.claim(session_id, "a"))
