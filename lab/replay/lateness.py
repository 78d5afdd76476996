"""A busy machine does a thing some milliseconds after it could; whatever comes meanwhile is then before it.

In virtual time nothing is late, so a client's message that came between a decision and its interruption would come
after both. A replay that is to decide the same therefore lets each thing that has its own task wait until its recorded
time.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from typing import Any

from pipecat.frames.frames import Frame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from ...pipeline.engine.parallel import Parallel
from ...pipeline.engine.processor import Processor
from ...pipeline.frames import ReplyInterruptedFrame, ReplyPlayedFrame, TurnContextFrame
from ...transports.playout.output import ClientOutput
from ..recording.events import as_int
from ..recording.recorded_ticks import ReplayedTicker
from ..recording.recording import Recording

KINDS = ("ReplyInterruptedFrame", "ReplyPlayedFrame", "TurnContextFrame")  # each pushed in a task of its own
MOST_S = 5.0  # nothing is later than this; what looks so is another thing


class Lateness:
    """What was late in a recording, imposed on processors before their start."""

    def __init__(self, recording: Recording, began: float) -> None:
        self._recording = recording
        self._began = began  # loop time of the recording's time 0
        self._due: dict[tuple[str, int], deque[float]] = defaultdict(deque)  # (kind, turn) -> when, in order
        for event in recording.events:
            is_sent_once = event.kind != "ReplyInterruptedFrame" or event.direction == "downstream"
            if event.kind in KINDS and is_sent_once:
                self._due[event.kind, as_int(event.fields.get("turn_id"))].append(event.at)

    def impose(self, processor: FrameProcessor, name: str) -> None:
        """Make a processor as late as it was."""
        if isinstance(processor, ClientOutput):
            ticks = self._recording.frames("Tick", processor=name)
            processor.wrap_ticker(lambda _: lambda: ReplayedTicker(ticks, self._began))  # type: ignore[arg-type, return-value] # all that an output needs of one
        if isinstance(processor, ClientOutput | Parallel):
            self._impose_on_pushes(processor)
        if isinstance(processor, Processor):
            self._impose_on_broadcasts(processor)

    def _impose_on_pushes(self, processor: FrameProcessor) -> None:
        push = processor.push_frame

        async def push_frame(frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
            is_own_task = isinstance(frame, TurnContextFrame) or (
                isinstance(frame, ReplyPlayedFrame) and frame.complete
            )
            if is_own_task:
                await self._wait(frame)
            await push(frame, direction)

        setattr(processor, "push_frame", push_frame)  # noqa: B010 - a method of the instance, on purpose

    def _impose_on_broadcasts(self, processor: FrameProcessor) -> None:
        broadcast = processor.broadcast_frame

        async def broadcast_frame(frame_cls: type[Frame], **fields: Any) -> None:
            if frame_cls is ReplyInterruptedFrame:
                await self._wait_for("ReplyInterruptedFrame", fields.get("turn_id", 0))
            await broadcast(frame_cls, **fields)

        setattr(processor, "broadcast_frame", broadcast_frame)  # noqa: B010 - as above

    async def _wait(self, frame: Any) -> None:
        await self._wait_for(type(frame).__name__, frame.turn_id)

    async def _wait_for(self, kind: str, turn_id: int) -> None:
        due = self._due.get((kind, turn_id))
        if due:
            late_s = self._began + due.popleft() - asyncio.get_running_loop().time()
            if 0 < late_s < MOST_S:
                await asyncio.sleep(late_s)
