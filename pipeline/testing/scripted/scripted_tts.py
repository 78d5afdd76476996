"""`ScriptedTTS`: one of Pipecat's TTS services with the manners, good and bad, that real ones have.

    tts = ScriptedTTS(Manner.OWN_TASK, script=ServiceScript(ServiceStep(delay_s=0.2, each_s=0.01)), seed=1)

    IN_ORDER     yields its audio from `run_tts`, as services over HTTP do
    OWN_TASK     `run_tts` only asks; audio comes from a receiver's task, past the service's own order, labelled with
                 its context id, and a few chunks of it still come after an interruption
    SLOW_SYSTEM  awaits in its handlers of system frames, so an interruption overtakes data that it took before
    LATE_CANCEL  needs a while to stop when it is cancelled, and goes on yielding meanwhile

The audio is stamped (see `stamps`): with the turn that the text names, else with that of the last reply marker.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from enum import Enum

from pipecat.frames.frames import (
    AudioRawFrame,
    ErrorFrame,
    Frame,
    StartFrame,
    SystemFrame,
    TTSAudioRawFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService

from ...errors import ServiceError
from ...frames import ReplyStartedFrame
from ..audio import RATE
from ..fuzz.stamps import Stamp, sentences_in, stamped, turn_in
from .scripted_services import CHUNK_MS, ServiceScript, ServiceStep

MAX_REQUESTS = 256  # sentences that the receiver still has to deliver; past it `run_tts` waits
MAX_CUT = 64  # interrupted contexts that are remembered
GAP_S = 0.001  # at least this between chunks of a receiver, so that the first, which goes the long way, stays first


class Manner(Enum):
    """How a scripted TTS service delivers and stops; see the module."""

    IN_ORDER = "in order"
    OWN_TASK = "own task"
    SLOW_SYSTEM = "slow system frames"
    LATE_CANCEL = "late cancel"


class ScriptedTTS(TTSService):
    """Speaks each sentence as `chunks_per_sentence` chunks of 20 ms, by script; one call of it is one sentence.

    `slow_s` is how long SLOW_SYSTEM awaits and LATE_CANCEL goes on; each time a seeded draw up to it. `tail` chunks,
    or as many as are left, still come from OWN_TASK after an interruption. `swallow` makes LATE_CANCEL ignore a
    cancellation altogether: Pipecat then waits for a second and cancels again. A failure is an ErrorFrame.
    """

    def __init__(
        self,
        manner: Manner = Manner.IN_ORDER,
        *,
        script: ServiceScript | None = None,
        chunks_per_sentence: int = 10,
        slow_s: float = 0.05,
        tail: int = 3,
        swallow: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            push_start_frame=True,
            push_stop_frames=True,
            sample_rate=RATE,
            settings=TTSSettings(model=None, voice=None, language=None),
        )
        self.manner = manner  # see the module
        self.pushed: list[tuple[float, Stamp]] = []  # (loop time, stamp) of every chunk delivered
        self._script = script or ServiceScript()  # delays and failures
        self._count = chunks_per_sentence  # of each sentence
        self._slow_s = slow_s  # the longest await in a handler, the longest going-on after a cancel
        self._tail = tail  # chunks that come after an interruption
        self._swallow = swallow  # ignore a cancellation
        self._random = random.Random(seed)  # draws the awaits
        self._marker = 0  # turn of the last reply marker that came by
        self._turn_id = 0  # turn of the audio
        self._seq = 0  # chunks of that turn so far
        self._requests: asyncio.Queue[tuple[str, str, ServiceStep]] = asyncio.Queue(MAX_REQUESTS)  # (text, id, step)
        self._cut: dict[str, int] = {}  # context id that was interrupted, the last 64 -> chunks that still come
        self._contexts = 0  # ids made so far
        self._receiver: asyncio.Task[None] | None = None  # delivers; OWN_TASK only

    # -- Pipecat's hooks ---------------------------------------------------------------------------------------

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """Yield the audio of one sentence, or leave it to the receiver."""
        step = self._script.next()
        if self.manner is Manner.OWN_TASK:
            if self._receiver is None:
                self._receiver = self.create_task(self._receive(), "receiver")
            await self._requests.put((text, context_id, step))
            yield None
            return
        pieces = step.pieces(self._count * sentences_in(text))
        try:
            async for _ in pieces:
                yield self._chunk(text, context_id)
        except ServiceError as error:
            yield ErrorFrame(error=f"the scripted TTS failed: {error}")
        except asyncio.CancelledError:
            if self.manner is not Manner.LATE_CANCEL:
                raise
            for _ in range(int(self._awaits() / 0.01) + 1):
                await asyncio.sleep(0.01)
                await self.append_to_audio_context(context_id, self._chunk(text, context_id))
            if not self._swallow:
                raise

    def create_context_id(self) -> str:
        """As Pipecat's, but a new id is the same in each run."""
        context_id = super().create_context_id()
        if context_id == self._turn_context_id:  # used again within a turn
            return context_id
        self._contexts += 1
        return f"context {self._contexts}"

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """As Pipecat's, after a while for system frames if that is its manner."""
        if isinstance(frame, ReplyStartedFrame):
            self._marker = frame.turn_id
        if self.manner is Manner.SLOW_SYSTEM and _is_slow(frame):
            await asyncio.sleep(self._awaits())
        await super().process_frame(frame, direction)

    async def flush_audio(self, context_id: str | None = None) -> None:
        """Let the receiver close the context behind its last audio."""
        if self.manner is Manner.OWN_TASK and context_id is not None:
            await self._requests.put(("", context_id, ServiceStep()))

    async def on_audio_context_interrupted(self, context_id: str) -> None:
        """Let the receiver bring what is on the wire, and no more."""
        if self.manner is Manner.OWN_TASK:
            self._cut[context_id] = self._tail
            if len(self._cut) > MAX_CUT:
                del self._cut[next(iter(self._cut))]
        await super().on_audio_context_interrupted(context_id)

    async def cleanup(self) -> None:
        """End the receiver."""
        if self._receiver is not None:
            await self.cancel_task(self._receiver)
        await super().cleanup()

    # -- audio -------------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        while True:
            text, context_id, step = await self._requests.get()
            if text:
                try:
                    await self._deliver(text, context_id, step)
                except ServiceError as error:
                    await self.push_error(f"the scripted TTS failed: {error}", exception=error)
            elif self.audio_context_available(context_id):
                await self.remove_audio_context(context_id)

    async def _deliver(self, text: str, context_id: str, step: ServiceStep) -> None:
        async for piece in step.pieces(self._count * sentences_in(text)):
            if not self._still_comes(context_id):
                return
            if not piece:  # keeps the context open, and so the order of the reply's end
                await self.append_to_audio_context(context_id, self._chunk(text, context_id))
            else:
                await asyncio.sleep(GAP_S)
                await self.push_frame(self._chunk(text, context_id))

    def _still_comes(self, context_id: str) -> bool:
        left = self._cut.get(context_id)
        if left is None:
            return True
        self._cut[context_id] = left - 1
        return left > 0

    def _chunk(self, text: str, context_id: str) -> TTSAudioRawFrame:
        named = turn_in(text)
        turn_id = self._marker if named is None else named
        if turn_id != self._turn_id:
            self._turn_id, self._seq = turn_id, 0
        stamp = Stamp(turn_id, self._seq)
        self._seq += 1
        self.pushed.append((asyncio.get_running_loop().time(), stamp))
        return TTSAudioRawFrame(stamped(*stamp, ms=CHUNK_MS), RATE, 1, context_id=context_id)

    def _awaits(self) -> float:
        return self._random.uniform(0.0, self._slow_s)


def _is_slow(frame: Frame) -> bool:
    return isinstance(frame, SystemFrame) and not isinstance(frame, (StartFrame, AudioRawFrame))
