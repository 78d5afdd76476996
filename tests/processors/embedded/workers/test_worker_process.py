"""The worker process: shared by many, lost without harm, and gone when told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from leibniz_voice.pipeline.engine import outside
from leibniz_voice.pipeline.errors import ConfigurationError, ServiceError, WorkerCrashed
from leibniz_voice.processors.embedded.voice.espeak import EspeakVoice, unpack
from leibniz_voice.processors.embedded.workers.child import ASK, CHUNK, Messages, encode
from leibniz_voice.processors.embedded.workers.shared import close_all, release_worker, shared_worker
from leibniz_voice.processors.embedded.workers.worker import MAX_IN_FLIGHT, WorkerProcess
from tests.support.tools import needs

pytestmark = needs("espeakng_loader")
SENTENCE = "This is a sentence that somebody speaks."
LONG = " ".join([SENTENCE] * 40)  # 100 s of audio


def asked(text: str = SENTENCE) -> bytes:
    return json.dumps({"text": text, "rate_wpm": 165, "pitch": 50, "voice": "en", "sample_rate": 16000}).encode()


def seconds(answer: list[bytes]) -> float:
    return sum(len(unpack(chunk)[0]) for chunk in answer) / 32000


async def speak(worker: WorkerProcess, text: str = SENTENCE) -> float:
    return seconds([chunk async for chunk in worker.stream(asked(text))])


def is_alive(pid: int) -> bool:
    """Whether the process exists; a zombie counts."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_messages_are_read_whatever_pieces_they_come_in():
    stream = encode(ASK, 7, b"question") + encode(CHUNK, 8) + encode(CHUNK, 9, bytes(300))
    for size in (1, 3, 9, 50, 1000):
        messages, found = Messages(), []
        for at in range(0, len(stream), size):
            found += messages.feed(stream[at : at + size])
        assert found == [(ASK, 7, b"question"), (CHUNK, 8, b""), (CHUNK, 9, bytes(300))]


def test_a_broken_stream_is_noticed():
    with pytest.raises(ValueError, match="broken"):
        Messages().feed(b"\xff" * 9)


@pytest.mark.slow
def test_no_child_is_started_before_the_first_request_and_none_is_left_after_close():
    async def main() -> int:
        worker = WorkerProcess("espeak", {})
        assert worker.pid is None
        assert await speak(worker) > 1.5
        pid = worker.pid
        assert is_alive(pid)
        await worker.close()
        assert worker.pid is None
        return pid

    assert not is_alive(asyncio.run(main()))


@pytest.mark.slow
def test_requests_of_many_conversations_are_served_by_one_child():
    async def main() -> None:
        worker = WorkerProcess("espeak", {})
        texts = [" ".join([SENTENCE] * (1 + i % 3)) for i in range(30)]
        lengths = await asyncio.gather(*(speak(worker, text) for text in texts))
        assert all(1.5 < length / (1 + i % 3) < 3.5 for i, length in enumerate(lengths))
        assert worker.crashes == 0
        await worker.close()

    asyncio.run(main())


@pytest.mark.slow
def test_a_killed_child_costs_what_was_in_flight_and_nothing_else():
    async def main() -> None:
        worker = WorkerProcess("espeak", {})
        await speak(worker)
        first = worker.pid
        os.kill(first, signal.SIGSTOP)  # so that it is sure to be in the middle
        lost = [asyncio.create_task(speak(worker)) for _ in range(3)]
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        results = await asyncio.gather(*lost, return_exceptions=True)
        assert [type(result) for result in results] == [WorkerCrashed] * 3
        assert await speak(worker) > 1.5
        assert worker.pid != first
        assert not is_alive(first)
        assert worker.crashes == 1
        await worker.close()

    asyncio.run(main())


@pytest.mark.slow
def test_a_child_killed_between_requests_costs_nothing():
    async def main() -> None:
        worker = WorkerProcess("espeak", {})
        await speak(worker)
        os.kill(worker.pid, signal.SIGKILL)
        while worker.pid is not None:
            await asyncio.sleep(0)
        assert await speak(worker) > 1.5
        await worker.close()

    asyncio.run(main())


@pytest.mark.slow
def test_a_child_that_says_nothing_is_killed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("leibniz_voice.processors.embedded.workers.worker.STUCK_S", 0.2)

    async def main() -> None:
        worker = WorkerProcess("sphinx_that_does_not_exist", {})
        with pytest.raises(ServiceError):
            await worker.call(b"")
        worker = WorkerProcess("espeak", {})
        monkeypatch.setattr("leibniz_voice.processors.embedded.workers.worker.STUCK_S", 5.0)
        await speak(worker)
        monkeypatch.setattr("leibniz_voice.processors.embedded.workers.worker.STUCK_S", 0.2)
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(WorkerCrashed, match="said nothing"):
            await speak(worker)
        await worker.close()

    asyncio.run(main())


