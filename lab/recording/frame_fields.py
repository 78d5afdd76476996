"""Frames as JSON fields and back: what a recording keeps of a frame, and the frame that replay makes of it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from pipecat.frames import frames as pipecat_frames
from pipecat.frames.frames import Frame, LLMContextFrame, TranscriptionFrame

from ...pipeline import frames as leibniz_frames
from ...pipeline.services import IntentResult, Passage, RetrievalResult
from .events import RecordedEvent, RecordingError

_BOOKKEEPING = frozenset(field.name for field in dataclasses.fields(Frame))
_AUDIO = frozenset({"audio", "num_frames", "num_channels", "sample_rate"})  # told by rate, samples and pcm
_NAMES = frozenset(  # texts that are no words of anybody
    {"state", "previous", "trigger", "reason", "branch", "label", "type", "code", "language", "user_id", "timestamp"}
)
MAX_DEPTH = 6
MAX_TEXT = 16_384  # letters of one field
MAX_ITEMS = 512  # of one list or object
_fields: dict[type, tuple[str, ...]] = {}  # frame type -> its own fields; filled on the way


def fields_of(frame: Frame) -> dict[str, Any]:
    """Return a frame's own fields as JSON values; its audio stays bytes, in `pcm`."""
    kind = type(frame)
    names = _fields.get(kind)
    if names is None:
        names = _fields[kind] = _names_of(kind)
    if isinstance(frame, LLMContextFrame):
        return _context_fields(frame)
    fields = {name: as_json(getattr(frame, name)) for name in names}
    audio = getattr(frame, "audio", None)
    if isinstance(audio, bytes):
        rate, channels = getattr(frame, "sample_rate", 0), getattr(frame, "num_channels", 1)
        fields |= {"rate": rate, "samples": len(audio) // (2 * max(channels, 1))}
        if channels == 1:
            fields["pcm"] = audio
    if frame.metadata:
        fields["metadata"] = as_json(frame.metadata)
        fields |= {name: fields["metadata"][name] for name in _TOLD if name in fields["metadata"]}
    return fields


_TOLD = ("confidence", "speech_ms", "silence_ms", "score")  # metadata of our frames that everybody wants to see


def _names_of(kind: type) -> tuple[str, ...]:
    if not dataclasses.is_dataclass(kind):
        return ()
    return tuple(f.name for f in dataclasses.fields(kind) if f.name not in _BOOKKEEPING | _AUDIO and not _is_chance(f))


def _is_chance(field: dataclasses.Field[Any]) -> bool:
    """Whether a field is of the wall clock or of a counter that all conversations share, so never the same again."""
    return field.name == "segment_id" or (
        field.name == "timestamp" and field.default_factory is not dataclasses.MISSING
    )


def _context_fields(frame: LLMContextFrame) -> dict[str, Any]:
    """Of an LLM's context, which holds the whole conversation, the newest question."""
    messages = [message for message in frame.context.get_messages() if isinstance(message, Mapping)]
    asked = [message.get("content") for message in messages if message.get("role") == "user"]
    return {"messages": len(messages), "text": as_json(asked[-1]) if asked else ""}


def as_json(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON, cut to a bound; what is no JSON becomes its type's name."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Enum):
        return as_json(value.value, depth)
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if depth >= MAX_DEPTH:
        return None
    if isinstance(value, Mapping):
        return {str(key)[:MAX_TEXT]: as_json(each, depth + 1) for key, each in list(value.items())[:MAX_ITEMS]}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json(each, depth + 1) for each in list(value)[:MAX_ITEMS]]
    if hasattr(value, "as_json"):
        return {"type": type(value).__name__, **as_json(value.as_json(), depth + 1)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: as_json(getattr(value, name), depth + 1) for name in names}
    return {"type": type(value).__name__}


def without_words(value: Any, name: str = "") -> Any:
    """Replace every letter and digit of what somebody said by an x; names of states and such stay."""
    if isinstance(value, str):
        return value if name in _NAMES else re.sub(r"\w", "x", value)
    if isinstance(value, Mapping):
        return {key: without_words(each, key) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_words(each, name) for each in value]
    return value


def frame_of(event: RecordedEvent) -> Frame:
    """Make the frame of an event again. Raises `RecordingError` for a kind that is no frame, or other fields."""
    kind = getattr(leibniz_frames, event.kind, None) or getattr(pipecat_frames, event.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, Frame) and dataclasses.is_dataclass(kind)):
        raise RecordingError(f"{event.kind} is no frame that can be made again")
    given = {f.name for f in dataclasses.fields(kind) if f.init}
    fields = {name: _tuples(value) for name, value in event.fields.items() if name in given}
    if "audio" in given:
        fields |= {"audio": event.pcm(), "sample_rate": event.fields.get("rate", 16_000), "num_channels": 1}
    if issubclass(kind, TranscriptionFrame):
        fields |= {"language": None, "result": None}
    try:
        frame = kind(**fields)
    except (TypeError, ValueError) as error:
        raise RecordingError(f"{event.kind} at {event.at:.3f} s cannot be made again: {error}") from None
    metadata = event.fields.get("metadata")
    if isinstance(metadata, dict):
        frame.metadata.update(metadata)
    return frame


def _tuples(value: Any) -> Any:
    """Our frames hold tuples where JSON has lists."""
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value


def answer_of(value: Any) -> Any:
    """Make a branch's answer again."""
    match value:
        case {"type": "IntentResult", "intent": str(label), "confidence": int() | float() as confidence}:
            return IntentResult(label, confidence)
        case {"type": "RetrievalResult", "results": list(results), "context": str(context)}:
            return RetrievalResult([_passage_of(each) for each in results], context)
    return value


def _passage_of(value: Any) -> Any:
    match value:
        case {"title": str(), "text": str(), "score": int() | float(), "source": str()}:
            return Passage(value["title"], value["text"], value["score"], value["source"])
    return value
