"""Intent and retrieval over HTTP against real local servers that answer well, badly, slowly or never."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from leibniz_voice.pipeline.engine.outside import in_flight
from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.frames import UserTurnFrame
from leibniz_voice.pipeline.services import IntentResult, RetrievalResult
from leibniz_voice.processors.embedded.http_client import HttpClient, close_http
from leibniz_voice.processors.intent import HttpIntent
from leibniz_voice.processors.retrieval import HttpRetriever

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Writer = asyncio.StreamWriter
GOOD_INTENT = {"intent": "greeting", "confidence": 0.75}
GOOD_RESULT = {"results": [{"title": "Hours"}, None, 3], "context": "We are open."}


@contextlib.asynccontextmanager
async def service(handler: Handler) -> AsyncIterator[str]:
    """A real server for both paths; yields its base URL."""
    app = web.Application()
    app.router.add_post("/api/v1/classify", handler)
    app.router.add_post("/api/v1/query", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def raw_service(talk: Callable[[asyncio.StreamReader, Writer], Awaitable[None]]) -> AsyncIterator[str]:
    """A TCP server that need not speak HTTP."""

    async def guarded(reader: asyncio.StreamReader, writer: Writer) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@contextlib.asynccontextmanager
async def http_client(**settings: Any) -> AsyncIterator[HttpClient]:
    client = HttpClient(**settings)
    try:
        yield client
    finally:
        await client.close()


def answering(body: bytes | str | dict[str, Any], status: int = 200, **headers: str) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        raw = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        return web.Response(body=raw, status=status, headers=headers, content_type="application/json")

    return handle


async def ask_both(base: str, client: HttpClient, timeout_s: float = 5.0) -> tuple[IntentResult, RetrievalResult]:
    intent = HttpIntent(base_url=base, timeout_s=timeout_s, client=client)
    retriever = HttpRetriever(base_url=base, timeout_s=timeout_s, client=client)
    return await intent.classify("hello"), await retriever.retrieve("hello")


def kinds(client: HttpClient) -> Counter[str]:
    """Outcome -> number of requests, over all URLs."""
    total: Counter[str] = Counter()
    for (_, kind), number in client.counts.items():
        total[kind] += number
    return total


def outcome(handler: Handler, timeout_s: float = 5.0) -> tuple[IntentResult, RetrievalResult, Counter[str]]:
    async def run() -> tuple[IntentResult, RetrievalResult, Counter[str]]:
        async with service(handler) as base, http_client() as client:
            intent, found = await ask_both(base, client, timeout_s)
            assert in_flight() == 0
            return intent, found, kinds(client)

    return asyncio.run(run())


def test_the_right_answer_comes_through_as_the_contract_says() -> None:
    seen: list[tuple[str, str, Any]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.method, request.path, await request.json()))
        return web.json_response(GOOD_INTENT if request.path.endswith("classify") else GOOD_RESULT)

    intent, found, counts = outcome(handle)
    assert intent == IntentResult("greeting", 0.75)
    assert found.as_json() == GOOD_RESULT
    assert seen == [
        ("POST", "/api/v1/classify", {"text": "hello"}),
        ("POST", "/api/v1/query", {"query": "hello"}),
    ]
    assert counts == {"ok": 2}


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (answering(GOOD_INTENT, status=500), "status"),
        (answering(GOOD_INTENT, status=404), "status"),
        (answering("", status=302, Location="/api/v1/classify"), "status"),
        (answering("<html>garbage"), "bad_json"),
        (answering(b""), "bad_json"),
        (answering(b"\xff\xfe"), "bad_json"),
        (answering("[" * 100_000), "bad_json"),
        (answering('{"intent": "\\ud800", "confidence": 1, "results": [], "context": "\\ud800"}'), "bad_json"),
        (answering(gzip.compress(b"0" * 10_000_000), **{"Content-Encoding": "gzip"}), "encoding"),
        (answering(b" " * 262_145), "too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_answer_gets_the_fallback(handler: Handler, kind: str) -> None:
    intent, found, counts = outcome(handler)
    assert intent.as_json() == {"intent": "unknown", "confidence": 0.0}
    assert found.as_json() == {"results": [], "context": ""}
    assert counts == {kind: 2}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("null", "bad_answer"),
        ("[]", "bad_answer"),
        ("{}", "bad_answer"),
        ('{"intent": 3, "confidence": 0.5}', "bad_answer"),
        ('{"intent": "", "confidence": 0.5}', "bad_answer"),
        ('{"intent": "a", "confidence": "0.5"}', "bad_answer"),
        ('{"intent": "a", "confidence": true}', "bad_answer"),
        ('{"intent": "a", "confidence": null}', "bad_answer"),
        ('{"intent": "a", "confidence": 1.01}', "bad_answer"),
        ('{"intent": "a", "confidence": -0.1}', "bad_answer"),
        ('{"intent": "a", "confidence": 1e999}', "bad_answer"),
        ('{"intent": "a", "confidence": NaN}', "bad_json"),
        ('{"results": {}, "context": ""}', "bad_answer"),
        ('{"results": [], "context": null}', "bad_answer"),
        ('{"results": [NaN], "context": ""}', "bad_json"),
    ],
)
def test_wrong_types_and_values_get_the_fallback(body: str, kind: str) -> None:
    intent, found, counts = outcome(answering(body))
    assert intent == IntentResult("unknown", 0.0)
    assert found == RetrievalResult([], "")
    assert counts == {kind: 2}


def test_a_body_at_the_limit_is_read() -> None:
    body = json.dumps(GOOD_RESULT).encode()
    _, found, counts = outcome(answering(body + b" " * (262_144 - len(body))))
    assert found.context == "We are open."
    assert counts["ok"] == 1


def test_an_endless_body_ends_at_the_limit() -> None:
    written = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b"x" * 65536)
                written += 65536
        return response

    _, found, counts = outcome(handle)
    assert found == RetrievalResult()
    assert counts == {"too_large": 2}
    assert written < 64 * 1024 * 1024  # what fits into the kernel's buffers, not what the server could send


async def hang(reader: asyncio.StreamReader, writer: Writer) -> None:
    await asyncio.Event().wait()


async def drip_body(reader: asyncio.StreamReader, writer: Writer) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    await drip(writer)


async def endless_body(reader: asyncio.StreamReader, writer: Writer) -> None:
    """A body without a length that never ends, slow enough to stay below the size limit for 50 s."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await drip(writer, b"64\r\n" + b"x" * 100 + b"\r\n")


