"""Speech for benchmarks, in voices that are not the bot's: Debian's `flite` and `espeak-ng`, 16 kHz PCM16 mono.

The onset of an utterance is the first 10 ms within 25 dB of its level, found in steps of 1 ms; its level is the RMS of
all of it. What is said before that (a breath, the closure of a plosive) nobody could react to.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from functools import cache

import numpy as np
import soxr

RATE = 16_000
FLITE = ("slt", "rms", "awb", "kal16")
ESPEAK = ("en-us+m3", "en-us+f2", "en-gb-scotland+m7", "en-us+f4")
VOICES = (*FLITE, *ESPEAK)
ONSET_DB = 25.0  # below the utterance's level
SOUNDS = {"mhm": ("ah m hh ah m", "[[@mh'@m]]")}  # by flite, by espeak-ng: as a text, they would spell it out
LEVEL_DBFS = -23.0  # of every utterance; EBU R 128's programme level

INTERRUPTIONS = (
    "stop",
    "wait",
    "no",
    "hold on",
    "stop it",
    "wait a moment",
    "no that's wrong",
    "excuse me",
    "can I ask something",
    "that is not what I meant",
    "let me speak",
    "never mind that",
    "I want to talk to a person",
    "how much does it cost",
    "sorry, one question",
    "please be quiet",
    "actually, forget it",
    "where is my order",
    "do you sell helmets",
    "just give me the number",
)


def has_voices() -> bool:
    """Whether both programs are there."""
    return bool(shutil.which("flite") and shutil.which("espeak-ng"))


@cache
def say(text: str, voice: str, speed: float = 1.0) -> bytes:
    """`text` at `LEVEL_DBFS`, without the silence before its onset and after its end."""
    flite, espeak = SOUNDS.get(text, (text, text))
    kind = "-p" if text in SOUNDS else "-t"
    command = (
        ["flite", "-voice", voice, "--setf", f"duration_stretch={1 / speed:.2f}", kind, flite, "-o", "/dev/stdout"]
        if voice in FLITE
        else ["espeak-ng", "-v", voice, "-s", str(round(160 * speed)), "--stdout", espeak]
    )
    made = subprocess.run(command, capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(made)) as source:
        rate = source.getframerate()
        samples = np.frombuffer(source.readframes(1 << 26), np.int16).astype(np.float64)
    if rate != RATE:
        samples = soxr.resample(samples, rate, RATE)
    begin, end = bounds(samples)
    return at_level(samples[begin:end], LEVEL_DBFS)


def bounds(samples: np.ndarray) -> tuple[int, int]:
    """(onset, end) of the utterance in `samples`: see the top; the end is the last 10 ms within 40 dB."""
    window, step = RATE // 100, RATE // 1000
    power = np.convolve(samples**2, np.ones(window) / window, "valid")[::step]
    level = float(np.mean(samples**2))
    loud = np.flatnonzero(power >= level * 10 ** (-ONSET_DB / 10))
    audible = np.flatnonzero(power >= level * 10 ** (-40 / 10))
    return int(loud[0]) * step, int(audible[-1]) * step + window


def at_level(samples: np.ndarray, dbfs: float) -> bytes:
    """PCM at an RMS level."""
    rms = float(np.sqrt(np.mean(samples**2))) or 1.0
    scaled = samples * (32768 * 10 ** (dbfs / 20) / rms)
    return np.clip(np.round(scaled), -32768, 32767).astype("<i2").tobytes()


def onset_in(pcm: bytes) -> int:
    """Sample at which the utterance in `pcm` begins."""
    return bounds(np.frombuffer(pcm, "<i2").astype(np.float64))[0]
