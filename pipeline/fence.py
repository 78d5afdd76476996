"""Which audio may pass after a cut: pure.

Audio belongs to the turn it is labelled with, else to the last `ReplyStartedFrame`. It passes if that turn is newer
than every turn that was cut. The fence moves in the very step that decides the cut, before anybody is told of it.
"""

from __future__ import annotations


class Fence:
    """One conversation's fence; starts open."""

    def __init__(self) -> None:
        self.stale_upto = 0  # turns up to this one are cut
        self.marker = 0  # turn of the last reply that was opened here; 0: none yet
        self.stale_frames = 0  # audio and text frames dropped

    def open(self, turn_id: int) -> None:
        """A reply starts here."""
        self.marker = max(self.marker, turn_id)

    def cut(self, turn_id: int) -> None:
        """Nothing of `turn_id` and older turns passes from now on."""
        self.stale_upto = max(self.stale_upto, turn_id)

    def passes(self, turn_id: int | None) -> bool:
        """Whether a frame of `turn_id` (None: of the last marker) may pass; counts it if not."""
        turn = self.marker if turn_id is None else turn_id
        if turn > self.stale_upto or (turn == 0 and self.stale_upto == 0):
            return True
        self.stale_frames += 1
        return False
