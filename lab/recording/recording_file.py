"""A recording's file: a header, one line per event, an end; JSON, usually gzip'd. Safe to read from a stranger.

Nothing is executed or looked up; size, depth, number and type of everything are checked while reading. What is unpacked
is bounded, as wide as its letters lie in memory, and so is the number of values that come of it: a file of 20 KB takes
at most some 150 MB, any file 2.5 GB. Control characters in texts are replaced, so whoever prints them need not care.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .events import DIRECTIONS, FORMAT, RecordedEvent, RecordingError

if TYPE_CHECKING:
    from .recording import Recording

MAX_BYTES = 512 << 20  # unpacked: four hours of a call with both voices
MAX_LINE = 4 << 20  # one event
MAX_EVENTS = 3_000_000
MAX_NAME = 128  # letters of a processor's or kind's name
MAX_VALUES = 20_000_000  # JSON values in all: four hours hold 14 million
SMALL_VALUES, VALUES_PER_BYTE = 1_000_000, 8  # and so many for each byte of the file as it lies there; real: below 1
BLOCK = 1 << 16
# Left alone: a letter in two halves. Replaced (group 1): what a terminal obeys, as JSON spells it, and half a letter,
# which cannot be printed. Left alone: every other escape, above all the backslash itself.
CONTROLS = re.compile(
    r"\\ud[89ab]..\\ud[c-f].."
    r"|(\\u(?:00(?:0[0-8b-f]|1[0-9a-f]|7f|[89][0-9a-f])|d[89a-f]..)|\\[bfr]|[\x7f-\x9f])"
    r"|\\.",
    re.IGNORECASE,
)
GZIP = b"\x1f\x8b"
SUFFIX = ".leibniz.gz"  # what recordings are called


def header_line(recording: Recording) -> bytes:
    """The first line."""
    header = {
        "leibniz": "recording",
        "v": FORMAT,
        "session_id": recording.session_id,
        "side": recording.side,
        "began": recording.began,
        "bot": recording.bot,
        "settings": recording.settings,
        "versions": recording.versions,
        "processors": list(recording.processors),
        "audio": recording.has_audio,
        "text": recording.has_text,
    }
    return _line(header)


def event_line(event: RecordedEvent) -> bytes:
    """One event's line."""
    return _line([round(event.at, 6), *event[1:]])


def end_line(reason: str, lost: int) -> bytes:
    """The last line."""
    return _line({"end": reason, "lost": lost})


def _line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(errors="replace") + b"\n"


def write(recording: Recording, path: str | Path) -> None:
    """Write a whole recording."""
    with gzip.open(path, "wb", compresslevel=6) as file:
        file.write(header_line(recording))
        for event in recording.events:
            file.write(event_line(event))
        file.write(end_line(recording.end or "over", recording.lost))


