"""The server and strangers: tokens, origins, limits, and what they are told."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import websockets
from loguru import logger
from websockets.asyncio.client import ClientConnection, connect

from leibniz_voice.bots.cli.main import main as leibniz
from leibniz_voice.pipeline import Pipeline, Session
from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.transports import MemoryStore, WebSocketServer
from leibniz_voice.transports.access.limits import REFUSED, Limits
from leibniz_voice.transports.access.token_key import TokenKey
from tests.support.serving import SECRET, bot, joined, served, until

ECHO = bot("echo.py")
KEY = TokenKey(SECRET)
HANDSHAKE = (
    b"GET /orchestrate?session_id=s1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
TEXT_FRAME = b"\x81\x92" + bytes(4) + b'{"type":"vad_end"}'
serving = partial(served, ECHO.build)
pytestmark = pytest.mark.slow


async def ready(socket: ClientConnection) -> dict[str, Any]:
    return await until(socket, type="ready")


async def close_code(socket: ClientConnection) -> int | None:
    """Read until the server closes."""
    async with asyncio.timeout(15):
        await socket.wait_closed()
    return socket.close_code


def token(session: str = "s1", **options: Any) -> str:
    return KEY.mint(session, now=time.time(), **options)


def hello(**fields: Any) -> str:
    return json.dumps({"type": "hello", **fields})


def refusals(reason: str) -> float:
    return REFUSED.labels(reason)._value.get()


# ---------------------------------------------------------------------------------------------------- tokens


@pytest.mark.parametrize("way", ["header", "subprotocol", "hello"])
def test_a_token_comes_in_three_ways_and_the_next_one_in_ready(way: str) -> None:
    async def main() -> None:
        async with serving(secret=SECRET) as server:
            current = token()
            for _ in range(3):
                options: dict[str, Any] = {}
                if way == "header":
                    options["additional_headers"] = {"Authorization": f"Bearer {current}"}
                elif way == "subprotocol":
                    options["subprotocols"] = ["orchestrate", f"token.{current}"]
                async with joined(server, **options) as socket:
                    if way == "hello":
                        await socket.send(hello(token=current))
                    assert socket.subprotocol in (None, "orchestrate")
                    following = (await ready(socket))["token"]
                assert following != current
                current = following

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["used", "expired", "another session's", "forged", "garbage"])
@pytest.mark.parametrize("way", ["header", "hello"])
def test_a_bad_token_is_refused_in_one_sentence(way: str, kind: str) -> None:
    async def main() -> None:
        async with serving(secret=SECRET) as server:
            bad = {
                "used": token(),
                "expired": KEY.mint("s1", now=time.time() - 61, lifetime_s=60),
                "another session's": token("s2"),
                "forged": TokenKey(SECRET[::-1]).mint("s1", now=time.time()),
                "garbage": "x",
            }[kind]
            if kind == "used":
                async with joined(server, additional_headers={"Authorization": f"Bearer {bad}"}) as socket:
                    await ready(socket)
            if way == "header":
                with pytest.raises(websockets.InvalidStatus) as refused:
                    async with joined(server, additional_headers={"Authorization": f"Bearer {bad}"}):
                        pass
                assert refused.value.response.status_code == 401
                assert refused.value.response.body.decode().endswith(".\n")
            else:
                async with joined(server) as socket:
                    await socket.send(hello(token=bad))
                    assert await close_code(socket) == 4401
                    assert socket.close_reason

    asyncio.run(main())


@pytest.mark.parametrize("first", [hello(), bytes(640), '{"type":"ping"}', "{", None])
def test_nothing_happens_before_the_token(first: str | bytes | None) -> None:
    async def main() -> None:
        store = MemoryStore()
        async with serving(secret=SECRET, store=store, limits=Limits(hello_s=0.3)) as server, joined(server) as socket:
            if first is not None:
                await socket.send(first)
            assert await close_code(socket) == 4401
            assert store.fields("s1") is None

    asyncio.run(main())


def test_a_stranger_without_a_token_cannot_take_a_session_over() -> None:
    async def main() -> None:
        async with serving(secret=SECRET) as server, joined(server) as owner:
            await owner.send(hello(token=token()))
            await ready(owner)
            async with joined(server) as stranger:
                await stranger.send(hello(token="no"))
                assert await close_code(stranger) == 4401
            await owner.send('{"type":"ping"}')
            await until(owner, type="pong")

    asyncio.run(main())


def test_no_secret_and_no_token_gets_into_a_log() -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, level="TRACE")

    async def main() -> list[str]:
        used = [token(), token()]
        async with serving(secret=SECRET) as server:
            for value in (used[0], used[0], "token-that-is-wrong", used[1]):
                try:
                    async with joined(server, additional_headers={"Authorization": f"Bearer {value}"}) as socket:
                        used.append((await ready(socket))["token"])
                except websockets.InvalidStatus:
                    pass
            async with joined(server) as socket:
                await socket.send(hello(token="token-that-is-wrong"))
                await close_code(socket)
        return used

    try:
        used = asyncio.run(main())
    finally:
        logger.remove(sink)
    log = "".join(lines)
    assert "s1 connected" in log
    assert not [value for value in (SECRET, "token-that-is-wrong", *used) if value in log]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_an_address_others_can_reach_needs_a_secret_or_insecure(host: str) -> None:
    with pytest.raises(ConfigurationError, match="LEIBNIZ_SECRET"):
        WebSocketServer(ECHO.build, host=host)
    WebSocketServer(ECHO.build, host=host, insecure=True)
    WebSocketServer(ECHO.build, host=host, secret=SECRET)
    with pytest.raises(ConfigurationError, match="32"):
        WebSocketServer(ECHO.build, host=host, secret="short")


def test_the_command_makes_a_token_that_opens_the_session(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leibniz(["token", "s1"]) == 2
    monkeypatch.setenv("LEIBNIZ_SECRET", "short")
    assert leibniz(["token", "s1"]) == 2
    monkeypatch.setenv("LEIBNIZ_SECRET", SECRET)
    assert leibniz(["token", "not a session"]) == 2
    capsys.readouterr()
    assert leibniz(["token", "s1"]) == 0
    made = capsys.readouterr().out.strip()

    async def main() -> None:
        async with serving(secret=SECRET) as server, joined(server, subprotocols=["orchestrate", f"token.{made}"]) as s:
            await ready(s)

    asyncio.run(main())


# ---------------------------------------------------------------------------------------------------- limits


def test_a_message_that_is_too_large_closes_with_1009() -> None:
    async def main() -> None:
        async with serving(limits=Limits(message_bytes=1000)) as server, joined(server) as socket:
            await ready(socket)
            await socket.send(bytes(1002))
            assert await close_code(socket) == 1009

    asyncio.run(main())


def test_connections_are_limited_per_address_and_in_total() -> None:
    async def main() -> None:
        async with serving(limits=Limits(connections=3, connections_per_address=2)) as server:
            assert server.unready() == ""
            async with joined(server, "a") as a, joined(server, "b") as b:
                await asyncio.gather(ready(a), ready(b))
                async with joined(server, "c") as socket:
                    assert await close_code(socket) == 4429
                async with joined(server, "d", local_addr=("127.0.0.2", 0)) as d:
                    await ready(d)
                    assert server.unready() == "full"
                    async with joined(server, "e", local_addr=("127.0.0.3", 0)) as socket:
                        assert await close_code(socket) == 1013

    asyncio.run(main())


def test_behind_a_proxy_addresses_are_those_it_names() -> None:
    async def main() -> None:
        async with serving(limits=Limits(connections_per_address=1), trust_proxy=True) as server:

            def client(session: str, address: str) -> connect:
                return joined(server, session, additional_headers={"X-Forwarded-For": f"6.6.6.6, {address}"})

            async with client("a", "10.0.0.1") as a, client("b", "10.0.0.2") as b:
                await asyncio.gather(ready(a), ready(b))
                async with client("c", "10.0.0.2") as socket:
                    assert await close_code(socket) == 4429

    asyncio.run(main())


def test_a_handshake_that_never_ends_is_dropped() -> None:
    async def main() -> None:
        async with serving(limits=Limits(handshake_s=0.3)) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /orchestrate?session_id=s1 HTTP/1.1\r\nHost: x\r\n")
            async with asyncio.timeout(20):
                assert await reader.read() == b""
            writer.close()

    asyncio.run(main())


def test_for_a_client_that_does_not_read_no_pipeline_is_built() -> None:
    built: list[str] = []

    def build(session: Session) -> Pipeline:
        built.append(session.id)
        return ECHO.build(session)

    async def main() -> None:
        before = refusals("not_reading")
        async with served(build, limits=Limits(send_s=0.3)) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(HANDSHAKE + TEXT_FRAME * 5)  # it talks, but answers no ping
            async with asyncio.timeout(20):
                await reader.readuntil(b"\r\n\r\n")
                said = await reader.read()
            writer.close()
            assert b"\x03\xf0" in said  # 1008
            assert b'"ready"' not in said
            assert refusals("not_reading") == before + 1
            async with joined(server, "s2") as socket:
                await ready(socket)
        assert built == ["s2"]

    asyncio.run(main())


def test_what_a_client_says_before_it_has_read_anything_is_kept() -> None:
    async def main() -> None:
        async with serving() as server, joined(server, max_queue=None) as socket:
            said = [bytes([number]) * 640 for number in range(1, 91)]
            for chunk in said:  # in one step: the answer to the first ping comes behind all of them
                await socket.send(chunk)
            echoed: list[str | bytes] = []
            async with asyncio.timeout(10):
                while len(echoed) < len(said):
                    message = await socket.recv()
                    echoed += [message] if isinstance(message, bytes) else []
            assert echoed == said

    asyncio.run(main())


def test_sockets_that_only_wait_are_limited_per_address() -> None:
    async def main() -> None:
        async with serving(limits=Limits(connections_per_address=2)) as server:
            before = refusals("sockets")
            waiting = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(4)]
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            async with asyncio.timeout(20):
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""
            assert refusals("sockets") == before + 1
            for _, other in (*waiting, (reader, writer)):
                other.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("message", "reason"), [(bytes(3200), "flood"), ('{"type":"ping"}', "flood"), ("{", "flood"), (b"", "frames")]
)
def test_a_flood_is_closed_with_1008(message: str | bytes, reason: str) -> None:
    async def main() -> None:
        before = refusals(reason)
        async with serving() as server, joined(server, max_queue=None) as socket:
            await ready(socket)
            with suppress(websockets.ConnectionClosed):
                for _ in range(20_000):
                    await socket.send(message)
                    await asyncio.sleep(0)
            assert await close_code(socket) == 1008
            assert refusals(reason) == before + 1

    asyncio.run(main())


def test_a_burst_after_a_tunnel_is_no_flood() -> None:
    async def main() -> None:
        async with serving() as server, joined(server, max_queue=None) as socket:
            await ready(socket)
            for _ in range(250):  # 5 s at once: what waits too long is dropped, the client is told
                await socket.send(bytes(640))
            await until(socket, lambda m: m["type"] == "error" and m["code"] == "too_fast")
            await socket.send('{"type":"ping"}')
            await until(socket, type="pong")

    asyncio.run(main())


def test_a_connection_whose_time_is_over_is_told_to_reconnect() -> None:
    async def main() -> None:
        async with serving(limits=Limits(session_s=0.3)) as server, joined(server) as socket:
            await ready(socket)
            assert await close_code(socket) == 1012

    asyncio.run(main())


@pytest.mark.parametrize(("name", "value"), [("idle_s", "0"), ("idle_s", "-1"), ("connections", "x"), ("nothing", "1")])
def test_a_wrong_limit_is_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Limits.parse({name: value})
