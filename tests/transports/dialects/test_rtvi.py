"""Pipecat's own protocol: its serializer and its RTVI messages, against our server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from functools import partial
from typing import Any

import pipecat.frames.protobufs.frames_pb2 as wire
import pytest
import websockets
from hypothesis import given, settings
from hypothesis import strategies as st
from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    InputTransportMessageFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputTransportMessageUrgentFrame,
)
from pipecat.processors.frameworks.rtvi import models
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from websockets import Subprotocol
from websockets.asyncio.client import ClientConnection

from leibniz_voice.pipeline.errors import ProtocolError
from leibniz_voice.transports.access.token_key import TokenKey
from leibniz_voice.transports.dialects.rtvi import RtviDialect
from tests.support.serving import SECRET, bot, joined, served

ECHO, ASSISTANT = bot("echo.py"), bot("assistant.py")
pipecat = partial(joined, path="/pipecat")  # joins with that dialect


class PipecatClient:
    """Speaks as Pipecat's SDK does, with Pipecat's own serializer."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.serializer = ProtobufFrameSerializer()
        self.audio = bytearray()

    async def say(self, kind: str, **data: Any) -> None:
        message = {"label": "rtvi-ai", "type": kind, "id": "id-1", "data": data}
        await self.send(OutputTransportMessageUrgentFrame(message=message))

    async def send(self, frame: Frame) -> None:
        data = await self.serializer.serialize(frame)
        assert isinstance(data, bytes)
        await self.socket.send(data)

    async def frame(self) -> Frame | None:
        data = await self.socket.recv()
        frame = await self.serializer.deserialize(data)
        if isinstance(frame, InputAudioRawFrame):
            self.audio += frame.audio
        return frame

    async def until(self, kind: str) -> dict[str, Any]:
        """Read until an RTVI message of this type."""
        async with asyncio.timeout(20):
            while True:
                frame = await self.frame()
                if isinstance(frame, InputTransportMessageFrame) and frame.message["type"] == kind:
                    return frame.message

    async def ready(self) -> dict[str, Any]:
        await self.say("client-ready", version="2.1.0", about={"library": "test"})
        return await self.until("bot-ready")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["path", "subprotocol"])
def test_a_pipecat_client_shakes_hands_and_audio_goes_both_ways(way: str) -> None:
    async def main() -> None:
        async with served(ECHO.build) as server:
            by_path = way == "path"
            async with pipecat(server) if by_path else joined(server, subprotocols=[Subprotocol("pipecat")]) as socket:
                client = PipecatClient(socket)
                bot_ready = models.BotReady.model_validate(await client.ready())
                assert bot_ready.id == "id-1"
                assert bot_ready.data.version == models.PROTOCOL_VERSION
                sent = bytes(range(256)) * 25
                for at in range(0, len(sent), 640):
                    frame = OutputAudioRawFrame(audio=sent[at : at + 640], sample_rate=16000, num_channels=1)
                    await client.send(frame)
                async with asyncio.timeout(20):
                    while len(client.audio) < len(sent):
                        await client.frame()
                assert bytes(client.audio) == sent

    asyncio.run(main())


@pytest.mark.slow
def test_a_question_is_answered_in_rtvi_messages_and_audio_and_can_be_cut() -> None:
    async def main() -> None:
        async with served(ASSISTANT.build) as server, pipecat(server) as socket:
            client = PipecatClient(socket)
            await client.ready()
            await client.say("send-text", content="what are your opening hours")
            await client.until("user-started-speaking")
            await client.until("user-stopped-speaking")
            heard = await client.until("user-transcription")
            assert (heard["data"]["text"], heard["data"]["final"]) == ("what are your opening hours", True)
            said = await client.until("bot-transcription")
            assert "Monday to Friday" in said["data"]["text"]
            await client.until("bot-started-speaking")
            async with asyncio.timeout(20):
                while len(client.audio) < 6400:
                    await client.frame()
                await client.send(InterruptionFrame())
                while not isinstance(await client.frame(), InterruptionFrame):
                    pass
            await client.until("bot-stopped-speaking")

    asyncio.run(main())


@pytest.mark.slow
def test_a_token_in_the_address_opens_pipecats_path() -> None:
    async def main() -> None:
        async with served(ECHO.build, secret=SECRET) as server:
            token = TokenKey(SECRET).mint("s1", now=time.time())
            async with pipecat(server, more=f"&token={token}") as socket:
                ready = await PipecatClient(socket).ready()
                assert ready["data"]["about"]["token"] != token
            with pytest.raises(websockets.InvalidStatus):
                await pipecat(server, more=f"&token={token}")

    asyncio.run(main())


@pytest.mark.slow
def test_what_is_no_frame_is_answered_by_an_error() -> None:
    async def main() -> None:
        async with served(ECHO.build) as server, pipecat(server) as socket:
            client = PipecatClient(socket)
            await client.ready()
            for bad in (b"\xff\xff", b"", "text"):
                await socket.send(bad)
                assert (await client.until("error"))["data"]["fatal"] is False
            await client.say("dance")
            assert "unknown_type" in (await client.until("error"))["data"]["error"]
            await socket.send(wire.Frame(message=wire.MessageFrame(data='{"type":[]}')).SerializeToString())
            assert "bad_field" in (await client.until("error"))["data"]["error"]
            frame = OutputAudioRawFrame(audio=bytes(640), sample_rate=44100, num_channels=1)
            await client.send(frame)
            assert "rate_mismatch" in (await client.until("error"))["data"]["error"]

    asyncio.run(main())


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=30)))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes | str) -> None:
    with contextlib.suppress(ProtocolError):
        RtviDialect().decode(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["client-ready", "send-text", "1.0"]) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["content", "version"]), inner),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["type", "id", "data", "label"]), JSON))
def test_anything_shaped_like_a_message_is_one_or_a_protocol_error(fields: dict[str, Any]) -> None:
    message = wire.Frame(message=wire.MessageFrame(data=json.dumps(fields)))
    with contextlib.suppress(ProtocolError):
        RtviDialect().decode(message.SerializeToString())
