"""A mirror on a store that answers as told, for the tests of the mirror."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from prometheus_client import REGISTRY

from leibniz_voice.pipeline.conversation.store import LogLine, WriteOutcome, WriteResult
from leibniz_voice.pipeline.errors import StoreError
from leibniz_voice.transports.state.memory_store import MemoryStore
from leibniz_voice.transports.state.mirror import Mirror

LINE = LogLine("idle", "listening", "stt_start", 0, 1.5)


@dataclass
class ScriptedStore(MemoryStore):
    """Memory that answers as told: `faults` are taken from the front, one per batch."""

    faults: list = field(default_factory=list)
    batches: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__()

    async def claim(self, session_id, owner):
        if self.faults:
            raise StoreError("away")
        return await super().claim(session_id, owner)

    async def write(self, batch):
        self.batches.append([write.session_id for write in batch])
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, BaseException):
            raise fault
        if fault is not None:
            passed = [write for write in batch if write.session_id not in fault]
            stored = {result.session_id: result for result in await super().write(passed)}
            return [stored.get(w.session_id, WriteResult(w.session_id, WriteOutcome.FAILED, "OOM")) for w in batch]
        return await super().write(batch)


def run(store, body, **settings):
    """`body(mirror)` on a started mirror with quick back-off."""

    async def whole():
        mirror = Mirror(store, **{"first_retry_s": 0.005, "longest_retry_s": 0.01, **settings})
        await mirror.start()
        try:
            async with asyncio.timeout(10):
                return await body(mirror)
        finally:
            await mirror.stop()

    return asyncio.run(whole())


async def steps_until(condition):
    """Let the loop take steps, as many as it needs."""
    for _ in range(1_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("never happened")


def metric(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0.0
