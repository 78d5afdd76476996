"""Whether the user means to interrupt: a pure policy, apart from the gate that acts on it.

speech            pause at once; it is confirmed by so much of it, by words, or by a committed turn
fell silent       resume, unless confirmed before; where a recogniser listened, only when it has said what that was
quiet speech      somebody else's, or the bot's own voice come back: pauses for `quiet_ms` at most, confirms nothing
backchannel       words that confirm nothing
protected         speech that nobody interrupts: no pause, no cut; the words wait (`pipeline.interruption.protection`)

How much speech confirms depends on whether anybody tells words: no duration tells "okay" from "stop". After the pause
the user hears nothing more of the bot, so patience costs no silence. docs/results/selectivity.txt has the trade-off.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

from ..errors import ConfigurationError
from ..listening.backchannel import BACKCHANNELS, is_backchannel, words_of
from ..listening.loudness import QUIET_DB
from ..states import State


class Decision(Enum):
    """What the gate is to do."""

    NOTHING = "nothing"
    PAUSE = "pause"
    AWAIT = "await"  # stay paused until the recogniser has spoken, for `verdict_ms` at most; then resume
    RESUME = "resume"
    INTERRUPT = "interrupt"


class Stance(StrEnum):
    """Whether the bot lets itself be interrupted."""

    NEVER = "never"  # it finishes; what is said meanwhile is the next turn
    DECIDE = "decide"
    ALWAYS = "always"  # the first confident chunk, and any word, interrupts


@dataclass(frozen=True, kw_only=True)
class BargeInPolicy:
    """When speech over the bot is an interruption. Raises `ConfigurationError` for values out of range."""

    stance: Stance = Stance.DECIDE  # NEVER and ALWAYS need no further setting
    confidence: float = 0.7  # speech counts above this VAD confidence, 0 to 1
    pause_confidence: float = 0.2  # the bot pauses above this one already, as many words begin with a hiss
    confirm_ms: float = 250.0  # so much confident speech is an interruption, where nobody tells words
    patient_ms: float = 1200.0  # the same where a recogniser stands in the chain, whose words decide sooner
    verdict_ms: float = 500.0  # so long after the speech are its words awaited, before the bot goes on
    min_words: int = 1  # so many words that are no backchannel interrupt before the turn is complete
    quiet_db: float = QUIET_DB  # speech so far below the user's usual level is not the user's
    quiet_ms: float = 250.0  # so long may such speech hold the bot: a first word begins softly
    faint_db: float = 25.0  # speech so far below does not even pause it
    backchannels: frozenset[str] = BACKCHANNELS  # words that never confirm
    thinking: BargeInPolicy | None = None  # holds while the bot thinks; None: this one does

    def __post_init__(self) -> None:
        if not 0 <= self.confidence < 1:
            raise ConfigurationError(f"confidence is {self.confidence}; it is a probability below 1, such as 0.7")
        if not 0 <= self.pause_confidence < 1:
            raise ConfigurationError(f"pause_confidence is {self.pause_confidence}; it is a probability below 1")
        for name in ("confirm_ms", "patient_ms", "verdict_ms", "quiet_ms"):
            if (value := getattr(self, name)) < 0:
                raise ConfigurationError(f"{name} is {value}; give 0 or more milliseconds")
        if self.min_words < 1:
            raise ConfigurationError(f"min_words is {self.min_words}; give 1 or more")
        if not 0 < self.quiet_db <= self.faint_db:
            raise ConfigurationError(f"need 0 < quiet_db <= faint_db, got {self.quiet_db} and {self.faint_db}")
        if self.thinking is not None and self.thinking.thinking is not None:
            raise ConfigurationError("the policy for `thinking` has a `thinking` of its own; leave that out")

    def while_in(self, state: State) -> BargeInPolicy:
        """Return the policy that holds in a state."""
        return self.thinking if state is State.THINKING and self.thinking is not None else self

    def on_speech(
        self,
        confidence: float,
        speech_ms: float,
        is_paused: bool,
        level_db: float = 0.0,
        *,
        has_words: bool = False,
        is_awaited: bool = False,
        is_protected: bool = False,
    ) -> Decision:
        """Decide on one chunk of the speech detector; `speech_ms` 0 means that it fell silent.

        `level_db` is how far this speech so far is above the user's usual level. `has_words`: a recogniser listens.
        `is_awaited`: it has not yet said what this was.
        """
        if is_protected or self.stance is Stance.NEVER:
            return Decision.RESUME if is_paused else Decision.NOTHING
        if speech_ms <= 0:
            return (Decision.AWAIT if is_awaited else Decision.RESUME) if is_paused else Decision.NOTHING
        is_quiet = level_db < -self.quiet_db
        if is_quiet and speech_ms >= self.quiet_ms:
            return Decision.RESUME if is_paused else Decision.NOTHING
        if not is_quiet and confidence > self.confidence and speech_ms >= self._enough_ms(has_words):
            return Decision.INTERRUPT
        if is_paused or level_db < -self.faint_db or confidence <= min(self.confidence, self.pause_confidence):
            return Decision.NOTHING
        return Decision.PAUSE

    def _enough_ms(self, has_words: bool) -> float:
        if self.stance is Stance.ALWAYS:
            return 0.0
        return self.patient_ms if has_words else self.confirm_ms

    def on_words(self, text: str, *, is_protected: bool = False) -> Decision:
        """Decide on what was recognised so far of speech over the bot."""
        if not text.strip() or is_protected or self.stance is Stance.NEVER:
            return Decision.NOTHING
        if self.stance is Stance.ALWAYS:
            return Decision.INTERRUPT
        if is_backchannel(text, self.backchannels) or len(words_of(text)) < self.min_words:
            return Decision.NOTHING
        return Decision.INTERRUPT

    def on_client_says(self, confidence: float, *, is_protected: bool = False) -> Decision:
        """Decide on a client's own `user_speaking`: above the threshold it is confirmed."""
        if is_protected or self.stance is Stance.NEVER:
            return Decision.NOTHING
        return Decision.INTERRUPT if confidence > self.confidence else Decision.NOTHING
