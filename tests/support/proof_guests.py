"""Company for the proof (proof.py): voices with bad habits, slow guests, a slow language model, and probes."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Callable
from typing import Any

import numpy as np
from aiohttp import web
from pipecat.frames.frames import Frame, InterruptionFrame, OutputAudioRawFrame, SystemFrame, TTSAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService

from leibniz_voice.pipeline import BargeInFrame, Processor, UserTurnFrame, consumes
from leibniz_voice.pipeline.frames import ReplyInterruptedFrame

from .fake_openai import FakeOpenAI, says

CHUNK_MS = 40  # of the voice's audio
SAMPLE = np.int16


# -- voices: Pipecat TTS services with bad habits --------------------------------------------------------------


class HttpVoice(TTSService):
    """Yields audio from `run_tts`, as HTTP services do. The text is "<turn> <chunks>"."""

    def __init__(self, chunk_s: float) -> None:
        super().__init__(
            sample_rate=16000, push_stop_frames=False, settings=TTSSettings(model="m", voice="v", language=None)
        )
        self.chunk_s = chunk_s

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        for chunk in self.spoken(text, context_id):
            await asyncio.sleep(self.chunk_s)
            yield chunk

    def spoken(self, text: str, context_id: str) -> list[TTSAudioRawFrame]:
        turn, chunks = (int(word) for word in text.rstrip(".").split())
        pcm = np.full(16 * CHUNK_MS, turn, SAMPLE).tobytes()
        return [TTSAudioRawFrame(pcm, 16000, 1, context_id=context_id) for _ in range(chunks)]


class StreamVoice(HttpVoice):
    """Pushes labelled audio from a task of its own that no interruption stops, as sockets do."""

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        async def receive() -> None:
            for chunk in self.spoken(text, context_id):
                await asyncio.sleep(self.chunk_s)
                await self.push_frame(chunk)
            done.set()

        done = asyncio.Event()
        self.create_task(receive(), "receive")
        await done.wait()  # its frames in order behind the audio; an interruption ends the wait, not the task
        yield None


class AwaitingVoice(HttpVoice):
    """Awaits in its handling of system frames, so that they overtake each other's data."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, InterruptionFrame):
            await asyncio.sleep(0.01)
        await super().process_frame(frame, direction)


class LateVoice(HttpVoice):
    """Goes on speaking for a while after its cancellation."""

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        spoken = self.spoken(text, context_id)
        for number, chunk in enumerate(spoken):
            try:
                await asyncio.sleep(self.chunk_s + 0.001)
            except asyncio.CancelledError:
                for late in spoken[number : number + 2]:
                    await self.push_frame(late)
                raise
            yield chunk


VOICES: dict[str, Callable[[float], TTSService]] = {
    "http": HttpVoice,
    "stream": StreamVoice,
    "awaits": AwaitingVoice,
    "late": LateVoice,
}


class Guest(FrameProcessor):
    """A queued processor that is slow with some system frames."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self.dice = dice

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, SystemFrame) and self.dice.random() < 0.1:
            await asyncio.sleep(self.dice.choice([0, 0.001, 0.01]))
        await self.push_frame(frame, direction)


class Probe(Processor):
    """Stands on both sides of the gate and writes down, in order, what is cut and what passes."""

    def __init__(self, log: list[tuple[str, Any]]) -> None:
        super().__init__()
        self.log = log

    @consumes(BargeInFrame)
    async def _on_barge_in(self, frame: BargeInFrame, direction: FrameDirection) -> None:
        self.log.append(("cut", frame.turn_id))  # the gate has decided it in this very step
        await self.push_frame(frame, direction)

    @consumes(ReplyInterruptedFrame)
    async def _on_interruption(self, frame: ReplyInterruptedFrame, direction: FrameDirection) -> None:
        self.log.append(("cut", frame.turn_id))
        await self.push_frame(frame, direction)

    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: UserTurnFrame, direction: FrameDirection) -> None:
        self.log.append(("turn", frame.text))
        self.log.append(("asked", frame))
        await self.push_frame(frame, direction)


class After(Probe):
    """The one behind the gate: audio that comes here has passed."""

    @consumes(OutputAudioRawFrame)
    async def _on_audio(self, frame: OutputAudioRawFrame, direction: FrameDirection) -> None:
        self.log.append(("audio", frame.audio))
        await self.push_frame(frame, direction)


# -- a language model -----------------------------------------------------------------------------------------


class Oracle(FakeOpenAI):
    """A server with OpenAI's protocol that streams the passage back, token by token, each after a while."""

    def __init__(self, token_s: float) -> None:
        super().__init__()
        self.token_s = token_s

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        question = (await request.json())["messages"][-1]["content"]
        turn, chunks = re.findall(r"(\d+) (\d+)\.", question)[-1]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await self._stream(request, response, says(self.token_s, turn, self.token_s, f" {chunks}", self.token_s, "."))
        return response