async def drip_headers(reader: asyncio.StreamReader, writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    await drip(writer)


async def drip(writer: Writer, drop: bytes = b" ") -> None:
    """A little every 20 ms: what defeats a limit on each read."""
    ticks = asyncio.Event()
    while True:
        writer.write(drop)
        await writer.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ticks.wait(), 0.02)


def seconds_until_fallback(talk: Callable[..., Awaitable[None]], timeout_s: float) -> float:
    async def run() -> float:
        async with raw_service(talk) as base, http_client() as client:
            intent = HttpIntent(base_url=base, timeout_s=timeout_s, client=client)
            retriever = HttpRetriever(base_url=base, timeout_s=timeout_s, client=client)
            started = time.perf_counter()
            assert await asyncio.gather(intent.classify("a"), retriever.retrieve("a")) == [
                IntentResult(),
                RetrievalResult(),
            ]
            took = time.perf_counter() - started
            assert kinds(client) == {"timeout": 2}
            return took

    return asyncio.run(run())


@pytest.mark.parametrize("talk", [hang, drip_headers, drip_body, endless_body])
def test_hang_drip_and_endless_body_end_at_the_limit(talk: Callable[..., Awaitable[None]]) -> None:
    assert 0.1 <= seconds_until_fallback(talk, 0.1) < 5.0  # without a limit: for ever, or 50 s


@pytest.mark.slow
@pytest.mark.parametrize("talk", [hang, drip_headers, drip_body, endless_body])
def test_the_default_limit_is_five_seconds_for_the_whole_call(talk: Callable[..., Awaitable[None]]) -> None:
    assert 5.0 <= seconds_until_fallback(talk, 5.0) < 15.0


def test_a_refused_connection_gets_the_fallback_at_once() -> None:
    async def run() -> Counter[str]:
        async with raw_service(hang) as base:
            pass  # its port is free again
        async with http_client() as client:
            assert await ask_both(base, client) == (IntentResult(), RetrievalResult())
            return kinds(client)

    assert asyncio.run(run()) == {"connect": 2}


