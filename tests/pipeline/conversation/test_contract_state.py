"""What the contract says of stored conversations and of the log, through the server and a real Redis."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from loguru import logger
from redis import Redis
from websockets.asyncio.client import ClientConnection

from leibniz_voice.pipeline.conversation.snapshot import parse
from leibniz_voice.transports import WebSocketServer
from leibniz_voice.transports.state.redis_store import RedisStore
from tests.support.serving import bot, joined, served, types, until
from tests.support.tools import needs

pytestmark = [
    pytest.mark.slow,
    needs("redis"),
]


@pytest.fixture
def redis(real_redis: str) -> Iterator[Redis]:
    """A plain client, as an operator would look."""
    with Redis.from_url(real_redis, decode_responses=True) as client:
        yield client


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged at INFO."""
    seen: list[str] = []
    sink = logger.add(lambda line: seen.append(str(line).strip()), format="{message}", level="INFO")
    yield seen
    logger.remove(sink)


@asynccontextmanager
async def serving(url: str) -> AsyncIterator[WebSocketServer]:
    store = RedisStore(url)
    await store.start()
    try:
        async with served(bot("assistant.py").build, store=store) as server:
            yield server
    finally:
        await store.close()


async def send(socket: ClientConnection, **message: Any) -> None:
    await socket.send(json.dumps(message))


async def stored(redis: Redis, session: str, **wanted: str) -> dict[str, str]:
    """The session's hash, once it has these values."""
    async with asyncio.timeout(10):
        while not wanted.items() <= (fields := redis.hgetall(f"session:{session}")).items():
            await asyncio.sleep(0.005)
    return fields


def test_a_new_session_is_written_at_connect_with_its_empty_values(real_redis: str, redis: Redis) -> None:
    async def main() -> None:
        async with serving(real_redis) as server, joined(server, "new1") as socket:
            await until(socket, type="ready")
            fields = redis.hgetall("session:new1")
            empty = {"state": "idle", "turn_number": "0", "text_buffer": "[]", "intent": "{}", "rag_results": "{}"}
            assert (empty | {"llm_response": ""}).items() <= fields.items()
            assert abs(float(fields["last_update"]) - time.time()) < 10
            assert 3500 < redis.ttl("session:new1") <= 3600

    asyncio.run(main())


def test_the_hash_follows_a_turn_and_its_interruption(real_redis: str, redis: Redis) -> None:
    async def main() -> None:
        async with serving(real_redis) as server, joined(server, "cut1") as socket:
            await types(socket, "what are your opening hours")
            answer = (await until(socket, type="response_ready"))["text"]
            fields = await stored(redis, "cut1", state="speaking")
            assert json.loads(fields["text_buffer"]) == ["what are your opening hours"]
            assert json.loads(fields["intent"])["intent"] == "opening_hours"
            assert json.loads(fields["rag_results"])["results"]
            assert fields["llm_response"].startswith(answer)
            await asyncio.sleep(1.5)  # something of it is heard
            await send(socket, type="user_speaking")
            await until(socket, type="interrupted")
            fields = await stored(redis, "cut1", state="listening", text_buffer="[]", llm_response="")
            [cut] = [message for message in json.loads(fields["history"]) if message["interrupted"]]
            assert cut["turn_id"] == 1
            assert cut["text"].startswith(answer)
            assert 0 < len(cut["heard"]) < len(cut["text"])
            await send(socket, type="stt_fragment", text="and on sunday", is_final=False)
            await stored(redis, "cut1", text_buffer='["and on sunday"]', turn_number="0")

    asyncio.run(main())


def test_all_fields_of_a_session_are_there_again_at_the_next_connection(real_redis: str, redis: Redis) -> None:
    async def main() -> None:
        async with serving(real_redis) as server:
            async with joined(server, "again1") as socket:
                await types(socket, "goodbye")
                await until(socket, type="state_update", trigger="tts_complete")
                await send(socket, type="stt_fragment", text="one more thing", is_final=True)
                await until(socket, type="state_update", state="listening")
            before = parse(await stored(redis, "again1", text_buffer='["one more thing"]'))
            async with joined(server, "again1") as socket:
                ready = await until(socket, type="ready")
                assert (ready["resumed"], ready["turn_number"]) == (True, 1)
                told = await until(socket, type="state_update", trigger="resumed")
                assert (told["state"], told["text_buffer"]) == ("listening", ["one more thing"])
                after = parse(redis.hgetall("session:again1"))
        for name in ("turn_number", "turn_id", "text_buffer", "intent", "rag_results", "llm_response", "history"):
            assert getattr(after, name) == getattr(before, name), name
        assert before.history
        assert before.intent

    asyncio.run(main())


def test_connections_are_logged_with_their_reason_and_turns_with_their_figures(
    real_redis: str, lines: list[str]
) -> None:
    async def main() -> None:
        async with serving(real_redis) as server:
            async with joined(server, "log1") as socket:
                await types(socket, "goodbye")
                await until(socket, type="state_update", trigger="tts_complete")
            async with joined(server, "log1") as socket:
                await until(socket, type="ready")

    asyncio.run(main())
    ours = [line for line in lines if "log1" in line]
    assert ours[0] == "log1 connected (new)"
    ends = [line for line in ours if line.startswith("log1 disconnected (")]
    assert len(ends) == 2
    assert all(line.removeprefix("log1 disconnected (").removesuffix(")") for line in ends)
    assert "log1 connected (resumed)" in ours
    [turn] = [line for line in ours if "turn 1 ended" in line]
    assert "intent=goodbye results=" in turn
    assert "thinking_ms=" in turn
    assert "goodbye" not in "".join(line for line in ours if line is not turn)  # what was said is nowhere
