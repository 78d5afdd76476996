"""Silero VAD: one model per process, any number of conversations per call, on one thread.

    loop    submit a1  submit b1        deliver a1 b1 -> callbacks         (in the order of each stream)
               |          |    submit c1    ^  |
               +-- call --+        |        |  +-- call c1 --              (takes whatever has come by then)
    thread     [ run a1 b1, one row each  ]    [ run c1 ...

With few conversations a call starts at the end of the loop step in which its first chunk came. With more than
`ALONE_STREAMS` it waits `gather_s` for company, 5 ms in the mean: chunks come at random moments, and without it a call
has two or three rows, so that most of its cost is the way to the thread and back. While one runs, chunks gather for the
next. Several chunks of one stream in a call are run one after the other. A result does not depend on its company.

The wait is most of what is saved: a process that idles between calls finds neither the weights nor the code in the
caches, and a call of one or two rows takes 170 to 220 us of CPU then, against 60 in a tight loop. 32 conversations,
per chunk, the way through `SileroVAD` included: 240 us without waiting, 110 with up to 5 ms, 100 with up to 10; and
165 without waiting or thread, on the loop. (benchmarks/vad.py; Pipecat's analyzer: 740 to 880.)
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from loguru import logger

from ....pipeline.engine import outside
from ....pipeline.errors import ConfigurationError
from .network import CHUNK_SAMPLES, Chunk, RecurrentState, infer, step

BACKLOG_CHUNKS = 312  # 10 s a stream, caught up with in 50 ms; beyond it the oldest chunk is dropped and counted
ALONE_STREAMS = 6  # open streams up to which no chunk waits: a process with so few has CPU to spare
CHUNK_S = 0.032
GATHER_S = 0.01  # how long the first chunk of a call waits for others
MAX_ROWS = 64  # streams in one call: more is no cheaper per chunk (17 us against 22 at 8) and only later
MAX_ROUNDS = 4  # chunks of one stream in one call, so that a stream that lags delays the others little

Callback = Callable[[float], None]


class SpeechStream(Protocol):
    """One conversation's audio on its way through a speech model."""

    chunk_samples: int  # length that `submit` takes
    dropped: int  # chunks that overload cost so far; they get no callback

    def submit(self, chunk: Chunk, callback: Callback) -> None:
        """Ask for the probability of speech in `(chunk_samples,) int16, mono`; the answer comes to `callback`."""

    def reset(self) -> None:
        """Forget what was heard, before the next chunk submitted."""

    def close(self) -> None:
        """Drop what is pending: no callback after this."""


class SpeechModel(Protocol):
    """What `SileroVAD` needs of a model; a test's own may answer at once, within `submit`."""

    def stream(self, sample_rate: int) -> SpeechStream:
        """A new stream at 8000 or 16000 Hz."""
        ...


@dataclass(slots=True)
class _Item:
    chunk: Chunk
    callback: Callback
    is_fresh: bool  # forget before this chunk


@dataclass(slots=True)
class _Row:
    stream: _SileroStream
    items: list[_Item]
    answers: list[float] = field(default_factory=list)  # filled on the thread, one for each item


class _SileroStream:
    """One conversation's audio; made by `SileroModel.stream`. Use it on its loop only."""

    def __init__(self, model: SileroModel, sample_rate: int) -> None:
        self.state = RecurrentState(sample_rate)  # touched only by the call in flight
        self.chunk_samples = CHUNK_SAMPLES[sample_rate]  # length that submit takes
        self.dropped = 0  # chunks lost to a full backlog
        self.is_closed = False  # no callback any more
        self._model = model  # asked for a call whenever something is pending
        self._pending: deque[_Item] = deque()  # at most BACKLOG_CHUNKS; full: the oldest goes
        self._is_fresh = False  # the next chunk submitted starts from an empty state

    def submit(self, chunk: Chunk, callback: Callback) -> None:
        """Queue one chunk `(chunk_samples,) int16`; `callback(probability)` comes on the loop, in this order.

        A chunk that a full backlog costs is counted in `dropped` and never answered. Ignored once closed. Raises
        `ConfigurationError` for another length or type.
        """
        if chunk.shape != (self.chunk_samples,) or chunk.dtype != np.int16:
            raise ConfigurationError(f"need ({self.chunk_samples},) int16, got {chunk.shape} {chunk.dtype}")
        if self.is_closed:
            return
        if len(self._pending) >= BACKLOG_CHUNKS:
            lost = self._pending.popleft()
            self._pending[0].is_fresh |= lost.is_fresh
            self.dropped += 1
        self._pending.append(_Item(chunk, callback, self._is_fresh))
        self._is_fresh = False
        self._model.ask(self)

    def reset(self) -> None:
        """Forget what was heard before the next chunk submitted; chunks already submitted are not touched."""
        self._is_fresh = True

    def close(self) -> None:
        """Drop what is pending; a call in flight is not waited for and calls nobody back. Idempotent."""
        if not self.is_closed:
            self.is_closed = True
            self._pending.clear()
            self._model.leave(self)

    def take(self) -> list[_Item]:
        """The next items of a call, oldest first; empty if the stream was closed."""
        return [self._pending.popleft() for _ in range(min(len(self._pending), MAX_ROUNDS))]

    @property
    def has_pending(self) -> bool:
        """Chunks wait for a call."""
        return bool(self._pending)


