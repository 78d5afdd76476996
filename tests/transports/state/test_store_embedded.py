"""The Redis that comes with the bot: it starts, survives, is shared, and ends with its bot."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from leibniz_voice.pipeline.conversation.snapshot import ConversationFields
from leibniz_voice.pipeline.conversation.store import Write
from leibniz_voice.pipeline.errors import StoreError
from leibniz_voice.transports.state import embedded_redis as store_embedded
from leibniz_voice.transports.state.embedded_redis import EmbeddedRedis, open_store
from leibniz_voice.transports.state.memory_store import MemoryStore
from leibniz_voice.transports.state.redis_store import RedisStore
from tests.support.tools import needs

pytestmark = needs("redis")

# A bot that starts the embedded store, says where its server is, and waits to be killed.
BOT = """
import asyncio, sys
from leibniz_voice.transports.state.embedded_redis import EmbeddedRedis
async def main():
    server = EmbeddedRedis(directory=sys.argv[1])
    await server.start()
    print(server.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def bot(directory):
    process = subprocess.Popen([sys.executable, "-c", BOT, str(directory)], stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


async def until(condition, limit_s=20.0):
    """Wait for something another process does; the condition may be async."""
    async with asyncio.timeout(limit_s):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.005)


def is_gone(pid):
    """No such process, or only its unread exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def write(store, session_id, owner="a", **fields):
    claim = await store.claim(session_id, owner)
    await store.write([Write(session_id, owner, claim.epoch, 1, ConversationFields(**fields).to_fields())])


async def claim_when_back(store):
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(StoreError):
                return await store.claim("s", "b")


def test_a_folder_that_cannot_be_one_is_named(tmp_path):
    (tmp_path / "file").touch()

    async def body():
        with pytest.raises(StoreError, match=r"/file does not start: file exists$"):
            await EmbeddedRedis(directory=tmp_path / "file").start()

    asyncio.run(body())


def test_state_survives_a_kill_of_the_server(tmp_path):
    """kill -9 of the server: another one is up in a moment, with every acknowledged write."""

    async def body():
        server = EmbeddedRedis(directory=tmp_path)
        store = RedisStore(server.url, server=server)
        await store.start()
        await write(store, "s", state="thinking", turn_id=7)
        first = server.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: server.pid not in (None, first))
        claim = await claim_when_back(store)
        await store.close()
        return claim, server

    claim, server = asyncio.run(body())
    assert claim.fields.turn_id == 7
    assert server.restarts == 1
    assert server.pid is None


def test_state_survives_a_restart_of_the_bot(tmp_path):
    """Stop and start again in the same folder; only this user may look into it."""

    async def body(owner):
        store = await open_store(directory=tmp_path / "state")
        claim = await store.claim("s", owner)
        await store.close()
        return claim

    assert not asyncio.run(body("a")).resumed
    assert asyncio.run(body("b")).previous_owner == "a"
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_the_server_dies_with_its_bot_and_another_bot_takes_over(tmp_path):
    """Two bots in one folder share a server; kill -9 of the one that started it costs the other a moment."""

    async def body():
        first, first_pid = bot(tmp_path)
        server = EmbeddedRedis(directory=tmp_path)
        store = RedisStore(server.url, server=server)
        await store.start()
        await write(store, "s", state="speaking")
        shared = server.pid is None
        first.kill()
        first.wait()
        first.stdout.close()
        await until(lambda: is_gone(first_pid))
        await until(lambda: server.pid is not None)
        claim = await claim_when_back(store)
        await store.close()
        return shared, claim

    shared, claim = asyncio.run(body())
    assert shared
    assert claim.fields.state == "speaking"


@pytest.mark.slow
def test_a_terminated_bot_leaves_no_server(tmp_path):
    """SIGTERM without any clean-up in Python."""
    process, pid = bot(tmp_path)
    process.terminate()
    process.wait()
    process.stdout.close()
    asyncio.run(until(lambda: is_gone(pid)))


def test_a_long_folder_name_gets_a_short_socket(tmp_path):
    """Socket paths end at 108 bytes; every bot of the folder finds the same short one."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)

    async def body():
        store = await open_store(directory=deep)
        claim = await store.claim("s", "a")
        await store.close()
        return store, claim

    store, claim = asyncio.run(body())
    assert isinstance(store, RedisStore)
    assert claim.stored
    assert len(os.fsencode(EmbeddedRedis(directory=deep).socket)) < 108
    assert EmbeddedRedis(directory=deep).socket == EmbeddedRedis(directory=deep).socket
    assert EmbeddedRedis(directory=deep).socket != EmbeddedRedis(directory=tmp_path).socket


def test_a_file_that_cannot_be_read_is_put_aside(tmp_path):
    """A bot with a damaged file starts, empty, and keeps the file for a look."""
    (tmp_path / "appendonly.aof").write_bytes(b"*1\r\nnonsense\r\n" * 10)

    async def body():
        store = await open_store(directory=tmp_path)
        await store.claim("s", "a")
        await store.close()
        return store

    assert isinstance(asyncio.run(body()), RedisStore)
    (aside,) = tmp_path.glob("damaged-*/appendonly*")
    assert aside.read_bytes().startswith(b"*1")


def test_it_can_be_started_again_after_its_server_was_killed(tmp_path):
    """The end of an earlier server is no failure of the new one."""

    async def start_and_kill(server):
        await server.start()
        os.kill(server.pid, signal.SIGKILL)
        await until(lambda: server.pid is None)

    async def start_and_stop(server):
        await server.start()
        pid = server.pid
        await server.stop()
        return pid

    server = EmbeddedRedis(directory=tmp_path)
    asyncio.run(start_and_kill(server))  # the loop ends before its watcher looks
    assert asyncio.run(start_and_stop(server)) is not None


def test_a_frozen_server_is_ended_all_the_same(tmp_path):
    """SIGTERM does not reach it; after two seconds SIGKILL does."""

    async def body():
        server = EmbeddedRedis(directory=tmp_path, stop_timeout_s=0.1)
        await server.start()
        pid = server.pid
        os.kill(pid, signal.SIGSTOP)
        await server.stop()
        return pid

    assert is_gone(asyncio.run(body()))


def test_without_a_server_memory_stands_in_and_says_so(tmp_path, monkeypatch):
    """The conversation must not depend on it."""
    monkeypatch.setattr(store_embedded, "find_server", lambda: None)
    assert isinstance(asyncio.run(open_store(directory=tmp_path)), MemoryStore)


def test_a_folder_that_cannot_be_made_means_memory(tmp_path):
    """A file is in the way."""
    (tmp_path / "state").write_text("")
    assert isinstance(asyncio.run(open_store(directory=tmp_path / "state")), MemoryStore)


def test_a_given_url_is_used_even_while_its_server_is_down(tmp_path):
    """It may come back; memory would never be written there."""

    async def body():
        store = await open_store(f"unix://{tmp_path}/nobody.sock")
        await store.close()
        return store

    store = asyncio.run(body())
    assert isinstance(store, RedisStore)
    assert not store.healthy
