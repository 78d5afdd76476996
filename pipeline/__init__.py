"""The engine: processors, pipelines, turns, sessions. See docs/engine.md."""

from .conversation.conversation_record import ConversationRecord
from .engine.conductor import Conductor
from .engine.consumes import consumes
from .engine.parallel import Parallel
from .engine.processor import Processor
from .engine.stages import Stage
from .frames import (
    BargeInFrame,
    ReplyEndedFrame,
    ReplyStartedFrame,
    SpeculativeTurnFrame,
    StateChangedFrame,
    TurnContextFrame,
    UserTurnFrame,
)
from .interruption.policy import BargeInPolicy
from .pipeline import Pipeline
from .reply.reply_watch import ReplyBounds
from .services import IntentResult, Passage, RetrievalResult
from .session import Session
from .states import Event, State, TurnMachine

if __name__ == "pipeline":  # from the checkout's root the folder is also found by its own name
    raise ImportError(
        "import leibniz_voice.pipeline, not pipeline: the second copy of every class would be another class"
    )

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
    "ReplyBounds",
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