@pytest.mark.slow
def test_a_cancelled_request_stops_the_engine_and_others_go_on():
    async def main() -> None:
        worker = WorkerProcess("espeak", {})
        await speak(worker)
        begun = time.perf_counter()
        await speak(worker, LONG)
        whole = time.perf_counter() - begun
        begun = time.perf_counter()
        stream = worker.stream(asked(LONG))
        await anext(stream)
        await stream.aclose()
        assert await speak(worker) > 1.5
        assert time.perf_counter() - begun < whole / 2
        assert worker.in_flight == 0
        await worker.close()

    asyncio.run(main())


@pytest.mark.slow
def test_what_is_in_flight_counts_as_outside_until_the_child_has_answered():
    async def main() -> None:
        worker = WorkerProcess("espeak", {})
        task = asyncio.create_task(speak(worker))
        await asyncio.sleep(0)
        assert outside.in_flight() == 1
        await task
        assert outside.in_flight() == 0
        task = asyncio.create_task(speak(worker, LONG))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await speak(worker)  # the child has answered the cancelled one before this
        assert outside.in_flight() == 0
        await worker.close()

    asyncio.run(main())


@pytest.mark.slow
def test_more_requests_than_the_bound_are_refused_at_once():
    async def main() -> None:
        worker = WorkerProcess("espeak", {})
        tasks = [asyncio.create_task(speak(worker)) for _ in range(MAX_IN_FLIGHT)]
        await asyncio.sleep(0)
        with pytest.raises(ServiceError, match="refused"):
            await speak(worker)
        assert min(await asyncio.gather(*tasks)) > 1.5
        await worker.close()

    asyncio.run(main())


@pytest.mark.slow
def test_an_engine_that_refuses_its_options_says_so_every_time():
    async def main() -> None:
        worker = WorkerProcess("sphinx", {"model": "/nowhere", "phrases": ["yes"], "dictionary": ["yes Y EH S"]})
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="refuses"):
                await worker.call(b"\0\0\x3e\x80")
        assert worker.pid is None

    asyncio.run(main())


@pytest.mark.slow
def test_a_failed_request_leaves_the_child_alive():
    async def main() -> None:
        worker = WorkerProcess("espeak", {})
        await speak(worker)
        pid = worker.pid
        with pytest.raises(ConfigurationError):
            await worker.call(b"no json")
        assert await speak(worker) > 1.5
        assert worker.pid == pid
        await worker.close()

    asyncio.run(main())


@pytest.mark.slow
def test_a_warm_child_is_taken_over_by_the_next_loop_even_in_the_middle_of_a_request():
    pids = []

    async def main(leaves_early: bool) -> None:
        worker = shared_worker("espeak", {})
        await speak(worker)
        pids.append(worker.pid)
        if leaves_early:
            await anext(worker.stream(asked(LONG)))  # neither read to its end nor closed
        release_worker(worker)

    async def last() -> None:
        await main(False)
        assert outside.in_flight() == 0
        await close_all()

    asyncio.run(main(False))
    asyncio.run(main(True))
    asyncio.run(last())
    assert pids[0] == pids[1] == pids[2]
    assert not is_alive(pids[0])


@pytest.mark.slow
def test_two_loops_at_a_time_have_a_child_each():
    pids: list[int] = []
    together = threading.Barrier(2)

    async def main() -> None:
        worker = shared_worker("espeak", {})
        await speak(worker)
        pids.append(worker.pid)
        together.wait(10)
        await close_all()

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(set(pids)) == 2
    assert not any(map(is_alive, pids))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["exits", "is_killed"])
def test_the_child_dies_with_its_parent(way: str):
    script = f"""
import asyncio, os
from leibniz_voice.processors.embedded.voice.espeak import EspeakVoice
async def main():
    voice = EspeakVoice()
    async for _ in voice.speak("hello"): pass
    print(voice.pid, flush=True)
    if {way == "is_killed"}: os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    pid = int(done.stdout.split()[-1])
    deadline = time.perf_counter() + 5
    while is_alive(pid) and time.perf_counter() < deadline:
        os.sched_yield()  # an orphan is reaped by init, not by us
        if _state(pid) in ("Z", ""):
            break
    assert _state(pid) in ("Z", "")


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_the_voice_refuses_settings_out_of_range():
    for wrong in ({"rate_wpm": 20}, {"pitch": 101}, {"sample_rate": 4000}):
        with pytest.raises(ConfigurationError):
            EspeakVoice(**wrong)
