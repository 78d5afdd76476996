"""The server at its edges: odd requests, a full house, a name that leads to this machine, a store that nobody asks."""

from __future__ import annotations

import asyncio
import json
import math
import time
from pathlib import Path

import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.datastructures import Headers

from leibniz_voice.pipeline.errors import ConfigurationError, StoreError
from leibniz_voice.transports import RedisStore, WebSocketServer
from leibniz_voice.transports.access.limits import Limits
from leibniz_voice.transports.access.origins import Origins
from leibniz_voice.transports.access.token_gate import TokenGate
from leibniz_voice.transports.access.token_key import TokenKey
from leibniz_voice.transports.dialects.rtvi import RtviDialect
from leibniz_voice.transports.dialects.twilio import TwilioDialect
from leibniz_voice.transports.server import connection
from leibniz_voice.transports.server.entrances import arrival_of
from tests.support.serving import SECRET, bot, joined, served
from tests.support.tools import needs

from ...support.redis_servers import Server

ECHO, ASSISTANT = bot("echo.py"), bot("assistant.py")
UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}==\r\n"


async def answer(server: WebSocketServer, target: str, headers: str = "") -> bytes:
    """What the server says to a request, up to its first pause."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
    try:
        async with asyncio.timeout(20):
            return await reader.read(4096)
    finally:
        writer.close()


# ------------------------------------------------------------------------------------------------------ requests


@pytest.mark.slow
@pytest.mark.parametrize("target", [f"/{'a' * 300}", f"/{'../' * 40}etc/passwd", "/%00", "//", "/.", "/console"])
def test_whatever_page_is_asked_for_the_answer_is_an_answer(target: str) -> None:
    async def main() -> bytes:
        async with served(ECHO.build) as server:
            return await answer(server, target)

    assert asyncio.run(main()).startswith(b"HTTP/1.1 404 ")


@pytest.mark.slow
@pytest.mark.parametrize(("path", "status"), [("/twilio", b"101"), ("/orchestrate", b"400"), ("/pipecat", b"400")])
def test_a_target_that_is_a_whole_url_is_its_path(path: str, status: bytes) -> None:
    async def main() -> bytes:
        async with served(ECHO.build) as server:
            return await answer(server, f"http://x{path}", UPGRADE.format("A" * 22))

    assert asyncio.run(main()).startswith(b"HTTP/1.1 " + status)


@pytest.mark.slow
def test_a_request_without_end_is_cut_off_before_it_fills_the_memory() -> None:
    async def main() -> int:
        async with served(ECHO.build) as server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /health HTTP/1.1\r\n")
            for sent in range(200):
                writer.write(b"X-%d: %s\r\n" % (sent, b"a" * 1000))
                try:
                    await asyncio.wait_for(writer.drain(), 5)
                except ConnectionError:
                    return sent
                await asyncio.sleep(0.005)
            return 200

    assert 30 <= asyncio.run(main()) < 60


def test_a_target_that_is_a_whole_url_is_spelled_by_its_path() -> None:
    assert isinstance(arrival_of("http://x/twilio", Headers()).dialect, TwilioDialect)
    assert isinstance(arrival_of("http://x/pipecat?session_id=s1", Headers()).dialect, RtviDialect)


# -------------------------------------------------------------------------------------------------------- origin


@pytest.mark.parametrize(
    ("origin", "host", "is_trusted", "allowed"),
    [
        ("http://localhost:8004", "localhost:8004", False, True),
        ("http://127.0.0.1:3000", "127.0.0.1:8004", False, True),
        ("http://192.168.1.7:8004", "192.168.1.7:8004", False, True),
        ("http://[fe80::1]:8004", "[fe80::1]:8004", False, True),
        ("http://evil.example:8004", "evil.example:8004", False, False),  # resolved to 127.0.0.1 by its owner
        ("http://bot.example:8004", "bot.example:8004", True, True),
        ("https://bot.example", "other.example", True, False),
        ("https://listed.example", "127.0.0.1:8004", False, True),
        ("http://", "", True, False),
        ("null", "null", True, False),
        ("http://[::1", "[::1", True, False),
    ],
)
def test_a_name_is_the_servers_own_only_where_strangers_need_a_token(
    origin: str, host: str, is_trusted: bool, allowed: bool
) -> None:
    assert Origins(["https://listed.example"], trusts_host=is_trusted).allows(origin, host) is allowed


@pytest.mark.parametrize(
    ("listed", "sent"),
    [
        ("https://Shop.Example/", "https://shop.example"),
        ("https://shop.example:443", "https://shop.example"),
        ("http://shop.example:8080", "http://shop.example:8080"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("null", "null"),
        ("*", "https://any.example"),
    ],
)
def test_a_listed_origin_may_be_written_as_people_do(listed: str, sent: str) -> None:
    assert Origins([listed]).allows(sent, "127.0.0.1:8004")
    assert listed == "*" or not Origins([listed]).allows("https://other.example", "127.0.0.1:8004")


@pytest.mark.parametrize(
    "listed", ["shop.example", "https://shop.example/page", "https://u@shop.example", "https:", ""]
)
def test_what_is_no_origin_is_refused_by_name(listed: str) -> None:
    with pytest.raises(ConfigurationError, match=repr(listed)):
        Origins([listed])


@pytest.mark.slow
@pytest.mark.parametrize(("options", "status"), [({}, 403), ({"secret": SECRET}, 401), ({"insecure": True}, 101)])
def test_a_page_whose_name_was_led_here_may_not_talk(options: dict[str, object], status: int) -> None:
    async def main() -> int:
        async with served(ECHO.build, **options) as server:  # type: ignore[arg-type]
            headers = {"Origin": "http://evil.example", "Authorization": "Bearer x"}
            url = "ws://evil.example/orchestrate?session_id=s1"
            try:
                async with connect(url, host="127.0.0.1", port=server.port, additional_headers=headers):
                    return 101
            except websockets.InvalidStatus as refused:
                return refused.response.status_code

    assert asyncio.run(main()) == status


# ---------------------------------------------------------------------------------------------------- full house


@pytest.mark.slow
@pytest.mark.parametrize(("limits", "code"), [({"connections": 1}, 1013), ({"connections_per_address": 1}, 4429)])
def test_a_client_for_whom_there_is_no_room_keeps_its_token(limits: dict[str, int], code: int) -> None:
    token = TokenKey(SECRET).mint("s1", now=time.time())

    def with_token(server: WebSocketServer, session: str, token: str) -> connect:
        return joined(server, session, additional_headers={"Authorization": f"Bearer {token}"})

    async def first_word(server: WebSocketServer) -> str:
        async with with_token(server, "s1", token) as socket:
            try:
                return json.loads(await socket.recv())["type"]
            except websockets.ConnectionClosed:
                return "closed"

    async def main() -> None:
        async with served(ECHO.build, secret=SECRET, limits=Limits(**limits)) as server:
            async with with_token(server, "s0", TokenKey(SECRET).mint("s0", now=time.time())) as first:
                await first.recv()
                async with with_token(server, "s1", token) as refused:
                    await asyncio.wait_for(refused.wait_closed(), 5)
                    assert refused.close_code == code
            async with asyncio.timeout(20):
                while await first_word(server) != "ready":  # until the first client's place is free
                    await asyncio.sleep(0.02)

    asyncio.run(main())


# --------------------------------------------------------------------------------------------------------- store


@needs("redis")
@pytest.mark.slow
def test_health_knows_that_redis_went_though_nobody_has_asked_it_since(tmp_path: Path) -> None:
    redis = Server(tmp_path)

    async def is_connected(server: WebSocketServer) -> bool:
        body = (await answer(server, "/health")).partition(b"\r\n\r\n")[2]
        return json.loads(body)["redis_connected"]

    async def becomes(server: WebSocketServer, wanted: bool) -> None:
        async with asyncio.timeout(10):
            while await is_connected(server) is not wanted:
                await asyncio.sleep(0.05)

    async def main() -> None:
        store = RedisStore(redis.url)
        await store.start()
        try:
            async with served(ECHO.build, store=store) as server:
                await becomes(server, True)
                redis.kill()
                await becomes(server, False)
                redis.restart()
                await becomes(server, True)
        finally:
            await store.close()

    try:
        redis.wait()
        asyncio.run(main())
    finally:
        redis.kill()


@needs("redis")
def test_a_hundred_tokens_at_once_are_all_looked_up(real_redis: str) -> None:
    async def main() -> list[bool | BaseException]:
        store = RedisStore(real_redis)
        try:
            assert await store.spend("used", 60)
            return await asyncio.gather(*(store.spend("used", 60) for _ in range(100)), return_exceptions=True)
        finally:
            await store.close()

    answers = asyncio.run(main())
    assert not any(isinstance(told, StoreError) for told in answers)
    assert answers == [False] * 100


# ---------------------------------------------------------------------------------------------------------- time


@pytest.mark.slow
def test_a_turn_that_its_client_never_ends_does_not_keep_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LAST_TURN_S", 0.5)

    async def main() -> int | None:
        limits = Limits(session_s=0.3)
        async with served(ASSISTANT.build, limits=limits) as server:
            socket = await joined(server)
            await socket.send('{"type":"stt_fragment","text":"where is my","is_final":true}')
            await asyncio.wait_for(socket.wait_closed(), 10)
        return socket.close_code

    assert asyncio.run(main()) == 1012


@pytest.mark.parametrize(("session_s", "lifetime_s"), [(4 * 3600.0, 5 * 3600), (math.inf, 7 * 86_400)])
def test_the_token_in_ready_outlives_the_longest_connection(session_s: float, lifetime_s: int) -> None:
    """Else a call that drops in its second hour could not go on."""
    gate = TokenGate(TokenKey(SECRET), session_s=session_s, clock=lambda: 1_000_000.0)
    ticket = TokenKey(SECRET).check(gate.next("s1") or "", "s1", now=1_000_000.0 + lifetime_s)
    assert ticket.expires == 1_000_000 + lifetime_s


@pytest.mark.slow
def test_the_token_in_ready_follows_the_limit() -> None:
    async def main() -> str:
        options = {"secret": SECRET, "limits": Limits(session_s=7200)}
        async with served(ECHO.build, **options) as server:  # type: ignore[arg-type]
            headers = {"Authorization": f"Bearer {TokenKey(SECRET).mint('s1', now=time.time())}"}
            async with joined(server, additional_headers=headers) as socket:
                return json.loads(await socket.recv())["token"]

    token = asyncio.run(main())
    assert TokenKey(SECRET).check(token, "s1", now=time.time() + 7200 + 3500)
