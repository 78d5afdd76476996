"""Local servers with the true protocols of Deepgram, Cartesia and ElevenLabs; they note what they were asked.

    async with FakeDeepgram("where is my order") as stt, FakeCartesia() as tts:
        environment = {**stt.environment, **tts.environment}

What is not theirs is simple: the recogniser hears that somebody speaks, and gives the next of its lines; the voices say
every text as a tone of its own, at twice real time, so that whose audio is heard can be told by its pitch.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

KEY = "the right key"
VOICE_ID = "5c4e-a-voice"
CHUNK_S = 0.1  # of audio in a message of a voice
SPEED = 2.0  # times real time
CHAR_S = 0.06  # how long a voice takes for a character
LOUD = 500  # int16; quieter audio is silence to the recogniser
ENDPOINT_S = 0.3  # of silence after which Deepgram says `speech_final`


class FakeService:
    """A WebSocket server of one service."""

    prefix = ""  # of its variables in the environment

    def __init__(self) -> None:
        self.paths: list[str] = []  # of every handshake, refused ones too
        self.messages: list[dict[str, Any]] = []  # every JSON message of clients
        self.sockets: list[ServerConnection] = []  # open ones
        self.is_deaf = False  # takes messages and says nothing
        self._server: Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        return {f"{self.prefix}_API_KEY": KEY, f"{self.prefix}_URL": self.url}

    async def __aenter__(self) -> Any:
        self._server = await serve(self._serve, "127.0.0.1", 0, process_request=self._check, compression=None)
        self._port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.die()

    async def die(self) -> None:
        """As a machine that loses its power: nothing is said, later connections are refused."""
        if self._server is not None:
            for socket in self.sockets:
                socket.transport.abort()
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    def has_key(self, headers: Headers) -> bool:
        raise NotImplementedError

    async def talk(self, socket: ServerConnection) -> None:
        raise NotImplementedError

    async def _check(self, _: ServerConnection, request: Request) -> Response | None:
        self.paths.append(request.path)
        if self.has_key(request.headers):
            return None
        body = json.dumps({"err_code": "INVALID_AUTH", "err_msg": "Invalid credentials."}).encode()
        headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body))})
        return Response(HTTPStatus.UNAUTHORIZED, "Unauthorized", headers, body)

    async def _serve(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        try:
            await self.talk(socket)
        except* ConnectionClosed:
            pass
        self.sockets.remove(socket)

    async def texts(self, socket: ServerConnection) -> AsyncIterator[dict[str, Any]]:
        """The client's JSON messages, noted."""
        async for text in socket:
            assert isinstance(text, str)
            self.messages.append(json.loads(text))
            yield self.messages[-1]


class FakeDeepgram(FakeService):
    """Deepgram's live transcription. An interim result while somebody speaks, a final one at `Finalize` or silence."""

    prefix = "DEEPGRAM"

    def __init__(self, *lines: str) -> None:
        super().__init__()
        self.lines = list(lines)  # what is heard, utterance by utterance
        self.heard_s = 0.0  # audio received

    def has_key(self, headers: Headers) -> bool:
        return headers.get("Authorization") == f"Token {KEY}"

    async def talk(self, socket: ServerConnection) -> None:
        query = parse_qs(urlsplit(self.paths[-1]).query)
        rate = int(query["sample_rate"][0])
        assert query["encoding"] == ["linear16"]
        voiced_s = silence_s = 0.0
        words = ""
        async for message in socket:
            is_finalize = is_over = False
            if isinstance(message, bytes):
                samples = np.frombuffer(message, np.int16)
                chunk_s = len(samples) / rate
                self.heard_s += chunk_s
                if np.abs(samples.astype(int)).max(initial=0) > LOUD:
                    voiced_s, silence_s = voiced_s + chunk_s, 0.0
                    if not words and voiced_s > 0.3 and self.lines:
                        words = self.lines.pop(0)
                        await self._results(socket, words.partition(" ")[0], is_final=False)
                else:
                    silence_s += chunk_s
                is_over = bool(words) and silence_s > ENDPOINT_S
            else:
                self.messages.append(json.loads(message))
                kind = self.messages[-1]["type"]
                is_finalize = kind == "Finalize"
                if kind == "CloseStream":
                    await socket.send(json.dumps({"type": "Metadata", "request_id": "r", "duration": self.heard_s}))
                    return
            if is_over or is_finalize:
                await self._results(socket, words, is_final=True, is_over=is_over, is_finalize=is_finalize)
                words, voiced_s = "", 0.0

    async def _results(
        self, socket: ServerConnection, text: str, *, is_final: bool, is_over: bool = False, is_finalize: bool = False
    ) -> None:
        if self.is_deaf:
            return
        words = [
            {"word": word, "start": n * 0.3, "end": n * 0.3 + 0.25, "confidence": 0.99}
            for n, word in enumerate(text.split())
        ]
        message = {
            "type": "Results",
            "channel_index": [0, 1],
            "duration": 1.0,
            "start": self.heard_s,
            "is_final": is_final,
            "speech_final": is_over,
            "from_finalize": is_finalize,
            "channel": {"alternatives": [{"transcript": text, "confidence": 0.99, "words": words}]},
            "metadata": {
                "request_id": "r",
                "model_uuid": "m",
                "model_info": {"name": "n", "version": "v", "arch": "a"},
            },
        }
        await socket.send(json.dumps(message))


