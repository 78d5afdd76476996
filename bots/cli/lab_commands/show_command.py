"""`leibniz show FILE`: a recorded conversation to look at, in the terminal or as a page."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..scripts import UsageError, set_up_log
from .recordings import files_of, load

if TYPE_CHECKING:  # takes time to import; done when the command runs
    from leibniz_voice.lab import Recording

EPILOG = """\
examples:
  leibniz show recordings/s1-20261126-101500-123.leibniz.gz
  leibniz show call.leibniz.gz --html call.html     one page with the picture and the voices; needs nothing else
  leibniz show call.leibniz.gz --svg call.svg       the picture alone
  leibniz show call.leibniz.gz --events             every event but audio, a line each

A recording holds what people said, and so does its page: give it to nobody who may not know.
"""
LOUD = {"audio", "InputAudioRawFrame", "ReplyAudioFrame", "TTSAudioRawFrame", "Probability", "Tick"}


def add_parser(commands: Any) -> None:
    """Add this command's parser."""
    parser = commands.add_parser(
        "show",
        help="look at a recording: timeline, turns, measures",
        description="Draw a recorded conversation to scale, with its turns, latencies and measures.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="a recording")
    parser.add_argument("--html", metavar="OUT", help="write one HTML page, with the audio if it was recorded")
    parser.add_argument("--svg", metavar="OUT", help="write the picture")
    parser.add_argument("--events", action="store_true", help="print every event")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show it."""
    set_up_log("ERROR")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # type: ignore[attr-defined] # a terminal without box characters
    try:
        if Path(options.file).is_dir():
            raise UsageError(f"{options.file}: is a folder; give one recording, such as {files_of([options.file])[-1]}")
        _show(load(options.file), options)
    except UsageError as error:
        print(f"leibniz show: {error}", file=sys.stderr)
        return 2
    return 0


def _show(recording: Recording, options: argparse.Namespace) -> None:
    from leibniz_voice.lab import RecordingError

    try:
        if options.html:
            from leibniz_voice.lab.drawing.page import page

            write(options.html, page(recording))
        if options.svg:
            from leibniz_voice.lab.drawing.svg import draw

            write(options.svg, draw(recording))
        if options.events:
            _print_events(recording)
        elif not (options.html or options.svg):
            _print(recording)
    except RecordingError as error:
        raise UsageError(f"{options.file}: {error}") from None


def write(path: str, text: str) -> None:
    """Write a file and say so. Raises `UsageError`."""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    print(f"{path}: {len(text.encode()) / 1024:.0f} KiB")


def _print(recording: Recording) -> None:
    from leibniz_voice.lab.replay.measures import measures_of

    from ..talk_command.view import can_draw

    print(recording.timeline(width=shutil.get_terminal_size((100, 24)).columns, plain=not can_draw(sys.stdout)))
    for turn in recording.turns:
        if latency_ms := turn.latency_ms:
            print(f"turn {turn.turn_id}".ljust(8) + "ms   " + ", ".join(f"{k} {v:.0f}" for k, v in latency_ms.items()))
    print()
    for name, value in measures_of(recording).told():
        print(f"{name:<22} {value}")
    if not recording.is_whole:
        print(f"\nThe recording is not whole: {recording.gap}.")


def _print_events(recording: Recording) -> None:
    for event in recording.events:
        if event.kind not in LOUD:
            fields = " ".join(
                f"{name}={value!r}" for name, value in event.fields.items() if value not in (None, "", [])
            )
            print(f"{event.at:9.3f} {event.processor:<18} {event.direction:<10} {event.kind} {fields[:300]}")
