"""Where a processor belongs in a pipeline, and why a wrong order cannot work."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from pipecat.services.stt_service import STTService

from ..errors import PipelineOrderError


class Stage(IntEnum):
    """The places of DESIGN's flow, in order. A processor declares its own as the class attribute `stage`."""

    INPUT = 1
    VAD = 2
    STT = 3
    TURNS = 4
    BRANCHES = 5
    RESPONDER = 6
    VOICE = 7
    GATE = 8
    TRACKER = 9
    OUTPUT = 10


_WHY = {  # the stage that came too late -> why it has to come earlier
    Stage.INPUT: "the input brings what all others work on",
    Stage.VAD: "the speech detector must hear the microphone before anything acts on speech",
    Stage.STT: "words must be recognised before turns are made of them",
    Stage.TURNS: "branches and responder answer complete turns, which the turn aggregator makes",
    Stage.BRANCHES: "the responder answers with what the branches found",
    Stage.RESPONDER: "the voice speaks, and the gate fences, what the responder opened",
    Stage.VOICE: "the gate can only stop audio that passes through it",
    Stage.GATE: "the tracker and the output may see only what the gate let through",
    Stage.TRACKER: "the output's signals of what was played travel upstream to the tracker",
    Stage.OUTPUT: "the output ends the chain",
}


def has_stage_before(processor: Any, stage: Stage) -> bool:
    """Whether a processor of this stage stands upstream of `processor`, as far as its chain reaches."""
    node = processor.previous
    while node is not None:
        if getattr(node, "stage", None) is stage:
            return True
        node = node.previous
    return False


def has_recogniser_before(processor: Any) -> bool:
    """Whether anybody upstream tells the user's words: a recogniser of ours, or one of Pipecat's STT services."""
    node = processor.previous
    while node is not None:
        if getattr(node, "stage", None) is Stage.STT or isinstance(node, STTService):
            return True
        node = node.previous
    return False


def check_order(processors: Sequence[Any]) -> None:
    """Raise `PipelineOrderError` if declared stages decrease, or one processor stands twice."""
    if len({id(p) for p in processors}) < len(processors):
        twice = next(p for i, p in enumerate(processors) if any(p is q for q in processors[:i]))
        raise PipelineOrderError(f"{twice} stands twice in this pipeline; make a second instance")
    furthest: Any = None
    for processor in processors:
        stage = getattr(processor, "stage", None)
        if stage is None:
            continue
        if furthest is not None and stage < furthest.stage:
            raise PipelineOrderError(
                f"{type(processor).__name__} comes after {type(furthest).__name__} but must come before it: "
                f"{_WHY[stage]}"
            )
        if furthest is None or stage >= furthest.stage:
            furthest = processor
