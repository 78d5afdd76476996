"""The user's microphone, offline: 20 ms every 20 ms from the first sound on, silence where nobody speaks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from .audio import mix, silence

CHUNK_S = 0.02  # microphone audio comes in chunks of this length
CHUNK_BYTES = len(silence(CHUNK_S * 1000))


class OfflineMicrophone:
    """A voice, and sounds under it. What is queued is sent at real time, in the loop's time."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._send = send  # takes each chunk
        self._voice = bytearray()  # still to be spoken, one after the other
        self._sounds: list[bytearray] = []  # still to sound, all at once
        self._sent = asyncio.Event()  # set whenever a chunk has gone
        self._task: asyncio.Task[None] | None = None  # sends; None before the first sound

    @property
    def is_on(self) -> bool:
        """Whether anything was ever to be heard."""
        return self._task is not None

    async def speak(self, pcm: bytes) -> None:
        """Say it behind what is being said; returns when its last chunk has been sent."""
        self._voice += pcm
        await self._until_over(self._voice)

    async def sound(self, pcm: bytes, *, wait: bool) -> None:
        """Let it be heard from now on, under whatever else is; `wait` until it is over."""
        left = bytearray(pcm)
        self._sounds.append(left)
        self._turn_on()
        if wait:
            await self._until_over(left)

    async def close(self) -> None:
        """Send nothing more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def _turn_on(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="microphone")

    async def _until_over(self, left: bytearray) -> None:
        self._turn_on()
        while left:
            self._sent.clear()
            await self._sent.wait()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self._send(self._take())
            due += CHUNK_S
            await asyncio.sleep(due - loop.time())
            self._sent.set()

    def _take(self) -> bytes:
        chunk = bytes(self._voice[:CHUNK_BYTES]).ljust(CHUNK_BYTES, b"\0")
        del self._voice[:CHUNK_BYTES]
        for left in self._sounds:
            chunk = mix(chunk, bytes(left[:CHUNK_BYTES]))
            del left[:CHUNK_BYTES]
        self._sounds = [left for left in self._sounds if left]
        return chunk
