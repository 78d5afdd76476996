"""A call as its client saw it: a recording of it, drawn for `leibniz talk --plot`."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..scripts import UsageError, check_writable

if TYPE_CHECKING:  # takes time to import; done while the bot starts
    from leibniz_voice.lab import RecordedEvent, Recording
    from leibniz_voice.transports.client.client import WebSocketClient

CHUNK_S = 0.1
SUFFIXES = (".svg", ".html", ".gz")  # a picture, a page, the recording itself


def check_plot(path: str) -> None:
    """Refuse what cannot be drawn to. Raises `UsageError`."""
    if Path(path).suffix not in SUFFIXES:
        raise UsageError(
            f"--plot {path}: give FILE.svg for a picture, FILE.html for a page, FILE.leibniz.gz to keep it"
        )
    check_writable(path)


def write_plot(path: str, client: WebSocketClient) -> None:
    """Draw the call. Raises `UsageError` if the file cannot be written."""
    recording = recording_of(client)
    try:
        if path.endswith(".gz"):
            recording.save(path)
        elif path.endswith(".html"):
            from leibniz_voice.lab.drawing.page import page

            Path(path).write_text(page(recording), encoding="utf-8")
        else:
            from leibniz_voice.lab.drawing.svg import draw

            Path(path).write_text(draw(recording), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def recording_of(client: WebSocketClient) -> Recording:
    """Return what the client sent, got and played, as a recording."""
    from leibniz_voice.lab import RecordedEvent, Recording

    rate = client.playback.sample_rate
    events = [
        *_voice(bytes(client.microphone.said), rate, "to_bot"),
        *_voice(bytes(client.playback.heard), rate, "to_user"),
        *(RecordedEvent(event.at_s, "client", "to_user", event.kind, _json(event.fields)) for event in client.events),
    ]
    events.sort(key=lambda event: event.at)
    began = time.time() - client.now_s
    return Recording(tuple(events), session_id=client.session_id, side="client", began=began, end="over")


def _voice(pcm: bytes, rate: int, direction: str) -> Iterator[RecordedEvent]:
    """A voice in chunks; silent ones are left out. The microphone's come at their end, the bot's at their start."""
    from leibniz_voice.lab import RecordedEvent

    size = 2 * int(CHUNK_S * rate)
    for start in range(0, len(pcm), size):
        chunk = pcm[start : start + size]
        if any(chunk):
            at = (start + (len(chunk) if direction == "to_bot" else 0)) / 2 / rate
            fields = {"rate": rate, "samples": len(chunk) // 2, "pcm": base64.b64encode(chunk).decode()}
            yield RecordedEvent(at, "client", direction, "audio", fields)


def _json(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "type"}