def test_a_connection_closed_while_idle_costs_no_question() -> None:
    body = json.dumps(GOOD_INTENT).encode()
    connections = 0

    async def answer_once(reader: asyncio.StreamReader, writer: Writer) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await reader.readuntil(b"}")  # a second question on the same connection is answered by closing it

    async def run() -> Counter[str]:
        async with raw_service(answer_once) as base, http_client() as client:
            intent = HttpIntent(base_url=base, client=client)
            for _ in range(3):
                assert await intent.classify("hello") == IntentResult("greeting", 0.75)
            return kinds(client)

    assert asyncio.run(run()) == {"ok": 3}
    assert connections == 3


def test_a_service_that_always_hangs_up_gets_the_fallback() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async def run() -> Counter[str]:
        async with raw_service(hang_up) as base, http_client() as client:
            assert await ask_both(base, client) == (IntentResult(), RetrievalResult())
            return kinds(client)

    assert asyncio.run(run()) == {"disconnected": 2}


def test_connections_are_used_again() -> None:
    peers: set[Any] = set()

    async def handle(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.json_response(GOOD_INTENT)

    async def run() -> None:
        async with service(handle) as base, http_client() as client:
            for _ in range(10):
                await HttpIntent(base_url=base, client=client).classify("hello")

    asyncio.run(run())
    assert len(peers) == 1


def test_five_failures_open_the_breaker_and_a_probe_closes_it() -> None:
    status = 500

    async def handle(request: web.Request) -> web.Response:
        return web.json_response(GOOD_INTENT, status=status)

    async def run() -> None:
        nonlocal status
        async with service(handle) as base, http_client(open_s=0.05) as client:
            intent = HttpIntent(base_url=base, client=client)
            for _ in range(5):
                await intent.classify("hello")
            assert client.is_open(intent.url)
            status = 200
            assert await intent.classify("hello") == IntentResult()
            assert kinds(client) == {"status": 5, "open": 1}
            deadline = time.perf_counter() + 10.0
            while client.is_open(intent.url) and time.perf_counter() < deadline:
                await intent.classify("hello")  # turned away without a request until the probe's time has come
            assert await intent.classify("hello") == IntentResult("greeting", 0.75)

    asyncio.run(run())


def test_cancelling_hangs_up_and_is_no_failure() -> None:
    gone = asyncio.Event()
    asked = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return web.Response()

    async def run() -> Counter[str]:
        async with service(handle) as base, http_client(max_failures=1) as client:
            intent = HttpIntent(base_url=base, client=client)
            task = asyncio.ensure_future(intent.classify("hello"))
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(gone.wait(), 10.0)
            assert not client.is_open(intent.url)
            assert in_flight() == 0
            return kinds(client)

    assert asyncio.run(run()) == {"cancelled": 1}


def test_both_are_branches_and_share_the_loops_client() -> None:
    async def run() -> None:
        async with service(answering({**GOOD_INTENT, **GOOD_RESULT})) as base:
            turn = UserTurnFrame(turn_id=1, text="hello")
            assert (await HttpIntent(base_url=base)(turn)).label == "greeting"
            assert (await HttpRetriever(base_url=base + "/")(turn)).context == "We are open."
            assert kinds(HttpClient.shared()) == {"ok": 2}
            await close_http()

    asyncio.run(run())


@pytest.mark.parametrize("base_url", ["", "intent-service:8002", "ftp://host", "http://", "http://host:port"])
def test_an_address_that_cannot_work_is_refused(base_url: str) -> None:
    with pytest.raises(ConfigurationError, match="no service address"):
        HttpIntent(base_url=base_url)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan")])
def test_a_timeout_that_cannot_work_is_refused(timeout_s: float) -> None:
    with pytest.raises(ConfigurationError, match="timeout_s"):
        HttpRetriever(timeout_s=timeout_s)


def test_default_addresses_are_the_contracts() -> None:
    assert HttpIntent().url == "http://intent-service:8002/api/v1/classify"
    assert HttpRetriever().url == "http://rag-service:8003/api/v1/query"
