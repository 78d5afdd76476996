"""Writes recordings while their conversations go on: one thread per process, so that no frame waits for a disk.

loop   put put put put ...          a bounded queue; full: the event is counted as lost, and the file says so
thread      base64, JSON, gzip, write
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import os
import queue
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from loguru import logger

from ...pipeline.errors import ConfigurationError
from ...pipeline.session import Build
from .events import RecordedEvent
from .recorder import packed, recorded
from .recording import Recording
from .recording_file import MAX_EVENTS, SUFFIX, end_line, event_line, header_line

MAX_WAITING = 16_384  # events of all conversations; some seconds of 50 of them
CLOSE_S = 10.0  # for what waits at the end, and again for the disk
FLUSH_S = 2.0  # at the latest, what is written is in the file
LEVEL = 5  # gzip's; 9 makes 1 % less of it at three times the time


class RecordingFolder:
    """A folder that conversations are recorded into, one file each: `<session>-<time>.leibniz.gz`.

    A recording ends when it has `max_mb` of lines (unpacked; three hours or so), with `"end": "full"`. A disk that is
    full or gone ends it too; the conversation goes on. A folder that was removed is made again for the next one.
    Raises `ConfigurationError` if the folder cannot be made.
    """

    def __init__(self, folder: str | Path, *, audio: bool = True, text: bool = True, max_mb: float = 400.0) -> None:
        if not 0 < max_mb <= 500:
            raise ConfigurationError(f"max_mb is {max_mb:g}; give megabytes of one recording, at most 500")
        self._folder = Path(folder).absolute()  # wherever the process goes later
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"cannot record into {folder}: {(error.strerror or str(error)).lower()}") from None
        self._has_audio, self._has_text = audio, text
        self._max_bytes = int(max_mb * 1_000_000)
        self._queue: queue.Queue[tuple[_File, RecordedEvent | Recording | None] | None] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None  # None until the first conversation, and after `close`
        self.written = 0  # recordings that are there, ended
        self.lost = 0  # recordings that are not, or not to their end

    def records(self, build: Build, *, bot: str = "") -> Build:
        """Return a `build` whose conversations are recorded here."""
        return recorded(build, self._open, audio=self._has_audio, text=self._has_text, bot=bot)

    def close(self) -> None:
        """Write what waits and end the thread. Blocks for as long as the disk needs, at most 2 * 10 s."""
        if self._thread is not None:
            try:
                self._queue.put(None, timeout=CLOSE_S)
            except queue.Full:
                logger.warning("recordings in {} are not whole: the disk takes too long", self._folder)
            else:
                self._thread.join(CLOSE_S)
            self._thread = None

    def _open(self, header: Recording) -> _File:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="leibniz-recordings", daemon=True)
            self._thread.start()
        file = _File(self._path(header), self, header.session_id)
        if not file.queue(header):
            file.is_ended = True
            self.lost += 1
            logger.warning("the conversation {} is not recorded: the disk does not keep up", header.session_id)
        return file

    def _path(self, header: Recording) -> Path:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(header.began)) + f"-{int(header.began * 1000) % 1000:03}"
        return self._folder / f"{re.sub(r'[^A-Za-z0-9_-]', '_', header.session_id)[:64]}-{stamp}{SUFFIX}"

    def put(self, file: _File, what: RecordedEvent | Recording | None) -> bool:
        """Queue something for the thread; False if there is no room."""
        try:
            self._queue.put_nowait((file, what))
        except queue.Full:
            return False
        return True

    # -- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        open_files: set[_File] = set()
        looked = time.monotonic()  # at all files
        while True:
            with contextlib.suppress(queue.Empty):
                item = self._queue.get(timeout=FLUSH_S)
                if item is None:
                    break
                self._take(*item, open_files)
            if time.monotonic() - looked > FLUSH_S:  # however busy the queue is
                looked = time.monotonic()
                for file in list(open_files):
                    self._do(file, file.catch_up, open_files)
        for file in list(open_files):  # conversations that the process did not end
            self._do(file, functools.partial(file.finish, ""), open_files)

    def _take(self, file: _File, what: RecordedEvent | Recording | None, open_files: set[_File]) -> None:
        file.taken += 1
        if not file.is_ended:
            open_files.add(file)
            self._do(file, functools.partial(file.write, what, self._max_bytes), open_files)

    def _do(self, file: _File, step: Callable[[], None], open_files: set[_File]) -> None:
        """One step of one file; its errors end that file only."""
        try:
            step()
        except Exception as error:  # a disk's, or what no JSON can be made of; the thread is everybody's
            reason = getattr(error, "strerror", None) or repr(error)
            logger.warning("{}: the recording {} ends: {}", file.session_id, file.path, reason)
            file.give_up()
        if file.is_ended:
            open_files.discard(file)
            self.written += file.is_there
            self.lost += not file.is_there


class _File:
    """One recording's file. `put` and `end` are the loop's, the rest is the thread's."""

    def __init__(self, path: Path, folder: RecordingFolder, session_id: str) -> None:
        self.path = path
        self.session_id = session_id
        self.is_there = False  # ended, and not removed meanwhile
        self.is_ended = False  # nothing more is written
        self._folder = folder
        self._lost = 0  # events that found no room in the queue, or could not be noted
        self._queued = 0  # what found room
        self.taken = 0  # of that, what the thread has taken
        self._file: BinaryIO | gzip.GzipFile | None = None  # None before the header, and after the end
        self._bytes = self._events = 0  # written so far
        self._is_full = False
        self._is_over = False  # the conversation has ended; what is queued is still written

    def put(self, event: RecordedEvent) -> None:
        """See `Sink.put`."""
        if not self.is_ended and not self.queue(event):
            self._lost += 1

    def lose(self) -> None:
        """See `Sink.lose`."""
        self._lost += 1

    def end(self) -> None:
        """See `Sink.end`. Where it finds no room, the thread notices when it has caught up."""
        self._is_over = True
        self.queue(None)

    def queue(self, what: RecordedEvent | Recording | None) -> bool:
        """Queue something for the thread; False if there is no room."""
        if not self._folder.put(self, what):
            return False
        self._queued += 1
        return True

    def write(self, what: RecordedEvent | Recording | None, max_bytes: int) -> None:
        """Write one event, the header, or (None) the end. Raises OSError."""
        if isinstance(what, Recording):
            self.path.parent.mkdir(parents=True, exist_ok=True)  # somebody may have removed it
            self._file = gzip.open(self.path, "wb", compresslevel=LEVEL)  # noqa: SIM115 - it lives with its call
            self._line(header_line(what))
        elif what is None:
            self.finish("full" if self._is_full else "over")
        elif self._bytes > max_bytes or self._events >= MAX_EVENTS:
            self._is_full = True
            self._lost += 1
        else:
            self._events += 1
            self._line(event_line(packed(what)))

    def catch_up(self) -> None:
        """Flush; or end, if its end found no room and nothing of it is queued any more. Raises OSError."""
        if self._is_over and self.taken == self._queued:
            self.finish("full" if self._is_full else "over")
        else:
            self.flush()

    def give_up(self) -> None:
        """After an error: nothing more is written."""
        file, self._file, self.is_ended = self._file, None, True
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def _line(self, line: bytes) -> None:
        if self._file is not None:
            self._bytes += len(line)
            self._file.write(line)

    def flush(self) -> None:
        """Bring what was written to the disk's care."""
        if self._file is not None:
            self._file.flush()

    def finish(self, reason: str) -> None:
        """End the file; without a `reason` it has no last line."""
        if self._file is not None:
            if reason:
                self._line(end_line(reason, self._lost))
            file, self._file = self._file, None
            is_there = os.fstat(file.fileno()).st_nlink > 0
            file.close()
            self.is_there = is_there
            if not is_there:
                logger.warning("{}: the recording {} is lost: somebody removed it", self.session_id, self.path)
        self.is_ended = True
