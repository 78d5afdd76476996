"""A child process: it is watched, ended within bounds, and gone with its parent. With real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leibniz_voice.pipeline.engine.child_process import (
    Backoff,
    ChildProcess,
    die_with_parent,
    doubling,
    going_with_us,
    in_words,
    last_line,
)

SLEEPS = ("sleep", "60")
DEAF = ("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.01; done")

# A parent that starts a child with the launcher and waits to be killed. With a thread, the child is started in one that
# ends when a line comes in. The child says its pid.
PARENT = """
import subprocess, sys, threading
from leibniz_voice.pipeline.engine.child_process import going_with_us

def start():
    subprocess.Popen(going_with_us(["sh", "-c", "echo $$; exec sleep 60"]))
    sys.stdin.readline()

if sys.argv[1] == "thread":
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    print("ended", flush=True)
    sys.stdin.readline()
else:
    start()
"""

# A child of ours, of a parent with the given pid.
OURS = """
import sys, time
from leibniz_voice.pipeline.engine.child_process import die_with_parent
die_with_parent(int(sys.argv[1]))
print("ready", flush=True)
time.sleep(60)
"""


def child(*command: str) -> ChildProcess:
    return ChildProcess(subprocess.Popen(command, stdout=subprocess.DEVNULL))


def is_gone(pid: int) -> bool:
    """No such process, or only its unread exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def goes(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while not is_gone(pid) and time.monotonic() < deadline:
        os.sched_yield()
    return is_gone(pid)


def test_a_child_that_runs_has_no_status_and_one_that_ended_has():
    sleeper, ended = child(*SLEEPS), child("sh", "-c", "exit 3")
    assert asyncio.run(ended.ended(within_s=5)) == 3
    assert sleeper.status is None
    assert sleeper.kill() == -signal.SIGKILL
    assert sleeper.status == -signal.SIGKILL
    assert sleeper.lived_s > 0


def test_who_waits_for_a_child_that_runs_on_is_told_so():
    sleeper = child(*SLEEPS)
    assert asyncio.run(sleeper.ended(within_s=0.01)) is None
    sleeper.kill()


def test_a_child_that_is_asked_to_end_ends_by_that():
    assert asyncio.run(child(*SLEEPS).stop(within_s=5)) == -signal.SIGTERM


def test_a_child_that_does_not_end_is_killed_within_the_bound():
    with subprocess.Popen(DEAF, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        begun = time.monotonic()
        assert asyncio.run(ChildProcess(process).stop(within_s=0.05)) == -signal.SIGKILL
        assert time.monotonic() - begun >= 0.05


def test_a_child_that_has_ended_may_be_told_and_stopped_again():
    over = child("true")
    assert asyncio.run(over.ended(within_s=5)) == 0
    over.tell(signal.SIGTERM)
    assert asyncio.run(over.stop(within_s=0)) == 0
    assert over.kill() == 0


def test_a_cancelled_stop_leaves_the_child_asked():
    async def body(sleeper):
        stopping = asyncio.create_task(sleeper.stop(within_s=5))
        await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        return await sleeper.ended(within_s=5)

    assert asyncio.run(body(child(*SLEEPS))) == -signal.SIGTERM


def test_each_bad_end_makes_the_next_wait_longer_and_a_good_one_short_again():
    backoff = Backoff((0.0, *doubling(0.1, 0.5)))
    assert backoff.delay_s == 0.0
    assert [backoff.note(was_well=False) for _ in range(6)] == [0.1, 0.2, 0.4, 0.5, 0.5, 0.5]
    assert backoff.note(was_well=True) == 0.0
    assert backoff.note(was_well=False) == 0.1


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exit status 0"), (2, "exit status 2"), (-9, "killed by SIGKILL"), (-40, "killed by signal 40")],
)
def test_a_status_is_told_in_words(status, words):
    assert in_words(status) == words


def test_the_last_words_are_the_last_line_of_the_log(tmp_path):
    log = tmp_path / "log"
    assert last_line(log) == ""
    log.write_bytes(b"")
    assert last_line(log) == ""
    log.write_bytes(b"first\n\xffsecond\nthe reason\n\n")
    assert last_line(log) == "the reason"


@pytest.mark.slow
def test_a_foreign_program_goes_with_a_parent_that_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT, "main"], stdin=-1, stdout=-1, text=True)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
        parent.kill()
    assert goes(pid)


@pytest.mark.slow
def test_a_foreign_program_goes_with_the_thread_that_started_it():
    parent = subprocess.Popen([sys.executable, "-c", PARENT, "thread"], stdin=-1, stdout=-1, text=True)
    with parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == "ended\n"
        assert goes(pid)  # its parent lives
        parent.kill()


def test_a_foreign_program_keeps_its_process_id_its_arguments_and_its_status():
    command = going_with_us(["sh", "-c", 'echo $$ "$1"; exit 5', "sh", "a b"])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.communicate(timeout=5)[0] == f"{process.pid} a b\n"
    assert process.returncode == 5


def test_a_foreign_program_whose_parent_is_gone_already_does_not_begin():
    command = going_with_us(["echo", "begun"])
    command[5] = "1"  # as if our process had ended, and init had taken over
    done = subprocess.run(command, capture_output=True, text=True, timeout=5)
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.slow
@pytest.mark.parametrize("is_there", [True, False])
def test_a_program_of_ours_goes_with_its_parent_or_at_once_if_that_is_gone(is_there):
    parent = os.getpid() if is_there else 1
    process = subprocess.Popen([sys.executable, "-c", OURS, str(parent)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == ("ready\n" if is_there else "")
        process.terminate()
    assert process.returncode == -signal.SIGTERM


def test_where_nobody_can_ask_the_kernel_nothing_happens(monkeypatch):
    monkeypatch.setitem(sys.modules, "ctypes", None)
    die_with_parent(1)