@dataclass
class Spoken:
    """A text that a voice was asked for, and the tone that it is."""

    text: str
    context_id: str
    hz: float
    sent_s: float = 0.0  # of its audio
    pieces: list[str] = field(default_factory=list)


class FakeVoice(FakeService):
    """What the two voices share: texts as tones, at `SPEED` times real time."""

    def __init__(self) -> None:
        super().__init__()
        self.spoken: list[Spoken] = []  # in the order of asking
        self.cancelled: list[str] = []  # contexts that the client told to cancel
        self.dies_after_s: float | None = None  # of audio of one text: the machine loses its power

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, f"{self.prefix}_VOICE_ID": VOICE_ID}

    async def say(self, socket: ServerConnection, context_id: str, text: str, rate: int) -> None:
        """Stream a text. As with the real services a cancellation does not stop what is being generated."""
        spoken = Spoken(text, context_id, 300.0 + 100 * len(self.spoken))
        self.spoken.append(spoken)
        if self.is_deaf:
            return
        await self.tell_words(socket, context_id, text)
        length_s = len(text) * CHAR_S
        while spoken.sent_s < length_s:
            if self.dies_after_s is not None and spoken.sent_s >= self.dies_after_s:
                await self.die()
            at = (np.arange(int(rate * CHUNK_S)) + int(rate * spoken.sent_s)) / rate
            pcm = (np.sin(2 * np.pi * spoken.hz * at) * 8000).astype(np.int16).tobytes()
            await self.tell_audio(socket, context_id, base64.b64encode(pcm).decode())
            spoken.sent_s += CHUNK_S
            await asyncio.sleep(CHUNK_S / SPEED)

    async def tell_words(self, socket: ServerConnection, context_id: str, text: str) -> None:
        raise NotImplementedError

    async def tell_audio(self, socket: ServerConnection, context_id: str, audio: str) -> None:
        raise NotImplementedError


class FakeCartesia(FakeVoice):
    """Cartesia's TTS WebSocket: a context per reply; texts of one context are said one after the other."""

    prefix = "CARTESIA"

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "CARTESIA_URL": f"{self.url}/tts/websocket"}

    def has_key(self, headers: Headers) -> bool:
        return headers.get("X-API-Key") == KEY and "Cartesia-Version" in headers

    async def talk(self, socket: ServerConnection) -> None:
        contexts: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        async with asyncio.TaskGroup() as group:
            async for message in self.texts(socket):
                context_id = message["context_id"]
                if message.get("cancel"):
                    self.cancelled.append(context_id)
                    if context_id in contexts:
                        contexts[context_id].put_nowait(message)
                    continue
                if context_id not in contexts:
                    contexts[context_id] = asyncio.Queue()
                    group.create_task(self._generate(socket, context_id, contexts[context_id]))
                contexts[context_id].put_nowait(message)
            for queue in contexts.values():
                queue.put_nowait({"cancel": True})

    async def _generate(self, socket: ServerConnection, context_id: str, asked: asyncio.Queue[dict[str, Any]]) -> None:
        with contextlib.suppress(ConnectionClosed):
            while not (message := await asked.get()).get("cancel"):
                if context_id in self.cancelled:
                    return
                if message["transcript"]:
                    assert message["voice"] == {"mode": "id", "id": VOICE_ID}
                    assert message["output_format"]["encoding"] == "pcm_s16le"
                    await self.say(socket, context_id, message["transcript"], message["output_format"]["sample_rate"])
                    await self._tell(socket, context_id, type="flush_done", flush_done=True, flush_id=1)
                if not message["continue"]:
                    await self._tell(socket, context_id, type="done", done=True, status_code=200)
                    return

    async def tell_words(self, socket: ServerConnection, context_id: str, text: str) -> None:
        words, starts, at_s = text.split(), [], 0.0
        for word in words:
            starts.append(at_s)
            at_s += (len(word) + 1) * CHAR_S
        times = {"words": words, "start": starts, "end": [*starts[1:], at_s]}
        await self._tell(socket, context_id, type="timestamps", word_timestamps=times)

    async def tell_audio(self, socket: ServerConnection, context_id: str, audio: str) -> None:
        await self._tell(socket, context_id, type="chunk", data=audio, step_time=1.0)

    async def _tell(self, socket: ServerConnection, context_id: str, **fields: Any) -> None:
        await socket.send(json.dumps({"done": False, "status_code": 206, "context_id": context_id, **fields}))


