"""The pytest plugin: `call`, `recording`, `virtual_time`, `real_redis`. Every pytest loads it, so it imports nothing.

@pytest.mark.bot("bots/assistant.py", speech="words")       # or once and for all, in the ini file: leibniz_bot
def test_a_barge_in_is_answered(call):
    call.user_says("where is my order")
    call.user_interrupts("do you sell helmets", after_s=0.6)
    call.wait_for_reply(contains="helmets")

A test that fails with a call among its variables draws the timeline of that call.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ...pipeline.testing import Call, Recording, VirtualTime

MARKER = (
    "bot(file, build=None, **options): the bot that the fixture `call` talks to, by its file or its `build`; "
    "options as for `Call`"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what the ini file may say, and the command line instead of it."""
    group = parser.getgroup("leibniz", "voice bots")
    bot = "the bot script that the fixture `call` talks to, where no marker names one; from the ini file's folder"
    speech = "how the user of `call` speaks: auto, audio (models hear it) or words (they are left out)"
    group.addoption("--leibniz-bot", metavar="FILE", help=bot)
    group.addoption("--leibniz-speech", metavar="WAY", help=speech)
    parser.addini("leibniz_bot", bot, default="")
    parser.addini("leibniz_speech", speech, default="auto")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", MARKER)


@pytest.fixture
def bot(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """The `build` under test: the marker's, else that of the file that the ini file names. Override it as you like."""
    marker = request.node.get_closest_marker("bot")
    if marker and "build" in marker.kwargs:  # not by position: pytest would take the mark for a decorator of it
        return marker.kwargs["build"]
    named = marker.args[0] if marker and marker.args else _setting(request.config, "leibniz_bot")
    if not named:
        raise pytest.UsageError(
            "no bot to call: mark the test with @pytest.mark.bot(build=...), set `leibniz_bot = FILE` in the ini file, "
            "or define a fixture `bot` that returns the build function"
        )
    return _load(str((request.config.rootpath / named).resolve()))


@pytest.fixture
def call(request: pytest.FixtureRequest, bot: Callable[..., Any]) -> Iterator[Call]:
    """A call to the bot that has begun, in virtual time; it is hung up when the test is over."""
    from ...pipeline.testing import Call

    marker = request.node.get_closest_marker("bot")
    options = {"speech": _setting(request.config, "leibniz_speech"), **(marker.kwargs if marker else {})}
    options.pop("build", None)
    with Call(bot, **options) as call:
        yield call


@pytest.fixture
def recording(call: Call) -> Recording:
    """What `call` has come to, each time it is looked at."""
    return _Live(call)  # pyright: ignore[reportReturnType] - it has all that a Recording has


@pytest.fixture
def virtual_time() -> Iterator[VirtualTime]:
    """A loop on virtual time for plain code: `virtual_time.run(coroutine)`, `virtual_time.now`."""
    from ...pipeline.testing import VirtualTime

    with VirtualTime() as clock:
        yield clock


@pytest.fixture(scope="session")
def _redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import asyncio

    from ...transports.state.embedded_redis import EmbeddedRedis, find_server

    if find_server() is None:
        pytest.skip("no redis-server: install leibniz-voice[embedded], or put one on the PATH")
    server = EmbeddedRedis(directory=tmp_path_factory.mktemp("redis"))
    asyncio.run(server.start())
    yield server.url
    asyncio.run(server.stop())


@pytest.fixture
def real_redis(_redis_server: str) -> str:
    """The address of a real Redis server without any data; it is started once for all tests."""
    from redis import Redis

    with Redis.from_url(_redis_server) as client:
        client.flushall()
        client.script_flush()
    return _redis_server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show the timelines of the calls that a failed test holds in its variables."""
    report: Any = yield
    kit: Any = sys.modules.get("leibniz_voice.pipeline.testing.outcome")
    if report.failed and call.excinfo is not None and kit is not None:
        report.sections += kit.timelines_in(call.excinfo.value)
    return report


class _Live:
    """The recording of a call that goes on: a `Recording` does not grow."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call.recording, name)

    def __repr__(self) -> str:
        return repr(self._call.recording)


@functools.cache
def _load(path: str) -> Callable[..., Any]:
    from .scripts import load_bot

    return load_bot(path).build


def _setting(config: pytest.Config, name: str) -> str:
    return config.getoption(name) or config.getini(name)
