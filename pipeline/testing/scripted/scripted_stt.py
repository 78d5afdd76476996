"""Scripted recognisers, inline and queued: they hear what a test says, whatever the audio is.

    stt = ScriptedSTT([Heard("where is my order", delay_s=0.2, interims=("where is",)), Heard("")])

Each end of speech that the VAD tells takes the next utterance; `says` pushes a transcript by hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipecat.frames.frames import (
    Frame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from ...engine.consumes import consumes
from ...engine.processor import Processor
from ...engine.stages import Stage
from ...errors import ServiceError

Push = Callable[[Frame], Awaitable[None]]

MAX_HEARD = 1024  # utterances that a scripted recogniser still has to deliver; past it a new one is refused


@dataclass(frozen=True, slots=True)
class Heard:
    """What a recogniser makes of one utterance: `Heard("where is my order", delay_s=0.2, interims=("where is",))`.

    Interims come evenly over `interim_s` from the VAD's start, the final `delay_s` after its stop. "" is never told.
    """

    text: str
    delay_s: float = 0.1
    interims: tuple[str, ...] = ()
    interim_s: float = 0.2  # between interims


class _Ears:
    """What both recognisers do: utterance after utterance, each told by tasks of its own."""

    def __init__(self, heard: Sequence[Heard], owner: FrameProcessor, push: Push) -> None:
        self._heard = list(heard)  # what is still to be said, in order
        self._owner = owner  # makes the tasks
        self._push = push  # takes the transcripts
        self._tasks: set[asyncio.Task[None]] = set()  # tell, or wait to

    def on_frame(self, frame: Frame) -> None:
        """See the VAD's frames go by."""
        if isinstance(frame, VADUserStartedSpeakingFrame) and self._heard:
            self._spawn(self._tell_interims(self._heard[0]))
        elif isinstance(frame, VADUserStoppedSpeakingFrame) and self._heard:
            heard = self._heard.pop(0)
            if heard.text:
                self._spawn(self.tell(heard.text, delay_s=heard.delay_s))

    def add(self, heard: Heard) -> None:
        """Queue one more utterance."""
        if len(self._heard) >= MAX_HEARD:
            raise ServiceError(f"{MAX_HEARD} scripted utterances wait; one more is refused")
        self._heard.append(heard)

    async def tell(self, text: str, *, is_final: bool = True, delay_s: float = 0.0) -> None:
        """Push a transcript after a while."""
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        frame_type = TranscriptionFrame if is_final else InterimTranscriptionFrame
        await self._push(frame_type(text, "", ""))

    async def _tell_interims(self, heard: Heard) -> None:
        for text in heard.interims:
            await asyncio.sleep(heard.interim_s)
            if self._heard and self._heard[0] is heard:  # its final is not on its way yet
                await self.tell(text, is_final=False)

    def _spawn(self, work: Any) -> None:
        task = self._owner.create_task(work, "tell")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Tell nothing more."""
        for task in list(self._tasks):
            await self._owner.cancel_task(task)


class ScriptedSTT(Processor):
    """An inline recogniser: `ScriptedSTT([Heard("hello"), Heard("")])` answers the VAD's first stop, not the second.

    Consumes: VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame
    Emits: the same first, then InterimTranscriptionFrame and TranscriptionFrame, from tasks of its own
    On barge-in: nothing is dropped, as the words that interrupt are on their way through here.
    """

    stage = Stage.STT

    def __init__(self, heard: Sequence[Heard] = ()) -> None:
        super().__init__()
        self._ears = _Ears(heard, self, self.push_frame)  # what it hears

    async def says(self, text: str, *, is_final: bool = True) -> None:
        """Push a transcript now: `await stt.says("hel", is_final=False)`."""
        await self._ears.tell(text, is_final=is_final)

    def will_hear(self, heard: Heard) -> None:
        """Add an utterance behind those still to come."""
        self._ears.add(heard)

    @consumes(VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame)
    async def _on_vad(self, frame: Frame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)
        self._ears.on_frame(frame)

    async def cleanup(self) -> None:
        """End its tasks."""
        await self._ears.close()
        await super().cleanup()


class ScriptedSTTGuest(FrameProcessor):
    """The same as one of Pipecat's queued processors.

    Its words leave from tasks of its own, as from a streaming service's receiver; with `from_queue` they go through
    its own queue first, so that an interruption can flush them, and whoever handles them runs in a task which an
    interruption cancels.
    """

    stage = Stage.STT

    def __init__(self, heard: Sequence[Heard] = (), *, from_queue: bool = False) -> None:
        super().__init__()
        self._ears = _Ears(heard, self, self.queue_frame if from_queue else self.push_frame)  # what it hears

    async def says(self, text: str, *, is_final: bool = True) -> None:
        """Push a transcript now."""
        await self._ears.tell(text, is_final=is_final)

    def will_hear(self, heard: Heard) -> None:
        """Add an utterance behind those still to come."""
        self._ears.add(heard)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Pass everything on."""
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        self._ears.on_frame(frame)

    async def cleanup(self) -> None:
        """End its tasks."""
        await self._ears.close()
        await super().cleanup()
