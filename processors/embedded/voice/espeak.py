"""`EspeakVoice`: text to speech in a worker process, with the time of every word."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator
from contextlib import aclosing

from ....pipeline.errors import ConfigurationError
from ....pipeline.text.sentences import split_text
from ..workers.shared import release_worker, shared_worker
from ..workers.worker import WorkerProcess

Words = tuple[tuple[str, float], ...]  # (word, start in ms)
RATES = range(80, 451)  # words a minute that espeak-ng can speak


class EspeakVoice:
    """espeak-ng, about 1,000 times faster than speech. Many conversations share one worker process.

    `voice` is espeak-ng's name ("en" is British, "en-us", "de", "en+f3" ...), `rate_wpm` words a minute 80 to 450,
    `pitch` 0 to 100, `sample_rate` the wanted one, 8,000 to 48,000 Hz. Raises `ConfigurationError` for other values;
    an unknown voice is noticed by the first `speak`.
    """

    def __init__(self, *, voice: str = "en", rate_wpm: int = 165, pitch: int = 50, sample_rate: int = 16000) -> None:
        if rate_wpm not in RATES:
            raise ConfigurationError(f"rate_wpm is {rate_wpm}; espeak-ng speaks 80 to 450 words a minute")
        if not 0 <= pitch <= 100:
            raise ConfigurationError(f"pitch is {pitch}; it goes from 0 to 100")
        if not 8000 <= sample_rate <= 48000:
            raise ConfigurationError(f"sample_rate is {sample_rate}; the voice gives 8000 to 48000 Hz")
        self.sample_rate = sample_rate  # Hz of what `speak` yields
        self._asked = {"voice": voice, "rate_wpm": rate_wpm, "pitch": pitch, "sample_rate": sample_rate}
        self._worker: WorkerProcess | None = None  # shared; None until `open` or the first `speak`

    def open(self) -> None:
        """Take hold of the running loop's worker. Its process starts with the first text, or with `warm_up`."""
        if self._worker is None:
            self._worker = shared_worker("espeak", {})

    async def warm_up(self) -> None:
        """Start the process and the voice now, so that the first text need not wait for them (about 0.1 s)."""
        if self.pid is not None:
            return  # started for another conversation
        async with aclosing(self.speak("a")) as chunks:  # type: ignore[type-var]
            async for _ in chunks:
                pass

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None before it is started."""
        return self._worker.pid if self._worker else None

    def close(self) -> None:
        """Let go of the worker; it stays warm for others. Harmless twice."""
        worker, self._worker = self._worker, None
        if worker is not None:
            release_worker(worker)

    async def speak(self, text: str) -> AsyncIterator[tuple[bytes, Words]]:
        """Yield (PCM int16 mono at `sample_rate`, words that begin in it), 20 to 40 ms each, as they are made.

        Word times are ms from the first sample of this text. Leaving the iteration (by `aclose`, or a cancelled task)
        stops the synthesis. Raises `WorkerCrashed`, `ServiceError`, and `ConfigurationError` for an unknown voice.
        """
        self.open()
        assert self._worker is not None
        spoken = 0  # samples
        for part in split_text(text):
            offset_ms = spoken * 1000 / self.sample_rate
            payload = json.dumps({**self._asked, "text": part}).encode()
            async with aclosing(self._worker.stream(payload)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    pcm, words = unpack(chunk, offset_ms)
                    spoken += len(pcm) // 2
                    yield pcm, words


def unpack(chunk: bytes, offset_ms: float = 0.0) -> tuple[bytes, Words]:
    """Return samples and words of a chunk that the engine packed; `offset_ms` is added to the words' times."""
    (size,) = struct.unpack_from("!I", chunk)
    words = json.loads(chunk[4 : 4 + size]) if size else []
    return chunk[4 + size :], tuple((word, offset_ms + ms) for word, ms in words)
