"""A branch of `Parallel` that is a list of processors: frames in, one answer per turn out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from pipecat.frames.frames import Frame
from pipecat.pipeline.pipeline import Pipeline as PipecatPipeline
from pipecat.pipeline.pipeline import PipelineSink, PipelineSource
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup

from ..frames import BranchAnswerFrame, UserTurnFrame

Upward = Callable[[Frame, FrameDirection], Coroutine[Any, Any, None]]


class Lane:
    """Runs processors beside the main chain. The first `BranchAnswerFrame` of a turn to reach its end is the answer."""

    def __init__(self, name: str, processors: Sequence[FrameProcessor], *, upward: Upward) -> None:
        self._upward = upward  # takes what the lane pushes upstream, errors above all
        self._waiting: dict[int, asyncio.Future[Any]] = {}  # turn id -> who waits for its answer; at most a few
        self.pipeline = PipecatPipeline(
            list(processors),
            source=PipelineSource(self._upward, name=f"{name}::Source"),
            sink=PipelineSink(self._on_end, name=f"{name}::Sink"),
        )

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Set the lane's processors up."""
        await self.pipeline.setup(setup)

    async def cleanup(self) -> None:
        """Clean the lane's processors up."""
        await self.pipeline.cleanup()

    async def push(self, frame: Frame) -> None:
        """Send a frame down the lane."""
        await self.pipeline.queue_frame(frame)

    async def __call__(self, turn: UserTurnFrame) -> Any:
        """Ask the lane about a turn and wait for its answer."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[turn.turn_id] = answer
        try:
            await self.push(turn)
            return await answer
        finally:
            if self._waiting.get(turn.turn_id) is answer:
                del self._waiting[turn.turn_id]

    async def _on_end(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, BranchAnswerFrame):
            answer = self._waiting.get(frame.turn_id)
            if answer is not None and not answer.done():
                answer.set_result(frame.answer)
