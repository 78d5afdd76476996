"""The program of a worker process: one engine, one socket (its stdin), one request at a time.

It is run by path, not as a module of the package, because importing the package would import Pipecat and cost half a
second and 100 MB. So this file and the engines import nothing of the project.

    parent -> child   CONFIG (first), ASK id, CANCEL id
    child -> parent   READY, CHUNK id*, then DONE id or FAILED id: every ASK is answered once, a cancelled one too

A message is a header (payload length, request id, kind) and the payload. The child ends when the socket does.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import select
import signal
import socket
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

HEADER = struct.Struct("!IIB")  # payload bytes, request id (0: none), kind
MAX_PAYLOAD = 4 << 20  # bytes; four times the longest utterance or sentence
CONFIG, ASK, CANCEL, READY, CHUNK, DONE, FAILED = range(7)
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Engine(Protocol):
    """What a child serves. Made once with the parent's configuration; raises ValueError if that is wrong."""

    def serve(self, payload: bytes, emit: Callable[[bytes], None], is_wanted: Callable[[], bool]) -> None:
        """Answer one request by `emit`; give up soon after `is_wanted()` became False."""


class Messages:
    """Bytes of the stream, in any pieces, to (kind, request id, payload). Raises ValueError for nonsense."""

    def __init__(self) -> None:
        self._buffer = bytearray()  # the beginning of a message not complete yet

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Take what arrived; return the messages complete by now."""
        self._buffer += data
        found, start = [], 0
        while len(self._buffer) - start >= HEADER.size:
            size, request_id, kind = HEADER.unpack_from(self._buffer, start)
            if size > MAX_PAYLOAD or kind > FAILED:
                raise ValueError("the stream of messages is broken")
            end = start + HEADER.size + size
            if len(self._buffer) < end:
                break
            found.append((kind, request_id, bytes(self._buffer[start + HEADER.size : end])))
            start = end
        del self._buffer[:start]
        return found


def encode(kind: int, request_id: int = 0, payload: bytes = b"") -> bytes:
    """Return one message."""
    return HEADER.pack(len(payload), request_id, kind) + payload


class _Child:
    """The loop of the child. Reads ahead while an engine works, so that a CANCEL is seen in the middle of a request."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock  # blocking, to the parent
        self._poll = select.poll()  # asks whether something can be read
        self._poll.register(sock, select.POLLIN)
        self._messages = Messages()  # the stream's decoder
        self._asked: OrderedDict[int, bytes] = OrderedDict()  # requests not begun; the parent bounds their number
        self._current = 0  # id of the request being served, 0 between two
        self._is_cancelled = False  # the current request is wanted no more

    def configure(self) -> dict[str, Any]:
        """Wait for the first message and return it."""
        while not (messages := self._receive()):
            pass
        self._handle(messages[1:])
        return json.loads(messages[0][2])

    def run(self, engine: Engine) -> None:
        """Serve for ever; ends by SystemExit when the parent is gone."""
        self._send(READY)
        while True:
            while not self._asked:
                self._handle(self._receive())
            self._current, payload = self._asked.popitem(last=False)
            self._is_cancelled = False
            try:
                engine.serve(payload, self._emit, self._is_wanted)
            except Exception as error:  # top of a request: it fails, the next one is served
                self.fail(error, self._current)
            else:
                self._send(DONE, self._current)

    def fail(self, error: Exception, request_id: int = 0) -> None:
        """Tell the parent what went wrong with a request, or with the start."""
        report = {"is_setting": isinstance(error, ValueError), "message": f"{error}" or type(error).__name__}
        self._send(FAILED, request_id, json.dumps(report).encode())

    def _emit(self, payload: bytes) -> None:
        self._send(CHUNK, self._current, payload)

    def _is_wanted(self) -> bool:
        while not self._is_cancelled and self._poll.poll(0):
            self._handle(self._receive())
        return not self._is_cancelled

    def _handle(self, messages: list[tuple[int, int, bytes]]) -> None:
        for kind, request_id, payload in messages:
            if kind == ASK:
                self._asked[request_id] = payload
            elif kind == CANCEL and request_id == self._current:
                self._is_cancelled = True
            elif kind == CANCEL and self._asked.pop(request_id, None) is not None:
                self._send(DONE, request_id)

    def _receive(self) -> list[tuple[int, int, bytes]]:
        data = self._sock.recv(1 << 18)
        if not data:
            os._exit(0)  # the parent is gone; an engine in the middle of something has nothing to save
        return self._messages.feed(data)

    def _send(self, kind: int, request_id: int = 0, payload: bytes = b"") -> None:
        try:
            self._sock.sendall(encode(kind, request_id, payload))
        except OSError:
            os._exit(0)  # as above


def _load_engine(path: str, options: dict[str, Any]) -> Engine:
    """Make the engine of the file `path`, by path for the same reason."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"there is no engine in {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Engine(options)


def main() -> None:
    """Run the child on the socket that is its stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the parent, which then ends the child
    child = _Child(socket.socket(fileno=os.dup(0)))
    config = child.configure()
    sys.path[:] = config["path"]  # find what the parent finds
    # As `die_with_parent` of pipeline/engine/child_process.py, which cannot be imported here.
    if config["dies_with_thread"] and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # even when a fork holds the socket open
    try:
        engine = _load_engine(config["engine"], config["options"])
    except Exception as error:  # top of the process: the parent says it better than a traceback here
        child.fail(error)
        return
    child.run(engine)


if __name__ == "__main__":
    main()
