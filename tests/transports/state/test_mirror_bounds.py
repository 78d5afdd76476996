"""Conversations follow into the store behind their back: how often, how much at once, and what is kept."""

from __future__ import annotations

import asyncio

import pytest

from leibniz_voice.pipeline.conversation.snapshot import ConversationFields
from leibniz_voice.pipeline.conversation.store import LogLine
from leibniz_voice.pipeline.errors import ConfigurationError, StoreError
from leibniz_voice.transports.state.memory_store import MemoryStore
from leibniz_voice.transports.state.mirror import Mirror
from tests.support.mirroring import ScriptedStore, metric, run, steps_until


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
