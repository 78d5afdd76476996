"""`leibniz record BOT`: serve a bot and record every conversation."""

from __future__ import annotations

from typing import Any

from .. import serve

FOLDER = "recordings"  # where none is given


def add_parser(commands: Any) -> None:
    """Add this command's parser: that of `serve`, with a folder."""
    serve.add_parser(
        commands,
        name="record",
        help="serve a bot script and record its conversations",
        description="Serve a bot as `leibniz serve` does, and record each conversation into a file of its own.",
        record=FOLDER,
    )
