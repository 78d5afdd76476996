"""Synthetic PCM16 mono audio: silence, tones, noises, blips, something speech-like, and speech by the embedded voice.

    pcm = mix(await speech("where is my order"), noise(3000, dbfs=-45), at_ms=0)
    for chunk in chunks(pcm, 20): ...

All of it is `bytes` of int16 samples, little-endian, at `sample_rate` Hz. What is random has a seed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import aclosing

import numpy as np
from numpy.typing import NDArray

from ...processors.embedded.voice.espeak import EspeakVoice
from ..errors import ConfigurationError

RATE = 16_000  # Hz, as inside the pipeline
FULL_SCALE = 32_768.0  # the amplitude that is 0 dBFS; levels are RMS
MAX_SPOKEN = 256  # utterances that `speech` remembers; past it the oldest is synthesised anew

_spoken: OrderedDict[tuple[str, str, int, int], bytes] = OrderedDict()  # (text, voice, words a minute, Hz) -> PCM


def silence(ms: float, *, sample_rate: int = RATE) -> bytes:
    """Digital silence: `len(silence(20)) == 640`."""
    return bytes(_count(ms, sample_rate) * 2)


def tone(ms: float, *, hz: float = 440.0, dbfs: float = -20.0, sample_rate: int = RATE) -> bytes:
    """A sine: `tone(500, hz=1000, dbfs=-12)`."""
    at = np.arange(_count(ms, sample_rate)) / sample_rate
    return _levelled(np.sin(2 * np.pi * hz * at), dbfs)


def noise(ms: float, *, dbfs: float = -40.0, seed: int = 0, sample_rate: int = RATE) -> bytes:
    """White noise, the same for the same seed: `noise(1000, dbfs=-50, seed=7)`."""
    return _levelled(np.random.default_rng(seed).standard_normal(_count(ms, sample_rate)), dbfs)


def click(*, dbfs: float = -12.0, seed: int = 0, sample_rate: int = RATE) -> bytes:
    """A key or a knock: 15 ms of noise that dies away within 3 ms. `dbfs` is the level of its loudest 20 ms."""
    return _burst(15, 3, dbfs, seed, sample_rate)


def cough(*, dbfs: float = -15.0, seed: int = 0, sample_rate: int = RATE) -> bytes:
    """Two noise bursts, 180 and 120 ms, 60 ms apart: loud, sudden, and no speech. `cough(seed=3)`."""
    first = _burst(180, 45, dbfs, seed, sample_rate)
    return first + silence(60, sample_rate=sample_rate) + _burst(120, 35, dbfs - 4, seed + 1, sample_rate)


def speech_like(ms: float, *, dbfs: float = -20.0, seed: int = 0, hz: float = 85.0, sample_rate: int = RATE) -> bytes:
    """Syllables without words, four a second: a hiss, then harmonics of a gliding pitch under three moving formants.

    `speech_like(2000, seed=3)`. Needs no worker process, and Silero takes it for speech: probability above 0.7 within
    130 ms, above 0.6 in 89 to 100 % of the chunks (seeds 0 to 29; less with a higher pitch). No recogniser hears a word
    in it. Formants of the vowels: Peterson and Barney 1952, https://doi.org/10.1121/1.1906875
    """
    count = _count(ms, sample_rate)
    lengths, vowels, hisses, breath = (
        np.random.default_rng([seed, part]) for part in range(4)
    )  # the same for any `ms`
    starts = np.cumsum(np.concatenate(([0.0], lengths.uniform(0.18, 0.3, int(ms / 180) + 2))))  # of the syllables, s
    at = np.arange(count) / sample_rate
    index = np.searchsorted(starts, at, side="right") - 1  # the syllable of each sample
    within = (at - starts[index]) / np.diff(starts, append=starts[-1] + 0.25)[index]  # place in it, 0 to 1
    wave = _vowels(at, starts, hz, vowels, sample_rate) * (0.08 + np.sin(np.pi * within) ** 0.6)
    hiss = np.diff(breath.standard_normal(count + 1)) * np.sin(np.pi * np.clip(within * 4, 0, 1))
    has_hiss = hisses.random(len(starts)) < 0.6
    return _levelled(wave + 0.5 * float(np.std(wave) if count else 0) * hiss * has_hiss[index], dbfs)


async def speech(text: str, *, voice: str = "en", rate_wpm: int = 165, sample_rate: int = RATE) -> bytes:
    """`text` spoken by the embedded voice, which runs in a worker process; remembered, as its output varies a little.

    `await speech("where is my order", voice="en+f3")`. Raises what `EspeakVoice` raises.
    """
    key = (text, voice, rate_wpm, sample_rate)
    if key not in _spoken:
        speaker = EspeakVoice(voice=voice, rate_wpm=rate_wpm, sample_rate=sample_rate)
        speaker.open()
        try:
            async with aclosing(speaker.speak(text)) as parts:  # type: ignore[type-var]
                _spoken[key] = b"".join([pcm async for pcm, _ in parts])
        finally:
            speaker.close()
        while len(_spoken) > MAX_SPOKEN:
            _spoken.popitem(last=False)
    return _spoken[key]


def gain(pcm: bytes, db: float) -> bytes:
    """Louder or quieter by `db`; what passes full scale is clipped."""
    return _bytes(_samples(pcm) * 10 ** (db / 20))


def at_level(pcm: bytes, dbfs: float) -> bytes:
    """The same at an RMS level of `dbfs`; silence stays silence."""
    return _levelled(_samples(pcm), dbfs)


def mix(pcm: bytes, other: bytes, *, db: float = 0.0, at_ms: float = 0.0, sample_rate: int = RATE) -> bytes:
    """`pcm` with `other` added from `at_ms` on, `db` louder or quieter; as long as the later end of both.

    `mix(voice, noise(len(voice) / 32), db=-10)`: noise under a voice.
    """
    start = _count(at_ms, sample_rate)
    base, added = _samples(pcm), _samples(other) * 10 ** (db / 20)
    both = np.zeros(max(len(base), start + len(added)))
    both[: len(base)] += base
    both[start : start + len(added)] += added
    return _bytes(both)


def level(pcm: bytes) -> float:
    """RMS level in dBFS (a full-scale square wave is 0); minus infinity for silence or nothing."""
    samples = _samples(pcm)
    power = float(np.mean(samples**2)) if len(samples) else 0.0
    return 10 * float(np.log10(power / FULL_SCALE**2)) if power else float("-inf")


def duration_ms(pcm: bytes, *, sample_rate: int = RATE) -> float:
    """How long it is."""
    return len(pcm) / 2 / sample_rate * 1000


def chunks(pcm: bytes, ms: float = 20.0, *, sample_rate: int = RATE) -> Iterator[bytes]:
    """Cut into chunks of `ms`, the last one filled up with silence: `list(chunks(silence(30), 20))` are two."""
    size = _count(ms, sample_rate) * 2
    if size <= 0:
        raise ConfigurationError(f"ms is {ms}; a chunk needs at least one sample")
    for start in range(0, len(pcm), size):
        yield pcm[start : start + size].ljust(size, b"\0")


_VOWELS = ((730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))  # Hz
_WIDTHS = (90.0, 110.0, 170.0)  # of the formants, Hz


def _vowels(
    at: NDArray[np.float64], starts: NDArray[np.float64], hz: float, rng: np.random.Generator, sample_rate: int
) -> NDArray[np.float64]:
    """A vowel from each start to the next, gliding: harmonics of a moving pitch, weighted by the formants."""
    draws = rng.random((len(starts), 2))  # a vowel and a pitch for each syllable
    vowels = np.array(_VOWELS)[(draws[:, 0] * len(_VOWELS)).astype(int)]  # (syllables, 3) Hz
    pitch = np.interp(at, starts, hz * (0.85 + 0.4 * draws[:, 1]))
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    formants = [np.interp(at, starts + 0.05, vowels[:, f]) for f in range(3)]
    wave = np.zeros(len(at))
    for harmonic in range(1, int(min(4000, sample_rate / 2 - 200) / (hz * 1.25)) + 1):
        wave += _formant_gain(pitch * harmonic, formants) / harmonic * np.sin(harmonic * phase)
    return wave


def _formant_gain(hz: NDArray[np.float64], formants: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    gains = [1 / (1 + ((hz - at) / width) ** 2) for at, width in zip(formants, _WIDTHS, strict=True)]
    return 0.02 + gains[0] + 0.7 * gains[1] + 0.4 * gains[2]


def _burst(ms: float, decay_ms: float, dbfs: float, seed: int, sample_rate: int) -> bytes:
    count = _count(ms, sample_rate)
    wave = np.random.default_rng(seed).standard_normal(count)
    return _levelled(wave * np.exp(-np.arange(count) / (decay_ms * sample_rate / 1000)), dbfs)


def _count(ms: float, sample_rate: int) -> int:
    return round(ms * sample_rate / 1000)


def _samples(pcm: bytes) -> NDArray[np.float64]:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def _levelled(wave: NDArray[np.float64], dbfs: float) -> bytes:
    rms = float(np.sqrt(np.mean(wave**2))) if len(wave) else 0.0
    return _bytes(wave * (FULL_SCALE * 10 ** (dbfs / 20) / rms)) if rms else _bytes(wave)


def _bytes(wave: NDArray[np.float64]) -> bytes:
    return np.clip(np.round(wave), -32768, 32767).astype("<i2").tobytes()
