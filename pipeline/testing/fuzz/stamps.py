"""Audio that says which turn and which piece of it it is, so that a test can tell stale sound from good.

    pcm = stamped(turn_id=3, seq=1, ms=20)
    assert stamps(pcm) == [Stamp(3, 1)]

Each four samples hold (mark, turn, piece, check); a stamp survives cutting and joining, but not resampling or gain.
The text of a turn says the same: `spoken(3, 2) == "Turn 3 part 1. Turn 3 part 2."`, read back by `turn_in`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..audio import RATE

MARK, CHECK = 0x7AC3, 0x2A5A  # the first sample, and what the last is mixed with
MAX = 0x7FFF  # largest turn and piece
_TURN = re.compile(r"\bturn (\d+)", re.IGNORECASE)
_STOP = re.compile(r"[.!?]+")


class Stamp(NamedTuple):
    """What a piece of stamped audio says of itself."""

    turn_id: int
    seq: int


@lru_cache(maxsize=4096)
def stamped(turn_id: int, seq: int, *, ms: float = 20.0, sample_rate: int = RATE) -> bytes:
    """Return audio that says it is piece `seq` of `turn_id`, both 0 to 32767, `ms` long (at least four samples)."""
    count = max(4, round(ms * sample_rate / 1000))
    turn_id, seq = turn_id & MAX, seq & MAX
    quad = np.array([MARK, turn_id, seq, turn_id ^ seq ^ CHECK], "<i2")
    return np.tile(quad, -(-count // 4))[:count].tobytes()


def stamps(pcm: bytes) -> list[Stamp]:
    """Return the stamps in some audio, in order, each once; none in audio that bears no stamp."""
    samples = np.frombuffer(pcm, "<i2")
    at = np.flatnonzero(samples[:-3] == MARK) if len(samples) >= 4 else np.zeros(0, int)
    turns, seqs = samples[at + 1].astype(int), samples[at + 2].astype(int)
    good = (turns ^ seqs ^ CHECK) == samples[at + 3]
    pairs = zip(turns[good].tolist(), seqs[good].tolist(), strict=True)
    return [Stamp(*pair) for pair in dict.fromkeys(pairs)]


def turns_in_audio(pcm: bytes) -> set[int]:
    """Return the turns that some audio belongs to."""
    return {stamp.turn_id for stamp in stamps(pcm)}


def spoken(turn_id: int, parts: int = 1) -> str:
    """Return `parts` sentences that name their turn."""
    return " ".join(f"Turn {turn_id} part {part}." for part in range(1, parts + 1))


def sentences_in(text: str) -> int:
    """Return how many sentences a text has, at least one."""
    return max(1, len(_STOP.findall(text)))


def turn_in(text: str) -> int | None:
    """Return the turn that a text names, None if it names none."""
    found = _TURN.search(text)
    return int(found.group(1)) if found else None
