"""What a state change costs the pipeline, and when it is in Redis.

    python benchmarks/mirror.py [--seconds 10] [--sessions 1000] [--outage none|killed|frozen] [--seed 1]

Three parts, in one run on one machine and one Redis (the embedded one, Unix socket, AOF every second):
 cost      `update()` of a mirrored session, beside the floor (setting one attribute) and the baseline: awaiting
           HSET + EXPIRE for each change, pipelined in one round trip, as an orchestrator without a mirror does.
 lag       `--sessions` conversations with one change a second each, at random instants, for `--seconds`: from
           update() to the store's word that it has the change, measured at the store's reply.
 outage    update() before, during and after an outage of 8 s of the given kind; then how long until all is stored.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence

import redis

from leibniz_voice.pipeline.snapshot import ConversationFields
from leibniz_voice.pipeline.store import LogLine, Write, WriteResult
from leibniz_voice.transports.mirror import Mirror
from leibniz_voice.transports.mirrored import MirroredSession
from leibniz_voice.transports.store_embedded import EmbeddedRedis
from leibniz_voice.transports.store_redis import RedisStore

LINE = LogLine("listening", "thinking", "vad_end", 12, 1_700_000_000.25)


def conversation() -> ConversationFields:
    """A state of usual size: about 1.5 KiB in the hash."""
    history = [
        {"turn_id": n, "text": "We are open from nine to five.", "heard": "We are open", "interrupted": True}
        for n in range(8)
    ]
    return ConversationFields(
        state="thinking",
        turn_number=12,
        turn_id=14,
        text_buffer=["when are you", "open on saturday"],
        intent={"label": "opening_hours", "confidence": 0.93},
        rag_results={"results": [{"id": "hours", "score": 7.1}], "context": "We are open from nine to five. " * 4},
        history=history,
        last_update=1_700_000_000.25,
    )


class Recording(RedisStore):
    """The real store; notes for each change when the reply came in."""

    def __init__(self, url: str, *, server: EmbeddedRedis) -> None:
        super().__init__(url, server=server)
        self.changed: dict[str, list[float]] = {}  # times of changes that are not stored yet, by session
        self.lags: list[float] = []  # seconds, one per change

    async def write(self, batch: Sequence[Write]) -> list[WriteResult]:
        taken = {write.session_id: self.changed.pop(write.session_id, []) for write in batch}
        results = await super().write(batch)
        now = time.perf_counter()
        for times in taken.values():
            self.lags += [now - changed for changed in times]
        return results


def show(name: str, seconds: list[float], unit: float = 1e6, word: str = "us") -> None:
    """One line of percentiles."""
    cuts = statistics.quantiles(seconds, n=1000, method="inclusive")
    p50, p95, p99 = (cuts[k] * unit for k in (499, 949, 989))
    figures = f"p50 {p50:9.2f}  p95 {p95:9.2f}  p99 {p99:9.2f}  max {max(seconds) * unit:9.1f} {word}"
    print(f"{name:34} n={len(seconds):7}  {figures}")


async def cost(store: Recording, mirror: Mirror, n: int) -> None:
    """update() as a pipeline does it, one every now and then, with the flusher at work."""
    state = conversation()
    session = mirror.open(await mirror.claim("cost"), state)
    client = store._client  # the same settings and the same socket
    fields = state.to_fields()
    floor, ours, awaited = [], [], []
    for number in range(n):
        start = time.perf_counter()
        state.turn_number = number
        middle = time.perf_counter()
        session.update(LINE)
        end = time.perf_counter()
        floor.append(middle - start)
        ours.append(end - middle)
        if number % 20 == 0:
            await asyncio.sleep(0.002)
    await mirror.drain(5)
    for number in range(n // 10):
        start = time.perf_counter()
        fields["turn_number"] = str(number)
        async with client.pipeline(transaction=False) as pipe:
            pipe.hset("session:awaited", mapping=fields)
            pipe.expire("session:awaited", 3600)
            await pipe.execute()
        awaited.append(time.perf_counter() - start)
    show("set one attribute (floor)", floor)
    show("update() of the mirror", ours)
    show("awaited HSET + EXPIRE (baseline)", awaited)
    session.close()


async def change(
    store: Recording, sessions: list[tuple[MirroredSession, ConversationFields]], seconds: float, rng: random.Random
) -> list[float]:
    """Each session changes once a second at its own random instants; returns what update() took."""
    costs: list[float] = []
    start = time.perf_counter()
    plan = sorted(
        (start + second + rng.random(), index) for second in range(round(seconds)) for index in range(len(sessions))
    )
    for due, index in plan:
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        session, state = sessions[index]
        state.turn_number += 1
        before = time.perf_counter()
        session.update(LINE)
        after = time.perf_counter()
        costs.append(after - before)
        store.changed.setdefault(session.claim.session_id, []).append(before)
    return costs


async def outage(store: Recording, mirror: Mirror, server: EmbeddedRedis, sessions, kind: str, rng) -> None:
    """Eight seconds without a server, then the time until everything is stored."""
    show(f"update() before ({kind})", await change(store, sessions, 4, rng))
    pid = server.pid
    if kind == "killed":
        server._watcher.cancel()  # nobody starts it again for 8 s
    os.kill(pid, signal.SIGKILL if kind == "killed" else signal.SIGSTOP)
    show(f"update() during ({kind})", await change(store, sessions, 8, rng))
    if kind == "killed":
        await server.start()
    else:
        os.kill(pid, signal.SIGCONT)
    start = time.perf_counter()
    left = await mirror.drain(10)
    took = time.perf_counter() - start
    with redis.Redis.from_url(server.url) as look:
        stale = sum(
            int(look.hget(f"session:{s.claim.session_id}", "turn_number")) != c.turn_number for s, c in sessions
        )
    print(f"{'complete after its return':34} {took:.3f} s, {left} unsent, {stale} of {len(sessions)} stale")
    show(f"update() after ({kind})", await change(store, sessions, 4, rng))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--outage", choices=["none", "killed", "frozen"], default="none")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedRedis(directory=folder)
        store = Recording(server.url, server=server)
        await store.start()
        mirror = Mirror(store)
        await mirror.start()
        version = (await store._client.info("server"))["redis_version"]
        print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        print(f"Python {platform.python_version()}, redis-py {redis.__version__}, Redis {version}, seed {options.seed}")
        await cost(store, mirror, 20_000)
        sessions = []
        for index in range(options.sessions):
            state = conversation()
            sessions.append((mirror.open(await mirror.claim(f"b{index}"), state), state))
        await mirror.drain(10)
        gc.collect()
        cpu = time.process_time()
        costs = await change(store, sessions, options.seconds, rng)
        cpu = time.process_time() - cpu
        await mirror.drain(5)
        show(f"update(), {options.sessions} sessions, 1/s each", costs)
        show("mirror lag", store.lags, 1e3, "ms")
        print(f"{'CPU of this process':34} {cpu / options.seconds * 100:.0f} % of a core, the load generator included")
        if options.outage != "none":
            await outage(store, mirror, server, sessions, options.outage, rng)
        await mirror.stop()
        await store.close()


if __name__ == "__main__":
    asyncio.run(main())
