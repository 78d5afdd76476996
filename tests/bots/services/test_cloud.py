"""`bots/cloud.py` with real Pipecat services against local servers that speak the services' true protocols."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
from loguru import logger
from pipecat.frames.frames import Frame

from leibniz_voice.bots.cli.talk_command.sound import synthesise
from leibniz_voice.bots.services.cloud_services import CONNECT_S, STT, TTS, ReplaceableVoice, chosen
from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.testing import run_virtual
from leibniz_voice.transports import WebSocketClient
from tests.support.serving import bot, served
from tests.support.tools import needs

from ...support.fake_cloud import KEY, FakeCartesia, FakeDeepgram, FakeElevenLabs, FakeVoice, loudness_at
from ...support.fake_openai import FakeOpenAI, says

BOT = bot("cloud.py")
VARIABLES = [f"{s.prefix}_{what}" for s in (*STT, *TTS) for what in ("API_KEY", "URL", "MODEL", "VOICE_ID")]
QUESTION, SECOND = "do you sell tandems", "tell me about gift cards instead"
LISTED = "what are your opening hours"  # the embedded recogniser hears it too
STORY = "We sell two tandems. " + "Both of them have gears and brakes and bells. " * 3


@functools.cache
def speech() -> dict[str, bytes]:
    """What the user says, as PCM16; made before any bot runs, as it ends the workers that it used."""
    texts = [QUESTION, SECOND, LISTED]
    return dict(zip(texts, asyncio.run(synthesise(texts, voice="en")), strict=True))


class Call:
    """A conversation with the served bot, and what the bot's log says about it."""

    def __init__(self, client: WebSocketClient, lines: list[str]) -> None:
        self.client, self.lines = client, lines

    async def says(self, text: str) -> None:
        await self.client.speak(bytes(8000) + speech()[text])

    async def until(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> float:
        began = time.monotonic()
        assert await self.client.until(condition, timeout_s=timeout_s), (self.client.states, self.lines)
        return time.monotonic() - began

    async def until_state(self, *states: str) -> float:
        """Wait for the newest states to be these."""
        return await self.until(lambda: self.client.states[-len(states) :] == list(states))

    @property
    def replies(self) -> list[str]:
        kinds = ("response_ready", "response_text")
        return [text for e in self.client.events if e.kind in kinds and (text := e.fields["text"])]

    @property
    def heard(self) -> bytes:
        return bytes(self.client.playback.heard)


def with_bot(
    monkeypatch: pytest.MonkeyPatch,
    script: Callable[..., Coroutine[Any, Any, None]],
    *services: Any,
    more: Mapping[str, str] | None = None,
) -> None:
    """Serve the bot with these services in its environment, and run `script(call, *services)`."""
    for name in (*VARIABLES, "STT", "TTS", "LLM_BASE_URL", "LLM_API_KEY", "LLM_MODEL"):
        monkeypatch.delenv(name, raising=False)
    speech()
    lines: list[str] = []
    handler = logger.add(lambda line: lines.append(line.record["message"]), level="INFO")

    async def main() -> None:
        async with AsyncExitStack() as stack:
            for service in services:
                await stack.enter_async_context(service)
                if isinstance(service, FakeOpenAI):
                    environment = {"LLM_BASE_URL": service.url, "LLM_API_KEY": "k", "LLM_MODEL": "fake"}
                else:
                    environment = service.environment
                for name, value in {**environment, **(more or {})}.items():
                    monkeypatch.setenv(name, value)
            await stack.enter_async_context(BOT.lifespan())
            server = await stack.enter_async_context(served(BOT.build))
            client = await stack.enter_async_context(WebSocketClient(server.address))
            await script(Call(client, lines), *services)

    try:
        asyncio.run(main())
    finally:
        logger.remove(handler)


@needs("cloud")
@pytest.mark.slow
@pytest.mark.parametrize("voice", [FakeCartesia, FakeElevenLabs])
def test_all_of_them_at_once_and_a_barge_in(monkeypatch: pytest.MonkeyPatch, voice: type[FakeVoice]) -> None:
    async def script(call: Call, stt: FakeDeepgram, llm: FakeOpenAI, tts: FakeVoice) -> None:
        await call.says(QUESTION)
        await call.until(lambda: bool(call.replies))
        assert llm.asked[0]["messages"][-1]["content"].startswith(QUESTION)
        assert call.replies[0].startswith("We sell two tandems.")
        await call.until(lambda: loudness_at(call.heard, tts.spoken[0].hz) > 3000)

        await call.says(SECOND)
        await call.until_state("interrupt", "listening", "thinking", "speaking")
        cut_at = next(e.at_s for e in call.client.events if e.kind == "interrupted")
        assert tts.cancelled, "the voice is told to cancel"
        assert tts.cancelled[0] == tts.spoken[0].context_id
        old = [spoken.hz for spoken in tts.spoken if spoken.context_id == tts.spoken[0].context_id]
        assert llm.asked[1]["messages"][-1]["content"].startswith(SECOND)
        newest = next(spoken for spoken in tts.spoken if spoken.text.startswith("We have"))
        await call.until_state("speaking", "idle")
        after = call.heard[2 * int(cut_at * 16000) :]
        assert max(loudness_at(after, hz) for hz in old) < 800, "nothing of the cut answer is heard"
        assert loudness_at(after, newest.hz) > 3000
        assert {message["type"] for message in stt.messages} >= {"Finalize"}
        assert llm.closed_at or len(llm.asked) == 2

    story = [step for word in STORY.split() for step in (word + " ", 0.03)]
    answers = says(*story), says("We have ", "gift cards.")
    with_bot(monkeypatch, script, FakeDeepgram(QUESTION, SECOND), FakeOpenAI(*answers), voice())


@pytest.mark.slow
# Pipecat connects again and again behind the scenes; the loop may end before the last refused socket has closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("voice", [FakeCartesia, FakeElevenLabs])
def test_a_voice_that_refuses_the_key_is_replaced_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, voice: type[FakeVoice]
) -> None:
    async def script(call: Call, tts: FakeVoice) -> None:
        await call.client.send("stt_fragment", text="what are your opening hours", is_final=True)
        await call.client.send("vad_end")
        await call.until_state("thinking", "speaking")
        await call.until(lambda: call.client.playback.played > 8000)  # the embedded voice
        assert not tts.spoken
        told = [line for line in call.lines if line.startswith(tts.prefix.lower())]
        assert any("embedded voice speaks instead" in line for line in told)
        if voice is FakeCartesia:
            assert any("refuses the key: check CARTESIA_API_KEY" in line for line in told)
        assert not any("wrong key" in line for line in call.lines)

    with_bot(monkeypatch, script, voice(), more={f"{voice.prefix}_API_KEY": "a wrong key"})


