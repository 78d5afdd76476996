"""The speech model of a recorded conversation: one that tells its answers, and one that gives recorded answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from ...processors.embedded.silero.batching import SpeechModel, SpeechStream
from ...processors.embedded.silero.network import CHUNK_SAMPLES, Chunk
from .events import RecordedEvent
from .watched import Watched

Note = Callable[[str, float, Chunk], None]  # processor, probability of the chunk


class RecordedModel:
    """Asks the real model, and tells each of its answers when it comes."""

    def __init__(self, model: Callable[[], SpeechModel], note: Note, name: str) -> None:
        self._model = model  # gives the real one
        self._note = note
        self._name = name  # of the processor that asks

    def stream(self, sample_rate: int) -> SpeechStream:
        """See `SpeechModel.stream`."""
        return cast("SpeechStream", Watched(self._model().stream(sample_rate), {"submit": self._submit}))

    def _submit(self, submit: Callable[..., None], chunk: Chunk, callback: Callable[[float], None]) -> None:
        def answered(probability: float) -> None:
            self._note(self._name, probability, chunk)
            callback(probability)

        submit(chunk, answered)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model(), name)


class ReplayedModel:
    """Gives recorded probabilities, each at its recorded time; 0 past their end."""

    def __init__(self, answers: Sequence[RecordedEvent], began: float) -> None:
        self._answers = answers  # events `Probability`, in order
        self._began = began  # loop time of the recording's time 0

    def stream(self, sample_rate: int) -> SpeechStream:
        """See `SpeechModel.stream`."""
        return _ReplayedStream(self._answers, self._began, CHUNK_SAMPLES[sample_rate])


class _ReplayedStream:
    dropped = 0

    def __init__(self, answers: Sequence[RecordedEvent], began: float, chunk_samples: int) -> None:
        self._answers = iter(answers)
        self._began = began
        self._timers: list[asyncio.TimerHandle] = []  # of answers that have not come
        self.chunk_samples = chunk_samples  # the model's

    def submit(self, chunk: Chunk, callback: Callable[[float], None]) -> None:
        loop = asyncio.get_running_loop()
        event = next(self._answers, None)
        if event is None:
            return
        probability = event.fields.get("probability", 0.0)
        at = max(loop.time(), self._began + event.at)
        self._timers = [timer for timer in self._timers if timer.when() > loop.time() and not timer.cancelled()]
        self._timers.append(loop.call_at(at, callback, float(probability)))

    def reset(self) -> None:
        """The answers know."""

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()


def level_dbfs(chunk: Chunk) -> float:
    """RMS level, rounded; -120 for silence."""
    wave = chunk.astype(np.float32)
    return round(10 * math.log10(max(float(np.dot(wave, wave)) / len(wave) / 32768**2, 1e-12)), 2)
