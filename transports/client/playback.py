"""`Playback`: a loudspeaker that exists on paper only. Plays what arrives at real time, and keeps what was heard. Pure.

All times are the caller's, in s.

    arrives   |##|##|##|     |##|##|            a few chunks ahead, or late
    heard     ..####.....####....               silence where there was nothing to play, or a pause
              ^ `start`
"""

from __future__ import annotations

import numpy as np

FADE_MS = 5.0  # what a pause or a cut leaves sounding: a hard edge clicks
REMEMBERED_MS = 1000.0  # of what was played
MAX_HELD_S = 30.0  # audio that waits to be played; a server that keeps to its lead never has more than 0.1 s here


class Playback:
    """One client's loudspeaker. Mono PCM16 at `sample_rate`; `heard` keeps the first `max_s` seconds of the call."""

    def __init__(self, *, sample_rate: int = 16_000, max_s: float = 600.0) -> None:
        self.sample_rate = sample_rate
        self.heard = bytearray()  # PCM from `start` to the last `advance`
        self.played = 0  # samples of the bot that were played in the whole call
        self.dropped = 0  # samples that were received and never played
        self.turn: int | None = None  # the turn whose reply plays; None before the first
        self.is_paused = False  # the server asked to stop for a moment
        self.is_open = True  # audio is taken; False from `interrupted` to the next reply
        self._start_s: float | None = None  # when `heard` begins; None before `start`
        self._edge = 0  # the last sample that sounded, while its fading is due; 0: nothing to fade
        self._rise = 0  # samples that are still to rise to full level after a pause or a cut
        self._fade = int(FADE_MS * sample_rate / 1000)  # samples
        self._position = 0  # samples of the clock that are accounted for
        self._buffer = bytearray()  # received, not played
        self._played_last = bytearray()  # what was played last, for a resume that goes back
        self._max_last = 2 * int(REMEMBERED_MS * sample_rate / 1000)  # bytes
        self._older = 0  # samples at its front that belong to the reply before
        self._reply_played = 0  # samples of this reply that were played
        self._max_heard = 2 * int(max_s * sample_rate)  # bytes
        self._max_held = 2 * int(MAX_HELD_S * sample_rate)  # bytes

    @property
    def held_ms(self) -> float:
        """Audio that waits to be played."""
        return len(self._buffer) / 2 / self.sample_rate * 1000

    @property
    def played_ms(self) -> float:
        """How much of this turn's reply was played."""
        return self._reply_played / self.sample_rate * 1000

    def start(self, now_s: float) -> None:
        """Start the clock."""
        self._start_s = now_s

    def begin(self, turn: int, now_s: float) -> None:
        """A reply begins: audio that comes from now on is its own."""
        self.advance(now_s)
        if turn != self.turn:
            self._older, self._reply_played = len(self._buffer) // 2, 0
        self.turn, self.is_open, self.is_paused = turn, True, False

    def push(self, pcm: bytes, now_s: float) -> None:
        """Take audio. What comes after an interruption, or past MAX_HELD_S, is dropped."""
        self.advance(now_s)
        room = self._max_held - len(self._buffer) if self.is_open else 0
        taken = max(0, min(len(pcm), room)) & ~1
        self._buffer += pcm[:taken]
        self.dropped += (len(pcm) - taken) // 2

    def pause(self, now_s: float) -> None:
        """Fall silent, keep what waits."""
        self._stop(now_s)
        self.is_paused = True

    def resume(self, now_s: float, back_ms: float = 0.0) -> None:
        """Go on, `back_ms` earlier if so much of this reply is remembered."""
        self.advance(now_s)
        if self.is_paused and 0 < back_ms <= REMEMBERED_MS:
            back = min(round(back_ms * self.sample_rate / 1000), self._reply_played, len(self._played_last) // 2)
            self._buffer[:0] = self._played_last[len(self._played_last) - 2 * back :]
            self._reply_played -= back
            self.played -= back
        self.is_paused = False

    def drop(self, now_s: float) -> None:
        """Forget what waits and take nothing before the next `begin`."""
        self._stop(now_s)
        self.dropped += len(self._buffer) // 2
        self._buffer.clear()
        self._older = 0
        self.is_open = self.is_paused = False

    def reopen(self) -> None:
        """Take audio again: a new connection begins."""
        self.is_open, self.is_paused = True, False

    def advance(self, now_s: float) -> None:
        """Play up to now."""
        if self._start_s is None:
            return
        due = round((now_s - self._start_s) * self.sample_rate) - self._position
        if due <= 0:
            return
        self._position += due
        taken = 0 if self.is_paused else min(due, len(self._buffer) // 2)
        if len(self.heard) < self._max_heard:
            self.heard += self._sounding(taken)
            self.heard += self._silence(due - taken)
        self._played_last = (self._played_last + self._buffer[: 2 * taken])[-self._max_last :]
        del self._buffer[: 2 * taken]
        older = min(taken, self._older)
        self._older -= older
        self._reply_played += taken - older
        self.played += taken

    def _stop(self, now_s: float) -> None:
        was_paused = self.is_paused
        self.advance(now_s)
        if not was_paused and self._buffer and self.heard:
            self._edge = int.from_bytes(self.heard[-2:], "little", signed=True)
            self._rise = self._fade

    def _sounding(self, count: int) -> bytes:
        """The next samples of the buffer, rising if they come after a stop. Which ones they are changes nothing."""
        rising = min(count, self._rise)
        if not rising:
            return bytes(self._buffer[: 2 * count])
        samples = np.frombuffer(bytes(self._buffer[: 2 * count]), "<i2").astype(np.float64)
        begin = self._fade - self._rise
        samples[:rising] *= np.arange(begin + 1, begin + rising + 1) / self._fade
        self._rise -= rising
        return samples.astype("<i2").tobytes()

    def _silence(self, count: int) -> bytes:
        """Silence, which the last sample before a stop fades into."""
        if not self._edge or not count:
            return bytes(2 * count)
        fading = min(count, self._fade)
        ramp = self._edge * (1 - np.arange(1, fading + 1) / self._fade)
        self._edge = 0
        return ramp.astype("<i2").tobytes() + bytes(2 * (count - fading))


class PaperMicrophone:
    """What is to be said, cut into chunks of `chunk` samples, with silence in between. `said` keeps the call."""

    def __init__(self, *, sample_rate: int = 16_000, chunk: int = 320, max_s: float = 600.0) -> None:
        self.said = bytearray()  # PCM from the start of the call
        self._waiting = bytearray()  # to be said
        self._silence = bytes(2 * chunk)
        self._max_said = 2 * int(max_s * sample_rate)  # bytes

    @property
    def is_empty(self) -> bool:
        """Whether everything was said."""
        return not self._waiting

    def push(self, pcm: bytes) -> None:
        """Say this after what waits already."""
        self._waiting += pcm

    def take(self, tick: int) -> bytes:
        """Return chunk number `tick` of the call; numbers only grow, what is skipped was silence."""
        size = len(self._silence)
        chunk = bytes(self._waiting[:size]).ljust(size, b"\0")
        del self._waiting[:size]
        if tick * size < self._max_said:
            self.said += bytes(max(0, tick * size - len(self.said)))
            self.said += chunk
        return chunk
