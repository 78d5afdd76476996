"""`Standby`: when a stand-in recogniser speaks up for the one in front of it. Pure.

the first one works     started .. stopped .. words                     the stand-in keeps quiet
it does not answer      started .. stopped .. (patience_s) .. stand-in   and the first one's late words are dropped
it is known to be down  started .. stopped .. stand-in                   at once
"""

from __future__ import annotations

from collections.abc import Callable

from .errors import ConfigurationError


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
        self._heard = 0  # the newest utterance of which the first one gave final words
        self._taken = 0  # the newest utterance that the stand-in answered for

    @property
    def wait_s(self) -> float:
        """How long the first one may take from now; 0 if there is nothing to be waited for."""
        return 0.0 if self._is_down() else self._patience_s

    def on_started(self) -> None:
        """An utterance begins."""
        self.utterance += 1

    def on_words(self, *, is_final: bool) -> bool:
        """The first one gives words; whether they count, or come too late."""
        if self._taken and self._taken == self.utterance:
            return False
        if is_final:
            self._heard = self.utterance
        return True

    def takes(self, utterance: int) -> bool:
        """Whether the stand-in answers for this utterance; asked when the wait is over."""
        if self._heard >= utterance:
            return False
        self._taken = max(self._taken, utterance)
        return True
