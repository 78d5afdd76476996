"""A child process as its parent sees it: watched, ended within bounds, gone with its parent, started again in time.

    subprocess.Popen -> ChildProcess -> ended by itself -> in_words(status), last_line(log) -> Backoff -> the next start
                                     -> stop()          -> SIGTERM ... SIGKILL after `within_s`

Whoever starts one makes its own `Popen`, as a Redis, a server's worker, an engine and a bot need different ones. None
of them gives a `preexec_fn`: code between fork and exec can deadlock in a process with threads, and without it Python
uses vfork, which takes 2 ms whatever the size of the parent.

A child that is to go with its parent, even by SIGKILL, asks the kernel for a signal (PR_SET_PDEATHSIG, Linux only).
A program of ours calls `die_with_parent`; a foreign one is started by `going_with_us`. That signal comes when the
*thread* ends that started the child, so start it in one that lasts, normally the main one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

LOOK_S = 0.005  # between two looks at a child that is awaited
PR_SET_PDEATHSIG = 1  # linux/prctl.h

# Asks for the signal and becomes the program: `die_with_parent` in a small process of its own.
_LAUNCH = """
import os, sys
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, int(sys.argv[2]), 0, 0, 0)
except (ImportError, OSError, AttributeError):
    pass
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execvp(sys.argv[3], sys.argv[3:])
"""


class ChildProcess:
    """A child that was just started. Nothing here waits for its output; give it files, a socket or a reader."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._started_s = time.monotonic()  # when

    @property
    def pid(self) -> int:
        """Its process id, which the kernel may give away once `status` is known."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    @property
    def lived_s(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._started_s

    def tell(self, number: int) -> None:
        """Send a signal; nothing happens if it has ended."""
        self._process.send_signal(number)

    def kill(self) -> int:
        """End it at once, in the middle of C code too, and return its status. Takes a few ms; harmless afterwards."""
        self._process.kill()
        return self._process.wait()

    async def ended(self, *, within_s: float) -> int | None:
        """Wait for its end; return its status, or None if it runs on after `within_s`."""
        deadline = time.monotonic() + within_s
        # A look now and then, as nothing tells of a child's end on every system.
        while (status := self.status) is None and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        return status

    async def stop(self, *, within_s: float) -> int:
        """Ask it to end, kill it after `within_s`, and return its status. Cancelled, it leaves it asked."""
        self._process.terminate()
        status = await self.ended(within_s=within_s)
        return self.kill() if status is None else status  # frozen, or waiting for a disk


class Backoff:
    """Seconds to wait before a child is started again: the more, the more in a row ended badly.

    `delays_s[0]` after one that was well, `[1]` after one that was not, `[2]` after two ... ; the last for all further.
    """

    def __init__(self, delays_s: Sequence[float]) -> None:
        self.failures = 0  # bad ends in a row
        self._delays_s = tuple(delays_s)

    @property
    def delay_s(self) -> float:
        """The wait that is due now."""
        return self._delays_s[min(self.failures, len(self._delays_s) - 1)]

    def note(self, *, was_well: bool) -> float:
        """A child has lived as it should, or not; return the wait that is due now."""
        self.failures = 0 if was_well else self.failures + 1
        return self.delay_s


def doubling(first_s: float, longest_s: float) -> tuple[float, ...]:
    """Return `first_s`, twice that, and so on up to `longest_s`."""
    return (first_s, *doubling(2 * first_s, longest_s)) if first_s < longest_s else (longest_s,)


def in_words(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"  # a real-time one, which has no name


def last_line(log: Path) -> str:
    """The last words of a child that writes a log; "" where there are none."""
    try:
        return log.read_text(errors="replace").strip().rpartition("\n")[2]
    except OSError:
        return ""


def die_with_parent(parent: int, number: int = signal.SIGTERM) -> None:
    """In the child: get a signal when the process `parent` goes, at once if it has gone. Elsewhere than Linux nothing.

    `parent` is what the parent said of itself, as it may have gone before this child asked.
    """
    with suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), number)


def going_with_us(command: Sequence[str], number: int = signal.SIGTERM) -> list[str]:
    """Return the command that runs `command` and gives it a signal when we go. It runs under the same process id."""
    return [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), str(int(number)), *command]
