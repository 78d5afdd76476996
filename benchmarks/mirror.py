"""What a state transition costs the pipeline, whatever Redis does, and when it is in Redis.

    python benchmarks/mirror.py [--seconds 10] [--sessions 1000] [--outages all|none|KIND ...] [--outage-s 8] [--seed 1]

One run on one machine and one Redis (the embedded one behind a Unix socket, AOF every second):
 cost      one transition on the pipeline's side: machine, record, mirror, metrics, callbacks, log note, and the
           `StateChangedFrame` made and pushed both ways. Beside it the floor (setting one attribute), the mirror's
           share (`update()`), the same with every processor of the assistant hearing of it and the client's JSON
           written, the same once per round of the event loop (its system call leaves the caches cold; after a sleep
           they are colder still, see the other parts), what the log line takes afterwards, and the baseline: awaiting
           HSET + EXPIRE for each change, in one round trip, as an orchestrator without a mirror does. INFO lines are
           written to /dev/null.
 lag       `--sessions` conversations with one transition a second each, at random instants, for `--seconds`: from
           the transition to the moment when the store's reply for it is here.
 outages   100 conversations before, during and after 8 s of each kind: the server killed, frozen (SIGSTOP), 200 ms
           slow, out of memory, answering nonsense (HTTP). Transitions' cost in each phase, of the second of two in
           a row (after a sleep the first costs what the machine's caches and clock make of it, 30 to 80 us, and
           hides what the store does); then how long until everything is stored, and how many of the 100 are stale.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import redis
from loguru import logger

os.environ.setdefault("PIPECAT_LOG_LLM_CONTEXT", "off")
logger.remove()

from leibniz_voice.pipeline import Pipeline  # noqa: E402 - Pipecat logs a line when imported
from leibniz_voice.pipeline.conversation.conversation_record import ConversationRecord  # noqa: E402
from leibniz_voice.pipeline.conversation.snapshot import ConversationFields  # noqa: E402
from leibniz_voice.pipeline.conversation.store import LogLine, Write, WriteResult  # noqa: E402
from leibniz_voice.pipeline.session import Session  # noqa: E402
from leibniz_voice.pipeline.states import Event  # noqa: E402
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator  # noqa: E402
from leibniz_voice.transports.playout.input import ClientInput  # noqa: E402
from leibniz_voice.transports.playout.output import ClientOutput  # noqa: E402
from leibniz_voice.transports.state.embedded_redis import EmbeddedRedis  # noqa: E402
from leibniz_voice.transports.state.mirror import Mirror  # noqa: E402
from leibniz_voice.transports.state.redis_store import RedisStore  # noqa: E402

TURN = (Event.STT_START, Event.VAD_END, Event.RESPONSE_READY, Event.TTS_COMPLETE)
LINE = LogLine("listening", "thinking", "vad_end", 12, 1_700_000_000.25)
KINDS = ("killed", "frozen", "slow", "memory", "nonsense")
OUTAGE_SESSIONS = 100


def conversation() -> ConversationFields:
    """A state of usual size: about 1.5 KiB in the hash."""
    history = [
        {"turn_id": n, "text": "We are open from nine to five.", "heard": "We are open", "interrupted": True}
        for n in range(8)
    ]
    return ConversationFields(
        turn_number=12,
        turn_id=14,
        text_buffer=["when are you", "open on saturday"],
        intent={"label": "opening_hours", "confidence": 0.93},
        rag_results={"results": [{"id": "hours", "score": 7.1}], "context": "We are open from nine to five. " * 4},
        history=history,
    )


class Recording(RedisStore):
    """The real store; notes for each change when the reply came in."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.changed: dict[str, list[float]] = {}  # times of changes that are not stored yet, by session
        self.lags: list[float] = []  # seconds, one per change

    async def write(self, batch: Sequence[Write]) -> list[WriteResult]:
        taken = {write.session_id: self.changed.pop(write.session_id, []) for write in batch}
        results = await super().write(batch)
        now = time.perf_counter()
        for times in taken.values():
            self.lags += [now - changed for changed in times]
        return results


class Mover(StateTracker):
    """A tracker that makes the next move of an endless talk when it is told to."""

    def __init__(self, record: ConversationRecord) -> None:
        super().__init__(record=record)
        self._count = 0  # moves made

    async def move(self) -> float:
        """Make one move; returns the seconds it took."""
        event = TURN[self._count % len(TURN)]
        self._count += 1
        fields = self.record.fields
        if event is Event.VAD_END:
            fields.turn_id += 1
        elif event is Event.TTS_COMPLETE:
            fields.turn_number += 1
        start = time.perf_counter()
        await self._move(event)
        return time.perf_counter() - start


class Nowhere:
    """A wire to nobody."""

    def send_audio(self, chunk: Any) -> None:
        pass

    def send_text(self, message: str) -> None:
        pass


