"""What is known of the speech that goes on over the bot, and what the policy makes of it: pure.

    speech      ___/~~~~~~~~~~~~\\______________________
    here           pause         await   resume            it was "mhm", says the recogniser: on it goes
                   pause         resume                    a blip, that no recogniser listens to
                   pause     interrupt                     enough of it, or words

All it remembers is whether the bot is held, and how many words a recogniser still owes.
"""

from __future__ import annotations

from ..states import State
from .policy import BargeInPolicy, Decision

MAX_OWED = 2  # starts of speech that await their words: the newest, and one before. What nobody tells is forgotten so


class Overlap:
    """One conversation's. Every `on_x` returns what to do; `is_holding` is true from a PAUSE to what ends it."""

    def __init__(self, policy: BargeInPolicy) -> None:
        self.policy = policy  # what counts as an interruption
        self.has_recogniser = False  # somebody upstream tells words
        self.state = State.IDLE  # the conversation's
        self.is_holding = False  # the playback is held because of speech not yet confirmed
        self.is_protected = False  # speech sounds that nobody interrupts
        self.is_waiting = False  # the speech is over, and its words are awaited
        self._owed = 0  # starts of speech that were told, without final words or a refusal since; up to MAX_OWED

    def on_start(self) -> None:
        """The detector tells a start of speech: a recogniser listens from now on."""
        self._owed = min(self._owed + 1, MAX_OWED)

    def on_speech(self, confidence: float, speech_ms: float, level_db: float) -> Decision:
        """One chunk."""
        if speech_ms > 0:
            self.is_waiting = False
        decision = self._policy.on_speech(
            confidence,
            speech_ms,
            self.is_holding,
            level_db,
            has_words=self.has_recogniser,
            is_awaited=self.has_recogniser and self._owed > 0,
            is_protected=self.is_protected,
        )
        self.is_waiting |= decision is Decision.AWAIT
        return self._noted(decision)

    def on_words(self, text: str, is_final: bool) -> Decision:
        """The words of the buffer."""
        decision = self._policy.on_words(text, is_protected=self.is_protected)
        if decision is Decision.NOTHING and is_final:
            return self.on_verdict()
        return self._noted(decision)

    def on_client_says(self, confidence: float) -> Decision:
        """The client's own word."""
        return self._noted(self._policy.on_client_says(confidence, is_protected=self.is_protected))

    def on_verdict(self) -> Decision:
        """The recogniser has spoken of the oldest speech that it owes words for, and it was nothing."""
        self._owed = max(0, self._owed - 1)
        is_over = self.is_waiting and self.is_holding and not self._owed
        return self._noted(Decision.RESUME if is_over else Decision.NOTHING)

    def on_settled(self) -> None:
        """A turn is complete: no words are owed of anything that was said until now."""
        self._owed = 0

    def on_time(self) -> Decision:
        """Words were awaited for long enough; or nobody hears the user any more, who was speaking."""
        self._owed = 0
        return self._noted(Decision.RESUME if self.is_holding else Decision.NOTHING)

    def forget(self) -> None:
        """The reply is over or cut: nothing is held any more."""
        self.is_holding = self.is_waiting = False

    @property
    def _policy(self) -> BargeInPolicy:
        return self.policy.while_in(self.state)

    def _noted(self, decision: Decision) -> Decision:
        if decision is Decision.PAUSE and self.state is not State.SPEAKING:
            return Decision.NOTHING  # there is nothing to hold
        if decision in (Decision.RESUME, Decision.INTERRUPT):
            self.is_waiting = False
        self.is_holding = (self.is_holding or decision is Decision.PAUSE) and decision is not Decision.RESUME
        return decision
