"""Services that break in one of seven ways at a chosen instant, and are mended again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from pipecat.frames.frames import (
    Frame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TTSAudioRawFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService

from leibniz_voice.pipeline.errors import ServiceError

KINDS = ["refuses", "raises", "hangs", "drips", "stops", "talks nonsense", "dies"]
INSTANTS = ["before", "question", "first", "middle", "last", "barge-in", "resume"]
PIECES = 8  # of each answer
DEAD_S = 2.0  # from dying to being back
DRIP_S = 2.9  # between pieces: just under every bound on a single wait
NONSENSE = ["\x00\x1b[2J", "", "\ufffd\u202e", "}" * 500, " "]


@dataclass
class Fault:
    """Breaks a service in the way `kind` at `instant`, from `is_on = True` until it is set to False."""

    kind: str
    instant: str
    is_on: bool = False
    drops: int = 100  # pieces of a drip
    working: asyncio.Event = field(default_factory=asyncio.Event)  # a call has begun
    died_at: float | None = None  # loop time; None: alive

    async def pieces(self) -> AsyncIterator[bool]:
        """Yield True for each piece of an answer, False for one that is nonsense."""
        self.working.set()
        if self.died_at is not None and asyncio.get_running_loop().time() < self.died_at + DEAD_S:
            raise ConnectionRefusedError("not back yet")
        at = {"before": -1, "question": -1, "middle": PIECES // 2, "last": PIECES}.get(self.instant, 0)
        try:
            for piece in range(PIECES + 1):
                if piece == at + (at < 0) and self.is_on and self.instant != "barge-in":
                    await asyncio.sleep(0 if at < 0 else 0.02)
                    async for is_good in self._breaks():
                        yield is_good
                    return
                await asyncio.sleep(0.02)
                if piece < PIECES:
                    yield True
        except asyncio.CancelledError:
            if not self.is_on or self.instant != "barge-in":
                raise
            async for is_good in self._breaks():
                yield is_good

    async def _breaks(self) -> AsyncIterator[bool]:
        if self.kind == "refuses":
            raise ServiceError("refused")
        if self.kind == "raises":
            raise RuntimeError("a bug of the service")
        if self.kind == "dies":
            self.died_at = asyncio.get_running_loop().time()
            raise ConnectionResetError("gone")
        if self.kind == "hangs":
            await asyncio.Event().wait()
        if self.kind == "drips":
            for _ in range(self.drops):
                await asyncio.sleep(DRIP_S)
                yield True
        if self.kind == "talks nonsense":
            for _ in range(PIECES):
                yield False


class FaultyBranch:
    """Intent or retrieval; without its last piece it has no answer."""

    has_side_effects = False

    def __init__(self, answer: Any, fault: Fault) -> None:
        self.answer, self.fault = answer, fault

    async def __call__(self, turn: Any) -> Any:
        good = [is_good async for is_good in self.fault.pieces()]
        if not all(good):
            return {"nonsense": 1}
        return self.answer if len(good) == PIECES else None


class FaultyLLM(FrameProcessor):
    """Streams a token per piece, as Pipecat's services do."""

    def __init__(self, words: list[str], fault: Fault) -> None:
        super().__init__()
        self.words, self.fault = words, fault

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        await self.push_frame(LLMFullResponseStartFrame())
        index = 0
        try:
            async for is_good in self.fault.pieces():
                token = self.words[index % PIECES] if is_good else NONSENSE[index % len(NONSENSE)]
                await self.push_frame(LLMTextFrame(token))
                index += 1
        except Exception as error:
            await self.push_error(f"the LLM failed: {error}", exception=error)
        finally:
            await self.push_frame(LLMFullResponseEndFrame())


class FaultyVoice(TTSService):
    """Speaks a chunk of 20 ms per piece; what it raises, Pipecat meets."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(
            sample_rate=16000,
            push_start_frame=True,
            push_stop_frames=True,
            stop_frame_timeout_s=0.3,
            settings=TTSSettings(model=None, voice=None, language=None),
        )
        self.fault = fault

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        async for is_good in self.fault.pieces():
            pcm = bytes(640) if is_good else b"\xff" * 641  # half a sample too much
            yield TTSAudioRawFrame(pcm, 16000, 1, context_id=context_id)
