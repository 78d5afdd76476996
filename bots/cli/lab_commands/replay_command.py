"""`leibniz replay FILE`: a recorded conversation again, in virtual time; does the bot decide the same?"""

from __future__ import annotations

import argparse
import math
import sys
import time
from typing import Any

from ..scripts import UsageError, check_writable, checked_build, counted, lifespan_of, set_up_log
from .recordings import add_bot, bot_of, files_of, load, loaded

EPILOG = """\
The client's messages and microphone come from the file at their times, and so does what is outside the bot: the speech
model's probabilities, the recogniser's words, the answers of branches and LLM, the audio of the voice. Whatever the bot
decides (speech, turns, states, pauses, interruptions) is decided anew and compared.

examples:
  leibniz replay recordings/                              every recording in a folder
  leibniz replay call.leibniz.gz --bot bots/assistant.py
  leibniz replay call.leibniz.gz --again stt --again voice   asks recogniser and voice again
  leibniz replay call.leibniz.gz -o again.leibniz.gz      keeps what came of it, for leibniz show

status: 0 the same decisions, 1 others; the first difference is printed, 2 wrong use
"""


def add_parser(commands: Any) -> None:
    """Add this command's parser."""
    parser = commands.add_parser(
        "replay",
        help="replay recordings: does the bot decide the same?",
        description="Replay recorded conversations in virtual time and compare what the bot decides.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="recordings, or folders of them")
    add_bot(parser)
    parser.add_argument(
        "--again",
        action="append",
        default=[],
        choices=("vad", "stt", "branches", "llm", "voice"),
        help="ask this part again instead of taking its answers from the recording",
    )
    parser.add_argument("--tolerance", type=float, default=0.3, metavar="S", help="of a decision's time (default: 0.3)")
    parser.add_argument("-o", "--out", metavar="FILE", help="write the replayed conversation, of one FILE")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Replay each file; 1 if any differs."""
    set_up_log("ERROR")
    try:
        if not 0 <= options.tolerance < math.inf:
            raise UsageError(f"--tolerance is {options.tolerance:g}; give seconds, 0 or more")
        files = files_of(options.files)
        if options.out and len(files) > 1:
            raise UsageError(f"-o takes one replay, but {len(files)} files are given")
        if options.out:
            check_writable(options.out)
        same = [_replay(file, options) for file in files]
    except UsageError as error:
        print(f"leibniz replay: {error}", file=sys.stderr)
        return 2
    if len(same) > 1:
        print(f"{sum(same)} of {len(same)} decide the same")
    return 0 if all(same) else 1


def _replay(file: str, options: argparse.Namespace) -> bool:
    from leibniz_voice.lab.replay.decisions import decisions_of, differences, drift_s
    from leibniz_voice.lab.replay.replay import replay
    from leibniz_voice.pipeline.errors import LeibnizError

    recording = load(file)
    script = bot_of(recording, options.bot)
    bot = loaded(script)
    build = checked_build(bot, script)
    began = time.monotonic()
    try:
        replayed = replay(recording, build, again=options.again, lifespan=lambda: lifespan_of(bot))
    except LeibnizError as error:
        raise UsageError(f"{file}: {error}") from None
    took_s = time.monotonic() - began
    after = replayed.recording
    if options.out:
        try:
            after.save(options.out)
        except OSError as error:
            raise UsageError(f"{options.out}: {(error.strerror or str(error)).lower()}") from None
    found = differences(recording, after, tolerance_s=options.tolerance)
    count, length_s = len(decisions_of(recording)), recording.length_s
    if not recording.is_whole:
        print(f"{file}: the recording is not whole: {recording.gap}", file=sys.stderr)
    if found:
        print(f"{file}: not the same; {found[0]}")
        return False
    turns = counted(len(recording.turns), "turn")
    speed = length_s / max(took_s, 1e-3)
    print(
        f"{file}: the same {counted(count, 'decision')} in {turns}, "
        f"times within {drift_s(recording, after) * 1000:.0f} ms "
        f"({length_s:.1f} s in {took_s:.2f} s, {speed:.0f} times real time)"
    )
    return True
