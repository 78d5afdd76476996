"""`Recording`: what happened in one conversation, as a value that is looked at, compared and replayed.

    at        processor      direction    kind             fields
    1.20      ClientInput    downstream   InputAudioRawFrame  rate, samples, pcm
    1.31      SileroVAD      downstream   SpeechChunkFrame    confidence, speech_ms
    2.04      wire           to_user      response_ready      turn, text, thinking_ms

One event per frame, where it was made; hops are not kept. docs/recording.md has the file's format.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from .events import DIRECTIONS, RecordedEvent, RecordingError, StateMove, Turn, as_int
from .recorded_audio import audio_of
from .recorded_turns import turns_of
from .recording_file import read, write


@dataclass
class Recording:
    """A conversation that was recorded, at the bot (`side` "server") or at its client ("client").

    What is computed from `events` is kept: do not change them afterwards.
    """

    events: Sequence[RecordedEvent] = ()  # in the order in which they happened
    session_id: str = ""
    side: str = "server"  # who saw it
    began: float = 0.0  # unix seconds
    bot: str = ""  # the bot's script, as it was served; "" if unknown
    settings: dict[str, Any] = field(default_factory=dict)  # processor -> its settings by name
    versions: dict[str, str] = field(default_factory=dict)  # package -> version
    processors: tuple[str, ...] = ()  # the chain, first to last
    has_audio: bool = True  # PCM was kept
    has_text: bool = True  # words were kept; else every letter is an x
    lost: int = 0  # events missing, because the writer could not keep up or the recording was full
    end: str = ""  # why it ended: "over", "full", or "" for a file without an end (a crash)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        return self.end == "over" and not self.lost

    @property
    def gap(self) -> str:
        """What is missing, in words; empty if nothing is."""
        lost = f"{self.lost} event{'s are' if self.lost != 1 else ' is'} missing" if self.lost else ""
        end = (
            "" if self.end == "over" else f"its end is {self.end!r}" if self.end else "it has no end, as after a crash"
        )
        return ", and ".join(part for part in (lost, end) if part)

    @cached_property
    def length_s(self) -> float:
        """From the beginning to the end of the last event."""
        return max((event.at + event.audio_s for event in self.events), default=0.0)

    def frames(
        self, kind: type | str | None = None, *, processor: str | None = None, direction: str | None = None
    ) -> list[RecordedEvent]:
        """The events of a kind (a frame's class, its name, or a message's type), by whom and which way."""
        name = kind.__name__ if isinstance(kind, type) else kind
        if direction is not None and direction not in DIRECTIONS:
            raise RecordingError(f"direction is {direction!r}; it is one of {', '.join(DIRECTIONS)}")
        return [
            event
            for event in self.events
            if (name is None or event.kind == name)
            and (processor is None or event.processor == processor)
            and (direction is None or event.direction == direction)
        ]

    @cached_property
    def moves(self) -> list[StateMove]:
        """Every move of the state, in order."""
        return list(_moves(self.events))

    @property
    def states(self) -> list[str]:
        """Every state, in order, beginning with the first one left."""
        return [*(move.previous for move in self.moves[:1]), *(move.state for move in self.moves)] or ["idle"]

    @cached_property
    def turns(self) -> list[Turn]:
        """Every turn, in order."""
        return turns_of(self.events, self.moves)

    @property
    def latencies(self) -> dict[int, dict[str, float]]:
        """Turn id -> its latencies: label -> ms."""
        return {turn.turn_id: turn.latency_ms for turn in self.turns}

    def audio(self, direction: str, *, rate: int = 16_000) -> bytes:
        """What the user said ("to_bot") or heard ("to_user"), PCM16 mono at `rate`, from the beginning on.

        Silent where nothing was kept.
        """
        return audio_of(self, direction, rate=rate)

    def timeline(self, *, width: int = 100, plain: bool = False) -> str:
        """The conversation drawn to scale, as text; `plain`: in ASCII."""
        # By name: drawing stands on recordings, so no import here may lead back up to it.
        drawing = import_module("leibniz_voice.lab.drawing.timeline")
        return drawing.timeline(self, width=width, plain=plain)

    def save(self, path: str | Path) -> None:
        """Write it to a file, in the format of docs/recording.md."""
        write(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Read a file. Raises `RecordingError` if it is none, damaged, too large, or of a newer format."""
        return cls(**read(path))


def _moves(events: Sequence[RecordedEvent]) -> Iterator[StateMove]:
    """From the tracker's frames; at a client, from the server's messages."""
    frames = [e for e in events if e.kind == "StateChangedFrame" and e.direction == "downstream"]
    if frames:
        for event in frames:
            fields = event.fields
            if fields.get("previous") != fields.get("state"):
                names = (str(fields.get(name, "")) for name in ("previous", "state", "trigger"))
                yield StateMove(event.at, *names, turn_id=as_int(fields.get("turn_id")))
        return
    state = "idle"
    for event in events:
        if event.kind == "state_update" and event.fields.get("trigger") != "stt_fragment":
            previous, state = state, str(event.fields.get("state", ""))
            if previous != state:
                yield StateMove(event.at, previous, state, str(event.fields.get("trigger", "")), _turn_of(event))


def _turn_of(event: RecordedEvent) -> int:
    return as_int(event.fields.get("turn"))
