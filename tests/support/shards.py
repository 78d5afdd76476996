"""Tests side by side: in which order files go to the workers, and which file runs while no other does.

`tests/budgets.toml` says how long a file takes; the longest go first, so that no worker is left with one at the end.
A file that measures time is listed there as alone: its tests come last, and every other worker waits meanwhile. The
lock for that is fair: whoever asks first, goes first.

    door   one at a time, held only while one waits for the room
    room   shared by all tests; an alone file has it for itself
"""

from __future__ import annotations

import fcntl
import os
import tomllib
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support import ROOT

BUDGETS = tomllib.loads((ROOT / "tests" / "budgets.toml").read_text(encoding="utf-8"))
SECONDS: dict[str, float] = BUDGETS["seconds"]  # file below tests/ -> what it takes, where that is more than a second
ALONE: dict[str, str] = BUDGETS["alone"]  # file below tests/ -> why it runs alone
MOST_WORKERS = 8
DEFAULT_S = 0.5  # of a file that no budget names


def file_of(nodeid: str) -> str:
    """Return a test's file, below tests/."""
    return nodeid.partition("::")[0].removeprefix("tests/")


def longest_first(items: list[pytest.Item]) -> None:
    """Put the files in the order in which they are handed out: the longest first, those that run alone last."""
    items.sort(key=lambda item: -_weight(file_of(item.nodeid)))  # stable: a file's own order stays


def _weight(file: str) -> float:
    return 0.0 if file in ALONE else SECONDS.get(file, DEFAULT_S)


class ByFile(LoadScopeScheduling):
    """A file at a time to a worker; all files that run alone to one."""

    def _split_scope(self, nodeid: str) -> str:
        file = file_of(nodeid)
        return "alone" if file in ALONE else file


def workers_for(config: pytest.Config) -> int:
    """Return how many processes run the tests: two a core for all of them, as many of them wait; one for quick ones.

    None beside this one for files that are named, and for full sizes, whose figures want the machine for themselves.
    """
    chosen = config.option.markexpr.strip()
    if config.args != config.getini("testpaths") or chosen == "full":
        return 0
    return min((os.cpu_count() or 1) * (1 if "not slow" in chosen else 2), MOST_WORKERS)


class Room:
    """The room of one worker's tests; `folder` is the same for all workers of a run."""

    def __init__(self, folder: Path) -> None:
        self._door = os.open(folder / "door", os.O_CREAT | os.O_RDWR, 0o600)
        self._room = os.open(folder / "room", os.O_CREAT | os.O_RDWR, 0o600)
        self._is_alone = False  # held for a file that runs alone, over several tests

    def enter(self, file: str) -> None:
        """Wait until a test of this file may run."""
        if not self._is_alone:
            self._is_alone = file in ALONE
            fcntl.flock(self._door, fcntl.LOCK_EX)
            fcntl.flock(self._room, fcntl.LOCK_EX if self._is_alone else fcntl.LOCK_SH)
            fcntl.flock(self._door, fcntl.LOCK_UN)

    def leave(self, next_file: str) -> None:
        """The test is over; the next one is of `next_file`, "" for none."""
        if not (self._is_alone and next_file in ALONE):
            self._is_alone = False
            fcntl.flock(self._room, fcntl.LOCK_UN)
