"""Speech for tests: `spoken("where is my order")`, made by a tool of the machine, and kept for the run."""

from __future__ import annotations

import asyncio
import subprocess
from functools import cache

import numpy as np
import soxr

from leibniz_voice.pipeline.testing.audio import speech
from leibniz_voice.processors.embedded.workers.shared import close_all
from tests.support.tools import command_of

RATE = 16_000
QUIET = 300  # amplitude up to which speech has not begun, or is over
VOICES = {"flite": "slt", "espeak-ng": "en-us", "bot": "en"}


@cache
def spoken(text: str, *, by: str = "flite", voice: str | None = None, rate: int = RATE) -> np.ndarray:
    """Return int16 mono speech, cut to where it is loud; read-only, as it is shared. Not from within a running loop.

    `by` flite (`needs("flite")`), with "slt", "rms", "awb" and "kal" for voices; by "espeak-ng", with "en-us" and the
    like; or by "bot", the embedded voice, whose speech varies a little from run to run.
    """
    voice = voice or VOICES[by]
    if by == "bot":
        pcm, made_at = np.frombuffer(asyncio.run(_by_bot(text, voice)), np.int16), RATE
    else:
        pcm, made_at = _by_command(by, text, voice)
    pcm = pcm if made_at == rate else soxr.resample(pcm, made_at, rate)
    loud = np.flatnonzero(np.abs(pcm.astype(int)) > QUIET)
    cut = pcm[loud[0] : loud[-1] + 1].copy()
    cut.setflags(write=False)
    return cut


async def _by_bot(text: str, voice: str) -> bytes:
    try:
        return await speech(text, voice=voice, sample_rate=RATE)
    finally:
        await close_all()


def _by_command(tool: str, text: str, voice: str) -> tuple[np.ndarray, int]:
    """Return what a command says, and its sample rate. The lengths in its header are a pipe's, and mean nothing."""
    command = command_of(tool)
    assert command is not None, f'mark the test with needs("{tool}")'
    to_pipe = {
        "flite": ["-voice", voice, "-t", text, "-o", "/dev/stdout"],
        "espeak-ng": ["-v", voice, "--stdout", text],
    }
    wav = subprocess.run([command, *to_pipe[tool]], capture_output=True, check=True).stdout
    return np.frombuffer(wav[44 : len(wav) - len(wav) % 2], np.int16), int.from_bytes(wav[24:28], "little")
