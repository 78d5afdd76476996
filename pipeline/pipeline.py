"""`Pipeline`: a Pipecat pipeline of our processors and Pipecat's, in any order that can work."""

from __future__ import annotations

from collections.abc import Sequence

from pipecat.pipeline.pipeline import Pipeline as PipecatPipeline
from pipecat.processors.frame_processor import FrameProcessor

from .engine.processor import Processor
from .engine.stages import check_order
from .errors import PipelineOrderError
from .interruption.contexts import voices_in
from .interruption.labelled_services import labels_are_sure

MAX_IN_A_ROW = 100  # inline processors without a queued one between: 160 meet Python's recursion limit at StartFrame


class Pipeline(PipecatPipeline):
    """A chain of processors, first to last; runs under Pipecat's `PipelineWorker` like any of its pipelines.

    `source` and `sink` stand before and behind the chain in place of Pipecat's own, which push what comes to them out
    of the pipeline; the rules of the order hold for them too.

    Raises `PipelineOrderError`, with the reason, for an order that cannot work: a stage that comes after one which
    depends on it, one processor standing twice, more than 100 of ours in a row, or a TTS service not known to be sure
    whose audio it pushes, unless `trust_late_audio` says that it is good enough.
    """

    def __init__(
        self,
        processors: Sequence[FrameProcessor],
        *,
        source: FrameProcessor | None = None,
        sink: FrameProcessor | None = None,
        trust_late_audio: bool = False,
    ) -> None:
        given = [processor for processor in (source, *processors, sink) if processor is not None]
        check_order(given)
        if not trust_late_audio:
            _refuse_unsure_voices(given)
        in_a_row = 0
        for processor in given:
            in_a_row = in_a_row + 1 if isinstance(processor, Processor) else 0
            if in_a_row > MAX_IN_A_ROW:
                raise PipelineOrderError(
                    f"more than {MAX_IN_A_ROW} inline processors stand in a row; a frame would exhaust Python's stack. "
                    "Split the work differently, or put a queued Pipecat processor between"
                )
        self._chain = list(processors)  # as it was given
        self._given = given  # the same with the ends that were given
        self._ends = (source, sink)  # as they were given
        super().__init__(processors, source=source, sink=sink)

    @property
    def processors(self) -> list[FrameProcessor]:
        """The chain as it was given, without the source and sink at its ends."""
        return list(self._chain)

    @property
    def ends(self) -> tuple[FrameProcessor | None, FrameProcessor | None]:
        """The source and the sink that were given; None for Pipecat's own."""
        return self._ends

    def processors_with_metrics(self) -> list[FrameProcessor]:
        """Those in the chain, and given ends that have some."""
        found: list[FrameProcessor] = []
        for processor in self._given:
            if processor.can_generate_metrics():
                found.append(processor)
            found.extend(processor.processors_with_metrics())
        return found


def _refuse_unsure_voices(processors: Sequence[FrameProcessor]) -> None:
    for voice in voices_in(list(processors)):
        if not labels_are_sure(type(voice)):
            raise PipelineOrderError(
                f"{type(voice).__name__} is not known to be sure whose audio it pushes, so late audio of a cut reply "
                "could be heard in the next one. Use a service that gets its context ids back with the audio or "
                "reconnects when interrupted (InterruptibleTTSService). Is it your own, and labels each frame with the "
                "id that run_tts was given? Say labels_its_audio = True in its class. Or accept it with "
                "Pipeline(..., trust_late_audio=True)"
            )
