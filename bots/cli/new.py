"""`leibniz new NAME`: a bot of one's own, with content, and one test that passes."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from .scripts import UsageError

EPILOG = """\
NAME/bot.py             the pipeline
NAME/content/           what people may say, what the bot answers, what it knows
NAME/test_bot.py        a conversation with a barge-in, as a test
NAME/README.md          what to change where

Nothing is overwritten: NAME must not exist, or be an empty folder.
"""
FILLED = ("README.md", "content/intents.toml")  # files in which {{name}} and {{folder}} are filled in


def add_parser(commands: Any) -> None:
    """Add this command's parser."""
    parser = commands.add_parser(
        "new",
        help="make a bot of your own, with a test that passes",
        description="Make a folder with a voice bot that works, to be changed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="the folder to make; its last part is the bot's name")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Make the folder; say what to do next."""
    folder = Path(options.name)
    try:
        make(folder)
    except UsageError as error:
        print(f"leibniz new: {error}", file=sys.stderr)
        return 2
    by = _by_uv()
    print(
        f"Made {folder}/. Next:\n"
        f"  {by}pytest {folder}\n"
        f"  {by}leibniz serve {folder}/bot.py\n"
        f'  {by}leibniz talk "what are your opening hours"      (in a second terminal)\n'
        f"Then change {folder}/content/; {folder}/README.md tells what is where."
    )
    return 0


def _by_uv() -> str:
    """What has to stand in front of a command: `uv run `, as it was called itself, or nothing."""
    uv = os.environ.get("UV")  # set by `uv run`
    if not uv:
        return ""
    path = Path(uv)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path} run "


def make(folder: Path) -> None:
    """Make the bot. Raises `UsageError` for a name that cannot be one, or a folder that cannot be made."""
    name = folder.name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise UsageError(
            f"{name or str(folder)!r} is no name for a bot: give 1 to 64 letters, digits, '_' or '-', such as shop"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already; give another name, or remove it")
    was_there = folder.exists()
    try:
        with as_file(files("leibniz_voice.bots") / "new_data") as template:
            shutil.copytree(template, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        title = name.replace("_", " ").replace("-", " ").title()
        for file in FILLED:
            text = (folder / file).read_text(encoding="utf-8")
            filled = text.replace("{{name}}", title).replace("{{folder}}", folder.as_posix())
            (folder / file).write_text(filled, encoding="utf-8")
    except OSError as error:
        if not was_there:
            shutil.rmtree(folder, ignore_errors=True)  # half a bot would be in the way of the next try
        raise UsageError(f"cannot make {folder}: {_why(error)}") from error


def _why(error: OSError) -> str:
    """What went wrong; `copytree` gathers the errors of all files, as texts."""
    first = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror or str(error)
    return re.sub(r"^\[Errno \d+\] ", "", first).partition(": '")[0]
