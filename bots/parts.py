"""What the ready-made bots share: embedded parts that are warm before the first call, and an LLM by environment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, NamedTuple

from pipecat.services.openai.llm import OpenAILLMService

from ..pipeline.errors import ConfigurationError
from ..processors.embedded.http_client import close_http
from ..processors.embedded.recogniser.sphinx import SphinxRecogniser
from ..processors.embedded.voice.espeak import EspeakVoice
from ..processors.embedded.workers.shared import close_all

__all__ = ["LLMSettings", "PooledLLM", "embedded_parts", "llm_from", "llm_settings"]

PROVIDERS = {  # short names that LLM_BASE_URL may hold -> (address, model where LLM_MODEL is unset)
    "openai": ("https://api.openai.com/v1", "gpt-4.1-mini"),
    "groq": ("https://api.groq.com/openai/v1", "llama-3.3-70b-versatile"),
    "gemini": ("https://generativelanguage.googleapis.com/v1beta/openai/", "gemini-2.5-flash"),
}
NO_KEY = "none"  # sent where no key is set: local servers ask for none, but the client wants one


@asynccontextmanager
async def embedded_parts(phrases: Sequence[str]) -> AsyncIterator[None]:
    """Around serving: start voice and recogniser and load their models first; end them, and all connections, after.

    Raises `ServiceError` or `ConfigurationError` if one of them cannot work on this machine.
    """
    voice, recogniser = EspeakVoice(), SphinxRecogniser(phrases=phrases)
    try:
        await voice.warm_up()
        await recogniser.warm_up()
        yield
    finally:
        voice.close()
        recogniser.close()
        await close_all()
        await close_http()
        await PooledLLM.close_pool()


class PooledLLM(OpenAILLMService):
    """Pipecat's OpenAI service with one pool of connections per process; Pipecat's own makes one per conversation."""

    _pool: ClassVar[dict[tuple[str, str], Any]] = {}  # (address, key) -> the client with its connections

    def create_client(self, api_key: Any = None, base_url: Any = None, **_: Any) -> Any:
        """Return the process's client for this address, made on first use."""
        client = self._pool.get((base_url, api_key))
        if client is None:
            made = super().create_client(api_key=api_key, base_url=base_url)
            client = self._pool[base_url, api_key] = made.with_options(max_retries=1, timeout=60.0)
        return client

    @classmethod
    async def close_pool(cls) -> None:
        """Close all connections: once, when the process shuts down."""
        while cls._pool:
            _, client = cls._pool.popitem()
            await client.close()


class LLMSettings(NamedTuple):
    """What LLM_BASE_URL, LLM_API_KEY and LLM_MODEL come to."""

    url: str
    key: str
    model: str


def llm_settings(environment: Mapping[str, str]) -> LLMSettings | None:
    """Return the LLM that LLM_BASE_URL, LLM_API_KEY and LLM_MODEL name; None if neither address nor key is set.

    LLM_BASE_URL is an OpenAI-compatible address, or openai (the default), groq or gemini. Raises `ConfigurationError`
    for an address without a model.
    """
    base, key = environment.get("LLM_BASE_URL", ""), environment.get("LLM_API_KEY", "")
    if not base and not key:
        return None
    url, model = PROVIDERS.get(base or "openai", (base, ""))
    model = environment.get("LLM_MODEL") or model
    if not model or not url.startswith(("http://", "https://")):
        known = ", ".join(PROVIDERS)
        raise ConfigurationError(f"LLM_BASE_URL is {base!r}: give {known}, or an http(s) address and LLM_MODEL")
    return LLMSettings(url, key or NO_KEY, model)


def llm_from(environment: Mapping[str, str]) -> PooledLLM | None:
    """Return Pipecat's service for `llm_settings`; None if there are none."""
    found = llm_settings(environment)
    if found is None:
        return None
    return PooledLLM(api_key=found.key, base_url=found.url, settings=PooledLLM.Settings(model=found.model))
