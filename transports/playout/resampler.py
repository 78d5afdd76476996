"""Changes sample rates: a stream's, and each reply's for itself.

A resampler looks ahead, so it always keeps the last 20 to 70 ms that it was given. Of a reply that is over they are its
end, which is still owed; of one that was cut they are the words that the user did not want to hear.
"""

from __future__ import annotations

import numpy as np
import soxr

from ...pipeline.listening.pcm import mono

PIPELINE_RATE = 16_000  # Hz inside the pipeline; other client rates are resampled at its ends


class Resampler:
    """Streams PCM16 mono from one rate to another; returns it unchanged when they are the same."""

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self._stream = None if from_rate == to_rate else soxr.ResampleStream(from_rate, to_rate, 1, dtype="int16")
        self._is_empty = True  # nothing is kept

    def __call__(self, pcm: bytes) -> bytes:
        if self._stream is None:
            return pcm
        self._is_empty = False
        return self._stream.resample_chunk(np.frombuffer(pcm, np.int16)).tobytes()

    def flush(self) -> bytes:
        """Return what is kept, as nothing follows it."""
        if self._stream is None or self._is_empty:
            return b""
        rest = self._stream.resample_chunk(np.empty(0, np.int16), last=True).tobytes()
        self.forget()
        return rest

    def forget(self) -> None:
        """Drop what is kept: what comes now is no continuation."""
        if self._stream is not None and not self._is_empty:
            self._stream.clear()
            self._is_empty = True


class ReplyResampler:
    """The same for the audio of replies, one after the other, at whatever rates and channels they come."""

    def __init__(self, to_rate: int) -> None:
        self._to_rate = to_rate  # Hz
        self._from_rates: dict[int, Resampler] = {}  # voice's rate -> its resampler
        self._turn_id = 0  # whose audio they may keep

    def __call__(self, turn_id: int, pcm: bytes, sample_rate: int, channels: int) -> bytes:
        """Return what this audio of the reply to `turn_id` adds, mono; what was kept of another reply is dropped."""
        if turn_id != self._turn_id:
            self._turn_id = turn_id
            for resampler in self._from_rates.values():
                resampler.forget()
        pcm = mono(pcm, channels)
        if sample_rate == self._to_rate:
            return pcm
        if sample_rate not in self._from_rates:
            self._from_rates[sample_rate] = Resampler(sample_rate, self._to_rate)
        return self._from_rates[sample_rate](pcm)

    def flush(self, turn_id: int) -> bytes:
        """Return the end of a reply to which no more audio comes."""
        if turn_id != self._turn_id:
            return b""
        return b"".join(resampler.flush() for resampler in self._from_rates.values())
