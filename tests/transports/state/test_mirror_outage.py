"""A store that is away, refuses or returns: conversations go on, and nothing of them is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time

import pytest
from redis import Redis

from leibniz_voice.pipeline.conversation.conversation_record import ConversationRecord
from leibniz_voice.pipeline.conversation.snapshot import ConversationFields, parse
from leibniz_voice.pipeline.conversation.store import Write
from leibniz_voice.pipeline.errors import StoreError
from leibniz_voice.transports.state.embedded_redis import EmbeddedRedis
from leibniz_voice.transports.state.memory_store import MemoryStore
from leibniz_voice.transports.state.mirror import Mirror
from leibniz_voice.transports.state.redis_store import RedisStore
from tests.support.mirroring import LINE, ScriptedStore, metric, run, steps_until
from tests.support.tools import needs


def test_an_outage_keeps_one_mark_per_session_and_loses_nothing():
    """The store comes back: the newest state of each, once."""
    store = ScriptedStore()
    before = metric("leibniz_store_errors_total", kind="unanswered")

    async def body(mirror):
        conversations = [ConversationFields() for _ in range(20)]
        sessions = [mirror.open(await mirror.claim(f"s{i}"), c) for i, c in enumerate(conversations)]
        await mirror.drain(1)
        store.faults = [StoreError("away")] * 5
        while store.faults:
            for session, conversation in zip(sessions, conversations, strict=True):
                conversation.turn_number += 1
                session.update(LINE)
            assert mirror.pending <= 20
            await asyncio.sleep(0)
        assert await mirror.drain(1) == 0
        return conversations

    conversations = run(store, body)
    assert [store.fields(f"s{i}")["turn_number"] for i in range(20)] == [str(c.turn_number) for c in conversations]
    assert metric("leibniz_store_errors_total", kind="unanswered") == before + 5


def test_a_session_that_the_store_refuses_does_not_hold_up_the_others():
    """Each verdict counts for its own session."""
    store = ScriptedStore()

    async def body(mirror):
        bad = mirror.open(await mirror.claim("bad"), ConversationFields(turn_number=1))
        good_state = ConversationFields()
        good = mirror.open(await mirror.claim("good"), good_state)
        store.faults = [{"bad"}] * 3
        for number in range(1, 4):
            good_state.turn_number = number
            good.update()
            bad.update()
            await steps_until(lambda: store.fields("good")["turn_number"] == str(good_state.turn_number))
        while store.faults:
            good.update()
            await asyncio.sleep(0)
        return await mirror.drain(1)

    assert run(store, body, interval_s=0.001) == 0
    assert store.fields("bad")["turn_number"] == "1"


def test_the_last_state_of_an_ended_conversation_is_kept_until_it_is_stored():
    """The object may be reused or gone; its fields at the end count."""
    store = ScriptedStore()

    async def body(mirror):
        conversation = ConversationFields(turn_number=5)
        session = mirror.open(await mirror.claim("s"), conversation)
        store.faults = [StoreError("away")] * 3
        session.close()
        conversation.turn_number = 999
        return await mirror.drain(1)

    assert run(store, body) == 0
    assert store.fields("s")["turn_number"] == "5"


def test_a_flusher_that_dies_is_started_again():
    """And what it held is written by the next one."""
    store = ScriptedStore(faults=[])
    before = metric("leibniz_mirror_restarts_total")

    async def body(mirror):
        session = mirror.open(await mirror.claim("s"), ConversationFields(state="speaking"))
        store.faults = [RuntimeError("bug"), RuntimeError("another")]
        session.update()
        return await mirror.drain(1)

    assert run(store, body) == 0
    assert store.fields("s")["state"] == "speaking"
    assert metric("leibniz_mirror_restarts_total") == before + 2


@needs("redis")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["killed", "frozen"])
def test_an_outage_of_redis_never_blocks_and_is_made_good_within_two_seconds(tmp_path, kind):
    """100 conversations change all the time; update() stays instant, and afterwards nothing is stale."""

    async def body():
        server = EmbeddedRedis(directory=tmp_path)
        store = RedisStore(server.url, server=server)
        await store.start()
        mirror = Mirror(store)
        await mirror.start()
        conversations = [ConversationFields() for _ in range(100)]
        sessions = [mirror.open(await mirror.claim(f"s{i}"), c) for i, c in enumerate(conversations)]
        costs = []

        async def change(seconds):
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                for session, conversation in zip(sessions, conversations, strict=True):
                    start = time.perf_counter()
                    conversation.turn_number += 1
                    session.update(LINE)
                    costs.append(time.perf_counter() - start)
                await asyncio.sleep(0.01)

        await change(0.2)
        pid = server.pid
        os.kill(pid, signal.SIGKILL if kind == "killed" else signal.SIGSTOP)
        await change(1.2)
        late = await mirror.claim("late")  # a caller who comes during the outage
        if kind == "frozen":
            os.kill(pid, signal.SIGCONT)
        with Redis.from_url(server.url, decode_responses=True) as redis:
            async with asyncio.timeout(5):
                while True:
                    with contextlib.suppress(Exception):
                        if redis.ping():
                            break
                    await asyncio.sleep(0.005)
            back = time.perf_counter()
            left = await mirror.drain(5)
            took_s = time.perf_counter() - back
            fresh = [
                int(redis.hget(f"session:s{i}", "turn_number")) == c.turn_number for i, c in enumerate(conversations)
            ]
            log = [entry["trigger"] for _, entry in redis.xrange("{session:s0}:log")]
        await mirror.stop()
        await store.close()
        return left, took_s, fresh, late, sorted(costs), log

    left, took_s, fresh, late, costs, log = asyncio.run(body())
    assert left == 0
    assert all(fresh)
    assert took_s < 2.0
    assert late.stored == (kind == "killed")  # by then the supervisor had another one up
    assert costs[len(costs) // 2] < 0.0001
    assert log
    print(json.dumps({"back_s": took_s, "p50_us": costs[len(costs) // 2] * 1e6, "n": len(costs)}))


def test_a_conversation_begun_during_an_outage_finds_its_history_when_the_store_returns():
    """Another process held the session; nothing it stored is overwritten, and no turn id is used twice."""
    store = ScriptedStore()
    earlier = ConversationFields(
        state="speaking", turn_id=7, turn_number=6, llm_response="Nine to five.", heard="Nine",
        history=[{"turn_id": 6, "text": "Yes.", "heard": "Yes.", "interrupted": False}],
    )  # fmt: skip

    async def body(mirror):
        other = await store.claim("s", "another process")
        await store.write([Write("s", "another process", other.epoch, 1, earlier.to_fields())])
        store.faults = [StoreError("away")] * 3
        claim = await mirror.claim("s")
        record = ConversationRecord("s", fields=claim.fields, last_turn_id=claim.last_turn_id)
        record.fields.turn_number = 1
        record.fields.llm_response = "Hello."
        record.remember("Hello.", question="", interrupted=False)
        mirror.open(claim, record, on_found=record.adopt)
        return claim, record, await mirror.drain(1)

    claim, record, left = run(store, body)
    assert (claim.stored, claim.resumed, left) == (False, False, 0)
    assert record.fields.turn_number == 7
    assert [message["text"] for message in record.fields.history] == ["Yes.", "Nine to five.", "Hello."]
    assert record.fields.history[1]["heard"] == "Nine"
    assert record.fields.turn_id > 1_000_000
    stored = parse(dict(store.fields("s")))
    assert (stored.turn_number, len(stored.history), stored.turn_id) == (7, 3, record.fields.turn_id)


def test_a_conversation_that_ended_during_the_outage_keeps_both_histories():
    """It was closed before the store came back."""
    store = ScriptedStore()

    async def body(mirror):
        other = await store.claim("s", "another process")
        fields = ConversationFields(turn_number=6, turn_id=7)
        await store.write([Write("s", "another process", other.epoch, 1, fields.to_fields())])
        store.faults = [StoreError("away")] * 3
        claim = await mirror.claim("s")
        record = ConversationRecord("s", last_turn_id=claim.last_turn_id)
        record.fields.turn_number = 1
        mirror.open(claim, record, on_found=record.adopt).close()
        return await mirror.drain(1)

    assert run(store, body) == 0
    assert store.fields("s")["turn_number"] == "7"


def test_a_client_that_returns_just_after_the_outage_gets_both_histories():
    """Its first connection had no answer from the store and has not written yet; its second gets the stored state."""
    store = ScriptedStore()

    async def body(mirror):
        other = await store.claim("s", "another process")
        fields = ConversationFields(turn_number=6, turn_id=7)
        await store.write([Write("s", "another process", other.epoch, 1, fields.to_fields())])
        store.faults = [StoreError("away")]
        claim = await mirror.claim("s")
        record = ConversationRecord("s", last_turn_id=claim.last_turn_id)
        record.fields.turn_number = 1
        mirror.open(claim, record, on_found=record.adopt)
        store.faults = []
        again = await mirror.claim("s")
        mirror.open(again, again.fields)
        return again, await mirror.drain(1)

    again, left = run(store, body)
    assert (again.stored, again.fields.turn_number, left) == (True, 7, 0)
    assert again.fields.turn_id > 1_000_000
    assert store.fields("s")["turn_number"] == "7"


def test_after_an_outage_every_conversation_is_written_once_more():
    """A failover may have lost what the old server had confirmed, also of those that did not change since."""
    store, replica = ScriptedStore(), MemoryStore()

    async def body(mirror):
        for number in range(20):
            mirror.open(await mirror.claim(f"s{number}"), ConversationFields(turn_number=3))
        await mirror.drain(1)
        store.faults = [StoreError("away")]
        mirror.open(await mirror.claim("another"), ConversationFields())
        await steps_until(lambda: not store.faults)
        mirror.store = replica  # which has nothing
        await mirror.drain(1)
        await steps_until(lambda: not mirror.pending)

    run(store, body)
    assert {replica.fields(f"s{number}")["turn_number"] for number in range(20)} == {"3"}
