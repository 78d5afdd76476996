"""The WebSocket server with the shop's assistant behind it: real sockets, a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from loguru import logger
from websockets.asyncio.client import ClientConnection

from leibniz_voice.transports import MemoryStore
from leibniz_voice.transports.access.limits import Limits
from tests.support.serving import bot, joined, served, types, until

ASSISTANT, ECHO = bot("assistant.py"), bot("echo.py")
pytestmark = pytest.mark.slow


async def ask(socket: ClientConnection, text: str) -> dict[str, Any]:
    """Type a question and return the answer's first message."""
    await types(socket, text)
    return await until(socket, type="response_ready")


@asynccontextmanager
async def no_trouble() -> AsyncIterator[None]:
    """No warning and no error may be logged meanwhile."""
    lines: list[str] = []
    # The watchdog tells the truth about a machine that is busy with other things; it is tested in test_operations.py.
    sink = logger.add(lines.append, level="WARNING", filter=lambda record: "loop is blocked" not in record["message"])
    try:
        yield
    finally:
        logger.remove(sink)
    assert lines == []


def test_a_typed_question_is_answered_in_text_and_audio() -> None:
    async def main() -> None:
        async with served(ASSISTANT.build) as server, joined(server) as socket:
            ready = await until(socket, type="ready")
            assert (ready["session_id"], ready["resumed"], ready["sample_rate"]) == ("s1", False, 16000)
            answer = await ask(socket, "what are your opening hours")
            assert "Monday to Friday" in answer["text"]
            chunk = await socket.recv(decode=None)
            assert isinstance(chunk, bytes)
            assert len(chunk) == 640

    asyncio.run(main())


def test_a_client_that_is_killed_mid_answer_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with served(ASSISTANT.build) as server:
            async with joined(server, "warm") as socket:  # what is shared by all conversations is there from now on
                await ask(socket, "where is my order")
            await asyncio.sleep(0.3)
            before = len(asyncio.all_tasks())
            async with no_trouble():
                socket = await joined(server)
                await ask(socket, "where is my order")
                assert server.health()["active_sessions"] == 1
                socket.transport.abort()
                async with asyncio.timeout(20):
                    while server.health()["active_sessions"] or len(asyncio.all_tasks()) > before:
                        await asyncio.sleep(0.02)

    asyncio.run(main())


def test_a_session_goes_on_at_the_next_connection() -> None:
    async def main() -> None:
        async with served(ASSISTANT.build, store=MemoryStore()) as server:
            async with joined(server) as socket:
                await ask(socket, "goodbye")
                await until(socket, type="state_update", state="idle")
            async with joined(server) as socket:
                ready = await until(socket, type="ready")
                assert (ready["resumed"], ready["turn_number"]) == (True, 1)
                assert (await ask(socket, "goodbye"))["turn"] == 2

    asyncio.run(main())


def test_a_second_connection_takes_the_session_over() -> None:
    async def main() -> None:
        async with served(ECHO.build) as server, joined(server) as first:
            await until(first, type="ready")
            async with joined(server) as second:
                await until(second, type="ready")
                with pytest.raises(websockets.ConnectionClosed):
                    await asyncio.wait_for(first.recv(), 5)
                assert first.close_code == 4409
                assert server.health()["active_sessions"] == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "bad_json"),
        ("[" * 20_000, "bad_json"),
        ('{"type":"dance"}', "unknown_type"),
        ('{"type":"stt_fragment"}', "missing_field"),
        ('{"type":"stt_fragment","text":1,"is_final":true}', "bad_field"),
        (b"odd", "bad_audio"),
        (b"", "bad_audio"),
    ],
)
def test_bad_input_gets_a_clear_error_and_the_session_lives_on(message: str | bytes, code: str) -> None:
    async def main() -> None:
        async with served(ECHO.build) as server, joined(server) as socket:
            await until(socket, type="ready")
            await socket.send(message)
            error = await until(socket, type="error")
            assert error["code"] == code
            await socket.send('{"type":"ping"}')
            await until(socket, type="pong")

    asyncio.run(main())


@pytest.mark.parametrize("session", ["", "a b", "x" * 65, "é"])
def test_a_malformed_session_id_is_refused_before_the_upgrade(session: str) -> None:
    async def main() -> None:
        async with served(ECHO.build) as server:
            with pytest.raises(websockets.InvalidStatus) as refused:
                async with joined(server, session):
                    pass
            assert refused.value.response.status_code == 400
            assert b"session_id" in refused.value.response.body

    asyncio.run(main())


@pytest.mark.parametrize(
    ("origin", "allowed"), [("http://localhost:3000", True), ("http://evil.example", False), ("https://my.app", True)]
)
def test_only_listed_origins_and_loopback_may_connect(origin: str, allowed: bool) -> None:
    async def main() -> None:
        async with served(ECHO.build, origins=["https://my.app"]) as server:
            if allowed:
                async with joined(server, origin=websockets.Origin(origin)) as socket:
                    await until(socket, type="ready")
            else:
                with pytest.raises(websockets.InvalidStatus) as refused:
                    async with joined(server, origin=websockets.Origin(origin)):
                        pass
                assert refused.value.response.status_code == 403

    asyncio.run(main())


def test_a_silent_session_ends_by_itself() -> None:
    async def main() -> None:
        async with served(ECHO.build, limits=Limits(idle_s=0.3)) as server, joined(server) as socket:
            with pytest.raises(websockets.ConnectionClosed):
                await until(socket, lambda m: False)
            assert socket.close_code == 1000

    asyncio.run(main())


def test_stopping_tells_clients_to_reconnect() -> None:
    async def main() -> None:
        async with served(ECHO.build) as server, joined(server) as socket:
            await until(socket, type="ready")
            stopping = asyncio.create_task(server.stop())
            with pytest.raises(websockets.ConnectionClosed):
                await until(socket, lambda m: False)
            assert socket.close_code == 1012
            await stopping

    asyncio.run(main())
