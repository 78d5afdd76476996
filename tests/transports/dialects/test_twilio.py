"""Twilio's media streams: a telephone call in the recorded message format, at real time, with real speech."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import re
import subprocess
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger
from pipecat.frames.frames import InputAudioRawFrame, InterruptionFrame, OutputAudioRawFrame
from pipecat.processors.frame_processor import FrameProcessorSetup
from pipecat.serializers.twilio import TwilioFrameSerializer
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from leibniz_voice.pipeline.errors import ProtocolError
from leibniz_voice.transports import Limits, WebSocketServer
from leibniz_voice.transports.access.token_key import TokenKey
from leibniz_voice.transports.dialects.mulaw import decode_mulaw, encode_mulaw
from leibniz_voice.transports.dialects.protocol import Ack, Hello, Ping
from leibniz_voice.transports.dialects.twilio import TwilioDialect
from tests.support.serving import SECRET, bot, served
from tests.support.tools import needs

ECHO, ASSISTANT = bot("echo.py"), bot("assistant.py")
CHUNK = 160  # bytes: 20 ms of mu-law
SILENCE = b"\xff" * CHUNK
CALL, STREAM = "CA" + "0a1b2c3d" * 4, "MZ" + "4e5f6071" * 4

needs_speech = needs("espeak-ng", "sox")


class Call:
    """Twilio's end of a call: a microphone that never stops, and a loudspeaker that is `lag_s` away."""

    def __init__(self, socket: ClientConnection, *, lag_s: float = 0.0) -> None:
        self.socket = socket
        self.lag_s = lag_s  # of the network between the server and the ear
        self.heard = bytearray()  # mu-law, from the start of the call
        self.played = 0  # bytes of the bot's in it
        self.clears: list[tuple[int, int]] = []  # bytes of `heard`, and of the bot's in it, at each `clear`
        self.begun: dict[int, int] = {}  # turn -> bytes of `heard` when its reply began, by its first mark
        self._buffer: deque[tuple[float, bytes | str]] = deque()  # (due, chunk or the name of a mark)
        self._spoken = bytearray()
        self._sequence = 1
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, **parameters: str) -> None:
        await self._send({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        start = {
            "accountSid": "AC" + "89abcdef" * 4,
            "streamSid": STREAM,
            "callSid": CALL,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": parameters,
        }
        await self._number({"event": "start", "start": start})
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._run())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._number({"event": "stop", "stop": {"accountSid": "AC", "callSid": CALL}})
        await self.socket.close()

    def say(self, mulaw: bytes) -> None:
        self._spoken += mulaw

    @property
    def is_silent(self) -> bool:
        """Whether the last 300 ms were."""
        return loudest(bytes(self.heard[-2400:])) < 500

    async def until(self, condition: Any, *, timeout_s: float = 30.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.01)

    async def _listen(self) -> None:
        async for text in self.socket:
            message = json.loads(text)
            assert message["streamSid"] == STREAM
            due = asyncio.get_running_loop().time() + self.lag_s
            match message["event"]:
                case "media":
                    self._buffer.append((due, base64.b64decode(message["media"]["payload"], validate=True)))
                case "mark":
                    self._buffer.append((due, message["mark"]["name"]))
                case "clear":
                    dropped = [part for _, part in self._buffer]
                    self._buffer.clear()
                    self.clears.append((len(self.heard), self.played))
                    for name in (part for part in dropped if isinstance(part, str)):
                        await self._mark(name)  # as Twilio does
                case event:
                    raise AssertionError(event)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for chunk in range(1, 10_000):
            await asyncio.sleep(max(0.0, began + chunk * 0.02 - loop.time()))
            said = bytes(self._spoken[:CHUNK]).ljust(CHUNK, b"\xff")
            del self._spoken[:CHUNK]
            media = {"track": "inbound", "chunk": str(chunk), "timestamp": str(chunk * 20)}
            await self._number({"event": "media", "media": {**media, "payload": base64.b64encode(said).decode()}})
            self.heard += await self._play(loop.time())

    async def _play(self, now: float) -> bytes:
        """The next 20 ms of the loudspeaker; marks that it comes to are reached."""
        played = b""
        while self._buffer and self._buffer[0][0] <= now:
            due, part = self._buffer[0]
            if isinstance(part, bytes) and len(played) == CHUNK:
                break
            self._buffer.popleft()
            if isinstance(part, bytes):
                taken = CHUNK - len(played)
                played += part[:taken]
                self.played += len(part[:taken])
                if part[taken:]:
                    self._buffer.appendleft((due, part[taken:]))
            else:
                turn = int(part.partition(":")[0])
                self.begun.setdefault(turn, len(self.heard) + len(played) - int(part.partition(":")[2]) * 8)
                await self._mark(part)
        return played.ljust(CHUNK, b"\xff")

    async def _mark(self, name: str) -> None:
        await self._number({"event": "mark", "mark": {"name": name}})

    async def _number(self, message: dict[str, Any]) -> None:
        await self._send({**message, "sequenceNumber": str(self._sequence), "streamSid": STREAM})
        self._sequence += 1

    async def _send(self, message: dict[str, Any]) -> None:
        await self.socket.send(json.dumps(message))


def loudest(mulaw: bytes) -> int:
    return int(np.abs(np.frombuffer(decode_mulaw(mulaw), np.int16).astype(int)).max(initial=0))


def spoken(text: str, folder: Path) -> bytes:
    """Mu-law of a voice that is not the bot's, coded by sox."""
    wav, raw = folder / "said.wav", folder / "said.ul"
    subprocess.run(["espeak-ng", "-v", "en-us+f3", "-s", "150", "-w", wav, text], check=True)
    subprocess.run(["sox", wav, "-t", "raw", "-r", "8000", "-c", "1", "-e", "mu-law", raw], check=True)
    return raw.read_bytes()


def address(server: WebSocketServer) -> str:
    return server.address.replace("/orchestrate", "/twilio")


@needs_speech
@pytest.mark.slow
def test_a_call_is_answered_interrupted_and_answered_again(tmp_path: Path) -> None:
    lines: list[str] = []
    handler = logger.add(lambda line: lines.append(line.record["message"]), level="INFO")
    first, second = spoken("what are your opening hours", tmp_path), spoken("where is my order", tmp_path)

    async def main() -> Call:
        async with served(ASSISTANT.build) as server, connect(address(server)) as socket:
            call = Call(socket, lag_s=0.6)
            await call.start()
            await asyncio.sleep(0.5)
            call.say(first)
            await call.until(lambda: 1 in call.begun)
            await call.until(lambda: len(call.heard) > call.begun[1] + 8000)
            call.say(second)
            await call.until(lambda: call.clears)
            await call.until(lambda: 2 in call.begun)
            await call.until(lambda: len(call.heard) > call.begun[2] + 8000)
            await call.stop()
        return call

    try:
        call = asyncio.run(main())
    finally:
        logger.remove(handler)
    assert f"{CALL} connected (new)" in lines
    ((cut_at, played),) = call.clears
    begun, again = call.begun[1], call.begun[2]
    assert loudest(bytes(call.heard[begun:cut_at])) > 3000, "the first answer is heard"
    quiet = bytes(call.heard[cut_at : again - 2400])  # the next one may have begun before its mark says, by its gaps
    assert len(quiet) > 800
    assert loudest(quiet) < 200, "nothing of it after `clear`"
    assert loudest(bytes(call.heard[again:])) > 3000, "the second answer is heard"
    noted = next(int(match[1]) for line in lines if (match := re.search(r"interrupted heard_ms=(\d+)", line)))
    assert -450 < noted - played / 8 < 100, "by the marks, 200 ms apart; what had left is 600 ms more"


@pytest.mark.slow
def test_audio_goes_both_ways_and_comes_back_as_it_was() -> None:
    async def main() -> None:
        async with served(ECHO.build) as server, connect(address(server)) as socket:
            call = Call(socket)
            await call.start()
            tone = encode_mulaw((np.sin(np.arange(8000) * 0.3) * 9000).astype(np.int16).tobytes())
            call.say(tone)
            await call.until(lambda: loudest(bytes(call.heard)) > 8000 and call.is_silent)
            await call.stop()
            assert 7500 < sum(byte not in (0xFF, 0x7F) for byte in call.heard) < 9000

    asyncio.run(main())


@pytest.mark.slow
def test_a_token_comes_as_a_parameter_of_the_stream() -> None:
    async def main() -> None:
        async with served(ECHO.build, secret=SECRET) as server:
            for token, is_good in ((TokenKey(SECRET).mint(CALL, now=time.time()), True), ("wrong", False)):
                async with connect(address(server)) as socket:
                    call = Call(socket)
                    await call.start(token=token)
                    if is_good:
                        call.say(encode_mulaw(bytes(1600) + b"\x00\x20" * 8000))
                        await call.until(lambda call=call: loudest(bytes(call.heard)) > 1000)
                        await call.stop()
                    else:
                        await asyncio.wait(call._tasks, return_when=asyncio.FIRST_EXCEPTION)
                        assert socket.close_code == 4401
                        await asyncio.gather(*call._tasks, return_exceptions=True)

    asyncio.run(main())


@pytest.mark.slow
def test_the_token_of_another_session_opens_no_call() -> None:
    """A call is named by its `start`, so a token in the handshake would be judged for another session."""

    async def main() -> int | None:
        token = TokenKey(SECRET).mint("attacker", now=time.time())
        async with served(ECHO.build, secret=SECRET) as server:
            address = server.address.replace("/orchestrate", "/twilio?session_id=attacker")
            async with connect(address, additional_headers={"Authorization": f"Bearer {token}"}) as socket:
                call = Call(socket)
                await call.start()
                await socket.wait_closed()
                for task in call._tasks:
                    task.cancel()
                return socket.close_code

    assert asyncio.run(main()) == 4401


@pytest.mark.slow
def test_calls_that_are_not_answered_yet_take_places_too() -> None:
    async def main() -> int | None:
        limits = Limits(connections_per_address=2)
        async with served(ECHO.build, limits=limits) as server, contextlib.AsyncExitStack() as stack:
            address = server.address.replace("/orchestrate", "/twilio")
            sockets = [await stack.enter_async_context(connect(address)) for _ in range(3)]
            await sockets[2].wait_closed()
            return sockets[2].close_code

    assert asyncio.run(main()) == 4429


@pytest.mark.slow
@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (['{"event":"media","media":{"payload":""}}'], "must be `start`"),
        (['{"event":"connected"}', '{"event":"start"}'], "`start` is missing"),
        (['{"event":"start","start":{"callSid":"CA1","mediaFormat":{"encoding":"audio/l16"}}}'], "x-mulaw"),
        (
            [
                '{"event":"start","start":{"callSid":"a b","mediaFormat":'
                '{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}'
            ],
            "callSid",
        ),
    ],
)
def test_what_is_no_call_is_closed_with_the_reason(messages: list[str], reason: str) -> None:
    async def main() -> None:
        async with served(ECHO.build) as server, connect(address(server)) as socket:
            for message in messages:
                await socket.send(message)
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(socket.recv(), 5)
            assert socket.close_code == 1008
            assert reason in (socket.close_reason or "")

    asyncio.run(main())


