"""Test a pipeline offline: virtual time, a scripted client, synthetic audio and services, a contract for processors."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...lab.recording.events import RecordedEvent, RecordingError, StateMove, Turn
from ...lab.recording.recorder import Tape
from ...lab.recording.recording import Recording
from ...transports.memory import MemoryTransport
from .bench import Bench
from .call import AsyncCall, Call, CallError, run_offline
from .check import CheckFailed, check_processor
from .clock import StuckError, VirtualLoop, VirtualTime, run_virtual
from .fuzz.fuzz import check_conversation
from .fuzz.generate import Schedule, generate, schedules
from .fuzz.safety import ConversationFailed
from .scripted.scripted_services import (
    ScriptedIntent,
    ScriptedLLM,
    ScriptedRetriever,
    ScriptedVoice,
    ServiceScript,
    ServiceStep,
)
from .scripted.scripted_stt import Heard, ScriptedSTT, ScriptedSTTGuest
from .scripted.scripted_tts import Manner, ScriptedTTS

Event, Move = RecordedEvent, StateMove  # the names of the first releases
Script, Step = ServiceScript, ServiceStep  # likewise

if TYPE_CHECKING:
    from ...lab.replay.measures import Measures, measures_of
    from ...lab.replay.replay import replay

__all__ = [
    "AsyncCall",
    "Bench",
    "Call",
    "CallError",
    "CheckFailed",
    "ConversationFailed",
    "Event",
    "Heard",
    "Manner",
    "Measures",
    "MemoryTransport",
    "Move",
    "RecordedEvent",
    "Recording",
    "RecordingError",
    "Schedule",
    "Script",
    "ScriptedIntent",
    "ScriptedLLM",
    "ScriptedRetriever",
    "ScriptedSTT",
    "ScriptedSTTGuest",
    "ScriptedTTS",
    "ScriptedVoice",
    "ServiceScript",
    "ServiceStep",
    "StateMove",
    "Step",
    "StuckError",
    "Tape",
    "Turn",
    "VirtualLoop",
    "VirtualTime",
    "check_conversation",
    "check_processor",
    "generate",
    "measures_of",
    "replay",
    "run_offline",
    "run_virtual",
    "schedules",
]

# A replay runs on this kit; so the kit imports it only when somebody asks for it.
_REPLAY = {"Measures": "measures", "measures_of": "measures", "replay": "replay"}


def __getattr__(name: str) -> Any:
    if name not in _REPLAY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"leibniz_voice.lab.replay.{_REPLAY[name]}"), name)
