"""A recording drawn to scale as an SVG picture: voices, states, what each turn waited for, pauses and cuts. Pure.

One drawing serves the page of `leibniz show`, `leibniz talk --plot` and the docs. It has light and dark colours in
itself and needs nothing from outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from ..recording.events import Turn
from ..recording.recording import Recording
from ..recording.spans import state_spans, voice_of
from .timeline import marks_of

LEFT, RIGHT = 76, 16  # px for the rows' names, and after the end
PX_PER_S = 110.0  # of a call of ordinary length
MIN_WIDTH, MAX_WIDTH = 720, 12_000
VOICE_H, STATE_H, WORDS_H, BAR_H, GAP = 44, 22, 15, 15, 10
MAX_TURNS = 400  # drawn; a longer call's later turns are left out, and the picture says so
STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
STATES = ("idle", "listening", "thinking", "speaking", "interrupt")
WAITS = (  # (from, to, name): what a turn's time went into, each in its own colour
    ("user_silent", "vad_end", "end of speech"),
    ("vad_end", "committed", "end of turn"),
    ("committed", "joined", "branches"),
    ("joined", "first_text", "LLM"),
    ("first_text", "first_audio", "voice"),
    ("first_audio", "heard", "send"),
)
STYLE = """
.lz{--bg:#fff;--fg:#1d2433;--dim:#5c667a;--line:#e3e7ee;--user:#1f6feb;--bot:#c2410c;--lost:#b9bfca;
--idle:#eef1f5;--listening:#cfe3ff;--thinking:#ffe9a8;--speaking:#ffd3c2;--interrupt:#e11d48;
--w0:#8fb8f6;--w1:#5a8fe0;--w2:#3aa387;--w3:#9a6ad6;--w4:#e08a3c;--w5:#b9bfca;--cut:#be123c;--pause:#8a6100;
background:var(--bg);font:12px/1.3 system-ui,-apple-system,"Segoe UI",sans-serif}
@media (prefers-color-scheme:dark){.lz{--bg:#141821;--fg:#e6e9f0;--dim:#a3adbf;--line:#2a3140;--user:#7db2ff;
--bot:#ff9d73;--lost:#4a5366;--idle:#1d232f;--listening:#1d3b66;--thinking:#5a4a14;--speaking:#66301d;
--interrupt:#f43f5e;--w0:#3c64a3;--w1:#6a9ff0;--w2:#46b598;--w3:#ab82e0;--w4:#e69a52;--w5:#5c667a;--cut:#ff7a95;
--pause:#e7bf5a}}
.lz text{fill:var(--fg)}.lz .dim{fill:var(--dim)}.lz .grid{stroke:var(--line)}
.lz .user{fill:var(--user)}.lz .bot{fill:var(--bot)}
.lz .cut{stroke:var(--cut);stroke-width:1.5}.lz .cutt{fill:var(--cut)}
.lz .pause{fill:var(--pause);opacity:.25}.lz .pauset{fill:var(--pause)}
"""
COLOURS = "".join(f".lz .{state}{{fill:var(--{state})}}" for state in STATES) + "".join(
    f".lz .w{number}{{fill:var(--w{number})}}" for number in range(len(WAITS))
)


def draw(recording: Recording, *, px_per_s: float = PX_PER_S) -> str:
    """Return the picture as an SVG document; a long call is drawn smaller, so that it stays under 12,000 px."""
    length_s = max(recording.length_s, 0.1)
    width = min(MAX_WIDTH, max(MIN_WIDTH, LEFT + RIGHT + length_s * px_per_s))
    return _Drawing(recording, length_s, width).draw()


class _Drawing:
    def __init__(self, recording: Recording, length_s: float, width: float) -> None:
        self._recording = recording
        self._length_s = length_s
        self._width = width
        self._scale = (width - LEFT - RIGHT) / length_s  # px a second
        self._parts: list[str] = []
        self._y = 24.0  # where the next row begins

    def draw(self) -> str:
        recording = self._recording
        self._voice("user", "to_bot", "user")
        self._user_words()
        self._state_row()
        self._voice("bot", "to_user", "bot")
        self._bot_words()
        self._waits()
        self._marks()
        self._legend()
        height = self._y
        title = escape(f"Timeline of {recording.session_id or 'a conversation'}, {self._length_s:.1f} s")
        grid = "".join(self._grid(height - 22))
        return (
            f'<svg class="lz" xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{title}" '
            f'width="{self._width:.0f}" height="{height:.0f}" viewBox="0 0 {self._width:.0f} {height:.0f}">'
            f"<title>{title}</title><style>{STYLE}{COLOURS}</style>"
            f'<rect width="100%" height="100%" style="fill:var(--bg)"/>{grid}{"".join(self._parts)}</svg>'
        )

    # -- rows --------------------------------------------------------------------------------------------------

    def _x(self, at_s: float) -> float:
        return LEFT + min(max(at_s, 0.0), self._length_s) * self._scale

    def _name(self, text: str, y: float) -> None:
        self._parts.append(f'<text x="8" y="{y:.1f}" class="dim">{escape(text)}</text>')

    def _grid(self, bottom: float) -> Iterator[str]:
        step_s = next((s for s in STEPS_S if s * self._scale >= 60), STEPS_S[-1])
        for number in range(int(self._length_s / step_s) + 1):
            at_s = round(number * step_s, 3)
            x = self._x(at_s)
            yield f'<path class="grid" d="M{x:.1f} 18V{bottom:.1f}"/>'
            yield f'<text class="dim" x="{x + 3:.1f}" y="14">{at_s:g}{" s" if not number else ""}</text>'

    def _voice(self, name: str, direction: str, kind: str) -> None:
        """Loudness, as a shape round the row's middle."""
        n = int((self._width - LEFT - RIGHT) / 2)
        values = voice_of(self._recording, direction, n, self._length_s)
        middle, half = self._y + VOICE_H / 2, VOICE_H / 2 - 1
        self._name(name, middle + 4)
        top = [f"{LEFT + 2 * at} {middle - max(0.4, value * half):.1f}" for at, value in enumerate(values)]
        low = [f"{LEFT + 2 * at} {middle + max(0.4, value * half):.1f}" for at, value in enumerate(values)]
        self._parts.append(f'<path class="{kind}" d="M{"L".join([*top, *reversed(low)])}Z"/>')
        self._y += VOICE_H

    def _words(self, at_s: float, text: str, until_s: float, kind: str = "", rows: int = 1) -> int:
        """A text that begins at a time, cut so that it ends before the next one; all of it is in its tooltip.

        Returns the number of lines that it takes.
        """
        room = max(0, int((self._x(until_s) - self._x(at_s)) / 5.9) - 1)
        lines, rest = [], text
        for row in range(rows):
            if len(rest) <= room or row == rows - 1:
                lines.append(rest if len(rest) <= room else rest[: max(0, room - 1)] + "…")
                break
            at = rest.rfind(" ", 0, room + 1)
            at = at if at > 0 else room
            lines.append(rest[:at])
            rest = rest[at:].strip()
        spans = "".join(
            f'<tspan x="{self._x(at_s):.1f}" y="{self._y + 11 + WORDS_H * row:.1f}">{escape(line)}</tspan>'
            for row, line in enumerate(lines)
            if line.strip("…")
        )
        self._parts.append(f'<text class="{kind}">{spans}<title>{escape(text)}</title></text>')
        return len(lines)

    def _user_words(self) -> None:
        turns = [(_said_at(turn), turn) for turn in self._turns() if turn.user]
        for (at, turn), (until, _) in zip(turns, [*turns[1:], (self._length_s, None)], strict=False):
            self._words(at, turn.user, until)
        self._y += WORDS_H + GAP

    def _state_row(self) -> None:
        self._name("state", self._y + 15)
        for start, end, state in state_spans(self._recording.moves, self._length_s):
            x, width = self._x(start), self._x(end) - self._x(start)
            kind = state if state in STATES else "idle"
            self._parts.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{self._y:.1f}" width="{max(width, 1.5):.1f}" height="{STATE_H}">'
                f"<title>{escape(state)} {start:.2f} to {end:.2f} s</title></rect>"
            )
            if width > 6 * len(state) + 8:
                self._parts.append(f'<text x="{x + 5:.1f}" y="{self._y + 15:.1f}">{escape(state)}</text>')
        self._y += STATE_H + GAP

    def _bot_words(self) -> None:
        turns = [(_answered_at(turn), turn) for turn in self._turns() if turn.reply]
        for (at, turn), (until, _) in zip(turns, [*turns[1:], (self._length_s, None)], strict=False):
            if turn.interrupted:
                used = WORDS_H * self._words(at, turn.heard or "(nothing was heard)", until, rows=2)
                self._y += used
                self._words(at, f"cut, not heard: {_rest_of(turn)}", until, "cutt")
                self._y -= used
            else:
                self._words(at, turn.reply, until, rows=3)
        self._y += 3 * WORDS_H + GAP

    def _waits(self) -> None:
        """What passed between the user's last sample and the first audible one of the bot."""
        self._name("waiting", self._y + 12)
        for turn in self._turns():
            ms = {name: self._wait(turn, number, *pair) for number, (*pair, name) in enumerate(WAITS)}
            total_ms = sum(ms.values())
            if total_ms >= 1 and "user_silent" in turn.instants:
                x = self._x(turn.instants.get("heard", turn.instants.get("first_audio", 0.0)))
                self._parts.append(f'<text x="{x + 4:.1f}" y="{self._y + 12:.1f}">{total_ms:.0f} ms</text>')
        self._y += BAR_H + GAP

    def _wait(self, turn: Turn, number: int, start: str, end: str) -> float:
        begins, ends = turn.instants.get(start), turn.instants.get(end)
        if begins is None or ends is None or ends <= begins:
            return 0.0
        x, width = self._x(begins), max(1.0, self._x(ends) - self._x(begins))
        ms = (ends - begins) * 1000
        self._parts.append(
            f'<rect class="w{number}" x="{x:.1f}" y="{self._y:.1f}" width="{width:.1f}" height="{BAR_H}">'
            f"<title>turn {turn.turn_id}: {WAITS[number][2]} {ms:.0f} ms</title></rect>"
        )
        return ms

    def _marks(self) -> None:
        """Pauses as bands, interruptions as lines, over all rows."""
        paused: float | None = None
        bottom = self._y - GAP
        for at_s, kind in marks_of(self._recording):
            x = self._x(at_s)
            if kind == "pause" and paused is None:
                paused = at_s
            elif kind in ("resume", "interrupted"):
                if paused is not None:
                    x0 = self._x(paused)
                    self._parts.append(
                        f'<rect class="pause" x="{x0:.1f}" y="18" width="{max(1.0, x - x0):.1f}" '
                        f'height="{bottom - 18:.1f}"><title>paused {paused:.2f} to {at_s:.2f} s</title></rect>'
                    )
                paused = None
                if kind == "interrupted":
                    self._parts.append(f'<path class="cut" d="M{x:.1f} 18V{bottom:.1f}"/>')

    def _legend(self) -> None:
        self._y += 4
        x = float(LEFT)
        items = [(f"w{number}", name) for number, (_, _, name) in enumerate(WAITS)]
        for kind, name in [*items, ("pause", "paused"), ("interrupt", "interrupted")]:
            self._parts.append(f'<rect class="{kind}" x="{x:.1f}" y="{self._y:.1f}" width="10" height="10" rx="2"/>')
            self._parts.append(f'<text class="dim" x="{x + 14:.1f}" y="{self._y + 9:.1f}">{name}</text>')
            x += 26 + 6.4 * len(name)
        self._y += 22

    def _turns(self) -> list[Turn]:
        return self._recording.turns[:MAX_TURNS]


def _said_at(turn: Turn) -> float:
    names = ("listening", "voice", "user_silent", "committed")
    return next((turn.instants[name] for name in names if name in turn.instants), 0.0)


def _answered_at(turn: Turn) -> float:
    names = ("heard", "sent", "first_audio", "first_text")
    return next((turn.instants[name] for name in names if name in turn.instants), 0.0)


def _rest_of(turn: Turn) -> str:
    heard = len(turn.heard.split())
    return " ".join(turn.reply.split()[heard:])
