"""Which audio may pass after a cut: pure.

Audio belongs to the turn it is labelled with, else to the last reply opened here. It passes if that turn is newer than
every turn that was cut. The fence moves in the very step that decides the cut, before anybody is told of it.

Where no reply markers come (a stock bot, without our Responder), births decide instead: frame ids only grow, so what
was born after the interruption is the new reply's, and the rest is stale.

    reply 1 opened ... audio 1 audio 1 | cut 1 | audio 1 (dropped) | reply 2 opened | audio 1 (dropped) audio 2 (passes)
"""

from __future__ import annotations

from prometheus_client import Counter

from .contexts import Minted

DROPPED = Counter(
    "leibniz_stale_frames", "Frames dropped at the gate: of a reply that was cut, or of nobody's", ["kind"]
)
_STALE, _UNKNOWN = DROPPED.labels("cut"), DROPPED.labels("unknown")


class Fence:
    """One conversation's fence; starts open."""

    def __init__(self) -> None:
        self.stale_upto = 0  # turns up to this one are cut
        self.marker = 0  # turn of the newest reply opened here; 0: no marker has ever come
        self.stale_frames = 0  # frames dropped because their turn was cut
        self.unknown_frames = 0  # frames dropped because nobody knows their context id
        self._cut_born = 0  # frame id of the newest interruption; 0: none yet
        self._open_born = 0  # birth of the reply going on, where there are no markers

    def open(self, turn_id: int) -> None:
        """A reply starts here."""
        self.marker = max(self.marker, turn_id)

    def open_unmarked(self, born: int) -> None:
        """A reply without a marker starts here, with a frame that was born then."""
        self._open_born = max(self._open_born, born)

    def cut(self, turn_id: int, born: int = 0) -> None:
        """Nothing of `turn_id` and older turns, nor anything unmarked born before `born`, passes from now on."""
        self.stale_upto = max(self.stale_upto, turn_id)
        self._cut_born = max(self._cut_born, born)

    def passes(self, turn_id: int) -> bool:
        """Whether something of this turn may pass; counted if not."""
        if turn_id > self.stale_upto:
            return True
        self.stale_frames += 1
        _STALE.inc()
        return False

    def passes_unlabelled(self) -> bool:
        """Whether audio without any label may pass: it goes by the last marker, else by births."""
        if self.marker:
            return self.passes(self.marker)
        return self._passes_born(self._open_born)

    def passes_context(self, minted: Minted | None) -> bool:
        """Whether audio of a TTS context may pass; None, an unknown one, only as long as nothing was ever cut."""
        if minted is None:
            if not (self.stale_upto or self._cut_born):
                return True
            self.unknown_frames += 1
            _UNKNOWN.inc()
            return False
        return self.passes(minted.turn_id) if minted.turn_id else self._passes_born(minted.birth)

    def _passes_born(self, born: int) -> bool:
        if born > self._cut_born or not self._cut_born:
            return True
        self.stale_frames += 1
        _STALE.inc()
        return False
