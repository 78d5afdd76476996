"""The checks of `leibniz doctor` that ask services: intent, retrieval, LLM, cloud recogniser and voice."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from ...parts import llm_settings
from ...services.cloud_services import RATE, Service, chosen
from .checks import CHECK_S, Check, Finding, Problem

QUESTION = "what are your opening hours"
_REFUSED = (401, 403)


async def intent(environment: Mapping[str, str]) -> Finding:
    """INTENT_URL, by its contract."""
    answer = await _posted(environment, "INTENT_URL", "Intent service", "/api/v1/classify", {"text": QUESTION})
    return answer if isinstance(answer, Finding) else _agreed("Intent service", answer, "intent", "confidence")


async def retrieval(environment: Mapping[str, str]) -> Finding:
    """RAG_URL, by its contract."""
    answer = await _posted(environment, "RAG_URL", "Retrieval service", "/api/v1/query", {"query": QUESTION})
    return answer if isinstance(answer, Finding) else _agreed("Retrieval service", answer, "context", "results")


async def llm(environment: Mapping[str, str]) -> Finding:
    """The language model's first token."""
    found = llm_settings(environment)
    if found is None:
        return Finding("Language model", "off", "LLM_API_KEY and LLM_BASE_URL are not set")
    body = {"model": found.model, "stream": True, "messages": [{"role": "user", "content": "Say hello."}]}
    host, began = urlsplit(found.url).netloc, time.perf_counter()
    url, headers = f"{found.url.rstrip('/')}/chat/completions", {"Authorization": f"Bearer {found.key}"}
    try:
        async with _web() as web, web.post(url, json=body, headers=headers) as response:
            if response.status in _REFUSED:
                raise Problem(f"{host} refuses the key (HTTP {response.status})", "check LLM_API_KEY")
            if response.status != 200:
                said = (await response.content.read(200)).decode(errors="replace").strip()
                fix = "check LLM_MODEL and LLM_BASE_URL"
                raise Problem(f"{host} answers HTTP {response.status} for {found.model}: {said}", fix)
            async for line in response.content:
                if (
                    line.startswith(b"data:")
                    and b'"content":' in line
                    and b'"content":""' not in line.replace(b" ", b"")
                ):
                    return Finding("Language model", "ok", f"{found.model} at {host}: first token", ms=_since(began))
    except aiohttp.ClientError as error:
        raise Problem(f"{host} cannot be reached: {error}", "check LLM_BASE_URL and the network") from error
    raise Problem(f"{host} answered without a token", "check LLM_MODEL")


