"""The engine: processors, pipelines, turns, sessions. See docs/concepts.md."""

from .bargein import BargeInPolicy
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
from .parallel import Parallel
from .pipeline import Pipeline
from .processor import Processor
from .record import ConversationRecord
from .services import IntentResult, Passage, RetrievalResult
from .session import Session
from .stages import Stage
from .states import Event, State, TurnMachine

__all__ = [
    "BargeInFrame",
    "BargeInPolicy",
    "Conductor",
    "ConversationRecord",
    "Event",
    "IntentResult",
    "Parallel",
    "Passage",
    "Pipeline",
    "Processor",
    "ReplyEndedFrame",
    "ReplyStartedFrame",
    "RetrievalResult",
    "Session",
    "SpeculativeTurnFrame",
    "Stage",
    "State",
    "StateChangedFrame",
    "TurnContextFrame",
    "TurnMachine",
    "UserTurnFrame",
    "consumes",
]
