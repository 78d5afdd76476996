"""Whether the user means to interrupt: a pure policy, apart from the gate that acts on it.

confident speech  pause at once; it is confirmed by `confirm_ms` of it, by words, or by a committed turn
fell silent       resume, unless confirmed before
backchannel       words that confirm nothing
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .backchannel import BACKCHANNELS, is_backchannel
from .errors import ConfigurationError


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
    confirm_ms: float = 250.0  # so much confident speech is an interruption, whatever the words
    backchannels: frozenset[str] = BACKCHANNELS  # words that never confirm

    def __post_init__(self) -> None:
        if not 0 <= self.confidence < 1:
            raise ConfigurationError(f"confidence is {self.confidence}; it is a probability below 1, such as 0.7")
        if self.confirm_ms < 0:
            raise ConfigurationError(f"confirm_ms is {self.confirm_ms}; give 0 or more milliseconds")

    def on_speech(self, confidence: float, speech_ms: float, is_paused: bool) -> Decision:
        """Decide on one chunk of the speech detector; `speech_ms` 0 means that it fell silent."""
        if speech_ms <= 0:
            return Decision.RESUME if is_paused else Decision.NOTHING
        if confidence <= self.confidence:
            return Decision.NOTHING
        if speech_ms >= self.confirm_ms:
            return Decision.INTERRUPT
        return Decision.NOTHING if is_paused else Decision.PAUSE

    def on_words(self, text: str) -> Decision:
        """Decide on what was recognised so far of speech over the bot."""
        if not text.strip() or is_backchannel(text, self.backchannels):
            return Decision.NOTHING
        return Decision.INTERRUPT

    def on_client_says(self, confidence: float) -> Decision:
        """Decide on a client's own `user_speaking`: above the threshold it is confirmed."""
        return Decision.INTERRUPT if confidence > self.confidence else Decision.NOTHING
