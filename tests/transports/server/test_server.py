"""The WebSocket server with the shop's assistant behind it: real sockets, a real Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
import websockets
from loguru import logger
from websockets.asyncio.client import ClientConnection, connect

from leibniz_voice.bots.cli.scripts import load_bot
from leibniz_voice.processors.embedded.workers.shared import close_all
from leibniz_voice.transports import MemoryStore, WebSocketServer
from leibniz_voice.transports.access.limits import Limits
from tests.support import ROOT

BOTS = ROOT / "bots"
ASSISTANT = load_bot(str(BOTS / "assistant.py"))
ECHO = load_bot(str(BOTS / "echo.py"))
pytestmark = pytest.mark.slow


@asynccontextmanager
async def serving(bot: Any = ASSISTANT, **options: Any) -> AsyncIterator[WebSocketServer]:
    """A server of `bot` on a free port, and nothing of it afterwards."""
    async with WebSocketServer(bot.build, port=0, **options) as server:
        yield server
    await close_all()


def joined(server: WebSocketServer, session: str = "s1") -> connect:
    """A client's connection to a session."""
    return connect(f"{server.address}?session_id={quote(session)}")


async def until(socket: ClientConnection, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Read messages until one is wanted."""
    async with asyncio.timeout(10):
        while True:
            message = await socket.recv()
            if isinstance(message, str) and wanted(json.loads(message)):
                return json.loads(message)


async def ask(socket: ClientConnection, text: str) -> dict[str, Any]:
    """Type a question and return the answer's first message."""
    await socket.send(json.dumps({"type": "stt_fragment", "text": text, "is_final": True}))
    await socket.send(json.dumps({"type": "vad_end"}))
    return await until(socket, lambda m: m["type"] == "response_ready")


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
        async with serving() as server, joined(server) as socket:
            ready = await until(socket, lambda m: m["type"] == "ready")
            assert (ready["session_id"], ready["resumed"], ready["sample_rate"]) == ("s1", False, 16000)
            answer = await ask(socket, "what are your opening hours")
            assert "Monday to Friday" in answer["text"]
            chunk = await socket.recv(decode=None)
            assert isinstance(chunk, bytes)
            assert len(chunk) == 640

    asyncio.run(main())


def test_a_client_that_is_killed_mid_answer_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with serving() as server:
            async with joined(server, "warm") as socket:  # what is shared by all conversations is there from now on
                await ask(socket, "where is my order")
            await asyncio.sleep(0.3)
            before = len(asyncio.all_tasks())
            async with no_trouble():
                socket = await joined(server)
                await ask(socket, "where is my order")
                assert server.health()["active_sessions"] == 1
                socket.transport.abort()
                async with asyncio.timeout(5):
                    while server.health()["active_sessions"] or len(asyncio.all_tasks()) > before:
                        await asyncio.sleep(0.02)

    asyncio.run(main())


def test_a_session_goes_on_at_the_next_connection() -> None:
    async def main() -> None:
        async with serving(store=MemoryStore()) as server:
            async with joined(server) as socket:
                await ask(socket, "goodbye")
                await until(socket, lambda m: m["type"] == "state_update" and m["state"] == "idle")
            async with joined(server) as socket:
                ready = await until(socket, lambda m: m["type"] == "ready")
                assert (ready["resumed"], ready["turn_number"]) == (True, 1)
                assert (await ask(socket, "goodbye"))["turn"] == 2

    asyncio.run(main())


def test_a_second_connection_takes_the_session_over() -> None:
    async def main() -> None:
        async with serving(ECHO) as server, joined(server) as first:
            await until(first, lambda m: m["type"] == "ready")
            async with joined(server) as second:
                await until(second, lambda m: m["type"] == "ready")
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
        async with serving(ECHO) as server, joined(server) as socket:
            await until(socket, lambda m: m["type"] == "ready")
            await socket.send(message)
            error = await until(socket, lambda m: m["type"] == "error")
            assert error["code"] == code
            await socket.send('{"type":"ping"}')
            await until(socket, lambda m: m["type"] == "pong")

    asyncio.run(main())


@pytest.mark.parametrize("session", ["", "a b", "x" * 65, "é"])
def test_a_malformed_session_id_is_refused_before_the_upgrade(session: str) -> None:
    async def main() -> None:
        async with serving(ECHO) as server:
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
        async with serving(ECHO, origins=["https://my.app"]) as server:
            url = f"{server.address}?session_id=s1"
            if allowed:
                async with connect(url, origin=websockets.Origin(origin)) as socket:
                    await until(socket, lambda m: m["type"] == "ready")
            else:
                with pytest.raises(websockets.InvalidStatus) as refused:
                    async with connect(url, origin=websockets.Origin(origin)):
                        pass
                assert refused.value.response.status_code == 403

    asyncio.run(main())


def test_a_silent_session_ends_by_itself() -> None:
    async def main() -> None:
        async with serving(ECHO, limits=Limits(idle_s=0.3)) as server, joined(server) as socket:
            with pytest.raises(websockets.ConnectionClosed):
                await until(socket, lambda m: False)
            assert socket.close_code == 1000

    asyncio.run(main())


def test_stopping_tells_clients_to_reconnect() -> None:
    async def main() -> None:
        async with serving(ECHO) as server, joined(server) as socket:
            await until(socket, lambda m: m["type"] == "ready")
            stopping = asyncio.create_task(server.stop())
            with pytest.raises(websockets.ConnectionClosed):
                await until(socket, lambda m: False)
            assert socket.close_code == 1012
            await stopping

    asyncio.run(main())
