"""Two servers that share a Redis, as two processes do: the session goes on at the other one, the older owner closes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis import Redis
from websockets.exceptions import ConnectionClosed

from leibniz_voice.processors.embedded.workers.shared import close_all
from leibniz_voice.transports import WebSocketServer
from leibniz_voice.transports.state.embedded_redis import EmbeddedRedis
from leibniz_voice.transports.state.redis_store import RedisStore
from tests.support.serving import bot, joined, types, until
from tests.support.tools import needs

pytestmark = [
    pytest.mark.slow,
    needs("redis"),
]


@asynccontextmanager
async def two_servers(folder: Path) -> AsyncIterator[tuple[WebSocketServer, WebSocketServer, EmbeddedRedis]]:
    redis = EmbeddedRedis(directory=folder)
    await redis.start()
    stores = [RedisStore(redis.url), RedisStore(redis.url)]
    for store in stores:
        await store.start()
    here, there = (WebSocketServer(bot("assistant.py").build, port=0, store=store) for store in stores)
    async with here, there:
        yield here, there, redis
    await close_all()
    for store in stores:
        await store.close()
    await redis.stop()


def test_a_reply_goes_on_at_the_other_server_and_the_first_one_falls_silent_and_closes(tmp_path: Path) -> None:
    async def main() -> None:
        async with two_servers(tmp_path) as (here, there, _), joined(here) as first:
            await types(first, "what are your opening hours")
            whole = (await until(first, type="response_ready"))["text"]
            await asyncio.sleep(2.5)
            async with joined(there) as second:
                kinds = [json.loads(await second.recv()), json.loads(await second.recv())]
                assert [message["type"] for message in kinds] == ["ready", "state_update"]
                assert (kinds[0]["resumed"], kinds[1]["state"], kinds[1]["trigger"]) == (True, "speaking", "resumed")
                rest = await until(second, type="response_ready")
                assert rest["turn"] == 1
                assert whole.endswith(rest["text"])
                with pytest.raises(ConnectionClosed):  # the next word that it notes is refused
                    await until(first, type="nothing such")
                assert first.close_code == 4409
                await until(second, type="state_update", trigger="tts_complete")
                await types(second, "goodbye")
                assert (await until(second, type="response_ready"))["turn"] == 2

    asyncio.run(main())


def test_a_session_that_connects_while_redis_is_away_finds_its_history_later(tmp_path: Path) -> None:
    async def main() -> None:
        async with two_servers(tmp_path) as (here, there, redis):
            async with joined(here) as first:
                await types(first, "goodbye")
                await until(first, type="state_update", trigger="tts_complete")
            await asyncio.sleep(0.1)
            os.kill(redis.pid or 0, signal.SIGSTOP)
            async with joined(there) as second:
                ready = await until(second, type="ready")
                assert not ready["resumed"]
                await types(second, "goodbye")
                turn = (await until(second, type="response_ready"))["turn"]
                assert turn > 1_000_000  # above all that can have been used
                os.kill(redis.pid or 0, signal.SIGCONT)
                await until(second, type="state_update", trigger="tts_complete")
                with Redis.from_url(redis.url, decode_responses=True) as stored:
                    async with asyncio.timeout(20):
                        while stored.hget("session:s1", "turn_number") != "2":
                            await asyncio.sleep(0.05)
            async with joined(here) as third:
                assert (await until(third, type="ready"))["turn_number"] == 2

    asyncio.run(main())
