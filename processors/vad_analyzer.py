"""`SileroAnalyzer`: the process's one Silero model for a stock Pipecat bot, which loads one per conversation."""

from __future__ import annotations

import numpy as np
from pipecat.audio.vad.vad_analyzer import VADAnalyzer, VADParams, VADState

from ..pipeline.errors import ConfigurationError
from ..pipeline.listening.speech import QuietReset
from .embedded.silero.network import CHUNK_SAMPLES, RecurrentState, infer


class SileroAnalyzer(VADAnalyzer):
    """A Pipecat `VADAnalyzer` with the same answers as Pipecat's own Silero, on one shared session.

    Pipecat asks from a thread of each analyzer, one chunk at a time; the answer is computed there, so that no
    conversation waits for another. It saves the session's memory and start-up; the batched way is `SileroVAD`.
    Raises `ConfigurationError` for a rate other than 8000 or 16000 Hz.
    """

    def __init__(self, *, sample_rate: int | None = None, params: VADParams | None = None) -> None:
        super().__init__(sample_rate=sample_rate, params=params)
        self._state: RecurrentState | None = None  # None until set_sample_rate
        self._reset: QuietReset | None = None  # when to forget; None until set_sample_rate
        self._is_quiet = True  # what Pipecat's state machine said last

    def set_sample_rate(self, sample_rate: int) -> None:
        """Pipecat's call at the start; forgets what was heard."""
        super().set_sample_rate(sample_rate)  # the rate that was given to the constructor comes first
        self._state = RecurrentState(self.sample_rate)
        self._reset = QuietReset(sample_rate=self.sample_rate)
        self._is_quiet = True

    def num_frames_required(self) -> int:
        """Samples of one chunk."""
        if self.sample_rate not in CHUNK_SAMPLES:
            raise ConfigurationError(f"Silero VAD hears 8000 or 16000 Hz, not {self.sample_rate}")
        return CHUNK_SAMPLES[self.sample_rate]

    async def analyze_audio(self, buffer: bytes) -> VADState:
        """Pipecat's call for each block of audio."""
        state = await super().analyze_audio(buffer)
        self._is_quiet = state is VADState.QUIET
        return state

    def voice_confidence(self, buffer: bytes) -> float:
        """Probability of speech in one chunk of int16 PCM. Called from this analyzer's thread only."""
        if self._state is None or self._reset is None:
            raise ConfigurationError("call set_sample_rate() first")
        chunk = np.frombuffer(buffer, np.int16)
        probability = float(infer([self._state], [chunk])[0])
        if self._reset.feed(probability, len(chunk), is_quiet=self._is_quiet):
            self._state.reset()
        return probability
