"""The workers that conversations share: one child per engine, options and running loop."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import threading
from dataclasses import dataclass
from typing import Any

from .worker import WorkerProcess

MAX_WARM = 4  # children kept that no conversation uses; past it the one left longest ago is ended


@dataclass
class _Entry:
    key: str  # engine and options
    worker: WorkerProcess
    loop: asyncio.AbstractEventLoop  # whom the worker belongs to
    users: int = 0  # conversations of that loop that hold it

    def is_free_for(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self.loop is loop or self.loop.is_closed()


_lock = threading.Lock()  # loops in several threads may ask at once
_entries: list[_Entry] = []  # the one left longest ago first


def shared_worker(engine: str, options: dict[str, Any]) -> WorkerProcess:
    """Return the running loop's worker for this engine and these options; give it back by `release_worker`.

    A warm one whose loop is closed is taken over. The child starts with the first request.
    """
    loop = asyncio.get_running_loop()
    key = f"{engine} {json.dumps(options, sort_keys=True)}"
    with _lock:
        mine = [entry for entry in _entries if entry.key == key and entry.is_free_for(loop)]
        entry = next((entry for entry in mine if entry.loop is loop), mine[0] if mine else None)
        if entry is None:
            entry = _Entry(key, WorkerProcess(engine, options), loop)
            _entries.append(entry)
        elif entry.loop is not loop:
            entry.loop, entry.users = loop, 0  # its users ended with their loop
        entry.users += 1
        return entry.worker


def release_worker(worker: WorkerProcess) -> None:
    """Count one user out. The child stays warm for the next conversation; at most MAX_WARM unused ones do."""
    with _lock:
        entry = next((entry for entry in _entries if entry.worker is worker), None)
        if entry is None:
            return  # closed in the meantime
        entry.users = max(0, entry.users - 1)
        if not entry.users:
            _entries.remove(entry)
            _entries.append(entry)
        idle = [entry for entry in _entries if not entry.users and entry.is_free_for(asyncio.get_running_loop())]
        surplus = idle[: max(0, len(idle) - MAX_WARM)]
        _remove(surplus)
    for entry in surplus:
        entry.worker.end()


async def close_all() -> None:
    """End every shared worker of the running loop, and those whose loop is closed. For a server's shutdown."""
    loop = asyncio.get_running_loop()
    with _lock:
        doomed = [entry for entry in _entries if entry.is_free_for(loop)]
        _remove(doomed)
    for entry in doomed:
        await entry.worker.close()


def _remove(entries: list[_Entry]) -> None:
    for entry in entries:
        _entries.remove(entry)


def _end_everything() -> None:
    while _entries:
        _entries.pop().worker.end()


atexit.register(_end_everything)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_entries.clear)  # the children are the parent's
