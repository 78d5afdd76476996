"""One child process that works for all conversations of this process: the parent's side.

Engines that hold the GIL, keep global state or may crash (the embedded voice and recogniser) live in a child. Requests
of many conversations share one socket and are told apart by an id. No thread is involved: the loop reads and writes.

    ask ->(start the child if there is none)-> ASK ... CHUNK* -> DONE | FAILED
                                                  \\-> child gone: WorkerCrashed for what was in flight

A child belongs to the loop that asked last. When that loop is closed, the next loop takes the warm child over. Needs
POSIX (socketpair as the child's stdin).
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from loguru import logger

from ....pipeline.engine import outside
from ....pipeline.engine.child_process import Backoff, ChildProcess
from ....pipeline.errors import ConfigurationError, ServiceError, WorkerCrashed
from . import child as wire

MAX_IN_FLIGHT = 64  # requests; one more is refused, as it would wait for seconds
STUCK_S = 10.0  # without any message while requests are in flight: the child is killed
BACKOFF_S = (0.0, 0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # before a start, after 0, 1, 2 ... crashes without an answer
_CHILD = str(Path(__file__).with_name("child.py"))
_EMBEDDED = Path(__file__).parent.parent
ENGINES = {
    name: str(_EMBEDDED / file)
    for name, file in (("espeak", "voice/espeak_engine.py"), ("sphinx", "recogniser/sphinx_engine.py"))
}


class WorkerProcess:
    """A lazily started child that serves one engine. Use `shared_worker` unless you need your own."""

    def __init__(self, engine: str, options: dict[str, Any]) -> None:
        self.engine = engine  # one of ENGINES
        self.crashes = 0  # children that ended uninvited
        self._options = options  # what the engine is made of; JSON
        self._loop: asyncio.AbstractEventLoop | None = None  # who reads the socket; None without a child
        self._process: ChildProcess | None = None  # the child; None before the first ask and after a crash
        self._sock: socket.socket | None = None  # to the child; None exactly when `_process` is
        self._messages = wire.Messages()  # decoder of what the child sends
        self._unsent = bytearray()  # what the socket did not take yet; MAX_IN_FLIGHT requests at most
        self._requests: dict[int, _Request] = {}  # asked and not answered, cancelled ones too
        self._last_id = 0  # newest request id; ids are not used twice
        self._backoff = Backoff(BACKOFF_S)  # counts the crashes since the last answer
        self._refusal: ServiceError | ConfigurationError | None = None  # the engine cannot start, and why
        self._watchdog: asyncio.TimerHandle | None = None  # fires STUCK_S after the newest message; None when idle

    @property
    def pid(self) -> int | None:
        """Process id of the child; None while there is none."""
        return self._process.pid if self._process else None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that the child works for; None while there is no child."""
        return self._loop

    @property
    def in_flight(self) -> int:
        """Requests that the child has not answered, cancelled ones included."""
        return len(self._requests)

    async def stream(self, payload: bytes) -> AsyncIterator[bytes]:
        """Ask, and yield the chunks of the answer as they come. Leaving early or being cancelled cancels the request.

        Raises `WorkerCrashed` if the child dies first, `ServiceError` if the engine fails or MAX_IN_FLIGHT requests
        wait already, `ConfigurationError` if the engine refuses its options or the request.
        """
        await self._ready()
        request = self._ask(payload)
        try:
            while (chunk := await request.next()) is not None:
                yield chunk
        finally:
            self._cancel(request)

    async def call(self, payload: bytes) -> bytes:
        """Ask, and return all chunks of the answer in one piece. Raises as `stream` does."""
        async with aclosing(self.stream(payload)) as chunks:  # type: ignore[type-var]
            return b"".join([chunk async for chunk in chunks])

    async def close(self) -> None:
        """End the child; what is in flight fails with `ServiceError`. A later request would start a new one."""
        self.end()

    def end(self) -> None:
        """End the child without a loop, as at interpreter exit. Takes a few ms; harmless when there is none."""
        self._fail_all(ServiceError(f"the {self.engine} worker was closed"))
        self._drop_child()

    # -- start and end of the child ----------------------------------------------------------------------------

    async def _ready(self) -> None:
        loop = asyncio.get_running_loop()
        if self._refusal is not None:
            raise type(self._refusal)(str(self._refusal))
        if self._process is not None and self._loop is not loop:
            self._take_over(loop)
        if self._process is None and self._backoff.failures:
            await asyncio.sleep(self._backoff.delay_s)
        if self._process is None:
            self._start(loop)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.engine not in ENGINES:
            raise ServiceError(f"there is no engine {self.engine!r}; there are {' and '.join(ENGINES)}")
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = ChildProcess(
                    subprocess.Popen([sys.executable, "-P", _CHILD], stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
                )
            except OSError as error:
                ours.close()
                raise ServiceError(f"the {self.engine} worker cannot be started: {error}") from error
        ours.setblocking(False)
        self._sock, self._loop, self._messages = ours, loop, wire.Messages()
        loop.add_reader(ours, self._on_readable)
        config = {
            "engine": ENGINES[self.engine],
            "options": self._options,
            "path": sys.path,
            "dies_with_thread": threading.current_thread() is threading.main_thread(),
        }
        self._send(wire.encode(wire.CONFIG, 0, json.dumps(config).encode()))
        logger.debug(f"{self.engine} worker started, pid {self._process.pid}")

    def _take_over(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None and not self._loop.is_closed():
            raise ServiceError(f"the {self.engine} worker serves another running loop; use shared_worker")
        assert self._sock is not None
        self._loop, self._watchdog = loop, None
        for request in self._requests.values():  # nobody waits for these; they count until the child says so
            outside.enter(loop)
            request.loop = loop
            self._unsent += wire.encode(wire.CANCEL, request.id)
        loop.add_reader(self._sock, self._on_readable)
        self._send(b"")
        self._watch()

    def _drop_child(self) -> None:
        process, sock, loop = self._process, self._sock, self._loop
        self._process = self._sock = self._loop = None
        self._unsent.clear()
        self._watch()
        if sock is not None:
            if loop is not None and not loop.is_closed():
                loop.remove_reader(sock)
                loop.remove_writer(sock)
            sock.close()
        if process is not None:
            process.kill()  # it has nothing to save

    def _crashed(self, why: str) -> None:
        if self._process is None:
            return
        self.crashes += 1
        self._backoff.note(was_well=False)
        pid = self._process.pid
        self._drop_child()
        logger.warning(f"{self.engine} worker, pid {pid}, {why}; {len(self._requests)} requests lost")
        self._fail_all(WorkerCrashed(f"the {self.engine} worker {why}"))

    def _fail_all(self, error: Exception) -> None:
        requests, self._requests = self._requests, {}
        for request in requests.values():
            request.finish(error)
        self._watch()

    # -- requests ----------------------------------------------------------------------------------------------

    def _ask(self, payload: bytes) -> _Request:
        if len(self._requests) >= MAX_IN_FLIGHT:
            raise ServiceError(f"the {self.engine} worker has {MAX_IN_FLIGHT} requests waiting; one more is refused")
        if len(payload) > wire.MAX_PAYLOAD:
            raise ConfigurationError(f"a request of {len(payload)} bytes is over the limit of {wire.MAX_PAYLOAD}")
        self._last_id = self._last_id % 0xFFFFFFFF + 1
        request = _Request(self._last_id, asyncio.get_running_loop())
        self._requests[request.id] = request
        self._send(wire.encode(wire.ASK, request.id, payload))
        if self._watchdog is None:
            self._watch()
        return request

    def _cancel(self, request: _Request) -> None:
        if self._requests.get(request.id) is request and not request.is_cancelled:
            request.is_cancelled = True
            request.chunks.clear()
            self._send(wire.encode(wire.CANCEL, request.id))

    def _watch(self) -> None:
        """Start the watchdog's time anew, or stop it if the child owes nothing."""
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        if self._requests and self._process is not None and self._loop is not None:
            self._watchdog = self._loop.call_later(STUCK_S, self._crashed, f"said nothing for {STUCK_S:g} s")

    # -- the socket --------------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        self._unsent += data
        self._on_writable()

    def _on_writable(self) -> None:
        if self._sock is None or self._loop is None:
            return
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
        except BlockingIOError:
            self._loop.add_writer(self._sock, self._on_writable)
        except OSError:
            self._loop.call_soon(self._crashed, "ended")  # not here: the caller is in the middle of a request
        else:
            self._loop.remove_writer(self._sock)

    def _on_readable(self) -> None:
        if self._sock is None:
            return
        try:
            data = self._sock.recv(1 << 18)
            messages = self._messages.feed(data)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        except ValueError:
            self._crashed("sent nonsense")
            return
        if not data:
            self._crashed("ended")
            return
        for kind, request_id, payload in messages:
            self._on_message(kind, request_id, payload)
        self._watch()

    def _on_message(self, kind: int, request_id: int, payload: bytes) -> None:
        if kind == wire.FAILED and request_id == 0:
            self._refusal = _error(payload)
            self._fail_all(self._refusal)
            self._drop_child()
            return
        request = self._requests.get(request_id)
        if request is None:
            return
        if kind == wire.CHUNK:
            request.put(payload)
            return
        self._backoff.note(was_well=True)
        del self._requests[request_id]
        request.finish(_error(payload) if kind == wire.FAILED else None)


class _Request:
    """One request: its chunks on their way to who asked, and how it ended."""

    def __init__(self, request_id: int, loop: asyncio.AbstractEventLoop) -> None:
        self.id = request_id  # in the messages
        self.loop = loop  # whose count of work outside it is in
        self.is_cancelled = False  # nobody waits; the child has not said DONE yet
        self.chunks: deque[bytes] = deque()  # arrived and not taken; bounded by what one request can ask for
        self._is_finished = False  # no chunk follows
        self._error: Exception | None = None  # why it failed; None if it did not
        self._waiter: asyncio.Future[None] | None = None  # who waits in `next`; None if nobody does
        outside.enter(loop)

    async def next(self) -> bytes | None:
        """Return the next chunk, None after the last one. Raises what the request failed with."""
        while not self.chunks:
            if self._error is not None:
                raise self._error
            if self._is_finished:
                return None
            self._waiter = self.loop.create_future()
            await self._waiter
        return self.chunks.popleft()

    def put(self, chunk: bytes) -> None:
        """Take a chunk from the child."""
        if not self.is_cancelled:
            self.chunks.append(chunk)
            self._wake()

    def finish(self, error: Exception | None) -> None:
        """Take the end from the child, or its death."""
        self._is_finished, self._error = True, error
        outside.leave(self.loop)
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done() and not self.loop.is_closed():
            waiter.set_result(None)


def _error(payload: bytes) -> ServiceError | ConfigurationError:
    report = json.loads(payload)
    return (ConfigurationError if report["is_setting"] else ServiceError)(report["message"])
