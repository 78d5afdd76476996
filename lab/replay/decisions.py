"""What two recordings of one conversation decided differently: pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..recording.events import RecordedEvent
from ..recording.recording import Recording

__all__ = ["Difference", "decisions_of", "differences", "drift_s"]

DECISIONS = {  # kind of event -> the fields that are decided
    "VADUserStartedSpeakingFrame": (),
    "VADUserStoppedSpeakingFrame": (),
    "UtteranceStartedFrame": (),
    "UtteranceDiscardedFrame": ("reason",),
    "TextBufferFrame": ("fragments", "is_final"),
    "UserTurnFrame": ("turn_id", "text", "joined"),
    "StateChangedFrame": ("previous", "state", "trigger", "turn_id", "text_buffer"),
    "ReplyStartedFrame": ("turn_id",),
    "ReplyTextFrame": ("turn_id", "text"),
    "ReplyAudibleFrame": ("turn_id",),
    "PlaybackPauseFrame": ("turn_id",),
    "PlaybackResumeFrame": ("turn_id",),
    "BargeInFrame": ("turn_id",),
    "ReplyInterruptedFrame": ("turn_id",),
    "ReplyPlayedFrame": ("turn_id", "complete"),
}
TOLERANCE_S = 0.3  # a decision that comes so much earlier or later is another one; a starved machine stalls for 0.2 s
HEARD_WORDS = 1  # what was heard of a reply may differ by so many words: a cut falls on a word's edge


@dataclass(frozen=True)
class Difference:
    """The first thing that was decided differently."""

    at: float  # seconds since the beginning
    kind: str
    before: RecordedEvent | None  # None: there was no such decision
    after: RecordedEvent | None

    def __str__(self) -> str:
        was, now = (_told(event, self.kind) for event in (self.before, self.after))
        return f"at {self.at:.2f} s, {self.kind}: recorded {was}, replayed {now}"


def differences(before: Recording, after: Recording, *, tolerance_s: float = TOLERANCE_S) -> list[Difference]:
    """Return, for each kind of decision that differs, the first difference; earliest first. Empty: none."""
    found = [each for kind in DECISIONS if (each := _first(kind, before, after, tolerance_s)) is not None]
    return sorted(found, key=lambda difference: difference.at)


def decisions_of(recording: Recording, kind: str | None = None) -> list[RecordedEvent]:
    """Return the decisions of a recording, each once: of what is sent both ways, what went downstream."""
    both = ("StateChangedFrame", "ReplyInterruptedFrame", "UserTurnFrame")
    return [
        event
        for event in recording.events
        if event.kind in DECISIONS
        and (kind is None or event.kind == kind)
        and not (event.kind in both and event.direction != "downstream")
    ]


def drift_s(before: Recording, after: Recording) -> float:
    """Return by how much the time of a decision differs at most, where the decisions are the same."""
    pairs = (zip(decisions_of(before, kind), decisions_of(after, kind), strict=False) for kind in DECISIONS)
    return max((abs(a.at - b.at) for each in pairs for a, b in each), default=0.0)


def _first(kind: str, before: Recording, after: Recording, tolerance_s: float) -> Difference | None:
    for a, b in _pairs(decisions_of(before, kind), decisions_of(after, kind)):
        if a is None or b is None:
            return Difference((a or b).at, kind, a, b)  # type: ignore[union-attr] # one of them is there
        if _decided(a) != _decided(b) or abs(a.at - b.at) > tolerance_s or not _is_heard_alike(a, b):
            return Difference(min(a.at, b.at), kind, a, b)
    return None


def _pairs(
    before: list[RecordedEvent], after: list[RecordedEvent]
) -> Iterator[tuple[RecordedEvent | None, RecordedEvent | None]]:
    for at in range(max(len(before), len(after))):
        yield (before[at] if at < len(before) else None, after[at] if at < len(after) else None)


def _decided(event: RecordedEvent) -> tuple[Any, ...]:
    return tuple(_lists(event.fields.get(name)) for name in DECISIONS[event.kind])


def _is_heard_alike(a: RecordedEvent, b: RecordedEvent) -> bool:
    """Whether both say that the same was heard, within a word."""
    words = sorted((str(event.fields.get("heard", "")).split() for event in (a, b)), key=len)
    return words[0] == words[1][: len(words[0])] and len(words[1]) - len(words[0]) <= HEARD_WORDS


def _lists(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _told(event: RecordedEvent | None, kind: str) -> str:
    if event is None:
        return "nothing"
    names = (*DECISIONS[kind], *(("heard",) if "heard" in event.fields else ()))
    fields = ", ".join(f"{name} {event.fields.get(name)!r}" for name in names)
    return f"{fields} at {event.at:.2f} s" if fields else f"at {event.at:.2f} s"
