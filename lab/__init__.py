"""Conversations on record: recorded, looked at, decided again, measured. See docs/recording.md."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .recording.events import RecordedEvent, RecordingError, StateMove, Turn
    from .recording.recorder import Tape
    from .recording.recording import Recording
    from .replay.measures import Measures, measures_of

    Event, Move = RecordedEvent, StateMove

__all__ = [
    "Event",
    "Measures",
    "Move",
    "RecordedEvent",
    "Recording",
    "RecordingError",
    "StateMove",
    "Tape",
    "Turn",
    "measures_of",
]

# Imported when asked for: a server that records needs nothing of what replays and measures.
_HOMES = {
    **dict.fromkeys(("RecordedEvent", "RecordingError", "StateMove", "Turn"), "recording.events"),
    "Recording": "recording.recording",
    "Tape": "recording.recorder",
    **dict.fromkeys(("Measures", "measures_of"), "replay.measures"),
}
_ALIASES = {"Event": "RecordedEvent", "Move": "StateMove"}  # the names of the first releases


def __getattr__(name: str) -> Any:
    known = _ALIASES.get(name, name)
    if known not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[known]}"), known)
