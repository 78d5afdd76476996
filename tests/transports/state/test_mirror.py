"""Conversations follow into the store behind their back, whatever the store does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass, field

import pytest
from prometheus_client import REGISTRY
from redis import Redis

from leibniz_voice.pipeline.conversation.conversation_record import ConversationRecord
from leibniz_voice.pipeline.conversation.snapshot import ConversationFields, parse
from leibniz_voice.pipeline.conversation.store import LogLine, Outcome, Write, WriteResult
from leibniz_voice.pipeline.errors import ConfigurationError, StoreError
from leibniz_voice.transports.state.embedded_redis import EmbeddedRedis
from leibniz_voice.transports.state.memory_store import MemoryStore
from leibniz_voice.transports.state.mirror import Mirror
from leibniz_voice.transports.state.redis_store import RedisStore
from tests.support.tools import needs

LINE = LogLine("idle", "listening", "stt_start", 0, 1.5)


@dataclass
class ScriptedStore(MemoryStore):
    """Memory that answers as told: `faults` are taken from the front, one per batch."""

    faults: list = field(default_factory=list)
    batches: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__()

    async def claim(self, session_id, owner):
        if self.faults:
            raise StoreError("away")
        return await super().claim(session_id, owner)

    async def write(self, batch):
        self.batches.append([write.session_id for write in batch])
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, BaseException):
            raise fault
        if fault is not None:
            passed = [write for write in batch if write.session_id not in fault]
            stored = {result.session_id: result for result in await super().write(passed)}
            return [stored.get(w.session_id, WriteResult(w.session_id, Outcome.FAILED, "OOM")) for w in batch]
        return await super().write(batch)


def run(store, body, **settings):
    """`body(mirror)` on a started mirror with quick back-off."""

    async def whole():
        mirror = Mirror(store, **{"first_retry_s": 0.005, "longest_retry_s": 0.01, **settings})
        await mirror.start()
        try:
            async with asyncio.timeout(10):
                return await body(mirror)
        finally:
            await mirror.stop()

    return asyncio.run(whole())


async def steps_until(condition):
    """Let the loop take steps, as many as it needs."""
    for _ in range(1_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("never happened")


def metric(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_change_arrives_and_the_newest_wins():
    """Many changes in one step are one write, of the last state."""
    store = ScriptedStore()

    async def body(mirror):
        conversation = ConversationFields()
        session = mirror.open(await mirror.claim("s"), conversation)
        for number in range(100):
            conversation.turn_number = number
            session.update()
        assert await mirror.drain(1) == 0

    run(store, body)
    assert store.fields("s")["turn_number"] == "99"
    assert store.batches == [["s"]]


def test_the_first_change_goes_at_once_and_the_next_ones_wait_for_the_interval():
    """At most one batch per interval, unless somebody asks for more."""
    store = ScriptedStore()

    async def body(mirror):
        session = mirror.open(await mirror.claim("s"), ConversationFields())
        await steps_until(lambda: store.batches)
        session.update()
        for _ in range(50):
            await asyncio.sleep(0)
        waiting = len(store.batches)
        session.flush()
        for _ in range(50):
            await asyncio.sleep(0)
        return waiting, len(store.batches)

    assert run(store, body, interval_s=5.0) == (1, 2)


def test_a_batch_is_never_larger_than_its_limit():
    """A thousand sessions after an outage do not make one huge pipeline."""
    store = ScriptedStore()

    async def body(mirror):
        for number in range(600):
            mirror.open(await mirror.claim(f"s{number}"), ConversationFields())
        return await mirror.drain(5)

    assert run(store, body) == 0
    assert [len(batch) for batch in store.batches] == [256, 256, 88]


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


def test_a_fenced_session_is_told_once_and_writes_no_more():
    """Another process has it now."""
    store, told = ScriptedStore(), []
    before = metric("leibniz_fenced_writes_total")

    async def body(mirror):
        session = mirror.open(await mirror.claim("s"), ConversationFields(state="speaking"), on_fenced=told.append)
        await mirror.drain(1)
        await store.claim("s", "another process")
        session.update()
        await mirror.drain(1)
        session.update()
        session.close()
        await mirror.drain(1)
        return session.fenced

    assert run(store, body)
    assert told == ["s"]
    assert metric("leibniz_fenced_writes_total") == before + 1
    assert len(store.batches) == 2


def test_a_callback_that_raises_does_not_end_the_flusher():
    """The other sessions go on."""
    store = ScriptedStore()

    async def body(mirror):
        session = mirror.open(await mirror.claim("s"), ConversationFields(), on_fenced=lambda _: 1 / 0)
        await mirror.drain(1)
        await store.claim("s", "another process")
        session.update()
        mirror.open(await mirror.claim("t"), ConversationFields(state="thinking"))
        return await mirror.drain(1)

    assert run(store, body) == 0
    assert store.fields("t")["state"] == "thinking"


def test_a_conversation_that_cannot_say_its_fields_costs_only_itself():
    """A bug in one session's object."""
    store = ScriptedStore()

    class Broken:
        def to_fields(self):
            raise RuntimeError("bug")

    async def body(mirror):
        broken = mirror.open(await mirror.claim("broken"), Broken())
        mirror.open(await mirror.claim("s"), ConversationFields(state="thinking"))
        left = await mirror.drain(1)
        broken.close()
        return left, await mirror.drain(1)

    assert run(store, body) == (0, 0)
    assert store.fields("s")["state"] == "thinking"


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


