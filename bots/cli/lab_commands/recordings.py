"""What the commands that read recordings share: files, and the bot that a recording is of."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ..scripts import UsageError, load_bot

if TYPE_CHECKING:  # takes time to import; done when a command runs
    from leibniz_voice.lab import Recording


def add_bot(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the bot."""
    parser.add_argument(
        "--bot",
        metavar="BOT",
        help="the bot script to replay with (default: the one that was recorded, if it is a file below this folder)",
    )


def load(path: str) -> Recording:
    """Read one recording. Raises `UsageError`."""
    from leibniz_voice.lab import Recording, RecordingError

    try:
        return Recording.load(path)
    except RecordingError as error:
        raise UsageError(str(error)) from None


def bot_of(recording: Recording, bot: str | None) -> str:
    """Return the script to replay with. A recording, which may be a stranger's, names none outside this folder."""
    if bot is not None:
        return bot
    name = Path(recording.bot)
    here = Path.cwd()
    if not recording.bot:
        raise UsageError("the recording does not say which bot it is of; give --bot BOT")
    if not (here / name).resolve().is_relative_to(here) or not name.is_file():
        raise UsageError(f"the recording is of {recording.bot}, which is no file below this folder; give --bot BOT")
    return str(name)


def files_of(paths: list[str]) -> list[str]:
    """Return the files that are meant; a folder is all recordings in it. Raises `UsageError`."""
    from leibniz_voice.lab.recording.recording_file import SUFFIX

    files: list[str] = []
    for path in paths:
        if Path(path).is_dir():
            found = sorted(str(file) for file in Path(path).iterdir() if file.name.endswith((SUFFIX, ".jsonl")))
            if not found:
                raise UsageError(f"{path}: no recording in this folder (*{SUFFIX}, *.jsonl)")
            files += found
        else:
            files.append(path)
    return files


def loaded(path: str) -> ModuleType:
    """Import a bot script. Raises `UsageError`."""
    return load_bot(path)
