"""What people see of a call while it goes on: a line per event, and on a terminal a live line under them."""

from __future__ import annotations

import shutil
import sys
from typing import TextIO

from leibniz_voice.lab.drawing.timeline import bars
from leibniz_voice.lab.recording.spans import loudness

from .report import EMOJI, FULL_DB, NotedEvent
from .sound import RATE

PERIOD_S = 0.1  # between two pictures of the live line
METER_S = 0.1  # of audio that a meter shows
METER_BYTES = 2 * int(METER_S * RATE)


class View:
    """Prints events to `stream`, plain lines for a file and a live line besides for a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_live = stream.isatty()
        self._drawn_s = -1.0  # when the live line was drawn last
        self._state = "idle"  # what the server said last

    def on_event(self, event: NotedEvent) -> None:
        """Print what people want to know of an event."""
        fields = event.fields
        match event.kind:
            case "connected":
                self.line(event.at_s, "📞 resumed" if fields.get("resumed") else "📞 connected")
            case "disconnected":
                self.line(event.at_s, f"📵 {fields.get('reason')}")
            case "state_update":
                self._on_state(event.at_s, str(fields.get("state")), fields)
            case "response_ready" | "response_text":
                self.line(event.at_s, f"   bot: {fields.get('text')}")
            case "pause" | "resume":
                self.line(event.at_s, f"⏸  {event.kind}d" if event.kind == "pause" else "▶  resumed")
            case "interrupted":
                self.line(event.at_s, "✋ interrupted")
            case "error":
                self.line(event.at_s, f"❗ {fields.get('code')}: {fields.get('message')}")

    def _on_state(self, at_s: float, state: str, fields: dict[str, object]) -> None:
        if state != self._state:
            self._state = state
            self.line(at_s, f"{EMOJI.get(state, '▪')} {state} ({fields.get('trigger')})")
            words = fields.get("text_buffer")
            if state == "thinking" and isinstance(words, list):
                self.line(at_s, f"   you: {' '.join(map(str, words))}")

    def line(self, at_s: float, text: str) -> None:
        """Print a line, above the live one."""
        self._clear()
        print(f"{at_s:7.2f} s  {text}", file=self._stream, flush=True)

    def draw(self, now_s: float, said: bytearray, heard: bytearray) -> None:
        """Renew the live line, ten times a second. Nothing happens where there is no terminal."""
        if not self._is_live or now_s - self._drawn_s < PERIOD_S:
            return
        self._drawn_s = now_s
        you, bot = (bars(loudness(pcm[-METER_BYTES:], 1, METER_S, full_db=FULL_DB)) for pcm in (said, heard))
        text = f"{now_s:7.2f} s  {EMOJI.get(self._state, '▪')} {self._state:<10} you {you}  bot {bot}"
        self._stream.write("\r\x1b[2K" + text[: shutil.get_terminal_size().columns - 2])
        self._stream.flush()

    def end(self) -> None:
        """Take the live line away."""
        self._clear()

    def _clear(self) -> None:
        if self._is_live:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()


def can_draw(stream: TextIO | None = None) -> bool:
    """Whether a stream takes more than ASCII."""
    return ((stream or sys.stdout).encoding or "").lower().replace("-", "").startswith("utf")
