"""The reference bot, as a process of its own, with services and clients over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from websockets.asyncio.client import connect

from leibniz_voice.bots.parts import NO_KEY, PooledLLM, llm_from
from leibniz_voice.pipeline.errors import ConfigurationError
from tests.support import ROOT
from tests.support.fake_openai import FakeOpenAI, says
from tests.support.redis_servers import Server, ending, free_port, until
from tests.support.tools import needs

TOGETHER_S = 10.0  # for the second of two questions to come


class Services:
    """Intent and retrieval service of the contract; each answers when both were asked, as one turn asks both."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.broken = False
        self._both = asyncio.Barrier(2)

    async def classify(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(("intent", body))
        await asyncio.wait_for(self._both.wait(), TOGETHER_S)
        label = "complex_query" if "why" in body["text"] else "opening_hours"
        return web.Response(status=500) if self.broken else web.json_response({"intent": label, "confidence": 0.9})

    async def query(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(("rag", body))
        await asyncio.wait_for(self._both.wait(), TOGETHER_S)
        found = {"results": [{"t": 1}], "context": "Nine."}
        return web.Response(body=b"{") if self.broken else web.json_response(found)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Services]:
        app = web.Application()
        app.router.add_post("/api/v1/classify", self.classify)
        app.router.add_post("/api/v1/query", self.query)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}".format(*runner.addresses[0][:2])
        try:
            yield self
        finally:
            await runner.cleanup()


@asynccontextmanager
async def orchestrator(tmp_path: Path, **environment: str) -> AsyncIterator[str]:
    """Run the bot; yields its WebSocket address once it says that it is ready."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("LLM_") and k != "REDIS_URL"} | environment
    command = ("-m", "leibniz_voice.bots.cli.main", "serve", str(ROOT / "bots" / "orchestrator.py"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--data", str(tmp_path), stdout=asyncio.subprocess.PIPE, env={"PORT": "0"} | env
    )
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        match = re.search(r"(ws://\S+)\?", line)
        assert match, line
        yield match[1]
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0


class Client:
    """A client that does its own STT."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.messages: list[dict[str, Any]] = []
        self.audio_bytes = 0

    async def asks(self, text: str) -> list[dict[str, Any]]:
        """One turn; returns its messages up to `idle`."""
        begun = len(self.messages)
        await self.socket.send(json.dumps({"type": "stt_fragment", "text": text, "is_final": True}))
        await self.socket.send(json.dumps({"type": "vad_end"}))
        deadline = time.monotonic() + 20
        while not self._is_over(self.messages[begun:]) and time.monotonic() < deadline:
            message = await asyncio.wait_for(self.socket.recv(), 20)
            if isinstance(message, bytes):
                self.audio_bytes += len(message)
            else:
                self.messages.append(json.loads(message))
        return self.messages[begun:]

    def _is_over(self, messages: list[dict[str, Any]]) -> bool:
        return any(m["type"] == "turn" for m in messages)


def run(tmp_path: Path, script: Callable[[Client, Services], Coroutine[Any, Any, None]], *answers: Any) -> FakeOpenAI:
    async def main() -> FakeOpenAI:
        async with Services().running() as services, FakeOpenAI(*answers) as server:
            env = {"INTENT_URL": services.url, "RAG_URL": services.url}
            if answers:
                env |= {"LLM_BASE_URL": server.url, "LLM_MODEL": "fake", "LLM_API_KEY": "k"}
            async with orchestrator(tmp_path, **env) as url, connect(f"{url}?session_id=test") as socket:
                await script(Client(socket), services)
            return server

    return asyncio.run(main())


@pytest.mark.slow
def test_a_simple_question_asks_both_services_at_once(tmp_path: Path):
    """How long it waits, 80 + 5 ms for services of 50 and 80 ms, is measured by benchmarks/turns.py."""

    async def script(client: Client, services: Services) -> None:
        for _ in range(5):
            messages = await client.asks("when are you open")
            ready = next(m for m in messages if m["type"] == "response_ready")
            assert ready["text"] == "Opening Hours: Nine."
            assert "Join" in next(m for m in messages if m["type"] == "turn")["latency_ms"]
        text = "when are you open"
        assert services.asked[:2] == [("intent", {"text": text}), ("rag", {"query": text})]
        assert client.audio_bytes > 16000

    run(tmp_path, script)


@pytest.mark.slow
def test_a_complex_question_is_answered_by_the_llm_with_the_passages_and_what_was_said(tmp_path: Path):
    async def script(client: Client, services: Services) -> None:
        await client.asks("when are you open")
        messages = await client.asks("why so early")
        texts = [m["text"] for m in messages if m["type"] in ("response_ready", "response_text")]
        assert " ".join(t for t in texts if t) == "Because. Birds."

    server = run(tmp_path, script, says("Because. ", "Birds."))
    system, *history, question = server.asked[0]["messages"]
    assert system["role"] == "system"
    assert [m["content"] for m in history] == ["when are you open", "Opening Hours: Nine."]
    assert question["content"].startswith("why so early")
    assert "Nine." in question["content"]


@pytest.mark.slow
def test_services_that_fail_are_answered_for(tmp_path: Path):
    async def script(client: Client, services: Services) -> None:
        services.broken = True
        messages = await client.asks("when are you open")
        assert next(m for m in messages if m["type"] == "response_ready")["text"].startswith("I didn't get that")

    run(tmp_path, script)


@pytest.mark.slow
@needs("redis")
def test_the_environment_names_the_port_and_the_redis(tmp_path: Path):
    port = free_port()
    redis = Server(tmp_path)

    async def main() -> None:
        async with (
            Services().running() as services,
            orchestrator(
                tmp_path, INTENT_URL=services.url, RAG_URL=services.url, PORT=str(port), REDIS_URL=redis.url
            ) as url,
            connect(f"{url}?session_id=test") as socket,
        ):
            assert url == f"ws://127.0.0.1:{port}/orchestrate"
            await Client(socket).asks("when are you open")
            until(lambda: redis.ask("HGET", "session:test", "turn_number") == "1")
            assert redis.ask("HGET", "session:test", "llm_response") == "Opening Hours: Nine."

    with ending([redis]):
        redis.wait()
        asyncio.run(main())


def test_the_environment_names_the_llm():
    assert llm_from({}) is None
    llm = llm_from({"LLM_BASE_URL": "groq", "LLM_API_KEY": "k"})
    assert isinstance(llm, PooledLLM)
    assert "groq.com" in str(llm._client.base_url)
    assert llm_from({"LLM_BASE_URL": "groq", "LLM_API_KEY": "k"})._client is llm._client  # type: ignore[union-attr]
    local = llm_from({"LLM_BASE_URL": "http://127.0.0.1:9/v1", "LLM_MODEL": "m"})
    assert local is not None
    assert local._client.api_key == NO_KEY
    asyncio.run(PooledLLM.close_pool())


@pytest.mark.parametrize("wrong", [{"LLM_BASE_URL": "http://127.0.0.1/v1"}, {"LLM_BASE_URL": "grok", "LLM_MODEL": "m"}])
def test_an_address_that_cannot_be_asked_is_refused(wrong: dict[str, str]):
    with pytest.raises(ConfigurationError, match="LLM_BASE_URL"):
        llm_from(wrong)
