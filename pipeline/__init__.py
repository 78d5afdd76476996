"""The engine: processors, pipelines, turns, sessions. See docs/concepts.md."""

from .conductor import Conductor
from .consumes import consumes
from .frames import (
    BargeInFrame,
    ReplyEndedFrame,
    ReplyStartedFrame,
    SpeculativeTurnFrame,
    StateChangedFrame,
    TurnContextFrame,
    UserTurnFrame,
)
from .pipeline import Pipeline
from .processor import Processor
from .stages import Stage

__all__ = [
    "BargeInFrame",
    "Conductor",
    "Pipeline",
    "Processor",
    "ReplyEndedFrame",
    "ReplyStartedFrame",
    "SpeculativeTurnFrame",
    "Stage",
    "StateChangedFrame",
    "TurnContextFrame",
    "UserTurnFrame",
    "consumes",
]
