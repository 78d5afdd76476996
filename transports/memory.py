"""`MemoryTransport`: the WebSocket transport's interface in process, for tests; its client is a list of messages."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from .endpoints import PIPELINE_RATE, ClientInput, ClientOutput

MAX_MESSAGES = 100_000  # kept; past it the oldest go, which no test of minutes reaches


class MemoryWire:
    """Keeps what the server sends, with the loop time at which it came."""

    def __init__(self, *, sample_rate: int = PIPELINE_RATE) -> None:
        self.sample_rate = sample_rate  # Hz of the audio
        self.messages: list[tuple[float, dict[str, Any]]] = []  # (loop time, message)
        self.audio: list[tuple[float, bytes]] = []  # (loop time, PCM16)
        self.log: list[tuple[str, Any]] = []  # ("audio", PCM16) or (type, message), in the order of sending

    def send_audio(self, pcm: bytes) -> None:
        """Keep one chunk."""
        self.audio.append((self._now(), pcm))
        self.log.append(("audio", pcm))
        del self.audio[:-MAX_MESSAGES]

    def send_text(self, message: str | bytes) -> None:
        """Keep one message."""
        decoded = json.loads(message)
        self.messages.append((self._now(), decoded))
        self.log.append((decoded["type"], decoded))
        del self.messages[:-MAX_MESSAGES]
        del self.log[:-MAX_MESSAGES]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """Return the messages of one type, in order."""
        return [message for _, message in self.messages if message["type"] == kind]

    @property
    def audio_ms(self) -> float:
        """Bot audio received, in ms."""
        return sum(len(pcm) for _, pcm in self.audio) / 2 / self.sample_rate * 1000

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


class MemoryTransport:
    """Both ends of a conversation's pipeline, and what the client got: `input`, `output`, `wire`."""

    def __init__(self) -> None:
        self.wire = MemoryWire()  # what the client got
        self.input = ClientInput()  # head of the pipeline; feed it with `receive` and `receive_audio`
        self.output = ClientOutput(wire=self.wire)  # tail of the pipeline
