"""`leibniz serve --workers N`: N processes on one port, watched and restarted by this one.

supervisor --- reserves the port (SO_REUSEPORT, never listens), runs the embedded Redis, keeps dead workers' counters
   +-- worker 0: leibniz serve BOT, told by LEIBNIZ_WORKER=<number>:<our pid>:<folder>
   +-- worker 1: ...       each listens on the same port, the kernel deals connections out
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from loguru import logger

from .scripts import UsageError, cannot_listen

if TYPE_CHECKING:  # the engine is imported late, as the other commands and --help shall not wait for it
    from leibniz_voice.pipeline.engine.child_process import Backoff, ChildProcess

WORKER = "LEIBNIZ_WORKER"  # environment of a worker: "<number>:<pid of its supervisor>:<folder>"
LOOK_S = 0.1  # how often the workers are looked at
KEEP_S = 1.0  # how often their counters are kept
BACKOFF_S = (0.1, 5.0)  # before a worker that died at once is started again: at first, at most
STABLE_S = 10.0  # a worker that lived so long is restarted at once
END_S = 5.0  # from SIGTERM to SIGKILL, besides --drain
SAME_WISH_S = 0.2  # what comes so soon after a signal is that signal again; nobody presses Ctrl-C twice so fast
USAGE = 2  # exit status of wrong use, which starting again does not mend
REFUSAL = "refused"  # file in the folder: a worker has said what is wrong
FLAGS = ("insecure", "trust_proxy", "no_audio", "no_text")  # options without a value that workers get too


class _Workers:
    """The processes of one port."""

    def __init__(self, options: argparse.Namespace, *, folder: Path, redis_url: str | None) -> None:
        self._options = options
        self._folder = folder  # sockets, used tokens and counters of dead workers
        self._redis_url = redis_url  # of the embedded server; None where REDIS_URL is set, or with memory only
        self._processes: dict[int, ChildProcess] = {}  # by number
        self._ready: set[int] = set()  # those that have served at least once
        self._due: dict[int, float] = {}  # those to be started again, and when
        self._backoffs: dict[int, Backoff] = {}  # of each that has ended
        self._counters: dict[int, str] = {}  # what each worker's counters said last
        self._retired = ""  # counters of all that died

    def start(self, number: int) -> None:
        """Start one worker."""
        from leibniz_voice.pipeline.engine.child_process import ChildProcess

        environment = {**os.environ, WORKER: f"{number}:{os.getpid()}:{self._folder}"}
        if self._redis_url:
            environment["REDIS_URL"] = self._redis_url
        arguments = [sys.executable, "-m", "leibniz_voice.bots.cli.main", *self._arguments()]
        # A terminal sends Ctrl-C to the supervisor and its workers at once. They inherit that it is blocked, from their
        # first instruction on, and hear of it from the supervisor alone.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process = subprocess.Popen(arguments, env=environment, stdin=subprocess.DEVNULL)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self._processes[number] = ChildProcess(process)

    def _arguments(self) -> list[str]:
        options = self._options
        arguments = ["serve", options.bot, "--host", options.host, "--port", str(options.port), "--data", options.data]
        arguments += ["--log-level", options.log_level, "--drain", str(options.drain)]
        arguments += [part for limit in options.limit for part in ("--limit", limit)]
        arguments += ["--record", options.record] if options.record else []
        arguments += [f"--{name.replace('_', '-')}" for name in FLAGS if getattr(options, name)]
        return arguments

    async def watch(self) -> None:
        """Start again what ends. Returns only when one that has never served has said that it cannot be used so."""
        from leibniz_voice.transports.server.peers import socket_of

        keep_at = 0.0
        while True:
            now = time.monotonic()
            for number, process in list(self._processes.items()):
                status = process.status
                if socket_of(self._folder, number).exists():
                    self._ready.add(number)
                if status == USAGE and number not in self._ready:
                    del self._processes[number]
                    return
                if status is not None:
                    self._note_end(number, status, now)
            for number, due in list(self._due.items()):
                if now >= due:
                    del self._due[number]
                    self.start(number)
            if now >= keep_at:
                keep_at = now + KEEP_S
                await self._keep_counters()
            await asyncio.sleep(LOOK_S)

    def _note_end(self, number: int, status: int, now: float) -> None:
        from leibniz_voice.pipeline.engine.child_process import Backoff, doubling, in_words

        was_well = self._processes.pop(number).lived_s > STABLE_S
        backoff = self._backoffs.setdefault(number, Backoff((0.0, *doubling(*BACKOFF_S))))
        self._due[number] = now + backoff.note(was_well=was_well)
        logger.error("worker {} ended ({}); a new one starts", number, in_words(status))
        (self._folder / REFUSAL).unlink(missing_ok=True)
        self._retire(number)

    async def _keep_counters(self) -> None:
        from leibniz_voice.transports.server.peers import ask, socket_of

        for number in list(self._processes):
            path = socket_of(self._folder, number)
            answer = await ask(path) if path.exists() else None
            if answer is not None:
                self._counters[number] = answer["metrics"]

    def _retire(self, number: int) -> None:
        from leibniz_voice.transports.server.peers import RETIRED, add_up, socket_of

        socket_of(self._folder, number).unlink(missing_ok=True)
        last = self._counters.pop(number, "")
        self._retired = add_up([self._retired, last], only_counters=True)
        new = self._folder / f"{RETIRED}.new"
        new.write_text(self._retired)
        new.replace(self._folder / RETIRED)
        for path in (self._folder / "spent").glob("*.*"):
            if int(path.suffix[1:]) + 120 < time.time():
                path.unlink(missing_ok=True)

    def signal(self, number: int) -> None:
        """Tell all workers."""
        for process in self._processes.values():
            process.tell(number)

    async def end(self) -> int:
        """Wait for all to end; the worst of their exit statuses: 0 or 1."""
        within_s = END_S + self._options.drain
        statuses = await asyncio.gather(*(self._end(number, within_s) for number in list(self._processes)))
        # -SIGTERM: it was told to end before it had begun to serve
        return int(any(status not in (0, -signal.SIGTERM) for status in statuses))

    async def _end(self, number: int, within_s: float) -> int:
        process = self._processes[number]
        status = await process.ended(within_s=within_s)
        if status is None:
            logger.error("worker {} does not end and is killed", number)
            status = process.kill()
        del self._processes[number]
        return status


def on_stop(call: Callable[[], None]) -> None:
    """Call at the first SIGINT or SIGTERM, and at each one that is meant as another.

    `timeout`, `uv run` outside a terminal and whoever signals a process and its group send two at once, as one wish.
    """
    loop = asyncio.get_running_loop()
    heard_at: float | None = None  # None before the first

    def hear() -> None:
        nonlocal heard_at
        if heard_at is None or loop.time() - heard_at > SAME_WISH_S:
            heard_at = loop.time()
            call()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, hear)


def _reserve(options: argparse.Namespace) -> socket.socket:
    """Take the port for the workers: a socket that is bound and never listens gets no connections."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    holder = socket.socket(family, socket.SOCK_STREAM)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((options.host, options.port))
    except OSError as error:
        raise UsageError(cannot_listen(options, error)) from error
    options.port = holder.getsockname()[1]
    return holder