async def mirrored(mirror: Mirror, name: str, store: Recording | None = None) -> Mover:
    """A conversation that follows into the store."""
    session: Any = None

    def changed(line: LogLine | None, is_urgent: bool) -> None:
        if store is not None:
            store.changed.setdefault(name, []).append(time.perf_counter())
        session.update(line)
        if is_urgent:
            session.flush()

    record = ConversationRecord(name, fields=conversation(), on_change=changed)
    session = mirror.open(await mirror.claim(name), record)
    return Mover(record)


def show(name: str, seconds: list[float], unit: float = 1e6, word: str = "us") -> float:
    """One line of percentiles; returns the median."""
    cuts = statistics.quantiles(seconds, n=1000, method="inclusive")
    p50, p95, p99 = (cuts[k] * unit for k in (499, 949, 989))
    figures = f"p50 {p50:9.2f}  p95 {p95:9.2f}  p99 {p99:9.2f}  max {max(seconds) * unit:9.1f} {word}"
    print(f"{name:44} n={len(seconds):6}  {figures}", flush=True)
    return p50


async def timed_moves(mover: Mover, n: int, *, in_a_row: int = 1) -> list[float]:
    """Moves, `in_a_row` in each round of the loop, with the flusher and the log at work between the rounds."""
    costs = []
    for number in range(n):
        costs.append(await mover.move())
        if number % 20 == 0:
            await asyncio.sleep(0.002)
        elif number % in_a_row == 0:
            await asyncio.sleep(0)
    return costs


async def cost(url: str, mirror: Mirror, n: int) -> None:
    """One transition, beside floor, parts and baseline."""
    state = conversation()
    session = mirror.open(await mirror.claim("parts"), state)
    floor, update, log, awaited = [], [], [], []
    for number in range(n):
        start = time.perf_counter()
        state.turn_number = number
        middle = time.perf_counter()
        session.update(LINE)
        end = time.perf_counter()
        floor.append(middle - start)
        update.append(end - middle)
        if number % 20 == 0:
            await asyncio.sleep(0.002)
    session.close()
    show("set one attribute (floor)", floor)
    show("the mirror's share: update()", update)
    show("one transition, pipeline's side", await timed_moves(await mirrored(mirror, "alone"), n, in_a_row=20))
    show("  alone in its round of the event loop", await timed_moves(await mirrored(mirror, "round"), n))
    show("  and all of a pipeline hears of it", await in_a_pipeline(mirror, n))
    for _ in range(2000):
        start = time.perf_counter()
        logger.info("{} {} -> {} ({})", "caller", "listening", "thinking", "vad_end")
        log.append(time.perf_counter() - start)
    show("  its log line, within the next 20 ms", log)
    fields = conversation().to_fields()
    async with redis.asyncio.Redis.from_url(url) as client:
        for number in range(n // 10):
            start = time.perf_counter()
            fields["turn_number"] = str(number)
            async with client.pipeline(transaction=False) as pipe:
                pipe.hset("session:awaited", mapping=fields)
                pipe.expire("session:awaited", 3600)
                await pipe.execute()
            awaited.append(time.perf_counter() - start)
    show("awaited HSET + EXPIRE (baseline)", awaited)


async def in_a_pipeline(mirror: Mirror, n: int) -> list[float]:
    """The same transitions with turn aggregator, responder, gate and output hearing of each."""
    mover = await mirrored(mirror, "pipeline")
    session = Session("pipeline", input=ClientInput(), output=ClientOutput(wire=Nowhere()), record=mover.record)
    chain = [session.input, TurnAggregator(), Responder(), InterruptionGate(), mover, session.output]
    await session.start(lambda session: Pipeline(chain))
    try:
        return await timed_moves(mover, n)
    finally:
        await session.cancel()


async def change(movers: list[Mover], seconds: float, rng: random.Random, *, is_warm: bool = False) -> list[float]:
    """Each conversation moves once a second at its own random instants; returns what the moves took.

    `is_warm`: twice each time, of which the second counts.
    """
    costs: list[float] = []
    start = time.perf_counter()
    plan = sorted((start + second + rng.random(), i) for second in range(round(seconds)) for i in range(len(movers)))
    for due, index in plan:
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        if is_warm:
            await movers[index].move()
        costs.append(await movers[index].move())
    return costs


class Setup:
    """The server, and the proxy in front of it."""

    def __init__(self, folder: str) -> None:
        self.server = EmbeddedRedis(directory=folder)
        self.socket = f"{folder}/front.sock"
        self.url = f"unix://{self.socket}"
        self.proxy: subprocess.Popen[str] | None = None

    async def start(self) -> None:
        await self.server.start()
        self._start_proxy()

    def _start_proxy(self) -> None:
        script = str(Path(__file__).parent / "redis_fault.py")
        command = [sys.executable, script, self.socket, str(self.server.socket)]
        self.proxy = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.proxy.stdout is not None
        self.proxy.stdout.readline()

    def tell(self, mode: str) -> None:
        assert self.proxy is not None
        assert self.proxy.stdin is not None
        self.proxy.stdin.write(f"{mode}\n")
        self.proxy.stdin.flush()

    def look(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.server.socket))

    async def stop(self) -> None:
        if self.proxy is not None:
            self.proxy.terminate()
            self.proxy.communicate()
        await self.server.stop()

    @contextlib.asynccontextmanager
    async def outage(self, kind: str) -> Any:
        """The given kind, for as long as the block runs."""
        pid = self.server.pid
        if kind == "killed":
            self.server._watcher.cancel()  # nobody starts it again meanwhile
            os.kill(pid, signal.SIGKILL)
        elif kind == "frozen":
            os.kill(pid, signal.SIGSTOP)
        elif kind == "memory":
            with self.look() as client:
                client.config_set("maxmemory", "1")
        else:
            self.tell(kind)
        yield
        if kind == "killed":
            await self.server.start()
        elif kind == "frozen":
            os.kill(pid, signal.SIGCONT)
        elif kind == "memory":
            with self.look() as client:
                client.config_set("maxmemory", "0")
        else:
            self.tell("pass")


