"""A recording drawn to scale as text: time, the user's voice, the state, the bot's voice, and what happened to it.

time   |0 s        |1         |2         |3         |4
user       ▃▆▇▆▅▆▃                         ▅▇▆
state  idle...|listening─|think|speaking──────|listening─
bot                          ▂▅▆▆▅▆▆▇▅▄▆▆▅▆▇
marks                                       ‖✂
turn 1  you  where is my order
        bot  It arrives on Friday. [cut after: It arrives]
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ..recording.recording import Move, Recording

BARS = " ▁▂▃▄▅▆▇█"
PLAIN_BARS = "  ..::##@"
MARKS = {"pause": "‖", "resume": "▶", "interrupted": "✂", "error": "!"}
PLAIN_MARKS = {"pause": "=", "resume": ">", "interrupted": "X", "error": "!"}
RATE = 16_000
STEPS_S = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)
_SPAN_S, _LOUD = 0.04, 0.25  # pieces that are loud above -40 dB
FLOOR_DB, RANGE_DB = 50, 42  # -50 dB is nothing, -8 dB is full


def timeline(recording: Recording, *, width: int = 100, plain: bool = False) -> str:
    """Draw it in `width` columns; `plain`: in ASCII."""
    columns, length_s = max(20, width - 8), max(recording.length_s, 0.1)
    bars = PLAIN_BARS if plain else BARS

    def wave(direction: str) -> str:
        values = voice_of(recording, direction, columns, length_s)
        return "".join(bars[round(value * (len(bars) - 1))] for value in values)

    rows = {
        "time": _axis(columns, length_s),
        "user": wave("to_bot"),
        "state": _states(recording.moves, columns, length_s, plain=plain),
        "bot": wave("to_user"),
        "marks": _marks(recording, columns, length_s, PLAIN_MARKS if plain else MARKS),
    }
    lines = [f"{name:<7} {row}".rstrip() for name, row in rows.items() if row.strip()]
    return "\n".join([*lines, *_words(recording)])


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


def loudness(pcm: bytes | bytearray, n: int, length_s: float, *, rate: int = RATE) -> list[float]:
    """Return `n` values from 0 (silent) to 1 (loud speech) that cover `length_s` seconds of PCM16 mono."""
    samples = np.frombuffer(bytes(pcm), np.int16).astype(np.float32) / 2**15
    edges = (np.linspace(0, length_s, n + 1) * rate).astype(int)
    values = []
    for start, end in pairwise(edges):
        part = samples[start:end]
        level_db = 20 * np.log10(np.sqrt(np.mean(part**2)) + 1e-6) if len(part) else -120.0
        values.append(float(np.clip((level_db + FLOOR_DB) / RANGE_DB, 0, 1)))
    return values


def _axis(columns: int, length_s: float) -> str:
    step_s = next((s for s in STEPS_S if columns * s / length_s >= 8), STEPS_S[-1])
    row = [" "] * columns
    for number in range(int(length_s / step_s) + 1):
        at_s = number * step_s
        column = int(at_s / length_s * columns)
        label = f"|{at_s:g} s" if at_s == 0 else f"|{at_s:g}"
        row[column : column + len(label)] = label
    return "".join(row[:columns])


def _states(moves: Sequence[Move], columns: int, length_s: float, *, plain: bool) -> str:
    spans = state_spans(moves, length_s)
    row = ""
    for start_s, end_s, name in spans:
        start, end = (min(columns, int(at_s / length_s * columns)) for at_s in (start_s, end_s))
        if end > start:
            fill = "." if name == "idle" else "-" if plain else "─"
            row = row[:start].ljust(start) + ("|" + name + fill * columns)[: end - start]
    return row


def state_spans(moves: Sequence[Move], length_s: float) -> list[tuple[float, float, str]]:
    """(from, to, state) of the whole recording."""
    first = moves[0].previous if moves else "idle"
    changes = [(0.0, first), *((move.at, move.state) for move in moves)]
    return [(at, end, state) for (at, state), (end, _) in zip(changes, [*changes[1:], (length_s, "")], strict=True)]


def marks_of(recording: Recording) -> list[tuple[float, str]]:
    """(time, what) of each pause, resume, interruption and error that the client was told."""
    told = [(e.at, e.kind) for e in recording.events if e.direction == "to_user" and e.kind in MARKS]
    if told:
        return told
    names = {"PlaybackPauseFrame": "pause", "PlaybackResumeFrame": "resume", "BargeInFrame": "interrupted"}
    return [(e.at, names[e.kind]) for e in recording.events if e.kind in names]


def _marks(recording: Recording, columns: int, length_s: float, marks: dict[str, str]) -> str:
    row = [" "] * columns
    for at_s, kind in marks_of(recording):
        row[min(columns - 1, int(at_s / length_s * columns))] = marks[kind]
    return "".join(row)


def _words(recording: Recording) -> list[str]:
    lines = []
    for turn in recording.turns:
        head = f"turn {turn.turn_id}".ljust(8)
        if turn.user:
            lines.append(f"{head}you  {turn.user}")
            head = " " * 8
        if turn.reply or turn.interrupted:
            cut = f" [cut after: {turn.heard or 'nothing'}]" if turn.interrupted else ""
            lines.append(f"{head}bot  {turn.reply}{cut}")
    return lines