def dialect() -> TwilioDialect:
    made = TwilioDialect()
    made.stream_sid = STREAM
    return made


def test_pipecats_serializer_reads_what_is_written_and_writes_what_is_read() -> None:
    params = TwilioFrameSerializer.InputParams(auto_hang_up=False, sample_rate=8000)
    pcm = (np.sin(np.arange(160) * 0.5) * 12000).astype(np.int16).tobytes()

    async def main() -> None:
        theirs = TwilioFrameSerializer(STREAM, params=params)
        await theirs.setup(FrameProcessorSetup.__new__(FrameProcessorSetup))
        frame = await theirs.deserialize(dialect().audio(pcm, 8000))
        assert isinstance(frame, InputAudioRawFrame)
        assert frame.audio == decode_mulaw(encode_mulaw(pcm))
        written = await theirs.serialize(OutputAudioRawFrame(audio=pcm, sample_rate=8000, num_channels=1))
        assert json.loads(str(written)) == json.loads(dialect().audio(pcm, 8000))
        assert dialect().decode(str(written)) == frame.audio
        assert json.loads(str(await theirs.serialize(InterruptionFrame()))) == json.loads(str(dialect().interrupted(1)))

    asyncio.run(main())


def test_a_mark_that_comes_back_says_what_was_played() -> None:
    mark = json.loads(str(dialect().mark(7, 400.0)))
    assert mark == {"event": "mark", "streamSid": STREAM, "mark": {"name": "7:400"}}
    assert dialect().decode(json.dumps({**mark, "sequenceNumber": "9"})) == Ack(turn=7, played_ms=400.0)
    ms = "1764145000001:400"  # begun without its store, a conversation counts its turns from unix ms on
    assert dialect().decode(json.dumps({**mark, "mark": {"name": ms}})) == Ack(turn=1764145000001, played_ms=400.0)
    assert dialect().decode('{"event":"mark","mark":{"name":"somebody else\'s"}}') == Ping()


