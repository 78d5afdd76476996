"""`leibniz`: the command line. One module per command; each adds its parser and returns an exit status.

Status 0: done. 1: it ran, but not to the good end that its help names. 2: wrong use, said in one line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata

from . import new, serve, token, watch
from .doctor_command import doctor
from .lab_commands import compare_command, record_command, replay_command, show_command
from .talk_command import talk

COMMANDS = (serve, talk, new, doctor, record_command, show_command, replay_command, compare_command, watch, token)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(
        prog="leibniz",
        description="Frame pipelines for voice bots that can be interrupted.",
        epilog="leibniz COMMAND --help tells more about each.",
    )
    top.add_argument("--version", action="version", version=f"leibniz {version()}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return top


def version() -> str:
    """Return the installed version."""
    try:
        return metadata.version("leibniz-voice")
    except metadata.PackageNotFoundError:
        return "unknown"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1


def run_file(path: str) -> None:
    """Serve the bot script `path`, with the options of `leibniz serve`; for `python FILE`."""
    sys.exit(main(["serve", path, *sys.argv[1:]]))


if __name__ == "__main__":
    sys.exit(main())
