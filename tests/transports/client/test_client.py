"""The Python client: against a scripted server on a real socket, and against the real server with an echo pipeline."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest
from pipecat.frames.frames import InputAudioRawFrame, OutputAudioRawFrame
from websockets.asyncio.server import ServerConnection, serve

from leibniz_voice.pipeline import Pipeline, Processor, consumes
from leibniz_voice.transports import WebSocketServer
from leibniz_voice.transports.client.client import WebSocketClient
from leibniz_voice.transports.client.opening import ConnectionFailed
from tests.support.pcm import CHUNK, loud, tone
from tests.support.serving import served

READY = {"type": "ready", "v": 1, "session_id": "x", "sample_rate": 16000, "out_sample_rate": 16000, "resumed": False}


class Recorder:
    """What a scripted server got."""

    def __init__(self) -> None:
        self.hellos: list[dict] = []
        self.messages: list[dict] = []
        self.audio = bytearray()
        self.paths: list[str] = []

    async def greet(self, socket: ServerConnection, **fields: object) -> None:
        self.paths.append(socket.request.path)
        self.hellos.append(json.loads(await socket.recv()))
        await socket.send(json.dumps({**READY, **fields}))

    async def listen(self, socket: ServerConnection) -> None:
        async for message in socket:
            if isinstance(message, bytes):
                self.audio += message
            else:
                self.messages.append(json.loads(message))

    def of_type(self, kind: str) -> list[dict]:
        return [message for message in self.messages if message["type"] == kind]


@asynccontextmanager
async def scripted(handler: Callable[[ServerConnection], Awaitable[None]]):
    async with serve(handler, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def say(kind: str, **fields: object) -> str:
    return json.dumps({"type": kind, **fields})


# ---------------------------------------------------------------------------------------------- a scripted server


@pytest.mark.slow
def test_audio_goes_out_in_real_time_with_silence_around_it():
    recorder = Recorder()

    async def handler(socket):
        await recorder.greet(socket)
        await recorder.listen(socket)

    async def main():
        async with scripted(handler) as url, WebSocketClient(url, session_id="abc", token="t") as client:
            begin_s, end_s = await client.speak(tone(0.3))
            await client.until(lambda: client.now_s > 0.5, timeout_s=5)
            assert end_s - begin_s == pytest.approx(0.3, abs=0.02)
            assert client.now_s >= end_s - 0.02

    asyncio.run(main())
    assert recorder.paths == ["/orchestrate?session_id=abc"]
    assert recorder.hellos[0] == {
        "type": "hello",
        "v": 1,
        "sample_rate": 16000,
        "out_sample_rate": 16000,
        "token": "t",
    }
    assert len(recorder.audio) >= 2 * 16000 * 0.44
    assert loud(recorder.audio)[-1] < 16000 * 0.32
    assert not len(recorder.audio) % 640


@pytest.mark.slow
def test_the_played_position_is_acknowledged_and_stops_at_an_interruption():
    recorder = Recorder()

    async def handler(socket):
        await recorder.greet(socket)
        listening = asyncio.create_task(recorder.listen(socket))
        await socket.send(say("state_update", state="speaking", text_buffer=[], turn=3, trigger="response_ready"))
        await socket.send(say("response_ready", turn=3, text="hello", thinking_ms=1, final=True))
        for _ in range(100):
            await socket.send(CHUNK)
        while not recorder.of_type("ack") or recorder.of_type("ack")[-1]["played_ms"] < 300:
            await asyncio.sleep(0.01)
        await socket.send(say("interrupted", turn=3, message=""))
        await socket.send(CHUNK * 10)
        await listening

    async def main():
        async with scripted(handler) as url, WebSocketClient(url) as client:
            assert await client.until(lambda: any(e.kind == "interrupted" for e in client.events), timeout_s=5)
            played = client.playback.played
            await client.until(lambda: False, timeout_s=0.15)
            assert client.playback.played == played
            assert client.states == ["idle", "speaking"]

    asyncio.run(main())
    acks = recorder.of_type("ack")
    assert [ack["turn"] for ack in acks] == [3] * len(acks)
    assert [ack["played_ms"] for ack in acks] == sorted({ack["played_ms"] for ack in acks})
    assert acks[-1]["played_ms"] < 600


@pytest.mark.slow
def test_a_dropped_connection_is_opened_again_with_the_new_token():
    recorder = Recorder()

    async def handler(socket):
        await recorder.greet(socket, resumed=len(recorder.paths) > 0, token=f"token-{len(recorder.paths)}")
        if len(recorder.paths) == 1:
            socket.transport.abort()
        elif len(recorder.paths) == 2:
            await socket.close(1012, "restart")
        else:
            await recorder.listen(socket)

    async def main():
        async with scripted(handler) as url, WebSocketClient(url, session_id="s") as client:
            assert await client.until(lambda: len(recorder.paths) == 3 and client.is_connected, timeout_s=5)
            await client.speak(tone(0.1))
            kinds = [event.kind for event in client.events if "connected" in event.kind]
            assert kinds == ["connected", "disconnected"] * 2 + ["connected"]

    asyncio.run(main())
    assert [hello.get("token") for hello in recorder.hellos] == [None, "token-0", "token-1"]
    assert len(loud(recorder.audio))


@pytest.mark.slow
def test_a_server_that_stays_away_is_given_up_in_bounded_time():
    recorder = Recorder()

    async def main():
        async def handler(socket):
            await recorder.greet(socket)
            server.close(close_connections=False)
            socket.transport.abort()

        server = await serve(handler, "127.0.0.1", 0)
        async with WebSocketClient(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", retries=2) as client:
            with pytest.raises(ConnectionFailed, match="lost"):
                await client.until(lambda: False, timeout_s=5)
            with pytest.raises(ConnectionFailed):
                await client.speak(tone(0.1))
        await server.wait_closed()

    asyncio.run(main())


@pytest.mark.slow
def test_a_server_that_fails_every_session_is_given_up():
    recorder = Recorder()

    async def handler(socket):
        await recorder.greet(socket)
        await socket.close(1011, "internal error")

    async def main():
        async with scripted(handler) as url, WebSocketClient(url, retries=3) as client:
            with pytest.raises(ConnectionFailed, match="internal error"):
                await client.until(lambda: False, timeout_s=5)

    asyncio.run(main())
    assert len(recorder.paths) == 4


@pytest.mark.parametrize(("code", "reason"), [(1000, "idle"), (4409, "taken over"), (4401, "bad token")])
def test_a_final_close_code_is_not_tried_again_and_its_reason_is_told(code, reason):
    recorder = Recorder()

    async def handler(socket):
        await recorder.greet(socket)
        await socket.close(code, reason)

    async def main():
        async with scripted(handler) as url, WebSocketClient(url) as client:
            with pytest.raises(ConnectionFailed, match=f"{reason}.*{code}"):
                await client.until(lambda: False, timeout_s=5)

    asyncio.run(main())
    assert len(recorder.paths) == 1


def test_nobody_there_is_said_in_one_sentence():
    async def main():
        async with serve(lambda socket: None, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionFailed, match=f"nothing listens at ws://127.0.0.1:{port}"):
            await WebSocketClient(f"127.0.0.1:{port}").__aenter__()

    asyncio.run(main())


def test_a_server_of_another_kind_is_named():
    async def chat(socket):
        await socket.send("welcome")
        await socket.wait_closed()

    async def main():
        async with scripted(chat) as url:
            with pytest.raises(ConnectionFailed, match="no Leibniz server"):
                await WebSocketClient(url).__aenter__()

    asyncio.run(main())


def test_messages_that_are_nonsense_do_not_end_the_call():
    recorder = Recorder()

    async def handler(socket):
        await recorder.greet(socket)
        for message in ("{", "[1]", "[" * 5000, say("new_type"), say("response_ready", turn="x"), b"\x01", b""):
            await socket.send(message)
        await socket.send(say("state_update", state="listening", text_buffer=[], turn=0, trigger="stt_start"))
        await recorder.listen(socket)

    async def main():
        async with scripted(handler) as url, WebSocketClient(url) as client:
            assert await client.until(lambda: client.state == "listening", timeout_s=5)

    asyncio.run(main())


def test_a_callback_that_raises_ends_the_call_with_its_error():
    recorder = Recorder()

    async def handler(socket):
        await recorder.greet(socket)
        await socket.send(say("pause", turn=1))
        await recorder.listen(socket)

    def on_event(event):
        if event.kind == "pause":
            raise KeyError("mine")

    async def main():
        async with scripted(handler) as url, WebSocketClient(url, on_event=on_event) as client:
            with pytest.raises(ConnectionFailed, match="KeyError"):
                await client.until(lambda: False, timeout_s=5)

    asyncio.run(main())


# ---------------------------------------------------------------------------------------------- the real server


class Echo(Processor):
    """Plays the microphone back."""

    @consumes(InputAudioRawFrame)
    async def _on_audio(self, frame, direction):
        await self.push_frame(OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels))


def echo(session):
    return Pipeline([session.input, Echo(), session.output])


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "out_rate"), [(16000, 16000), (8000, 24000)])
def test_an_echo_bot_is_heard_when_it_is_spoken_to(rate, out_rate):
    async def main():
        async with (
            served(echo) as server,
            WebSocketClient(server.address, sample_rate=rate, out_sample_rate=out_rate) as client,
        ):
            pcm = np.frombuffer(tone(0.6), np.int16)[:: 16000 // rate].tobytes()
            begin_s, end_s = await client.speak(pcm)
            await client.until(lambda: client.now_s > end_s + 0.4, timeout_s=5)
            heard = loud(client.playback.heard) / out_rate
            assert begin_s <= heard[0] < begin_s + 0.3
            assert end_s - 0.1 <= heard[-1] < end_s + 0.35

    asyncio.run(main())


@pytest.mark.slow
def test_a_session_goes_on_when_its_server_was_restarted():
    async def main():
        first = WebSocketServer(echo, port=0)
        await first.start()
        port = first.port
        async with WebSocketClient(first.address, session_id="s") as client:
            await first.stop()
            async with WebSocketServer(echo, port=port):
                assert await client.until(
                    lambda: [event.kind for event in client.events].count("connected") == 2, timeout_s=5
                )
                _, end_s = await client.speak(tone(0.3))
                assert await client.until(
                    lambda: bool(len(loud(client.playback.heard))) and client.now_s > end_s, timeout_s=5
                )

    asyncio.run(main())


@pytest.mark.slow
def test_a_newer_connection_of_the_session_ends_the_older_one_for_good():
    async def main():
        async with (
            served(echo) as server,
            WebSocketClient(server.address, session_id="s") as older,
            WebSocketClient(server.address, session_id="s"),
        ):
            with pytest.raises(ConnectionFailed, match="4409"):
                await older.until(lambda: False, timeout_s=5)

    asyncio.run(main())


def test_a_refusal_by_the_real_server_is_told_in_its_own_words():
    async def main():
        async with served(echo) as server:
            with pytest.raises(ConnectionFailed, match="HTTP 404 Nothing here"):
                await WebSocketClient(server.address.replace("orchestrate", "elsewhere")).__aenter__()

    asyncio.run(main())