def test_the_start_of_a_call_says_rate_and_token() -> None:
    start = {"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}}
    start["customParameters"] = {"token": "t"}
    text = json.dumps({"event": "start", "start": start})
    assert dialect().decode(text) == Hello(sample_rate=8000, out_sample_rate=8000, token="t")


@settings(max_examples=50, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60)))
def test_any_message_is_understood_or_a_protocol_error(message: str | bytes) -> None:
    with contextlib.suppress(ProtocolError):
        dialect().decode(message)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["event", "media", "mark", "start"]),
        st.recursive(
            st.none()
            | st.integers()
            | st.sampled_from(["media", "mark", "start", "stop", "/w==", "1:2"])
            | st.text(max_size=5),
            lambda inner: st.dictionaries(
                st.sampled_from(["payload", "name", "track", "mediaFormat"]), inner, max_size=3
            ),
            max_leaves=4,
        ),
    )
)
def test_any_event_is_understood_or_a_protocol_error(fields: dict[str, Any]) -> None:
    with contextlib.suppress(ProtocolError):
        dialect().decode(json.dumps(fields))


@needs("sox")
def test_mulaw_is_that_of_sox_and_pipecat(tmp_path: Path) -> None:
    seeded = random.Random(8)
    pcm = np.array([0, 1, -1, 32767, -32768, *(seeded.randint(-32768, 32767) for _ in range(5000))], np.int16).tobytes()
    (tmp_path / "in.s16").write_bytes(pcm)
    form = ["-r", "8000", "-c", "1"]
    coded, back = tmp_path / "out.ul", tmp_path / "back.s16"
    subprocess.run(["sox", "-D", "-t", "s16", *form, tmp_path / "in.s16", "-t", "ul", coded], check=True)
    subprocess.run(["sox", "-D", "-t", "ul", *form, coded, "-t", "s16", back], check=True)
    assert decode_mulaw(coded.read_bytes()) == back.read_bytes()
    assert encode_mulaw(decode_mulaw(coded.read_bytes())) == encode_mulaw(back.read_bytes()), (
        "coding twice is coding once"
    )
    steps = np.frombuffer(pcm, np.int16).astype(int) - np.frombuffer(decode_mulaw(encode_mulaw(pcm)), np.int16)
    assert np.abs(steps).max() <= 644, "half of the widest step, and the clip"
