"""`Standby`: when a stand-in recogniser speaks up for the one in front of it. Pure.

the first one works     started .. stopped .. words                     the stand-in keeps quiet
it does not answer      started .. stopped .. (patience_s) .. stand-in   and the first one's late words are dropped
it is known to be down  started .. stopped .. stand-in                   at once

Final words carry no number: they are those of the oldest utterance that has none yet, as recognisers keep the order.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ConfigurationError


class Standby:
    """Counts utterances and whose words they got. `is_down` says whether the first recogniser is known to be useless.

    Raises `ConfigurationError` for a patience that is not above 0.
    """

    def __init__(self, *, is_down: Callable[[], bool], patience_s: float = 1.5) -> None:
        if not patience_s > 0:
            raise ConfigurationError(f"patience_s is {patience_s}; give it a time above 0 seconds")
        self.utterance = 0  # the newest one
        self._is_down = is_down
        self._patience_s = patience_s  # from the end of an utterance to its words
        self._unanswered: list[int] = []  # utterances without final words, the oldest first; patience bounds them
        self._owed: list[int] = []  # of these the first one may still give its own words, too late
        self._taken = 0  # the newest utterance that the stand-in answers for
        self._told = 0  # the same, unless it had no words for it

    @property
    def wait_s(self) -> float:
        """How long the first one may take from now; 0 if there is nothing to be waited for."""
        return 0.0 if self._is_down() else self._patience_s

    def on_started(self) -> None:
        """An utterance begins."""
        self.utterance += 1
        self._unanswered.append(self.utterance)

    def on_ended(self) -> None:
        """The newest utterance is over: words from now on are its own. Older ones that never came are given up, or the
        first one would be an utterance late for ever."""
        self._owed.clear()

    def on_words(self, *, is_final: bool) -> bool:
        """The first one gives words; whether they count, or come too late."""
        if self._told and self._told == self.utterance:
            if is_final and self._owed:
                self._owed.pop(0)
            return False
        if not is_final:
            return True
        if self._owed:
            self._owed.pop(0)
            return False
        if self._unanswered:
            self._unanswered.pop(0)
        return True

    def takes(self, utterance: int) -> bool:
        """Whether the stand-in answers for this utterance, or a part of it; asked when the wait is over."""
        if utterance in self._unanswered:
            self._unanswered.remove(utterance)
            self._taken = self._told = utterance
            if not self._is_down():
                self._owed.append(utterance)
        return utterance == self._taken

    def on_not_understood(self, utterance: int) -> None:
        """The stand-in had no words for an utterance that it took: then late words are better than none."""
        if utterance in self._owed:
            self._owed.remove(utterance)
        if utterance == self._told:
            self._told = 0