def test_ended_conversations_are_kept_up_to_a_limit():
    """An outage of a day with a call a second must not fill the memory: the oldest give way and are counted."""
    store = ScriptedStore()
    before = metric("leibniz_mirror_dropped_sessions_total")

    async def body(mirror):
        claims = [await mirror.claim(f"s{number}") for number in range(25)]
        store.faults = [StoreError("away")] * 2
        for claim in claims:
            mirror.open(claim, ConversationFields(turn_number=1)).close()
        assert mirror.pending == 10
        return await mirror.drain(1)

    assert run(store, body, ended_limit=10) == 0
    kept = [number for number in range(25) if store.fields(f"s{number}")["turn_number"] == "1"]
    assert kept == list(range(15, 25))
    assert metric("leibniz_mirror_dropped_sessions_total") == before + 15


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


def test_a_session_that_connects_again_continues_from_what_is_not_stored_yet():
    """The client came back quicker than the flusher, or during an outage."""
    store, told = ScriptedStore(), []

    async def body(mirror):
        old = ConversationFields(turn_number=7)
        first = mirror.open(await mirror.claim("s"), old, on_fenced=told.append)
        old.turn_number = 8
        quick = await mirror.claim("s")
        second = mirror.open(quick, quick.fields)
        second.close()
        store.faults = [StoreError("away")] * 4
        away = await mirror.claim("s")
        mirror.open(away, away.fields)
        return first.fenced, quick, away, await mirror.drain(1)

    fenced, quick, away, left = run(store, body)
    assert fenced
    assert told == ["s"]
    assert quick.fields.turn_number == 8
    assert (away.stored, away.fields.turn_number, left) == (False, 8, 0)
    assert store.fields("s")["turn_number"] == "8"


def test_the_newer_of_two_connections_stays():
    """Whatever the order in which they come to open."""
    store, told = ScriptedStore(), []

    async def body(mirror):
        older, newer = await mirror.claim("s"), await mirror.claim("s")
        mirror.open(newer, ConversationFields(state="speaking"), on_fenced=lambda _: told.append("newer"))
        mirror.open(older, ConversationFields(state="idle"), on_fenced=lambda _: told.append("older"))
        return await mirror.drain(1)

    assert run(store, body) == 0
    assert told == ["older"]
    assert store.fields("s")["state"] == "speaking"


def test_transitions_reach_the_log_once_and_in_order():
    """Also across an outage."""
    store = ScriptedStore()
    lines = [LogLine("a", "b", f"t{number}", number, 0.0) for number in range(30)]

    async def body(mirror):
        session = mirror.open(await mirror.claim("s"), ConversationFields())
        for number, line in enumerate(lines):
            store.faults = [StoreError("away")] if number % 7 == 0 else []
            session.update(line)
            await mirror.drain(1)

    run(store, body, interval_s=0.0)
    assert store.log("s") == lines


def test_a_mirror_that_was_not_started_says_so():
    """Its sessions would never be written."""

    async def body():
        mirror = Mirror(MemoryStore())
        mirror.open(await mirror.claim("s"), ConversationFields())

    with pytest.raises(ConfigurationError):
        asyncio.run(body())


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


@needs("redis")
def test_a_new_owner_in_another_process_ends_the_old_one(tmp_path):
    """Two mirrors stand for two processes: the second continues, the first is told and closes."""
    told = []

    async def body():
        server = EmbeddedRedis(directory=tmp_path)
        store = RedisStore(server.url, server=server)
        await store.start()
        other = RedisStore(server.url)
        await other.start()
        here, there = Mirror(store), Mirror(other)
        await here.start()
        await there.start()
        conversation = ConversationFields(state="speaking", turn_id=2, llm_response="Nine to five.")
        session = here.open(await here.claim("s"), conversation, on_fenced=told.append)
        await here.drain(1)
        taken = await there.claim("s")
        there.open(taken, taken.fields)
        conversation.state = "idle"
        session.update()
        await here.drain(1)
        await there.drain(1)
        after = await other.claim("s", "c")
        await here.stop()
        await there.stop()
        await other.close()
        await store.close()
        return taken, after

    taken, after = asyncio.run(body())
    assert taken.fields.llm_response == "Nine to five."
    assert after.fields.state == "speaking"
    assert told == ["s"]


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
