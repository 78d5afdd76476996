"""How right the account of what was heard of a cut reply is: words kept, beside words that the client really played.

    python benchmarks/heard.py [--cuts 200] [--seed 7]

How it is measured stands in tests/support/heard.py; in virtual time, so it takes seconds. Exit status 1 if one is off
by more than a word.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import warnings
from collections import Counter
from datetime import date
from importlib.metadata import version
from pathlib import Path

from loguru import logger

logger.remove()
warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.heard import TellsWhatWasSent, errors  # noqa: E402 - the log is silenced, and the path set, first


def row(name: str, found: list[int]) -> str:
    """One line of the report."""
    counts = Counter(min(abs(words), 2) for words in found)
    return f"{name:<40}{counts[0]:>8}{counts[1]:>8}{counts[2]:>8}{max(map(abs, found)):>10}"


def main() -> int:
    """Measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    print(f"{date.today()}, {platform.platform()}, Python {platform.python_version()}, "
          f"pipecat-ai {version('pipecat-ai')}, {os.cpu_count()} cores, "
          f"seed {options.seed}, cuts {options.cuts}")  # fmt: skip
    print(f"{'words off':<40}{'none':>8}{'one':>8}{'more':>8}{'at most':>10}")
    timed = errors(options.cuts, options.seed)
    spread = errors(options.cuts, options.seed, has_times=False)
    print(row("the voice tells word times", timed))
    print(row("it does not: proportion of the audio", spread))
    print(row("broken on purpose: what was sent", errors(options.cuts, options.seed, broken=TellsWhatWasSent)))
    return int(max(map(abs, timed + spread)) > 1)


if __name__ == "__main__":
    sys.exit(main())
