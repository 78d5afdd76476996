"""Faults of our own come to the log as errors, although a library or another worker stands in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from leibniz_voice.transports import MemoryStore, WebSocketServer
from leibniz_voice.transports.server.peers import Peers, ask, socket_of
from tests.support.serving import bot, served
from tests.support.troubles import logged_troubles


@pytest.fixture
def troubles() -> Iterator[list[str]]:
    with logged_troubles() as lines:
        yield lines


ECHO = bot("echo.py")


class NamelessStore(MemoryStore):
    """A store with a bug: it cannot say what it is."""

    def describe(self) -> str:
        raise KeyError("name")


async def answer(server: WebSocketServer, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    try:
        async with asyncio.timeout(20):
            return await reader.read(4096)
    finally:
        writer.close()


def test_a_fault_in_answering_a_request_is_logged(troubles: list[str]) -> None:
    async def main() -> bytes:
        async with served(ECHO.build, store=NamelessStore()) as server:
            return await answer(server, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")

    assert asyncio.run(main()).startswith(b"HTTP/1.1 500 ")
    assert len(troubles) == 1
    assert "KeyError: 'name'" in troubles[0]
    assert "in describe" in troubles[0]


@pytest.mark.slow
def test_what_clients_do_wrong_is_no_fault(troubles: list[str]) -> None:
    async def main() -> None:
        async with served(ECHO.build) as server:
            for request in (
                b"",
                b"\0\r\n\r\n",
                b"GET / HTTP/1.0\r\n\r\n",
                b"GET /orchestrate?session_id=s HTTP/1.1\r\n\r\n",
            ):
                await asyncio.gather(answer(server, request + b"\r\n"), return_exceptions=True)
            async with connect(f"{server.address}?session_id=s1") as socket:
                await socket.recv()
                socket.transport.write(b"no frame of a WebSocket")  # type: ignore[attr-defined]
                await socket.wait_closed()
            async with connect(f"{server.address}?session_id=s1") as socket:
                socket.transport.abort()

    asyncio.run(main())
    assert troubles == []


def test_a_fault_in_answering_another_worker_is_logged(tmp_path: Path, troubles: list[str]) -> None:
    def health() -> dict[str, Any]:
        raise ValueError("no number")

    async def on_taken(session_id: str, since: float) -> None:
        raise OSError(f"{session_id} does not end")

    async def main() -> list[dict[str, Any] | None]:
        worker = Peers(tmp_path, number=1)
        await worker.start(health=health, on_taken=on_taken)
        try:
            return [await ask(socket_of(tmp_path, 1), question) for question in ("all", "taken s1 5.0")]
        finally:
            await worker.stop()

    assert asyncio.run(main()) == [None, None]
    assert len(troubles) == 2
    assert "ValueError: no number" in troubles[0]
    assert "OSError: s1 does not end" in troubles[1]


@pytest.mark.parametrize("question", ["", "taken", "taken s1 soon", "\udcff"])
def test_a_question_that_is_none_is_no_fault(tmp_path: Path, troubles: list[str], question: str) -> None:
    async def main() -> None:
        worker = Peers(tmp_path, number=1)
        await worker.start(health=dict, on_taken=_nothing)
        try:
            reader, writer = await asyncio.open_unix_connection(socket_of(tmp_path, 1))
            writer.write(question.encode(errors="surrogateescape") + b"\n")
            async with asyncio.timeout(20):
                await reader.read()
            writer.close()
        finally:
            await worker.stop()

    async def _nothing(session_id: str, since: float) -> None: ...

    asyncio.run(main())
    assert troubles == []
