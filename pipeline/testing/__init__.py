"""Test a pipeline offline: virtual time, a scripted client, synthetic audio and services, a contract for processors."""

from ...transports.memory import MemoryTransport
from .bench import Bench
from .call import AsyncCall, Call, CallError, run_offline
from .check import CheckFailed, check_processor
from .clock import StuckError, VirtualLoop, VirtualTime, run_virtual
from .fuzz import check_conversation
from .generate import Schedule, generate, schedules
from .measures import Measures, measures_of
from .recorder import Tape
from .recording import Event, Move, Recording, RecordingError, Turn
from .replaying import replay
from .safety import ConversationFailed
from .scripted import Script, ScriptedIntent, ScriptedLLM, ScriptedRetriever, ScriptedVoice, Step
from .scripted_stt import Heard, ScriptedSTT, ScriptedSTTGuest
from .scripted_tts import Manner, ScriptedTTS

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
