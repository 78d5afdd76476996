"""Speech from probabilities: onset, hangover and pre-roll, counted in samples.

    chunk           0    1    2    3    4    5    6    7    8    9   10   11   12   13   14   15   16   17
    probability    .1   .7   .9   .9   .4   .2   .2   .9   .2   .2   .2   .2   .2   .2   .2   .2   .2   .2
    voiced          .    #    #    #    #    .    .    #    .    .    .    .    .    .    .    .    .    .
    speech_ms       0   32   64   96  128  128  128  160  160  160  160  160  160  160  160  160  160    0
                      |   ^ Onset                        |<------------ hangover 300 ms ---------------->^
                  start_sample                         end_sample                                   Offset

Thresholds here .5 and .35: voice begins at the first, ends below the second. The onset is told with the chunk that
completes `onset_ms` of unbroken voice; a run that breaks before is a blip: `speech_ms` falls to 0 and no event comes. A
dip holds `speech_ms`. The offset is told at the first chunk boundary at or after `hangover_ms` without voice. Positions
are samples since the first one fed, at the rate given; integers, so nothing drifts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError
from ..frames import SILENCE_BELOW


@dataclass(frozen=True, slots=True)
class Onset:
    """Speech began at `start_sample`; keep audio from `preroll_sample` on. `confidence` is the run's highest so far."""

    start_sample: int
    confidence: float
    preroll_sample: int


@dataclass(frozen=True, slots=True)
class Offset:
    """Speech ended: the last voiced chunk stops at `end_sample` (exclusive)."""

    end_sample: int


class SpeechDetector:
    """Turns a probability per chunk into onsets and offsets. Pure, never awaits.

    `start_threshold` must be at or above `stop_threshold`, both in (0, 1]. `onset_ms`, `hangover_ms` and `preroll_ms`
    are 0 or more. Raises `ConfigurationError` otherwise.

    The defaults come from 144 utterances (6 synthetic voices; clean, 20 and 10 dB of pink noise): none missed, split or
    false between 0.4 and 0.7; 0.6 / 0.45 ends 10 ms sooner than 0.5 / 0.35; a hangover of 250 ms splits 1, of 200 ms 3.
    """

    def __init__(
        self,
        *,
        sample_rate: int = 16000,
        start_threshold: float = 0.6,
        stop_threshold: float = SILENCE_BELOW,
        onset_ms: int = 64,
        hangover_ms: int = 300,
        preroll_ms: int = 200,
    ) -> None:
        if not 0.0 < stop_threshold <= start_threshold <= 1.0:
            raise ConfigurationError(f"need 0 < stop <= start <= 1, got stop {stop_threshold}, start {start_threshold}")
        if sample_rate <= 0 or min(onset_ms, hangover_ms, preroll_ms) < 0:
            raise ConfigurationError("sample_rate must be positive; onset_ms, hangover_ms, preroll_ms at least 0")
        self.sample_rate = sample_rate  # Hz, of every count below
        self._start = start_threshold  # probability at which voice begins
        self._stop = stop_threshold  # probability below which it ends
        self._onset = sample_rate * onset_ms // 1000  # samples of unbroken voice before an Onset
        self._hangover = sample_rate * hangover_ms // 1000  # samples without voice before an Offset
        self._patience = self._hangover  # the same for this silence, see `wait`
        self._preroll = sample_rate * preroll_ms // 1000  # samples before the start that belong to it
        self._position = 0  # samples fed so far
        self._is_voiced = False  # the last chunk was voice
        self._is_speaking = False  # between an Onset and its Offset
        self._begin = 0  # first sample of the current run; meaningless while _voiced is 0
        self._end = 0  # one past the last voiced sample of the newest speech segment
        self._voiced = 0  # voiced samples since _begin; 0 in silence
        self._peak = 0.0  # highest probability of the current run

    @property
    def position(self) -> int:
        """Samples fed so far."""
        return self._position

    @property
    def is_voiced(self) -> bool:
        """The newest chunk was voice."""
        return self._is_voiced

    @property
    def is_speaking(self) -> bool:
        """Between an Onset and its Offset, the hangover included."""
        return self._is_speaking

    @property
    def speech_ms(self) -> float:
        """Voiced audio since the first chunk above the start threshold; 0 in silence."""
        return self._voiced * 1000 / self.sample_rate

    @property
    def silence_ms(self) -> float:
        """Audio since the last voiced sample of the newest speech segment."""
        return (self._position - self._end) * 1000 / self.sample_rate

    def feed(self, probability: float, samples: int) -> Onset | Offset | None:
        """One chunk of `samples` samples; at most one event follows from it."""
        at = self._position
        self._position += samples
        self._is_voiced = probability >= (self._stop if self._is_voiced else self._start)
        return self._on_voiced(at, samples, probability) if self._is_voiced else self._on_unvoiced()

    def wait(self, hangover_ms: float) -> Offset | None:
        """End this silence after `hangover_ms`, at once if so much has passed; the next voice sets it back."""
        if not self._is_speaking or self._is_voiced:
            return None
        self._patience = int(self.sample_rate * hangover_ms / 1000)
        return self._offset()

    def skip(self, samples: int) -> None:
        """Audio that nobody judged (lost in overload) passes: time goes on, whatever was going on holds."""
        self._position += samples
        if self._is_speaking and self._is_voiced:
            self._end = self._position

    def _on_voiced(self, at: int, samples: int, probability: float) -> Onset | None:
        if not self._voiced:
            self._begin, self._peak = at, 0.0
        self._voiced += samples
        self._patience = self._hangover
        self._peak = max(self._peak, probability)
        if self._is_speaking:
            self._end = self._position
            return None
        if self._voiced < self._onset:
            return None
        before, self._end = self._end, self._position  # pre-roll never reaches into the speech before
        self._is_speaking = True
        return Onset(self._begin, self._peak, max(before, self._begin - self._preroll))

    def _on_unvoiced(self) -> Offset | None:
        if not self._is_speaking:
            self._voiced = 0  # silence, or a blip that broke before onset
            return None
        return self._offset()

    def _offset(self) -> Offset | None:
        if self._position - self._end < self._patience:
            return None
        self._is_speaking = False
        self._voiced = 0
        return Offset(self._end)


