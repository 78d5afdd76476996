"""How much one client may send: audio at about real time, a handful of control messages a second. Pure.

Leaky buckets. What does not fit is refused and costs nothing, so a client that slows down is heard again at once.
The clock is the caller's.

 audio   fits the burst          -> goes on at once
         comes faster            -> waits (at most 1 s of it; full: the oldest is dropped), goes on as the bucket leaks
         much is dropped lately  -> Flooded: the connection is closed
 control fits                    -> is handled;  else it is dropped;  many dropped lately -> Flooded
"""

from __future__ import annotations

from collections import deque

from ...pipeline.errors import ProtocolError
from .limits import Limits

WAITING_S = 1.0  # audio that may wait for the bucket: more would only be answered late
FORGIVEN_PER_S = 0.05  # of what may be dropped before the end: all is forgiven after 20 s
REPORTS_BURST = 20.0  # a client under development makes several mistakes at once, and wants to hear of each
REPORTS_PER_S = 5.0  # error messages: a flood must not be answered by a flood


class Flooded(ProtocolError):  # noqa: N818 - it is an event report, and reads as one
    """The client does not slow down; close with 1008."""


class Bucket:
    """A leaky bucket: `level` leaks by `rate_per_s`; what would pass `capacity` is refused."""

    __slots__ = ("_at", "_level", "capacity", "rate_per_s")

    def __init__(self, *, capacity: float, rate_per_s: float) -> None:
        self.capacity = capacity
        self.rate_per_s = rate_per_s
        self._level = 0.0  # what is in it, as of _at
        self._at: float | None = None  # time of the last look in s; None before the first

    def takes(self, amount: float, now_s: float) -> bool:
        """Put `amount` in, if it fits. A refused amount leaves the bucket as it was."""
        at = self._at
        if at is not None:
            leaked = self._level - (now_s - at) * self.rate_per_s
            self._level = leaked if leaked > 0.0 else 0.0
        if at is None or now_s > at:  # a clock that steps back leaks nothing twice
            self._at = now_s
        if self._level + amount > self.capacity + 1e-9:
            return False
        self._level += amount
        return True


class FloodGuard:
    """Keeps one connection's audio and control messages within `limits`; `sample_rate` is the client's."""

    __slots__ = (
        "_audio",
        "_bytes_per_s",
        "_control",
        "_drops_audio",
        "_drops_control",
        "_reports",
        "_waiting",
        "_waits",
    )

    def __init__(self, *, sample_rate: int = 16_000, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self._bytes_per_s = 2 * sample_rate
        self._audio = Bucket(capacity=limits.audio_burst_s, rate_per_s=limits.audio_rate)  # in seconds of audio
        self._control = Bucket(capacity=limits.control_burst, rate_per_s=limits.control_per_s)  # in messages
        most = limits.audio_dropped_s
        self._drops_audio = Bucket(capacity=most, rate_per_s=most * FORGIVEN_PER_S)  # seconds dropped lately
        most = limits.control_dropped
        self._drops_control = Bucket(capacity=most, rate_per_s=most * FORGIVEN_PER_S)  # messages dropped lately
        self._reports = Bucket(capacity=REPORTS_BURST, rate_per_s=REPORTS_PER_S)  # in error messages
        self._waiting: deque[bytes] = deque()  # audio that came too fast, the oldest first
        self._waits = 0  # bytes of it

    def on_audio(self, pcm: bytes, now_s: float) -> bytes:
        """What of the audio so far goes on now: `pcm` itself, more, or b"".

        Raises `ProtocolError("too_fast")` when the oldest of what waits was dropped, `Flooded` when it is too much.
        """
        if not self._waiting and self._audio.takes(len(pcm) / self._bytes_per_s, now_s):
            return pcm
        self._waiting.append(pcm)
        self._waits += len(pcm)
        dropped = 0
        while self._waits > WAITING_S * self._bytes_per_s:
            oldest = self._waiting.popleft()
            self._waits -= len(oldest)
            dropped += len(oldest)
        if dropped:
            kind = ProtocolError if self._drops_audio.takes(dropped / self._bytes_per_s, now_s) else Flooded
            raise kind("too_fast", "Audio comes faster than real time; the oldest of it was dropped.")
        return self.release(now_s)

    def release(self, now_s: float) -> bytes:
        """What had to wait and fits now; b"" mostly."""
        freed = bytearray()
        while self._waiting and self._audio.takes(len(self._waiting[0]) / self._bytes_per_s, now_s):
            freed += self._waiting.popleft()
        self._waits -= len(freed)
        return bytes(freed)

    def on_control(self, now_s: float) -> None:
        """Count a text message. Raises `ProtocolError("too_fast")` when it is to be dropped, `Flooded` at the end."""
        if not self._control.takes(1.0, now_s):
            kind = ProtocolError if self._drops_control.takes(1.0, now_s) else Flooded
            raise kind("too_fast", "Too many messages; this one was dropped.")

    def may_report(self, now_s: float) -> bool:
        """Whether the client should be told now; 20 errors at once, then five a second, are worth sending."""
        return self._reports.takes(1.0, now_s)
