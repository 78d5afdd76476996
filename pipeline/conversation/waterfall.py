"""The latencies of one turn, from named instants: pure.

voice  listening     user_silent  vad_end  transcript  committed  intent retrieval joined  first_text  first_audio
  |-------|---- ... ------|----------|---------|-----------|---------|------|--------|---------|-----------|
  STT Wait  End-of-Turn (listening -> committed)           |              LLM Wait (-> first_audio)

first_audio  sent  heard                 played
    |---------|------|---- ... ------------|
    TTS Complete (first_audio -> played)
"""

from __future__ import annotations

# In the order in which they happen, save that a transcript may be final, and a branch have answered a guess, earlier.
INSTANTS = (
    "voice",  # the user's first voiced sample
    "listening",  # the floor was the user's
    "user_silent",  # the user's last sample
    "vad_end",  # the speech detector said so
    "transcript",  # the last final transcript
    "committed",  # the turn was complete
    "intent",  # the branch had answered
    "retrieval",  # the branch had answered
    "joined",  # all branches had, or the deadline had passed
    "first_text",  # the first words of the reply existed: an LLM's first token, or a direct answer
    "last_text",  # the last words of the reply existed; a streamed one is audible before
    "first_audio",  # the voice's first audio passed the gate
    "sent",  # the output sent it
    "heard",  # the client played it
    "played",  # the client had played the last of it
)

LABELS = {  # label -> (from, to)
    "STT Wait": ("voice", "listening"),
    "End-of-Turn": ("listening", "committed"),
    "LLM Wait": ("committed", "first_audio"),
    "TTS Complete": ("first_audio", "played"),
    "VAD": ("user_silent", "vad_end"),
    "Transcript": ("user_silent", "transcript"),
    "Intent": ("committed", "intent"),
    "Retrieval": ("committed", "retrieval"),
    "Join": ("committed", "joined"),
    "First Token": ("joined", "first_text"),
    "Voice": ("first_text", "first_audio"),
    "Send": ("first_audio", "sent"),
    "Play": ("sent", "heard"),
    "Response": ("user_silent", "heard"),
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

    def at(self, instant: str) -> float | None:
        """When an instant was; None if it was not yet."""
        return self._at.get(instant)

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

    def instants_ms(self) -> dict[str, float]:
        """Return instant -> ms since the turn was committed, in order of time; before it: negative.

        A reply to nobody, a greeting, counts from its first audio; a turn without either from its first instant.
        """
        found = sorted(self._at.items(), key=lambda item: item[1])
        zero = self._at.get("committed", self._at.get("first_audio", found[0][1] if found else 0.0))
        return {name: round((when - zero) * 1000, 1) for name, when in found}

    def out_of_order(self) -> tuple[str, ...]:
        """Name the labels whose second instant came before the first; their latency is left out."""
        return tuple(
            label for label, (a, b) in LABELS.items() if a in self._at and b in self._at and self._at[b] < self._at[a]
        )
