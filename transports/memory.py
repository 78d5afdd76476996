"""`MemoryTransport`: the WebSocket transport's interface in process, for tests; its client is a list of messages."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from .playout.input import ClientInput
from .playout.output import ClientOutput
from .playout.resampler import PIPELINE_RATE

MAX_MESSAGES = 100_000  # kept; past it the oldest go, which no test of minutes reaches


class MemoryWire:
    """Keeps what the server sends, with the loop time at which it came."""

    def __init__(self, *, sample_rate: int = PIPELINE_RATE) -> None:
        self.sample_rate = sample_rate  # Hz of the audio
        self.messages: list[tuple[float, dict[str, Any]]] = []  # (loop time, message)
        self.audio: list[tuple[float, bytes]] = []  # (loop time, PCM16)
        self.log: list[tuple[str, Any]] = []  # ("audio", PCM16) or (type, message), in the order of sending
        self.audio_ms = 0.0  # bot audio received so far
        self.reply_from_ms = 0.0  # of that, before the newest reply
        self._waiting: list[tuple[asyncio.Future[None], bool]] = []  # who waits for the next message, or also for audio

    def send_audio(self, chunk: Any) -> None:
        """Keep one chunk."""
        self.audio.append((self._now(), chunk))
        self.log.append(("audio", chunk))
        self.audio_ms += len(chunk) / 2 / self.sample_rate * 1000
        del self.audio[:-MAX_MESSAGES]
        del self.log[:-MAX_MESSAGES]
        self._wake(is_audio=True)

    def send_text(self, message: str | bytes) -> None:
        """Keep one message."""
        decoded = json.loads(message)
        self.messages.append((self._now(), decoded))
        self.log.append((decoded["type"], decoded))
        if decoded["type"] == "response_ready":
            self.reply_from_ms = self.audio_ms
        del self.messages[:-MAX_MESSAGES]
        del self.log[:-MAX_MESSAGES]
        self._wake(is_audio=False)

    async def arrival(self, *, of_audio: bool = False) -> None:
        """Wait for the next message, or, `of_audio`, the next message or chunk."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((future, of_audio))
        await future

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """Return the messages of one type, in order."""
        return [message for _, message in self.messages if message["type"] == kind]

    def _wake(self, *, is_audio: bool) -> None:
        waiting, self._waiting = self._waiting, []
        for future, of_audio in waiting:
            if future.done():
                continue
            if is_audio and not of_audio:
                self._waiting.append((future, of_audio))
            else:
                future.set_result(None)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


class MemoryTransport:
    """Both ends of a conversation's pipeline, and what the client got: `input`, `output`, `wire`."""

    def __init__(self) -> None:
        self.wire = MemoryWire()  # what the client got
        self.input = ClientInput()  # head of the pipeline; feed it with `receive` and `receive_audio`
        self.output = ClientOutput(wire=self.wire)  # tail of the pipeline
