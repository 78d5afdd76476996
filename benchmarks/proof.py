"""Run the proof of the fence over many random schedules and print what became of them.

    python benchmarks/proof.py [--schedules 10000] [--first 0] [--llm | --sockets]

The schedules and what must hold of each are described in tests/support/proof.py. Exit status 1 if one did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path

from loguru import logger

logger.remove()
warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.proof import Verdict, prove  # noqa: E402 - the log is silenced, and the path set, first
from tests.support.proof_sockets import prove_over_sockets  # noqa: E402


def verdicts(options: argparse.Namespace) -> Iterator[Verdict]:
    """Those of the schedules asked for, as they come."""
    seeds = range(options.first, options.first + options.schedules)
    if options.sockets:
        yield from asyncio.run(prove_over_sockets(seeds))
    else:
        yield from (prove(seed, has_llm=options.llm) for seed in seeds)


def main() -> int:
    """Prove, count, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=10_000, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="first seed (default: %(default)s)")
    parser.add_argument("--llm", action="store_true", help="answered by Pipecat's OpenAI service from a local server")
    parser.add_argument("--sockets", action="store_true", help="over real sockets, in real time; say --schedules 1000")
    options = parser.parse_args()
    totals: Counter[str] = Counter()
    voices: Counter[str] = Counter()
    started = time.perf_counter()
    for verdict in verdicts(options):
        seed = verdict.plan.seed
        voices[verdict.plan.voice] += 1
        totals.update(
            cuts=verdict.cuts,
            replies=verdict.replies,
            stale=verdict.stale,
            dropped=verdict.dropped,
            wedged=verdict.wedged,
            unasked=verdict.unasked,
            lost=verdict.lost,
            bad=not verdict.is_good,
        )
        if not verdict.is_good:
            print(f"seed {seed} did not hold: {verdict.plan}\n{verdict.trace}")
        if (seed + 1) % 1000 == 0:
            print(f"  {seed + 1 - options.first} schedules", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - started
    print(f"{date.today()}, {platform.platform()}, Python {platform.python_version()}, "
          f"pipecat-ai {version('pipecat-ai')}, {os.cpu_count()} cores")  # fmt: skip
    how = "answers by an LLM over HTTP, " * options.llm + "over real sockets, " * options.sockets
    print(f"schedules                 {options.schedules}, seeds from {options.first}, {how}{seconds:.0f} s in all")
    print(f"by kind of voice service  {', '.join(f'{name} {count}' for name, count in sorted(voices.items()))}")
    print(f"replies                   {totals['replies']}")
    print(f"cut by the user           {totals['cuts']}")
    print(f"stale samples heard       {totals['stale']}")
    print(f"good samples dropped      {totals['dropped']}")
    print(f"conversations wedged      {totals['wedged']}")
    print(f"turns cut by nobody       {totals['unasked']}")
    print(f"words lost                {totals['lost']}")
    return 1 if totals["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
