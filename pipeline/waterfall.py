"""The latencies of one turn, from named instants: pure.

voice  listening         user_silent  transcript  committed   joined   audible            played
  |------|---- ... ----------|------------|----------|----------|--------|------ ... ------|
  STT Wait    End-of-Turn (listening -> thinking)    |  LLM Wait (-> speaking) | TTS Complete
"""

from __future__ import annotations

# In the order in which they happen; an instant that would go back in time is not taken.
INSTANTS = ("voice", "listening", "user_silent", "transcript", "committed", "joined", "audible", "played")

LABELS = {  # label -> (from, to)
    "STT Wait": ("voice", "listening"),
    "End-of-Turn": ("listening", "committed"),
    "Transcript": ("user_silent", "transcript"),
    "Join": ("committed", "joined"),
    "Voice": ("joined", "audible"),
    "LLM Wait": ("committed", "audible"),
    "Response": ("user_silent", "audible"),
    "TTS Complete": ("audible", "played"),
}


class Waterfall:
    """Instants of the turn going on, in loop seconds."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}  # instant -> when

    def mark(self, instant: str, now: float, *, again: bool = False) -> None:
        """Note an instant; the first mark stays unless `again`. Raises KeyError for an unknown name."""
        if instant not in INSTANTS:
            raise KeyError(instant)
        if again or instant not in self._at:
            self._at[instant] = now

    def restart(self) -> None:
        """Forget the last turn."""
        self._at.clear()

    def breakdown(self) -> dict[str, float]:
        """Return label -> ms for every pair whose instants both happened, in order; never negative."""
        pairs = {label: (self._at.get(a), self._at.get(b)) for label, (a, b) in LABELS.items()}
        return {
            label: round((end - start) * 1000, 1)
            for label, (start, end) in pairs.items()
            if start is not None and end is not None and end >= start
        }
