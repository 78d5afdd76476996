"""Whether the user means to interrupt: a pure policy, apart from the gate that acts on it.

speech            pause at once; it is confirmed by `confirm_ms` of it, by words, or by a committed turn
fell silent       resume, unless confirmed before
quiet speech      somebody else's, or the bot's own voice come back: pauses for `quiet_ms` at most, confirms nothing
backchannel       words that confirm nothing

The pause is all that the user needs to hear at once, so a longer `confirm_ms` costs a pause that was for nothing, never
silence: with a recogniser that tells words early, let it be long. docs/results/selectivity.txt has the trade-off.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .backchannel import BACKCHANNELS, is_backchannel
from .errors import ConfigurationError
from .loudness import QUIET_DB


class Decision(Enum):
    """What the gate is to do."""

    NOTHING = "nothing"
    PAUSE = "pause"
    RESUME = "resume"
    INTERRUPT = "interrupt"


@dataclass(frozen=True, kw_only=True)
class BargeInPolicy:
    """When speech over the bot is an interruption. Raises `ConfigurationError` for values out of range."""

    confidence: float = 0.7  # speech counts above this VAD confidence, 0 to 1
    pause_confidence: float = 0.35  # the bot pauses above this one already, as many words begin with a hiss
    confirm_ms: float = 250.0  # so much confident speech is an interruption, whatever the words
    quiet_db: float = QUIET_DB  # speech so far below the user's usual level is not the user's
    quiet_ms: float = 250.0  # so long may such speech hold the bot: a first word begins softly
    faint_db: float = 25.0  # speech so far below does not even pause it
    backchannels: frozenset[str] = BACKCHANNELS  # words that never confirm

    def __post_init__(self) -> None:
        if not 0 <= self.confidence < 1:
            raise ConfigurationError(f"confidence is {self.confidence}; it is a probability below 1, such as 0.7")
        if not 0 <= self.pause_confidence < 1:
            raise ConfigurationError(f"pause_confidence is {self.pause_confidence}; it is a probability below 1")
        if self.confirm_ms < 0 or self.quiet_ms < 0:
            raise ConfigurationError(
                f"confirm_ms is {self.confirm_ms}, quiet_ms {self.quiet_ms}; give 0 or more milliseconds"
            )
        if not 0 < self.quiet_db <= self.faint_db:
            raise ConfigurationError(f"need 0 < quiet_db <= faint_db, got {self.quiet_db} and {self.faint_db}")

    def on_speech(self, confidence: float, speech_ms: float, is_paused: bool, level_db: float = 0.0) -> Decision:
        """Decide on one chunk of the speech detector; `speech_ms` 0 means that it fell silent.

        `level_db` is how far this speech so far is above the user's usual level.
        """
        if speech_ms <= 0:
            return Decision.RESUME if is_paused else Decision.NOTHING
        is_quiet = level_db < -self.quiet_db
        if is_quiet and speech_ms >= self.quiet_ms:
            return Decision.RESUME if is_paused else Decision.NOTHING
        if not is_quiet and confidence > self.confidence and speech_ms >= self.confirm_ms:
            return Decision.INTERRUPT
        if is_paused or level_db < -self.faint_db or confidence <= min(self.confidence, self.pause_confidence):
            return Decision.NOTHING
        return Decision.PAUSE

    def on_words(self, text: str) -> Decision:
        """Decide on what was recognised so far of speech over the bot."""
        if not text.strip() or is_backchannel(text, self.backchannels):
            return Decision.NOTHING
        return Decision.INTERRUPT

    def on_client_says(self, confidence: float) -> Decision:
        """Decide on a client's own `user_speaking`: above the threshold it is confirmed."""
        return Decision.INTERRUPT if confidence > self.confidence else Decision.NOTHING