class FakeElevenLabs(FakeVoice):
    """ElevenLabs' multi-context WebSocket. A wrong key is accepted first, then told, and the connection closed."""

    prefix = "ELEVENLABS"

    def has_key(self, headers: Headers) -> bool:
        return True

    async def talk(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        parts = urlsplit(socket.request.path)
        assert parts.path == f"/v1/text-to-speech/{VOICE_ID}/multi-stream-input"
        rate = int(parse_qs(parts.query)["output_format"][0].removeprefix("pcm_"))
        if socket.request.headers.get("xi-api-key") != KEY:
            error = {"message": "Invalid API key", "error": "invalid_api_key", "code": 1008}
            await socket.send(json.dumps(error))
            await socket.close(1008, "Invalid API key")
            return
        queues: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        async with asyncio.TaskGroup() as group:
            async for message in self.texts(socket):
                if message.get("close_socket"):
                    break
                context_id = message.get("context_id")
                if context_id is None:
                    continue  # a heartbeat
                if context_id not in queues:
                    assert message["text"] == " ", "a context is opened by a space"
                    queues[context_id] = asyncio.Queue()
                    group.create_task(self._generate(socket, context_id, queues[context_id], rate))
                if message.get("close_context"):
                    self.cancelled.append(context_id)
                queues[context_id].put_nowait(message)
            for queue in queues.values():
                queue.put_nowait({"close_context": True})
        await socket.close()

    async def _generate(
        self, socket: ServerConnection, context_id: str, asked: asyncio.Queue[dict[str, Any]], rate: int
    ) -> None:
        with contextlib.suppress(ConnectionClosed):
            while not (message := await asked.get()).get("close_context"):
                if message.get("text", "").strip():
                    await self.say(socket, context_id, message["text"], rate)
            await socket.send(json.dumps({"isFinal": True, "contextId": context_id}))

    async def tell_words(self, socket: ServerConnection, context_id: str, text: str) -> None:
        step_ms = CHAR_S * 1000
        alignment = {
            "chars": list(text),
            "charStartTimesMs": [round(n * step_ms) for n in range(len(text))],
            "charDurationsMs": [round(step_ms)] * len(text),
        }
        message = {"contextId": context_id, "audio": "", "alignment": alignment, "normalizedAlignment": alignment}
        await socket.send(json.dumps(message))

    async def tell_audio(self, socket: ServerConnection, context_id: str, audio: str) -> None:
        await socket.send(json.dumps({"contextId": context_id, "audio": audio, "isFinal": None, "alignment": None}))


def loudness_at(pcm: bytes, hz: float, rate: int = 16_000) -> float:
    """How strong a tone is in PCM16, 0 to about 8000, at its best tenth of a second."""
    samples = np.frombuffer(pcm, np.int16).astype(float)
    size = rate // 10
    turn = 2 * np.hanning(size) * np.exp(-2j * np.pi * hz * np.arange(size) / rate)
    blocks = [samples[at : at + size] for at in range(0, len(samples) - size, size // 2)]
    return max((abs(2 * np.mean(block * turn)) for block in blocks), default=0.0)
