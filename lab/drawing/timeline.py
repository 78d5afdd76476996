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

from collections.abc import Iterable, Sequence

from ..recording.recording import Recording
from ..recording.spans import state_spans, voice_of

BARS = " ▁▂▃▄▅▆▇█"
PLAIN_BARS = "  ..::##@"
MARKS = {"pause": "‖", "resume": "▶", "interrupted": "✂", "error": "!"}
PLAIN_MARKS = {"pause": "=", "resume": ">", "interrupted": "X", "error": "!"}
STEPS_S = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)


def timeline(recording: Recording, *, width: int = 100, plain: bool = False) -> str:
    """Draw it in `width` columns; `plain`: in ASCII."""
    columns, length_s = max(20, width - 8), max(recording.length_s, 0.1)
    user, bot = (voice_of(recording, direction, columns, length_s) for direction in ("to_bot", "to_user"))
    drawn = rows(user, bot, state_spans(recording.moves, length_s), length_s, plain=plain)
    drawn["marks"] = _marks(recording, columns, length_s, PLAIN_MARKS if plain else MARKS)
    lines = [f"{name:<7} {row}".rstrip() for name, row in drawn.items() if row.strip()]
    return "\n".join([*lines, *_words(recording)])


def rows(
    user: Sequence[float],
    bot: Sequence[float],
    states: Sequence[tuple[float, float, str]],
    length_s: float,
    *,
    plain: bool = False,
) -> dict[str, str]:
    """Return the rows `time`, `user`, `state` and `bot`: a letter for each value of the voices, which are 0 to 1."""
    columns = len(user)
    return {
        "time": _axis(columns, length_s),
        "user": bars(user, plain=plain),
        "state": _states(states, columns, length_s, plain=plain),
        "bot": bars(bot, plain=plain),
    }


def bars(values: Iterable[float], *, plain: bool = False) -> str:
    """Draw values from 0 to 1, a letter each."""
    letters = PLAIN_BARS if plain else BARS
    return "".join(letters[round(value * (len(letters) - 1))] for value in values)


def _axis(columns: int, length_s: float) -> str:
    step_s = next((s for s in STEPS_S if columns * s / length_s >= 8), STEPS_S[-1])
    row = [" "] * columns
    for number in range(int(length_s / step_s) + 1):
        at_s = number * step_s
        column = int(at_s / length_s * columns)
        label = f"|{at_s:g} s" if at_s == 0 else f"|{at_s:g}"
        row[column : column + len(label)] = label
    return "".join(row[:columns])


def _states(states: Sequence[tuple[float, float, str]], columns: int, length_s: float, *, plain: bool) -> str:
    row = ""
    for start_s, end_s, name in states:
        start, end = (min(columns, int(at_s / length_s * columns)) for at_s in (start_s, end_s))
        if end > start:
            fill = "." if name == "idle" else "-" if plain else "─"
            row = row[:start].ljust(start) + ("|" + name + fill * columns)[: end - start]
    return row


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
