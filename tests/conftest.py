"""For all tests: a quiet log, no second copy of the library, no process left behind, no tool silently missing in CI."""

import atexit
import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from tests.support.shards import ByFile, Room, file_of, longest_first, workers_for

IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ  # one of the processes that the tests are handed out to
# Inherited by every process that the tests start, however deep, the workers too.
RUN = os.environ["LEIBNIZ_TEST_RUN"] if IS_WORKER else uuid.uuid4().hex
os.environ["LEIBNIZ_TEST_RUN"] = RUN
ROOM_FOLDER = Path(tempfile.gettempdir()) / f"leibniz-tests-{RUN}"  # where workers agree who runs
MARK = f"LEIBNIZ_TEST_RUN={RUN}".encode()

# The tools that this machine is said to have: words such as "chromium sox". A skip for want of one is then a failure.
REQUIRED = os.environ.get("LEIBNIZ_CI", "").lower().split()


class NoSecondCopy:
    """Refuses `import pipeline` and its like, which work from the checkout's root and make every class twice."""

    FOLDERS = frozenset({"pipeline", "lab", "processors", "transports", "bots"})

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self.FOLDERS and path is None:
            raise ImportError(f"import leibniz_voice.{name}, not {name}: that would be a second copy of every class")


sys.meta_path.insert(0, NoSecondCopy())


def left_behind() -> list[tuple[int, str]]:
    """Return pid and command of the processes alive that this run started; nothing where there is no /proc."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(folder.name) != os.getpid() and MARK in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append((int(folder.name), command.strip()))
        except OSError:  # gone in the meantime, or not ours to look at
            continue
    return found


def check_nothing_is_left() -> None:
    """Fail the run, by name, for a process that outlives it. The library's own clean-up at exit has run before."""
    deadline = time.monotonic() + 5
    while (left := left_behind()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid, command in left:
        print(f"the tests left a process behind: {pid} {command[:200]}", file=sys.stderr, flush=True)
        os.kill(pid, signal.SIGKILL)
    if left:
        sys.stdout.flush()
        os._exit(1)


if not IS_WORKER:
    atexit.register(check_nothing_is_left)  # registered first, therefore run last


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("PIPECAT_LOG_LLM_CONTEXT", "off")
    config.option.loadscopereorder = False  # the order is `longest_first`'s
    if not IS_WORKER:
        ROOM_FOLDER.mkdir()
        config.add_cleanup(lambda: shutil.rmtree(ROOM_FOLDER))


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Hand all the tests out to several processes, unless `-n` says how many: xdist goes by it next."""
    if config.option.numprocesses is None and not (IS_WORKER or config.option.usepdb):
        config.option.numprocesses = workers_for(config)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    longest_first(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None):
    if not IS_WORKER:
        return (yield)
    room = ROOM[0] if ROOM else ROOM.append(Room(ROOM_FOLDER)) or ROOM[0]
    room.enter(file_of(item.nodeid))
    try:
        return (yield)
    finally:
        room.leave(file_of(nextitem.nodeid) if nextitem else "")


ROOM: list[Room] = []  # this worker's, once its first test begins


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    from loguru import logger

    if [*logger._core.handlers] != LOG:  # type: ignore[attr-defined] # one that a test before ran logs elsewhere
        logger.remove()
        # Found anew for each line, as pytest replaces it for each test: shown with the test that failed, only then.
        LOG[:] = [logger.add(lambda line: sys.stderr.write(line), level="INFO", diagnose=False, backtrace=False)]


LOG: list[int] = []  # loguru's handlers, as tests begin with them


def missing_tool(reason: str) -> str | None:
    """Return the required tool that a skip is for want of, if any."""
    return next((tool for tool in REQUIRED if tool in reason.lower()), None)


def as_failure(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip for want of a required tool into a failure."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if tool := missing_tool(reason):
            report.outcome = "failed"
            report.longrepr = f"skipped, although LEIBNIZ_CI says that {tool} is here: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    as_failure(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    as_failure(report)
    return report
