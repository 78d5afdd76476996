"""`Call`: one conversation driven by a script, without a socket; `run_offline`: the same in virtual time.

async def script(call):
    await call.types("where is my order")
    await call.until_state("idle")

call = run_offline(build, script)
assert call.states == ["idle", "listening", "thinking", "speaking", "idle"]
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pipecat.frames.frames import Frame

from ...transports import protocol
from ...transports.endpoints import PIPELINE_RATE
from ...transports.memory import MemoryTransport
from ..errors import LeibnizError
from ..record import ConversationRecord
from ..session import Build, Session
from ..snapshot import ConversationFields
from .clock import run_virtual

CHUNK_S = 0.02  # microphone audio comes in chunks of this length
WAIT_S = 30.0  # how long a script waits for something, in the loop's time


class CallError(LeibnizError, AssertionError):
    """Something that the script waits for did not happen; the message tells what did."""


class Call:
    """A client on the line. All waiting is in the loop's time, so it costs nothing in virtual time."""

    def __init__(self, build: Build, *, session_id: str = "offline", fields: ConversationFields | None = None) -> None:
        transport = MemoryTransport()
        self.wire = transport.wire  # what the client got
        self.input = transport.input
        self.record = ConversationRecord(session_id, fields=fields)  # the live conversation
        self.session = Session(session_id, input=self.input, output=transport.output, record=self.record)
        self._build = build

    async def __aenter__(self) -> Call:
        await self.session.start(self._build)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.cancel()

    # -- what the user does ------------------------------------------------------------------------------------

    async def says(self, pcm: bytes, *, then_silence_s: float = 1.0) -> None:
        """Speak: 16 kHz PCM16 mono at real time, then stay silent for a while."""
        size = int(CHUNK_S * PIPELINE_RATE) * 2
        pcm += bytes(int(then_silence_s * PIPELINE_RATE) * 2)
        for start in range(0, len(pcm) - size + 1, size):
            await self.input.receive_audio(pcm[start : start + size])
            await asyncio.sleep(CHUNK_S)

    async def is_silent(self, seconds: float) -> None:
        """Send silence at real time."""
        await self.says(b"", then_silence_s=seconds)

    async def types(self, text: str) -> None:
        """Do the client's own STT: one final fragment and the end of the turn."""
        await self.sends(protocol.SttFragment(text=text, is_final=True))
        await self.sends(protocol.VadEnd())

    async def sends(self, message: protocol.ClientMessage) -> None:
        """Send a protocol message."""
        await self.input.receive(message)

    async def pushes(self, *frames: Frame) -> None:
        """Let synthetic frames enter the pipeline behind the input."""
        for frame in frames:
            await self.input.push_frame(frame)

    # -- what came of it ---------------------------------------------------------------------------------------

    @property
    def states(self) -> list[str]:
        """Every state so far, in order, beginning with idle."""
        updates = self.wire.of_type("state_update")
        return ["idle", *(u["state"] for u in updates if u["trigger"] != "stt_fragment")]

    @property
    def replies(self) -> list[str]:
        """The text of every reply, in order."""
        return [message["text"] for message in self.wire.of_type("response_ready")]

    async def until_state(self, state: str, *, timeout_s: float = WAIT_S) -> None:
        """Wait until the conversation is in `state`. Raises `CallError`."""
        await self.until(lambda: self.states[-1] == state, f"state {state}", timeout_s=timeout_s)

    async def until_heard(self, ms: float, *, timeout_s: float = WAIT_S) -> None:
        """Wait until the bot's audio sent so far is at least `ms` long. Raises `CallError`."""
        await self.until(lambda: self.wire.audio_ms >= ms, f"{ms:.0f} ms of audio", timeout_s=timeout_s)

    async def until(self, condition: Callable[[], Any], what: str, *, timeout_s: float = WAIT_S) -> None:
        """Wait for a condition, looked at every 5 ms. Raises `CallError`."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not condition():
            if asyncio.get_running_loop().time() > deadline:
                raise CallError(f"no {what} within {timeout_s:g} s; states so far: {' '.join(self.states)}")
            await asyncio.sleep(0.005)


def run_offline(build: Build, script: Callable[[Call], Awaitable[None]], **options: Any) -> Call:
    """Run `script` against a new conversation in virtual time; return the finished call."""

    async def main() -> Call:
        async with Call(build, **options) as call:
            await script(call)
        return call

    return run_virtual(main())