def read(path: str | Path) -> dict[str, Any]:
    """Read a file, packed or not: what its `Recording` is made of. Raises `RecordingError`."""
    try:
        with open(path, "rb") as file:
            return _read(file)
    except RecordingError as error:
        raise RecordingError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise RecordingError(f"{path}: no such file") from None
    except OSError as error:
        raise RecordingError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def _read(file: BinaryIO) -> dict[str, Any]:
    most = min(MAX_VALUES, SMALL_VALUES + VALUES_PER_BYTE * os.fstat(file.fileno()).st_size)
    lines = _harmless(_lines(_unpacked(file)), most)
    recording = _about(_header(next(lines, "")))
    events: list[RecordedEvent] = []
    for number, line in enumerate(lines, 2):
        value = _json(line, number)
        if isinstance(value, dict):
            recording |= {"end": _text(value.get("end", ""), "end"), "lost": _count(value.get("lost", 0))}
            break
        events.append(_event(value, number))
        if len(events) > MAX_EVENTS:
            raise RecordingError(f"it holds more than {MAX_EVENTS} events")
    return {**recording, "events": tuple(events)}


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    """The file's bytes in blocks of at most `BLOCK`, unpacked; a file cut short by a crash ends where it ends."""
    head = file.read(BLOCK)
    unpack = zlib.decompressobj(31) if head.startswith(GZIP) else None
    total = 0
    while head:
        if unpack is None:
            block, head = head, file.read(BLOCK)
        else:
            try:
                block = unpack.decompress(head, BLOCK)
            except zlib.error as error:
                raise RecordingError(f"it is damaged: {error}") from None
            head = unpack.unconsumed_tail or (b"" if unpack.eof else file.read(BLOCK))
        total += len(block)
        if total > MAX_BYTES:
            raise RecordingError(f"it unpacks to more than {MAX_BYTES >> 20} MiB")
        yield block


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Whole lines; a last one without an end is what a crash left of it, and is dropped unless it is all there is."""
    rest, is_first = b"", True
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n") if b"\n" in block else (rest + block,)
        if len(rest) > MAX_LINE or any(len(line) > MAX_LINE for line in lines):
            raise RecordingError(f"a line is longer than {MAX_LINE >> 20} MiB")
        for line in lines:
            is_first = False
            yield line
    if is_first and rest:
        yield rest


def _harmless(lines: Iterator[bytes], most_values: int) -> Iterator[str]:
    """Lines without control characters; in all of at most `most_values`, and at most `MAX_BYTES` in memory."""
    values = wide = 0
    for number, line in enumerate(lines, 1):
        values += line.count(b",") + line.count(b"[") + line.count(b"{") + line.count(b":")
        if values > most_values:
            raise RecordingError("it unpacks to far more values than a recording of its size holds")
        try:
            text = line.decode()  # not left to `json`, which also takes UTF-16, where nothing below finds anything
        except UnicodeDecodeError:
            raise RecordingError(f"line {number} is damaged: it is no JSON") from None
        is_plain = text.isascii() and "\\" not in text
        wide += len(text) * (1 if is_plain else 4)  # one emoji, and Python keeps four bytes for each letter of its text
        if wide > MAX_BYTES:
            raise RecordingError(f"it unpacks to more than {MAX_BYTES >> 20} MiB")
        yield text if is_plain and "\x7f" not in text else CONTROLS.sub(_harmless_escape, text)


def _harmless_escape(match: re.Match[str]) -> str:
    return "?" if match[1] else match[0]


def _json(line: str, number: int) -> Any:
    try:
        return json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise RecordingError(f"line {number} is damaged: it is no JSON") from None


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _header(line: str) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("leibniz") != "recording":
        raise RecordingError("it is no recording of a conversation")
    version = header.get("v")
    if not isinstance(version, int) or version < 1:
        raise RecordingError(f"its format is {version!r}, which is none")
    if version > FORMAT:
        raise RecordingError(f"its format is {version}, newer than this program's {FORMAT}; update leibniz-voice")
    return header


def _about(header: dict[str, Any]) -> dict[str, Any]:
    """What a header says, by the names of `Recording`."""
    settings, versions = header.get("settings", {}), header.get("versions", {})
    processors, began = header.get("processors", []), header.get("began", 0.0)
    if not (isinstance(settings, dict) and isinstance(versions, dict) and isinstance(processors, list)):
        raise RecordingError("its header is damaged")
    if isinstance(began, bool) or not isinstance(began, int | float) or not 0 <= began < 1e11:
        raise RecordingError("its header is damaged: `began` is no time")
    return {
        "session_id": _text(header.get("session_id", ""), "session_id"),
        "side": _text(header.get("side", "server"), "side"),
        "began": float(began),
        "bot": _text(header.get("bot", ""), "bot", 4096),
        "settings": settings,
        "versions": {str(name): str(version) for name, version in versions.items()},
        "processors": tuple(_text(name, "processors") for name in processors),
        "has_audio": header.get("audio", True) is True,
        "has_text": header.get("text", True) is True,
    }


def _event(value: Any, number: int) -> RecordedEvent:
    if not isinstance(value, list) or len(value) != 5:
        raise RecordingError(f"line {number} is damaged: an event is [at, processor, direction, kind, fields]")
    at, processor, direction, kind, fields = value
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < 1e9:
        raise RecordingError(f"line {number} is damaged: its time is {str(at)[:40]!r}")
    if direction not in DIRECTIONS:
        raise RecordingError(f"line {number} is damaged: its direction is {str(direction)[:40]!r}")
    if not isinstance(fields, dict):
        raise RecordingError(f"line {number} is damaged: its fields are no object")
    return RecordedEvent(float(at), _text(processor, "processor"), direction, _text(kind, "kind"), fields)


def _text(value: Any, name: str, most: int = MAX_NAME) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise RecordingError(f"it is damaged: {name} is {str(value)[:40]!r}")
    return value.replace("\n", "?").replace("\t", "?")  # one line


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RecordingError(f"it is damaged: lost is {str(value)[:40]!r}")
    return value
