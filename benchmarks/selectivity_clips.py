"""Clips for benchmarks/selectivity.py, all made by script: what must not stop a bot, and what must.

noise    bursts of white, pink and brown noise, 60 to 1,500 ms, -15 to -38 dBFS
cough    two or three sudden bursts, half of them with a voiced tail
mhm      "mhm" by eight voices at three speeds
okay     "okay" likewise
other    somebody else's sentence, 12 dB quieter than the user's
echo     the bot's own sentence, 20 dB quieter than it speaks
real     26 interruptions by eight voices, from 3 dB quieter to 3 dB louder than usual
more     six more backchannels by eight voices
unseen   20 more interruptions likewise, made after the lists and thresholds stood; four begin with a backchannel
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from human_speech import INTERRUPTIONS, LEVEL_DBFS, RATE, VOICES, at_level, say

from leibniz_voice.pipeline.testing.audio import cough, gain, mix, speech_like

SEED = 5
OTHERS = (
    "and then we went to the shop round the corner",
    "did you put the dishes away",
    "the weather tomorrow will be fine",
)
MORE = (
    "hang on a second",
    "that's enough",
    "I don't understand",
    "can you say that again",
    "yes but what about the price",
    "one moment please",
)  # interruptions besides those of the other benchmark
BACKCHANNELS = ("uh huh", "yeah", "yes", "right", "sure", "oh")
UNSEEN = (
    "come on",
    "let's move on",
    "not that one",
    "I know that already",
    "skip this",
    "go back",
    "what do you mean",
    "who are you",
    "speak slower please",
    "quiet",
    "shut up",
    "say it again",
    "thanks, that's all",
    "cancel that",
    "give me a human",
    "yes I know",
    "okay but listen",
    "right but when",
    "oh no",
    "are you a robot",
)
BOT = "Your order left our warehouse this morning, and it will be with you tomorrow."


@dataclass(frozen=True)
class Clip:
    """One sound: its kind, its PCM at 16 kHz, and the words a recogniser would hear."""

    kind: str
    pcm: bytes
    words: str = ""


def clips() -> list[Clip]:
    """All of them, in a fixed order; take every other one to tune on."""
    rng = random.Random(SEED)
    made = [Clip("noise", _noise(rng, number)) for number in range(24)]
    made += [Clip("cough", _cough(rng, number)) for number in range(24)]
    for text in ("mhm", "okay"):
        made += [Clip(text, say(text, voice, speed), text) for speed in (0.85, 1.0, 1.2) for voice in VOICES]
    made += [Clip("other", gain(say(text, voice), -12.0), text) for text in OTHERS for voice in VOICES]
    made += [Clip("echo", gain(say(BOT, voice), -20.0), BOT) for voice in VOICES]
    for text in (*INTERRUPTIONS, *MORE):
        made += [Clip("real", gain(say(text, voice), rng.uniform(-3, 3)), text) for voice in VOICES]
    made += [Clip("more", say(text, voice), text) for text in BACKCHANNELS for voice in VOICES]
    made += [Clip("unseen", gain(say(text, voice), rng.uniform(-3, 3)), text) for text in UNSEEN for voice in VOICES]
    return made


def _noise(rng: random.Random, number: int) -> bytes:
    count = int(rng.uniform(0.06, 1.5) * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(number).standard_normal(count))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1.0) ** (0.0, 0.5, 1.0)[number % 3]  # white, pink, brown
    return at_level(np.fft.irfft(spectrum, count), rng.uniform(-38, -15))


def _cough(rng: random.Random, number: int) -> bytes:
    pcm = cough(seed=number, dbfs=rng.uniform(-25, -12))
    if number % 3 == 0:
        pcm += bytes(2 * RATE // 20) + cough(seed=number + 100, dbfs=rng.uniform(-25, -12))
    if number % 2:
        pcm = mix(pcm, speech_like(130, seed=number, hz=110), db=-6, at_ms=60)
    return pcm


USUAL = at_level(np.frombuffer(say("where is my order", "slt"), "<i2").astype(float), LEVEL_DBFS)  # the user's own
