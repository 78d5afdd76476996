"""What recordings are made of: an event as it happened, and the moves and turns that are read from events."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...pipeline.conversation.waterfall import Waterfall
from ...pipeline.errors import LeibnizError

FORMAT = 1  # of the file; a reader refuses a newer one
DIRECTIONS = ("downstream", "upstream", "to_bot", "to_user")  # of a frame; of what crosses the wire
WIRE = "wire"  # the processor of what crosses the wire, seen at the bot
CLIENT = "client"  # the same, seen at the client
MAX_SAMPLES = 1 << 20  # of one event


class RecordingError(LeibnizError, ValueError):
    """A recording cannot be read, or does not hold what is asked of it; the message says why."""


class RecordedEvent(NamedTuple):
    """One thing that happened."""

    at: float  # seconds since the conversation began, of its loop or of its audio
    processor: str  # who made it: a class name such as "SileroVAD", with "#2" for the second of a kind; or the wire
    direction: str  # one of DIRECTIONS
    kind: str  # the frame's class, or the message's `type`; "audio" for PCM on the wire
    fields: dict[str, Any]  # JSON values; PCM stands in `pcm`, base64 of int16 little-endian mono

    def pcm(self) -> bytes:
        """The event's audio; silence of its length if none was kept, nothing if it is no audio."""
        text, samples = self.fields.get("pcm"), self.fields.get("samples", 0)
        if not isinstance(text, str):
            return bytes(2 * samples) if isinstance(samples, int) and 0 <= samples <= MAX_SAMPLES else b""
        try:
            pcm = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise RecordingError(f"the audio at {self.at:.3f} s is damaged: {error}") from None
        return pcm[: len(pcm) & ~1]

    @property
    def audio_s(self) -> float:
        """How long the event's audio lasts; 0 for none."""
        samples, rate = self.fields.get("samples", 0), self.fields.get("rate", 0)
        is_audio = isinstance(samples, int) and isinstance(rate, int) and rate > 0 and samples >= 0
        return samples / rate if is_audio else 0.0


class StateMove(NamedTuple):
    """One move of the conversation's state."""

    at: float
    previous: str
    state: str
    trigger: str
    turn_id: int


@dataclass(slots=True)
class Turn:
    """One turn: what the user said, what the bot answered, and when what happened. A greeting has no `user`."""

    turn_id: int
    user: str = ""  # the user's words
    reply: str = ""  # what was generated
    heard: str = ""  # what was played of it
    interrupted: bool = False  # the user cut it
    complete: bool = False  # it was played to its end
    instants: dict[str, float] = field(default_factory=dict)  # name (see waterfall.py) -> s, as `RecordedEvent.at`

    @property
    def latency_ms(self) -> dict[str, float]:
        """Label -> ms, for every pair of instants that happened; the labels of `pipeline/conversation/waterfall.py`."""
        waterfall = Waterfall()
        for name, at in self.instants.items():
            waterfall.mark(name, at)
        return waterfall.breakdown()


def as_int(value: Any) -> int:
    """The value if it is a whole number, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
