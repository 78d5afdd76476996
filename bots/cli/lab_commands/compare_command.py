"""`leibniz compare FILE... --set NAME=VALUE`: what would other settings have made of these calls?"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

from ..scripts import UsageError, checked_build, lifespan_of, set_up_log
from .recordings import add_bot, bot_of, files_of, load, loaded

if TYPE_CHECKING:  # takes time to import; done when the command runs
    from leibniz_voice.lab.replay.compare import Compared

EPILOG = """\
Every recording is replayed twice in virtual time, with the bot's settings and with those of --set, and both are
measured. The embedded recogniser and voice are asked again, as other settings ask them something else; a branch where
it was not asked the same; the rest comes from the recording. --again says which parts are (none: --again nothing).

A setting is a stage and a name, of its processor or of the policy it holds: vad.hangover_ms, vad.onset_ms,
turns.unfinished_s, gate.confirm_ms (also gate.onset_ms). A wrong one is answered with those there are.

examples:
  leibniz compare recordings --set vad.hangover_ms=150 --set gate.onset_ms=64
  leibniz compare recordings --fail-if "false_interruptions > 0" --fail-if "response_p95_ms > 800"
  leibniz compare recordings --bot bots/assistant.py --set vad.hangover_ms=600 --json

measures for --fail-if (of the second column; joined by `and` and `or`):
  response_latency response_p50_ms response_p95_ms response_rate yield_latency yield_rate agent_interruption_rate
  selectivity_backchannel selectivity_vocal_tic selectivity_non_directed turns false_cutoffs false_interruptions
  interruptions cuts pauses resumes

status: 0 done, 1 a --fail-if holds, 2 wrong use, 130 stopped by Ctrl-C
"""
NOTHING = "nothing"  # of --again


def add_parser(commands: Any) -> None:
    """Add this command's parser."""
    parser = commands.add_parser(
        "compare",
        help="measure recordings under other settings",
        description="Replay recordings under two settings and compare their measures.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="recordings, or folders of them")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting", dest="changes"
    )
    parser.add_argument("--fail-if", action="append", default=[], metavar="CONDITION", help="exit with 1 if it holds")
    add_bot(parser)
    parser.add_argument(
        "--again",
        action="append",
        choices=("vad", "stt", "branches", "llm", "voice", NOTHING),
        help="ask this part again (default: the embedded recogniser and voice)",
    )
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="processes (default: one per core)")
    parser.add_argument("--each", action="store_true", help="print a line per recording too")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compare; 1 if a condition holds."""
    set_up_log("ERROR")
    try:
        return _run(options)
    except UsageError as error:
        print(f"leibniz compare: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    from leibniz_voice.lab.recording.settings import parse
    from leibniz_voice.lab.replay.compare import AGAIN, failing, table, total
    from leibniz_voice.lab.replay.condition import Condition
    from leibniz_voice.lab.replay.measures import Measures
    from leibniz_voice.pipeline.errors import ConfigurationError

    if options.jobs < 0:
        raise UsageError(f"--jobs is {options.jobs}; give a number of processes, or 0 for one per core")
    if options.again and NOTHING in options.again and set(options.again) != {NOTHING}:
        raise UsageError(f"--again {NOTHING} stands alone, but --again {' --again '.join(options.again)} is given")
    try:
        conditions = [Condition(text, tuple(Measures().values())) for text in options.fail_if]
        changes = parse(options.changes)
    except ConfigurationError as error:
        raise UsageError(str(error)) from None
    files = files_of(options.files)
    again = AGAIN if options.again is None else tuple(part for part in options.again if part != NOTHING)
    work = [(file, bot_of(load(file), options.bot), changes, again) for file in files]
    compared = sorted(_all(work, options.jobs or os.cpu_count() or 1), key=lambda each: each.file)
    before, after = total(compared)
    held = failing(conditions, after)
    for each in compared:
        if each.is_foreign:
            print(f"{each.file}: warning: the bot has none of its processors; is it of another bot?", file=sys.stderr)
    if options.json:
        told = {"files": len(compared), "set": changes, "before": before.values(), "after": after.values()}
        print(json.dumps({**told, "failed": [condition.text for condition, _ in held]}))
    else:
        if options.each:
            _print_each(compared)
        print(table(before, after, changes))
        if estimated := sum(each.estimated for each in compared):
            print(f"\n{estimated} replies were never recorded; their length is estimated from their words")
    for _condition, tests in held:
        values = after.values()
        print("failed: " + " and ".join(f"{test} ({values[test.name]:g})" for test in tests), file=sys.stderr)
    return 1 if held else 0


def _print_each(compared: Sequence[Compared]) -> None:
    for each in compared:
        old, new = each.before.values(), each.after.values()
        names = ("response_p50_ms", "false_cutoffs", "false_interruptions", "cuts")
        told = "  ".join(f"{name} {old[name] or 0:.0f} -> {new[name] or 0:.0f}" for name in names)
        print(f"{each.file}: {told}")
    print()


# -- all cores -----------------------------------------------------------------------------------------------------

Work = tuple[str, str, dict[str, str], tuple[str, ...]]  # file, bot, changes, what is asked again


def _all(work: Sequence[Work], jobs: int) -> Iterator[Compared]:
    """Compare each, on several cores, with progress on a terminal. Ctrl-C ends the processes and is passed on."""
    if len(work) == 1 or jobs == 1:
        for number, each in enumerate(work):
            _progress(number, len(work))
            yield _one(each)
        _progress(len(work), len(work))
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy what the library's threads hold
    with ProcessPoolExecutor(min(jobs, len(work)), mp_context=context, initializer=_begin) as pool:
        try:
            asked = [pool.submit(_one, each) for each in work]
            for number, done in enumerate(as_completed(asked)):
                _progress(number, len(work))
                yield done.result()
            _progress(len(work), len(work))
        except BaseException:
            processes = list((pool._processes or {}).values())  # those at work; the pool has no public way
            pool.shutdown(wait=False, cancel_futures=True)  # after it the pool knows of none
            for process in processes:
                process.kill()  # they keep nothing, and their libraries may take seconds to end
            raise


def _begin() -> None:
    """In each process: Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_up_log("ERROR")


def _one(work: Work) -> Compared:
    from leibniz_voice.lab.replay.compare import compare
    from leibniz_voice.pipeline.errors import LeibnizError

    file, script, changes, again = work
    bot = loaded(script)
    build = checked_build(bot, script)
    try:
        return compare(load(file), build, changes, file=file, again=again, lifespan=lambda: lifespan_of(bot))
    except LeibnizError as error:
        raise UsageError(f"{file}: {error}") from None


def _progress(done: int, count: int) -> None:
    if count > 1 and sys.stderr.isatty():
        bar = "#" * (24 * done // count)
        end = "\r\x1b[2K" if done == count else ""
        sys.stderr.write(end or f"\r[{bar:<24}] {done} of {count} recordings")
        sys.stderr.flush()