async def outage(
    setup: Setup, mirror: Mirror, movers: list[Mover], kind: str, seconds: float, rng: random.Random
) -> None:
    """Before, during, after; then the time until everything is stored."""
    medians = [show(f"transition before ({kind})", await change(movers, 4, rng, is_warm=True))]
    async with setup.outage(kind):
        medians.append(show(f"transition during ({kind})", await change(movers, seconds, rng, is_warm=True)))
        waiting = mirror.pending
    start = time.perf_counter()
    left = await mirror.drain(10)
    took = time.perf_counter() - start
    with setup.look() as look:
        stale = sum(
            int(look.hget(f"session:{m.record.session_id}", "turn_id")) != m.record.fields.turn_id
            or look.hget(f"session:{m.record.session_id}", "state").decode() != m.record.fields.state
            for m in movers
        )
    print(
        f"{f'complete after its return ({kind})':44} {took:.3f} s for {waiting} waiting, {left} unsent, {stale} stale"
    )
    medians.append(show(f"transition after ({kind})", await change(movers, 4, rng, is_warm=True)))
    print(f"{f'largest / smallest p50 ({kind})':44} {max(medians) / min(medians):.2f}", flush=True)


def head(setup: Setup, seed: int) -> None:
    with setup.look() as look:
        server = look.info("server")["redis_version"]
    when = time.strftime("%Y-%m-%d %H:%M")
    print(f"{when}, {platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    names = ("pipecat-ai", "redis", "loguru", "prometheus-client")
    print(f"Python {platform.python_version()}, {', '.join(f'{n} {version(n)}' for n in names)}, Redis {server}")
    print(f"seed {seed}; INFO log to /dev/null")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--outages", nargs="*", choices=["all", "none", *KINDS], default=["all"])
    parser.add_argument("--outage-s", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    kinds = KINDS if "all" in options.outages else [kind for kind in options.outages if kind != "none"]
    logger.add(os.devnull, level="INFO", diagnose=False, backtrace=False)
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(folder)
        await setup.start()
        direct = Recording(setup.server.url)
        await direct.start()
        mirror = Mirror(direct)
        await mirror.start()
        head(setup, options.seed)
        await cost(setup.server.url, mirror, 20_000)
        movers = [await mirrored(mirror, f"b{index}", direct) for index in range(options.sessions)]
        await mirror.drain(10)
        direct.lags.clear()
        gc.collect()
        cpu = time.process_time()
        costs = await change(movers, options.seconds, rng)
        cpu = time.process_time() - cpu
        await mirror.drain(5)
        show(f"transition, {options.sessions} conversations, 1/s each", costs)
        show("mirror lag", direct.lags, 1e3, "ms")
        print(f"{'CPU of this process':44} {cpu / options.seconds * 100:.0f} % of a core, the load generator included")
        await mirror.stop()
        await direct.close()
        for kind in kinds:
            store = RedisStore(setup.url)
            await store.start()
            mirror = Mirror(store)
            await mirror.start()
            movers = [await mirrored(mirror, f"{kind}{index}") for index in range(OUTAGE_SESSIONS)]
            await outage(setup, mirror, movers, kind, options.outage_s, rng)
            await mirror.stop()
            await store.close()
        print(f"load {os.getloadavg()[0]:.1f} at the end")
        await setup.stop()


if __name__ == "__main__":
    asyncio.run(main())
