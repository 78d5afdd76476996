"""Who spoke when in a recording, how loud, and in which state: stretches of time, read from its events. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from .events import StateMove
from .recording import Recording

RATE = 16_000
_SPAN_S, _LOUD = 0.04, 0.25  # pieces that are loud above -40 dB
FLOOR_DB, FULL_DB = -50, -8  # drawn as nothing, and in full


def voice_of(recording: Recording, direction: str, n: int, length_s: float) -> list[float]:
    """Return `n` values from 0 (silent) to 1 (loud) that cover `length_s`; where no audio was kept, speech is 0.6."""
    if recording.has_audio:
        return loudness(recording.audio(direction, rate=RATE), n, length_s, rate=RATE)
    values = [0.0] * n
    for start_s, end_s in spans_of(recording, direction):
        first, last = int(start_s / length_s * n), int(end_s / length_s * n)
        values[first : last + 1] = [0.6] * len(values[first : last + 1])
    return values


def spans_of(recording: Recording, direction: str) -> list[tuple[float, float]]:
    """When somebody spoke: the user as the speech detector tells it, the bot as its audio was sent."""
    if direction == "to_user":
        sent = recording.frames("audio", direction="to_user")
        return _merged([(event.at, event.at + max(event.audio_s, 0.02)) for event in sent], gap_s=0.1)
    if recording.has_audio and not recording.frames("VADUserStartedSpeakingFrame"):
        return _loud_spans(recording)
    spans: list[tuple[float, float]] = []
    began: float | None = None
    for event in recording.events:
        if event.kind == "VADUserStartedSpeakingFrame" and began is None:
            began = max(0.0, event.at - _seconds(event.fields.get("speech_ms")))
        elif event.kind == "VADUserStoppedSpeakingFrame" and began is not None:
            spans.append((began, max(began, event.at - _seconds(event.fields.get("silence_ms")))))
            began = None
    return spans + ([(began, recording.length_s)] if began is not None else [])


def _loud_spans(recording: Recording) -> list[tuple[float, float]]:
    """When the microphone was loud, where no speech detector tells: at a client."""
    count = max(1, int(recording.length_s / _SPAN_S))
    values = loudness(recording.audio("to_bot", rate=RATE), count, count * _SPAN_S)
    loud = [(at * _SPAN_S, (at + 1) * _SPAN_S) for at, value in enumerate(values) if value > _LOUD]
    return [span for span in _merged(loud, gap_s=0.4) if span[1] - span[0] > 2 * _SPAN_S]


def _seconds(ms: object) -> float:
    return float(ms) / 1000 if isinstance(ms, int | float) else 0.0


def _merged(spans: Sequence[tuple[float, float]], *, gap_s: float) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for start, end in spans:
        if merged and start - merged[-1][1] <= gap_s:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def loudness(
    pcm: bytes | bytearray, n: int, length_s: float, *, rate: int = RATE, full_db: float = FULL_DB
) -> list[float]:
    """Return `n` values from 0 (silent) to 1 (`full_db` and louder) that cover `length_s` seconds of PCM16 mono."""
    samples = np.frombuffer(bytes(pcm), np.int16).astype(np.float32) / 2**15
    edges = (np.linspace(0, length_s, n + 1) * rate).astype(int)
    values = []
    for start, end in pairwise(edges):
        part = samples[start:end]
        level_db = 20 * np.log10(np.sqrt(np.mean(part**2)) + 1e-6) if len(part) else -120.0
        values.append(float(np.clip((level_db - FLOOR_DB) / (full_db - FLOOR_DB), 0, 1)))
    return values


def state_spans(moves: Sequence[StateMove], length_s: float) -> list[tuple[float, float, str]]:
    """(from, to, state) of the whole recording."""
    first = moves[0].previous if moves else "idle"
    return stretches([(0.0, first), *((move.at, move.state) for move in moves)], length_s)


def stretches(told: Sequence[tuple[float, str]], length_s: float) -> list[tuple[float, float, str]]:
    """(from, to, state), from what was told at which time; where it is told again, the state goes on."""
    changes = [each for at, each in enumerate(told) if not at or told[at - 1][1] != each[1]]
    return [(at, end, state) for (at, state), (end, _) in zip(changes, [*changes[1:], (length_s, "")], strict=True)]