class SileroModel:
    """The shared model of one event loop. Get it from `shared_model()`, or share one of your own.

    `gather_s`: how long the first chunk of a call waits for others, with more than `ALONE_STREAMS` conversations; at 0
    a call takes what came while the last one ran, and nobody waits, at 1.5 times the CPU. Its thread lives
    while streams are open. A call in flight is counted in `outside`, so that a loop with virtual time does not jump
    meanwhile. Raises `ConfigurationError` for a wait below 0 or above a chunk.
    """

    def __init__(self, *, gather_s: float = GATHER_S) -> None:
        if not 0 <= gather_s <= CHUNK_S:
            raise ConfigurationError(f"gather_s is {gather_s}; give it 0 to {CHUNK_S} seconds, a chunk")
        self.gather_s = gather_s  # see above
        self.calls = 0  # runs of the thread so far
        self.chunks = 0  # chunks answered so far; by calls, the mean batch
        self.failures = 0  # calls that raised; their chunks count as silence
        self._streams: set[_SileroStream] = set()  # open ones
        self._ready: dict[_SileroStream, None] = {}  # streams with pending chunks, in the order they asked
        self._is_busy = False  # a call is scheduled or in flight
        self._executor: ThreadPoolExecutor | None = None  # None while no stream is open

    def stream(self, sample_rate: int) -> _SileroStream:
        """Open a stream at 8000 or 16000 Hz. Raises `ConfigurationError` for another rate."""
        stream = _SileroStream(self, sample_rate)
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="leibniz-silero")
            self._executor.submit(step, sample_rate)  # load the weights before the first chunk comes
        self._streams.add(stream)
        return stream

    def close(self) -> None:
        """Close every stream and end the thread, without waiting for a call in flight."""
        for stream in tuple(self._streams):
            stream.close()

    def ask(self, stream: _SileroStream) -> None:
        """`stream` has chunks: start a call soon, or after the one in flight."""
        self._ready[stream] = None
        if not self._is_busy:
            self._is_busy = True
            self._plan()

    def leave(self, stream: _SileroStream) -> None:
        """`stream` is closed; the last one ends the thread."""
        self._streams.discard(stream)
        self._ready.pop(stream, None)
        if not self._streams and self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None

    def _plan(self) -> None:
        loop = asyncio.get_running_loop()
        if len(self._streams) > ALONE_STREAMS and len(self._ready) < MAX_ROWS:
            loop.call_later(self.gather_s, self._call)
        else:
            loop.call_soon(self._call)

    def _call(self) -> None:
        rows = self._take()
        if not rows or self._executor is None:
            self._is_busy = False
            return
        self.calls += 1
        outside.enter()
        self._executor.submit(self._run, rows, asyncio.get_running_loop())

    def _take(self) -> list[_Row]:
        """Up to MAX_ROWS streams, first come first; those with more than a call's worth come again at the end."""
        streams = list(self._ready)[:MAX_ROWS]
        rows = [_Row(stream, stream.take()) for stream in streams]
        for stream in streams:
            del self._ready[stream]
            if stream.has_pending:
                self._ready[stream] = None
        return rows

    def _run(self, rows: list[_Row], loop: asyncio.AbstractEventLoop) -> None:
        """On the thread."""
        error: Exception | None = None
        try:
            for rate in CHUNK_SAMPLES:
                _run_rounds([row for row in rows if row.stream.state.sample_rate == rate])
        except Exception as caught:  # top of a thread: whatever it was, the streams must get their answers
            error = caught
        try:
            loop.call_soon_threadsafe(self._deliver, rows, error)
        except RuntimeError:
            logger.debug("the loop was closed while Silero was running; its last results are dropped")

    def _deliver(self, rows: list[_Row], error: Exception | None) -> None:
        if error is not None:
            self.failures += 1
            logger.error(f"Silero VAD failed, {len(rows)} conversations hear silence for a moment: {error!r}")
        try:
            if self._ready:
                self._plan()
            else:
                self._is_busy = False
            for row in rows:
                row.answers += [0.0] * (len(row.items) - len(row.answers))
                self.chunks += len(row.items)
                _call_back(row)
        finally:
            outside.leave()


def _run_rounds(rows: list[_Row]) -> None:
    """Round n runs the n-th chunk of every row that has one."""
    while rows:
        at = len(rows[0].answers)
        for row in rows:
            if row.items[at].is_fresh:
                row.stream.state.reset()
        probabilities = infer([row.stream.state for row in rows], [row.items[at].chunk for row in rows])
        for row, probability in zip(rows, probabilities.tolist(), strict=True):
            row.answers.append(probability)
        rows = [row for row in rows if len(row.items) > at + 1]


def _call_back(row: _Row) -> None:
    for item, probability in zip(row.items, row.answers, strict=True):
        if row.stream.is_closed:
            return
        try:
            item.callback(probability)
        except Exception:  # a foreign callback; the other conversations of the call must get theirs
            logger.exception("a callback of the speech model failed")


_models: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, SileroModel] = weakref.WeakKeyDictionary()


def shared_model() -> SileroModel:
    """The model that all conversations of the running event loop share."""
    loop = asyncio.get_running_loop()
    if loop not in _models:
        _models[loop] = SileroModel()
    return _models[loop]
