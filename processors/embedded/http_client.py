"""JSON over HTTP for a turn's branches: one pooled client per event loop, and no way to hang or drown in it.

    ask(url, body) -> breaker closed? -> POST -> status 200? -> body, chunk by chunk, <= 256 KiB -> JSON -> check
                          | no             |          every failure is counted by kind
                          v                v
                        None             None          within `timeout_s`, for all of it

aiohttp's own `total=5` fires after 5.6 s and httpx's `timeout=5` lets a slow drip run for 14.8 s, so the whole call
stands in one `asyncio.timeout`. Compressed bodies are refused: their size is only known after they were unpacked.
"""

from __future__ import annotations

import asyncio
import json
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

import aiohttp
from loguru import logger

from ...pipeline.engine.outside import outside
from ...pipeline.errors import ConfigurationError
from .breaker import CircuitBreaker

MAX_BODY = 256 * 1024  # bytes; the contract's limit
MAX_CONNECTIONS = 512  # at once, to all services; one conversation needs two
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}

Answer = TypeVar("Answer")


class _BadAnswer(Exception):  # never leaves this file: a kind of failure to count
    """The service answered, but not what was agreed."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind  # "status", "encoding", "too_large", "bad_json" or "bad_answer"


class HttpClient:
    """The connections of one event loop, and a circuit breaker per URL. Any number of conversations may ask at once.

    `counts` holds, by URL and outcome, what became of all requests: (url, "ok"), or "timeout", "connect",
    "disconnected", "status", "encoding", "too_large", "bad_json", "bad_answer", "other", "open", "cancelled".
    """

    _shared: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, HttpClient]] = weakref.WeakKeyDictionary()

    def __init__(self, *, max_failures: int = 5, open_s: float = 5.0, max_body: int = MAX_BODY) -> None:
        self._max_failures = max_failures
        self._open_s = open_s
        self._max_body = max_body
        self._session: aiohttp.ClientSession | None = None  # None before the first request and after `close`
        self._breakers: dict[str, CircuitBreaker] = {}  # one per URL asked; as many as services are configured
        self.counts: Counter[tuple[str, str]] = Counter()  # (url, outcome) -> requests

    @classmethod
    def shared(cls) -> HttpClient:
        """The running loop's client; made when first asked for."""
        loop = asyncio.get_running_loop()
        if loop not in cls._shared:
            cls._shared[loop] = cls()
        return cls._shared[loop]

    async def close(self) -> None:
        """Close the connections; requests under way fail. The next `ask` opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def is_open(self, url: str) -> bool:
        """Whether the breaker of `url` is turning requests away."""
        return url in self._breakers and self._breakers[url].is_open

    async def ask(
        self, url: str, body: dict[str, Any], *, timeout_s: float, check: Callable[[Any], Answer | None]
    ) -> Answer | None:
        """POST `body` as JSON and return what `check` makes of the answer's JSON; None on any failure.

        `check` returns None for an answer that breaks the agreement. Never raises but for cancellation, which closes
        the connection. Ends after `timeout_s` at the latest, everything included.
        """
        loop = asyncio.get_running_loop()
        breaker = self._breakers.setdefault(url, CircuitBreaker(max_failures=self._max_failures, open_s=self._open_s))
        ticket = breaker.enter(loop.time())
        if ticket is None:
            self.counts[url, "open"] += 1
            return None
        try:
            with outside():
                async with asyncio.timeout(timeout_s):
                    answer = check(await self._post(url, body))
            if answer is None:
                raise _BadAnswer("bad_answer")
        except asyncio.CancelledError:
            breaker.cancelled(ticket)
            self.counts[url, "cancelled"] += 1
            raise
        except Exception as error:  # the contract: on any failure the fallback
            self._count_failure(url, error, is_opened=breaker.failed(ticket, loop.time()))
            return None
        breaker.succeeded(ticket)
        self.counts[url, "ok"] += 1
        return answer

    def _count_failure(self, url: str, error: Exception, *, is_opened: bool) -> None:
        kind = _kind_of(error)
        self.counts[url, kind] += 1
        logger.warning(f"{url} failed ({kind}); the fallback answers")
        if is_opened:
            logger.warning(f"{url} keeps failing; it is left alone for {self._open_s:g} s")

    async def _post(self, url: str, body: dict[str, Any]) -> Any:
        try:
            return await self._post_once(url, body)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError):
                raise
            # A pooled connection that the service closed while it was idle. Both questions may be asked twice.
            return await self._post_once(url, body)

    async def _post_once(self, url: str, body: dict[str, Any]) -> Any:
        request = self._open().post(url, json=body, headers=_HEADERS, allow_redirects=False)
        async with request as response:
            if response.status != 200:
                raise _BadAnswer("status")
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise _BadAnswer("encoding")
            raw = bytearray()
            async for chunk in response.content.iter_any():
                raw += chunk
                if len(raw) > self._max_body:
                    raise _BadAnswer("too_large")
        return _parsed(raw)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                auto_decompress=False,
            )
        return self._session


def _parsed(raw: bytes | bytearray) -> Any:
    """The JSON value of `raw`; strict, as NaN or half a surrogate pair would break whoever passes it on."""
    try:
        value = json.loads(raw, parse_constant=_refuse)
        if b"\\ud" in raw.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise _BadAnswer("bad_json") from error
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _kind_of(error: Exception) -> str:
    """The name under which a failed request is counted."""
    if isinstance(error, _BadAnswer):
        return error.kind
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "connect"
    return "disconnected" if isinstance(error, aiohttp.ClientConnectionError) else "other"


def service_url(base_url: str, path: str) -> str:
    """`base_url` + `path`. Raises `ConfigurationError` for what is no http(s) address."""
    try:
        parts = urlsplit(base_url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_good = False
    if not is_good:
        raise ConfigurationError(f"{base_url!r} is no service address; write it as in http://intent-service:8002")
    return base_url.rstrip("/") + path


async def close_http() -> None:
    """Close the running loop's shared client: once, when a server shuts down."""
    await HttpClient.shared().close()