@pytest.mark.slow
@pytest.mark.parametrize("voice", [pytest.param(FakeCartesia, marks=pytest.mark.full), FakeElevenLabs])
def test_a_voice_that_dies_in_a_reply_is_replaced_in_the_next(
    monkeypatch: pytest.MonkeyPatch, voice: type[FakeVoice]
) -> None:
    async def script(call: Call, tts: FakeVoice) -> None:
        tts.dies_after_s = 0.5
        await call.client.send("stt_fragment", text="what are your opening hours", is_final=True)
        await call.client.send("vad_end")
        await call.until_state("thinking", "speaking")
        await call.until_state("speaking", "idle")  # 6 s is the bound for a voice that stalls
        await call.client.send("stt_fragment", text="do you repair electric bikes", is_final=True)
        await call.client.send("vad_end")
        await call.until_state("thinking", "speaking")
        played = call.client.playback.played
        await call.until(lambda: call.client.playback.played > played + 8000)  # the embedded voice

    with_bot(monkeypatch, script, voice())


@needs("cloud")
@pytest.mark.slow
@pytest.mark.parametrize("failure", ["refused", "dead", pytest.param("deaf", marks=pytest.mark.full)])
def test_a_recogniser_that_fails_is_replaced(monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    async def script(call: Call, stt: FakeDeepgram) -> None:
        stt.is_deaf = failure == "deaf"
        if failure == "dead":
            asyncio.get_running_loop().call_later(1.0, lambda: dying.append(asyncio.ensure_future(stt.die())))
        dying: list[asyncio.Future[None]] = []
        await call.says(LISTED)
        await call.until(lambda: bool(call.replies))
        assert "Monday to Friday" in call.replies[0]
        if failure == "refused":
            assert any("deepgram refuses the key: check DEEPGRAM_API_KEY" in line for line in call.lines)

    more = {"DEEPGRAM_API_KEY": "wrong"} if failure == "refused" else {}
    with_bot(monkeypatch, script, FakeDeepgram("what are"), more=more)


@pytest.mark.parametrize(
    ("environment", "kind", "name"),
    [
        ({}, "STT", None),
        ({"DEEPGRAM_API_KEY": KEY}, "STT", "deepgram"),
        ({"DEEPGRAM_API_KEY": KEY, "STT": "embedded"}, "STT", None),
        ({"CARTESIA_API_KEY": KEY, "CARTESIA_VOICE_ID": "v"}, "TTS", "cartesia"),
        (
            {"CARTESIA_API_KEY": KEY, "ELEVENLABS_API_KEY": KEY, "ELEVENLABS_VOICE_ID": "v", "TTS": "ElevenLabs"},
            "TTS",
            "elevenlabs",
        ),
    ],
)
def test_the_service_is_the_one_that_is_named_or_has_a_key(environment, kind, name):
    service = chosen(environment, kind)
    assert (service.name if service else None) == name


@pytest.mark.parametrize(
    ("environment", "kind", "sentence"),
    [
        ({"STT": "siri"}, "STT", "STT is 'siri'; give deepgram or embedded"),
        ({"STT": "deepgram"}, "STT", "STT is deepgram, but DEEPGRAM_API_KEY is not set"),
        ({"CARTESIA_API_KEY": KEY}, "TTS", "TTS is cartesia, but CARTESIA_VOICE_ID is not set"),
        ({"CARTESIA_API_KEY": KEY, "ELEVENLABS_API_KEY": KEY}, "TTS", "say which one by TTS=cartesia"),
    ],
)
def test_what_is_missing_is_named(environment, kind, sentence):
    with pytest.raises(ConfigurationError) as error:
        chosen(environment, kind)
    assert sentence in str(error.value)
    assert KEY not in str(error.value)


def test_connecting_is_bounded_below_the_start_of_a_session():
    assert CONNECT_S < 10.0


class QuickVoice(ReplaceableVoice):
    """Answers at once."""

    about = TTS[0]

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        async def frames() -> AsyncGenerator[Frame | None, None]:
            yield None
            yield None

        async for frame in self._attempt(context_id, frames()):
            yield frame


def test_whoever_takes_a_voices_frames_slowly_is_not_cancelled():
    async def main() -> int:
        taken = 0
        async for _ in QuickVoice().run_tts("hello", "context"):
            taken += 1
            await asyncio.sleep(CONNECT_S + 1)
        return taken

    assert run_virtual(main()) == 2
