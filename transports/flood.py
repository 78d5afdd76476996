"""How much one client may send: audio at about real time, a handful of control messages a second. Pure.

Two leaky buckets. A message that does not fit is refused and costs nothing, so a client that slows down is heard
again at once. The clock is the caller's.
"""

from __future__ import annotations

from ..pipeline.errors import ProtocolError

AUDIO_BURST_S = 5.0  # a phone that was in a tunnel sends what it recorded there
AUDIO_RATE = 1.25  # seconds of audio per second: real time, plus sound cards whose clock is fast, plus catching up
CONTROL_BURST = 60.0
CONTROL_PER_S = 30.0  # an eager recogniser sends ten fragments a second, acks and pings come on top
REPORTS_BURST = 20.0  # a client under development makes several mistakes at once, and wants to hear of each
REPORTS_PER_S = 5.0  # error messages: a flood must not be answered by a flood


class Bucket:
    """A leaky bucket: `level` leaks by `rate_per_s`; what would pass `capacity` is refused."""

    def __init__(self, *, capacity: float, rate_per_s: float) -> None:
        self.capacity = capacity
        self.rate_per_s = rate_per_s
        self._level = 0.0  # what is in it, as of _at
        self._at: float | None = None  # time of the last look in s; None before the first

    def takes(self, amount: float, now_s: float) -> bool:
        """Put `amount` in, if it fits. A refused amount leaves the bucket as it was."""
        if self._at is not None:
            self._level = max(0.0, self._level - max(0.0, now_s - self._at) * self.rate_per_s)
        self._at = now_s
        if self._level + amount > self.capacity:
            return False
        self._level += amount
        return True


class FloodGuard:
    """Refuses audio and control floods of one connection with `ProtocolError("too_fast")`."""

    def __init__(self, *, sample_rate: int = 16_000) -> None:
        self._bytes_per_s = 2 * sample_rate
        self._audio = Bucket(capacity=AUDIO_BURST_S, rate_per_s=AUDIO_RATE)  # in seconds of audio
        self._control = Bucket(capacity=CONTROL_BURST, rate_per_s=CONTROL_PER_S)  # in messages
        self._reports = Bucket(capacity=REPORTS_BURST, rate_per_s=REPORTS_PER_S)  # in error messages

    def on_audio(self, n_bytes: int, now_s: float) -> None:
        """Count a binary message. Raises `ProtocolError("too_fast")` when it is to be dropped."""
        if not self._audio.takes(n_bytes / self._bytes_per_s, now_s):
            raise ProtocolError("too_fast", "Audio comes faster than real time; this part was dropped.")

    def on_control(self, now_s: float) -> None:
        """Count a text message. Raises `ProtocolError("too_fast")` when it is to be dropped."""
        if not self._control.takes(1.0, now_s):
            raise ProtocolError("too_fast", "Too many messages; this one was dropped.")

    def may_report(self, now_s: float) -> bool:
        """Whether the client should be told now; 20 errors at once, then five a second, are worth sending."""
        return self._reports.takes(1.0, now_s)
