"""A conversation as the flat text fields of its stored hash, and back; pure.

A hash is read whole or not at all: `parse` raises `DamagedSnapshot` for bad JSON, a wrong type, an unknown state or a
newer schema, and the store then puts the hash aside and starts the session anew. Fields that are missing have their
empty value, fields that nobody here knows are left alone: others may add some.

 field          empty      field          empty
 state          idle       llm_response   ""
 turn_number    0          history        []    messages: turn_id, question, text, heard, interrupted; at most 8 KiB
 turn_id        0          timestamps     {}    "<from>_to_<to>" -> seconds
 text_buffer    []         last_update    0.0   unix seconds
 intent         {}         schema         1
 rag_results    {}         heard          ""    what was heard of llm_response, of a reply that is being spoken
 is_pending     0                               1: the last fragment of text_buffer is not final
 is_complete    0                               1: llm_response is all of it
 latency_ms     {}                              of the last finished turn: label -> ms
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..errors import StoreError
from ..states import State

SCHEMA = 1
"""Version of the hash's layout. A reader refuses a higher one; raise it only when an old reader would go wrong."""

_STATES = frozenset(State)

HISTORY_BYTES = 8 * 1024
FIELD_BYTES = 1024 * 1024
"""A stored field beyond this is damage: loading it would hold up every other conversation of the process."""

T = TypeVar("T")
_History = tuple[tuple[tuple[dict[str, Any], Any], ...], str]  # the messages with what was heard of each, their JSON


class DamagedSnapshot(StoreError):
    """The stored fields are no conversation that this version can continue; the message names the field."""


@dataclass
class ConversationFields:
    """What a store keeps of one conversation."""

    state: str = State.IDLE
    turn_number: int = 0
    turn_id: int = 0
    text_buffer: list[str] = field(default_factory=list)
    intent: dict[str, Any] = field(default_factory=dict)
    rag_results: dict[str, Any] = field(default_factory=dict)
    llm_response: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)
    last_update: float = 0.0
    timestamps: dict[str, float] = field(default_factory=dict)
    heard: str = ""
    is_pending: bool = False
    is_complete: bool = False
    latency_ms: dict[str, float] = field(default_factory=dict)
    _written: _History = field(default=((), "[]"), repr=False, compare=False)  # the history as last written

    def to_fields(self) -> dict[str, str]:
        """The hash's fields. Never raises: what JSON cannot hold is written as its empty value."""
        return {
            "state": str(self.state),
            "turn_number": str(self.turn_number),
            "turn_id": str(self.turn_id),
            "text_buffer": _to_json(self.text_buffer, "[]"),
            "intent": _to_json(self.intent, "{}"),
            "rag_results": _to_json(self.rag_results, "{}"),
            "llm_response": _valid_text(self.llm_response),
            "history": self._history_json(),
            "last_update": repr(float(self.last_update)),
            "timestamps": _to_json(self.timestamps, "{}"),
            "heard": _valid_text(self.heard),
            "is_pending": str(int(self.is_pending)),
            "is_complete": str(int(self.is_complete)),
            "latency_ms": _to_json(self.latency_ms, "{}"),
            "schema": str(SCHEMA),
        }

    def _history_json(self) -> str:
        """The history's JSON, made anew only when it changed: with every write it would be most of the work."""
        messages, text = self._written
        history = self.history
        if len(messages) != len(history) or any(
            old is not new or heard != new.get("heard") for (old, heard), new in zip(messages, history, strict=True)
        ):
            text = _to_json(trim_history(history), "[]")
            self._written = (tuple((message, message.get("heard")) for message in history), text)
        return text


def parse(fields: Mapping[str, str]) -> ConversationFields:
    """Read a stored hash. Raises `DamagedSnapshot`, whatever the fields hold."""
    for name, text in fields.items():
        if len(text) > FIELD_BYTES:
            raise DamagedSnapshot(f"{name}: longer than {FIELD_BYTES} characters")
    schema = _read(fields, "schema", _count, SCHEMA)
    if schema > SCHEMA:
        raise DamagedSnapshot(f"schema: {schema} is newer than {SCHEMA}")
    if fields.get("state") not in _STATES:
        raise DamagedSnapshot(f"state: {fields.get('state')!r:.40} is no state")
    return ConversationFields(
        state=fields["state"],
        turn_number=_read(fields, "turn_number", _count, 0),
        turn_id=_read(fields, "turn_id", _count, 0),
        text_buffer=_read(fields, "text_buffer", _texts, []),
        intent=_read(fields, "intent", _object, {}),
        rag_results=_read(fields, "rag_results", _object, {}),
        llm_response=fields.get("llm_response", ""),
        history=_read(fields, "history", _messages, []),
        last_update=_read(fields, "last_update", _seconds, 0.0),
        timestamps=_read(fields, "timestamps", _instants, {}),
        heard=fields.get("heard", ""),
        is_pending=_read(fields, "is_pending", _flag, False),
        is_complete=_read(fields, "is_complete", _flag, False),
        latency_ms=_read(fields, "latency_ms", _instants, {}),
    )


def trim_history(history: list[dict[str, Any]], limit: int = HISTORY_BYTES) -> list[dict[str, Any]]:
    """The newest messages whose JSON list takes at most `limit` bytes; of one that alone takes more, the beginning."""
    left = limit - len("[]")
    for index in range(len(history) - 1, -1, -1):
        left -= _size_of(history[index])
        if left < 0:
            return history[index + 1 :] or [_shortened(history[index], limit - len("[]"))]
        left -= len(", ")
    return history


def _shortened(message: dict[str, Any], limit: int) -> dict[str, Any]:
    """A message of `limit` bytes at most: its text gives way first, then the question, then what was heard."""
    message = dict(message)
    for name in ("text", "question", "heard"):
        over = _size_of(message) - limit
        if over > 0:  # a byte of the text is at least one of its JSON
            message[name] = str(message.get(name, "")).encode("utf-8", "replace")[:-over].decode("utf-8", "ignore")
    return message


def _size_of(message: dict[str, Any]) -> int:
    return len(_to_json(message, "{}").encode())


def _to_json(value: object, empty: str) -> str:
    """JSON as others read it (no escapes, no NaN); `empty` for what has no JSON."""
    try:
        return _valid_text(json.dumps(value, ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return empty


def _valid_text(text: str) -> str:
    """`text` with lone surrogates, which clients can send in JSON and UTF-8 cannot hold, as question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _read(fields: Mapping[str, str], name: str, convert: Callable[[str], T], empty: T) -> T:
    text = fields.get(name)
    if text is None:
        return empty
    try:
        return convert(text)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise DamagedSnapshot(f"{name}: {type(error).__name__}") from error


def _count(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**53:
        raise ValueError(text)
    return number


def _flag(text: str) -> bool:
    return {"0": False, "1": True}[text]


def _seconds(text: str) -> float:
    return _finite(float(text))


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(value)
    return float(value)


def _object(text: str) -> dict[str, Any]:
    return _be(json.loads(text, parse_constant=_no_constant), dict)


def _texts(text: str) -> list[str]:
    return [_be(item, str) for item in _be(json.loads(text), list)]


def _messages(text: str) -> list[dict[str, Any]]:
    return [_be(item, dict) for item in _be(json.loads(text, parse_constant=_no_constant), list)]


def _instants(text: str) -> dict[str, float]:
    return {name: _finite(value) for name, value in _object(text).items()}


def _be(value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(type(value).__name__)
    return value


def _no_constant(name: str) -> object:
    raise ValueError(name)
