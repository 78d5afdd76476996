"""Conversations mounted in FastAPI and Starlette applications: a real uvicorn, real sockets."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import websockets

from leibniz_voice.pipeline.testing import run_virtual
from leibniz_voice.transports import AsgiApp, Limits, TokenKey
from leibniz_voice.transports.server.asgi.asgi_socket import MAX_UNSENT, AsgiSocket
from leibniz_voice.transports.server.client_socket import ClientGone
from tests.support.asgi_serving import joined, listening
from tests.support.serving import SECRET, bot, types, until

pytest.importorskip("uvicorn", reason="needs the extra `fastapi`")
fastapi = pytest.importorskip("fastapi", reason="needs the extra `fastapi`")


ECHO = bot("echo.py")


def mounted(voice: AsgiApp) -> Any:
    app = fastapi.FastAPI(lifespan=voice.lifespan)
    app.mount("/voice", voice)
    return app


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[str]:
    async with listening(mounted(AsgiApp(ECHO.build, **options))) as host:
        yield host


def get(url: str, method: str = "GET") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.slow
def test_the_assistant_answers_inside_a_fastapi_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # its Redis keeps its files here
    from leibniz_voice.bots.fastapi_app import app

    async def main() -> None:
        async with listening(app) as host, joined(host) as socket:
            await until(socket, type="ready")
            await types(socket, "where is my order")
            assert "order" in (await until(socket, type="response_ready"))["text"]
            audio = 0
            while audio < 20 * 640:
                message = await socket.recv()
                audio += len(message) if isinstance(message, bytes) else 0
            assert await asyncio.to_thread(get, f"http://{host}/calls") == (200, '{"calls":1}')
            await socket.send(json.dumps({"type": "user_speaking"}))
            assert (await until(socket, type="interrupted"))["turn"] == 1

    asyncio.run(main())


@pytest.mark.slow
def test_page_health_and_metrics_stand_below_the_mount() -> None:
    async def main() -> list[tuple[int, str]]:
        async with serving() as host:
            paths = (
                "/voice/",
                "/voice/health",
                "/voice/ready",
                "/voice/metrics",
                "/voice/console.js",
                "/voice/nothing",
            )
            return [await asyncio.to_thread(get, f"http://{host}{path}") for path in paths]

    page, health, ready, metrics, script, nothing = asyncio.run(main())
    assert page[0] == 200
    assert "<html" in page[1]
    assert json.loads(health[1])["status"] == "healthy"
    assert ready == (200, "ready\n")
    assert "leibniz_sessions" in metrics[1]
    assert script[0] == 200
    assert nothing[0] == 404


@pytest.mark.slow
def test_strangers_are_refused_as_by_the_server_of_our_own() -> None:
    async def status(host: str, **options: Any) -> int:
        try:
            async with joined(host, **options):
                return 101
        except websockets.InvalidStatus as error:
            return error.response.status_code if error.response.body.endswith(b".\n") else 0  # told in a sentence

    async def main() -> list[int]:
        token = TokenKey(SECRET).mint("s1", now=time.time(), lifetime_s=60)
        async with serving(secret=SECRET) as host:
            return [
                await status(host, session="a.b"),
                await status(host, origin="https://elsewhere.example"),
                await status(host, additional_headers={"Authorization": "Bearer x"}),
                await status(host, additional_headers={"Authorization": f"Bearer {token}"}),
                await status(host, additional_headers={"Authorization": f"Bearer {token}"}),  # used
                (await asyncio.to_thread(get, f"http://{host}/voice/health", "POST"))[0],
            ]

    assert asyncio.run(main()) == [400, 403, 401, 101, 401, 405]


@pytest.mark.slow
def test_a_client_that_misbehaves_is_told_and_closed() -> None:
    async def main() -> list[int | None]:
        codes = []
        async with serving(limits=Limits(message_bytes=2000)) as host:
            async with joined(host) as socket:
                await until(socket, type="ready")
                await socket.send(b"odd")
                assert (await until(socket, type="error"))["code"] == "bad_audio"
                await socket.send("x" * 2001)
                await socket.wait_closed()
                codes.append(socket.close_code)
            async with joined(host) as socket:
                for _ in range(700):
                    await socket.send('{"type":"ping"}')
                with suppress(websockets.ConnectionClosed):
                    while True:
                        await socket.recv()
                codes.append(socket.close_code)
        return codes

    assert asyncio.run(main()) == [1009, 1008]


@pytest.mark.slow
def test_a_newer_connection_takes_the_session_and_the_end_says_reconnect() -> None:
    async def main() -> tuple[int | None, int | None]:
        voice = AsgiApp(ECHO.build)
        async with listening(mounted(voice)) as host, joined(host) as older, joined(host) as newer:
            await until(newer, type="ready")
            await older.wait_closed()
            await voice.stop()
            await newer.wait_closed()
            return older.close_code, newer.close_code

    assert asyncio.run(main()) == (4409, 1012)


@pytest.mark.slow
def test_starlette_mounts_it_too() -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    async def main() -> str:
        voice = AsgiApp(ECHO.build)
        app = Starlette(routes=[Mount("/", app=voice)], lifespan=voice.lifespan)
        async with listening(app) as host, joined(host, path="/orchestrate") as socket:
            return (await until(socket, type="ready"))["session_id"]

    assert asyncio.run(main()) == "s1"


def scope(**changes: Any) -> dict[str, Any]:
    return {
        "type": "websocket",
        "path": "/orchestrate",
        "query_string": b"session_id=s1",
        "headers": [(b"host", b"bot.example")],
        "client": ("10.0.0.7", 5000),
        **changes,
    }


@pytest.mark.parametrize(
    ("extensions", "answer"),
    [({"websocket.http.response": {}}, "websocket.http.response.start"), ({}, "websocket.close")],
)
def test_without_a_secret_only_this_machine_is_served(extensions: dict[str, Any], answer: str) -> None:
    sent: list[Any] = []

    async def main() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async with AsgiApp(ECHO.build) as voice:
            await voice(scope(extensions=extensions), receive, send)

    asyncio.run(main())
    assert sent[0]["type"] == answer
    assert sent[0].get("status", 401) == 401


def test_before_it_is_started_it_says_what_to_do() -> None:
    async def nothing(*_: Any) -> Any:
        raise AssertionError("neither receives nor sends")

    with pytest.raises(RuntimeError, match="lifespan"):
        asyncio.run(AsgiApp(ECHO.build)(scope(), nothing, nothing))
    with pytest.raises(RuntimeError, match="not lifespan"):
        asyncio.run(AsgiApp(ECHO.build)({"type": "lifespan"}, nothing, nothing))


def test_a_client_that_does_not_read_holds_a_handful_of_messages() -> None:
    async def main() -> tuple[int, bool]:
        async def stuck(*_: Any) -> Any:
            await asyncio.get_running_loop().create_future()

        socket = AsgiSocket(stuck, stuck, limits=Limits())
        taken = sum(socket.try_send(bytes(640)) for _ in range(100))
        receiving = asyncio.ensure_future(socket.receive())
        await socket.close(1000, "")  # returns although the client never takes it
        with pytest.raises(ClientGone):
            await receiving
        return taken, socket.try_send(b"late")

    assert run_virtual(main()) == (MAX_UNSENT, True)


def test_a_message_that_comes_while_the_reader_is_cancelled_is_kept() -> None:
    async def main() -> str | bytes:
        async def receive() -> Any:
            await asyncio.sleep(0)
            return {"type": "websocket.receive", "text": "kept"}

        async def send(_: Any) -> None: ...

        socket = AsgiSocket(receive, send, limits=Limits())
        reading = asyncio.ensure_future(socket.receive())
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the server has handed it out
        reading.cancel()
        await asyncio.wait({reading})
        try:
            return await socket.receive()
        finally:
            socket.abort()

    assert run_virtual(main()) == "kept"


def test_a_plain_request_is_not_taken_for_a_websocket_and_headers_stand_once() -> None:
    async def status(headers: list[tuple[bytes, bytes]]) -> int:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any: ...

        async with AsgiApp(ECHO.build) as voice:
            asked = scope(type="http", method="GET", headers=headers, client=("127.0.0.1", 5))
            await voice(asked, receive, send)
        return sent[0]["status"]

    assert asyncio.run(status([(b"upgrade", b"websocket")])) == 426
    assert asyncio.run(status([(b"origin", b"http://127.0.0.1"), (b"origin", b"http://x")])) == 400
