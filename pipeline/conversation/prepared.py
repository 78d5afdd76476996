"""`Prepared`: a reply that is held at the gate until its turn is committed with the words that it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..frames import SpeculativeContextFrame

HOLD_AUDIO_S = 10.0  # no more audio of it is held, 320 KB at 16 kHz; as much as the embedded voice makes ahead


@dataclass
class Prepared:
    """A reply that nobody may hear yet."""

    frame: SpeculativeContextFrame  # what it answers
    key: str  # the words that it is for, see `key_of`
    begun_at: float  # loop time
    give_up: Callable[[str], None]  # says why it cannot be held; the owner drops it
    voiced_at: float | None = None  # loop time of its first audio at the gate; None before
    audio_s: float = 0.0  # so much of it is held

    @property
    def turn_id(self) -> int:
        """The id that the commit of the same words gets."""
        return self.frame.turn_id

    def held(self, audio_s: float, now: float) -> None:
        """Some of its audio is kept back at the gate."""
        self.voiced_at = now if self.voiced_at is None else self.voiced_at
        self.audio_s += audio_s
        if self.audio_s > HOLD_AUDIO_S:
            self.give_up(f"more than {HOLD_AUDIO_S:g} s of audio")

    def saved_s(self, committed_at: float) -> float:
        """How much later its first audio would have come, had it been begun at the commit."""
        return min(committed_at, self.voiced_at if self.voiced_at is not None else committed_at) - self.begun_at