async def supervise(options: argparse.Namespace) -> int:
    """Run the workers until SIGINT or SIGTERM; a second one kills them. 2 if none can serve: one has said why."""

    stopped: asyncio.Queue[None] = asyncio.Queue()
    on_stop(lambda: stopped.put_nowait(None))
    server = None if os.environ.get("REDIS_URL") else await _own_redis(options.data)
    with contextlib.closing(_reserve(options)), tempfile.TemporaryDirectory(prefix="leibniz-") as folder:
        workers = _Workers(options, folder=Path(folder), redis_url=server.url if server else None)
        for index in range(options.workers):
            workers.start(index)
        watching = asyncio.create_task(workers.watch())
        stop = asyncio.create_task(stopped.get())
        await asyncio.wait({watching, stop}, return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            print("Stopping.", flush=True)
        stop.cancel()
        watching.cancel()
        workers.signal(signal.SIGTERM)
        ending = asyncio.create_task(workers.end())
        again = asyncio.create_task(stopped.get())
        await asyncio.wait({ending, again}, return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            workers.signal(signal.SIGKILL)
        again.cancel()
        status = await ending
        if watching.done() and not watching.cancelled():
            watching.result()  # raises what it failed with
            status = USAGE
    if server is not None:
        await server.stop()
    return status


async def _own_redis(folder: str) -> Any:
    """The embedded Redis, run here so that no worker's end ends it; None where there can be none."""
    from leibniz_voice.pipeline.errors import StoreError
    from leibniz_voice.transports import EmbeddedRedis

    server = EmbeddedRedis(directory=folder)
    try:
        await server.start()
    except StoreError as error:
        logger.error("NO STATE STORE: each worker keeps its conversations in memory. {}", error)
        return None
    return server


class _Place(NamedTuple):
    """Whose worker a process is."""

    number: int
    supervisor: int  # its pid
    folder: Path  # that the workers share


def place_in(environment: str | None) -> _Place | None:
    """The place of this worker; None in a process of its own."""
    if not environment:
        return None
    number, supervisor, folder = environment.split(":", 2)
    return _Place(int(number), int(supervisor), Path(folder))


def is_first_to_refuse(environment: str | None) -> bool:
    """Whether this process is to say what is wrong: of several workers the first, which all find the same."""
    place = place_in(environment)
    if place is None:
        return True
    with contextlib.suppress(OSError):
        (place.folder / REFUSAL).touch(exist_ok=False)
        return True
    return not (place.folder / REFUSAL).exists()
