"""`Pipeline`: a Pipecat pipeline of our processors and Pipecat's, in any order that can work."""

from __future__ import annotations

from collections.abc import Sequence

from pipecat.pipeline.pipeline import Pipeline as PipecatPipeline
from pipecat.processors.frame_processor import FrameProcessor

from .errors import PipelineOrderError
from .processor import Processor
from .stages import check_order

MAX_IN_A_ROW = 100  # inline processors without a queued one between: 160 meet Python's recursion limit at StartFrame


class Pipeline(PipecatPipeline):
    """A chain of processors, first to last; runs under Pipecat's `PipelineWorker` like any of its pipelines.

    Raises `PipelineOrderError`, with the reason, for an order that cannot work: a stage that comes after one which
    depends on it, one processor standing twice, or more than 100 of ours in a row.
    """

    def __init__(self, processors: Sequence[FrameProcessor]) -> None:
        check_order(processors)
        in_a_row = 0
        for processor in processors:
            in_a_row = in_a_row + 1 if isinstance(processor, Processor) else 0
            if in_a_row > MAX_IN_A_ROW:
                raise PipelineOrderError(
                    f"more than {MAX_IN_A_ROW} inline processors stand in a row; a frame would exhaust Python's stack. "
                    "Split the work differently, or put a queued Pipecat processor between"
                )
        super().__init__(list(processors))

    @property
    def processors(self) -> list[FrameProcessor]:
        """The chain as it was given, without Pipecat's own source and sink at its ends."""
        return self._processors[1:-1]
