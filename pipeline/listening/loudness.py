"""How loud somebody speaks against how loud the user usually does: tells the user from a voice further away. Pure.

    bot silent     ~~ -18 ~~    learned: the user's loudest chunk is -18 dBFS, usually
    bot speaking   ~~ -20 ~~    -2 dB: the user
    bot speaking   ~~ -30 ~~    -12 dB: somebody else in the room
    bot speaking   ~~ -38 ~~    -20 dB: the bot's own voice, come back

The loudest chunk of a stretch counts, not its mean: a word begins softly, and the first loud vowel settles it.
"""

from __future__ import annotations

ASSUMED_DBFS = -24.0  # loudest chunk of a user not heard yet: speech of -30 dBFS, a quiet microphone
QUIET_DB = 5.5  # below usual: of 208 interruptions the softest had -2.5 dB, of 24 voices 12 dB quieter the loudest -6.4
LEARNED_MS = 200.0  # a shorter stretch teaches nothing: it may be a knock
PACE = 0.3  # of the way to what was heard last


class Loudness:
    """One user's usual level, and that of the stretch of speech going on. Levels are RMS of a chunk in dBFS."""

    def __init__(self, *, assumed_dbfs: float = ASSUMED_DBFS) -> None:
        self.usual_dbfs = assumed_dbfs  # loudest chunk of a stretch, usually
        self._is_known = False  # the user has been heard
        self._peak = float("-inf")  # loudest chunk of the stretch going on

    def feed(self, level_dbfs: float) -> float:
        """Return how far the stretch, this chunk included, is above the usual level, in dB; below is negative."""
        self._peak = max(self._peak, level_dbfs)
        return self._peak - self.usual_dbfs

    def end(self, voiced_ms: float, *, is_user: bool) -> None:
        """The stretch is over, `voiced_ms` long. `is_user`: nobody else can have been heard, so learn from it."""
        if is_user and voiced_ms >= LEARNED_MS:
            pace = PACE if self._is_known else 1.0
            self.usual_dbfs += pace * (self._peak - self.usual_dbfs)
            self._is_known = True
        self._peak = float("-inf")