class QuietReset:
    """Says when a recurrent model may forget: every `interval_s` of audio, and only after `quiet_ms` of clear silence.

    Long noise and silence leave the model's state deaf to the speech that follows; a reset in speech makes it lose
    confidence. 2 s, 0.1 and 160 ms are Pipecat's figures (`pipecat/audio/vad/silero.py`): one low chunk can be a dip
    inside a word, a run of five is none.
    """

    def __init__(self, *, sample_rate: int, interval_s: float = 2.0, quiet_ms: float = 160.0, low: float = 0.1) -> None:
        self._interval = round(interval_s * sample_rate)  # samples between resets
        self._quiet = round(quiet_ms * sample_rate / 1000)  # samples of clear silence needed
        self._low = low  # a probability below this is clear silence
        self._since = 0  # samples since the last reset
        self._low_run = 0  # samples of the current run of clear silence

    def feed(self, probability: float, samples: int, *, is_quiet: bool) -> bool:
        """True when the model should forget now; the caller then does it. `is_quiet`: no speech is going on."""
        self._since += samples
        self._low_run = self._low_run + samples if probability < self._low else 0
        if not is_quiet or self._since < self._interval or self._low_run < self._quiet:
            return False
        self._since = 0
        return True


class Chunker:
    """Cuts a stream of PCM of any block size into chunks of exactly `samples`; keeps the rest for the next call."""

    def __init__(self, samples: int) -> None:
        self.samples = samples  # length of each chunk
        self._rest = np.empty(0, np.int16)  # shorter than one chunk

    def push(self, pcm: NDArray[np.int16]) -> list[NDArray[np.int16]]:
        """Chunks `(samples,) int16` that are complete now; they may be views of `pcm`."""
        data = np.concatenate((self._rest, pcm)) if len(self._rest) else pcm
        whole = len(data) - len(data) % self.samples
        self._rest = data[whole:].copy()  # a view would keep the whole block alive
        return [data[at : at + self.samples] for at in range(0, whole, self.samples)]
