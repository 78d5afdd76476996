"""Who has a session: what an older owner is told, and what a newer one finds."""

from __future__ import annotations

import asyncio

from leibniz_voice.pipeline.conversation.snapshot import ConversationFields
from leibniz_voice.pipeline.errors import StoreError
from leibniz_voice.transports.state.embedded_redis import EmbeddedRedis
from leibniz_voice.transports.state.mirror import Mirror
from leibniz_voice.transports.state.redis_store import RedisStore
from tests.support.mirroring import ScriptedStore, metric, run
from tests.support.tools import needs


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