async def recogniser(environment: Mapping[str, str]) -> Finding:
    """The cloud recogniser, with a tenth of a second of silence."""
    service = chosen(environment, "STT")
    if service is None:
        return Finding("Cloud recogniser", "off", "DEEPGRAM_API_KEY is not set: the embedded one listens")
    model, key = service.of(environment, "MODEL", service.model), service.of(environment, "API_KEY")
    base = service.of(environment, "URL", service.url).rstrip("/").replace("http", "ws", 1)
    url = f"{base if '://' in base else f'wss://{base}'}/v1/listen?encoding=linear16&sample_rate={RATE}&model={model}"
    async with _Asked("Cloud recogniser", service, url, {"Authorization": f"Token {key}"}) as asked:
        await asked.socket.send(bytes(RATE // 5))
        await asked.socket.send(json.dumps({"type": "CloseStream"}))
        return await asked.until(lambda fields: fields.get("type") in ("Results", "Metadata"))


async def voice(environment: Mapping[str, str]) -> Finding:
    """The cloud voice, with one word."""
    service = chosen(environment, "TTS")
    if service is None:
        keys = "CARTESIA_API_KEY and ELEVENLABS_API_KEY are not set"
        return Finding("Cloud voice", "off", f"{keys}: the embedded one speaks")
    ask = {"cartesia": _cartesia, "elevenlabs": _elevenlabs}[service.name]
    key, voice_id = service.of(environment, "API_KEY"), service.of(environment, "VOICE_ID")
    url, model = service.of(environment, "URL", service.url), service.of(environment, "MODEL", service.model)
    return await ask(service, key=key, voice_id=voice_id, url=url, model=model)


async def _cartesia(service: Service, *, key: str, voice_id: str, url: str, model: str) -> Finding:
    request = {
        "transcript": "Hello.",
        "continue": False,
        "context_id": "doctor",
        "model_id": model,
        "voice": {"mode": "id", "id": voice_id},
        "language": "en",
        "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": RATE},
    }
    headers = {"X-API-Key": key, "Cartesia-Version": "2026-03-01"}  # that of Pipecat's service
    async with _Asked("Cloud voice", service, url, headers) as asked:
        await asked.socket.send(json.dumps(request))
        return await asked.until(lambda fields: fields.get("type") == "chunk")


async def _elevenlabs(service: Service, *, key: str, voice_id: str, url: str, model: str) -> Finding:
    query = f"model_id={model}&output_format=pcm_{RATE}&auto_mode=true"
    path = f"/v1/text-to-speech/{voice_id}/multi-stream-input?{query}"
    async with _Asked("Cloud voice", service, url.rstrip("/") + path, {"xi-api-key": key}) as asked:
        for fields in ({"text": " "}, {"text": "Hello. "}, {"flush": True}):
            await asked.socket.send(json.dumps({**fields, "context_id": "doctor"}))
        return await asked.until(lambda fields: bool(fields.get("audio")))


CHECKS: dict[str, Check] = {
    "Intent service": intent,
    "Retrieval service": retrieval,
    "Language model": llm,
    "Cloud recogniser": recogniser,
    "Cloud voice": voice,
}


class _Asked:
    """A WebSocket to a service, whose failures are problems in words."""

    def __init__(self, name: str, service: Service, url: str, headers: dict[str, str]) -> None:
        self._name, self._service, self._url, self._headers = name, service, url, headers
        self._host = urlsplit(url).netloc
        self._began = time.perf_counter()
        self.socket: ClientConnection = None  # type: ignore[assignment]  # inside the context only

    async def __aenter__(self) -> _Asked:
        try:
            self.socket = await connect(
                self._url, additional_headers=self._headers, open_timeout=CHECK_S, close_timeout=1
            )
        except InvalidStatus as error:
            status = error.response.status_code
            if status in _REFUSED:
                raise self._refused(f"HTTP {status}") from error
            raise Problem(f"{self._host} answers HTTP {status}", self._fix) from error
        except (OSError, WebSocketException) as error:
            raise Problem(f"{self._host} cannot be reached: {error}", self._fix) from error
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.socket.transport.abort()
        await self.socket.wait_closed()
        if isinstance(error, ConnectionClosed):  # while sending, or instead of an answer
            self._judge(error.rcvd.reason if error.rcvd else "the connection was lost")

    async def until(self, is_answer: Any) -> Finding:
        """Read to the first answer."""
        async for text in self.socket:
            fields = json.loads(text)
            if is_answer(fields):
                detail = f"{self._service.name} at {self._host} answers"
                return Finding(self._name, "ok", detail, ms=_since(self._began))
            if fields.get("type") == "error" or fields.get("error"):
                self._judge(str(fields.get("message") or fields.get("error") or fields))
        raise Problem(f"{self._host} closed without an answer", self._fix)

    def _judge(self, message: str) -> None:
        if "key" in message.lower() or "auth" in message.lower():
            raise self._refused(message[:120])
        raise Problem(f"{self._host} says: {message[:120]}", self._fix)

    def _refused(self, how: str) -> Problem:
        return Problem(f"{self._service.name} refuses the key ({how})", f"check {self._service.prefix}_API_KEY")

    @property
    def _fix(self) -> str:
        needed = f"{self._service.prefix}_URL, _MODEL" + (" and _VOICE_ID" if self._service.needs_voice else "")
        return f"check {needed}, and the network"


async def _posted(
    environment: Mapping[str, str], variable: str, name: str, path: str, body: dict[str, str]
) -> Finding | tuple[str, Any, float]:
    """Address, answer and time of a service that is asked by POST; a finding where it is not configured."""
    base = environment.get(variable, "")
    if not base:
        return Finding(name, "off", f"{variable} is not set")
    from leibniz_voice.processors.embedded.http_client import service_url

    url, began = service_url(base, path), time.perf_counter()
    host = urlsplit(url).netloc.rpartition("@")[2]
    try:
        async with _web() as web, web.post(url, json=body) as response:
            if response.status != 200:
                raise Problem(f"{host} answers HTTP {response.status} at {path}", f"check {variable}")
            return host, json.loads(await response.content.read(262_144)), _since(began)
    except ValueError as error:
        raise Problem(f"{host} answers with what is no JSON", f"check {variable}") from error
    except aiohttp.ClientError as error:
        raise Problem(f"{host} cannot be reached: {error}", f"start it, correct {variable}, or unset it") from error


def _agreed(name: str, answer: tuple[str, Any, float], text: str, other: str) -> Finding:
    host, fields, ms = answer
    if not isinstance(fields, dict) or not isinstance(fields.get(text), str) or other not in fields:
        raise Problem(f"{host} answers otherwise than agreed", f'let it answer with "{text}" and "{other}"')
    return Finding(name, "ok", f"{host} answers", ms=ms)


def _web() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CHECK_S), trust_env=True)


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
