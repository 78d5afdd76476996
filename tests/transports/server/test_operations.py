"""Running a server: readiness, draining, several workers, and the watchdog. Real processes and a real Redis."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets
from loguru import logger
from websockets.asyncio.client import ClientConnection, connect

from leibniz_voice.transports.access.limits import Limits
from leibniz_voice.transports.access.token_key import TokenKey
from leibniz_voice.transports.server.peers import add_up
from leibniz_voice.transports.server.watchdog import Watchdog
from tests.support import ROOT
from tests.support.serving import SECRET, bot, joined, served, types, until

BOTS = ROOT / "bots"
ECHO = bot("echo.py")
pytestmark = pytest.mark.slow


async def get(url: str) -> tuple[int, str]:
    """Status and body of an HTTP request."""

    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()

    return await asyncio.to_thread(ask)


async def ready(socket: ClientConnection) -> dict[str, Any]:
    return await until(socket, type="ready")


class Process:
    """`leibniz serve` as a process, and what it logged."""

    def __init__(self, folder: Path, *arguments: str, bot: str = "echo.py", **environment: str) -> None:
        self.log = folder / "log.txt"
        command = [sys.executable, "-m", "leibniz_voice.bots.cli.main", "serve", str(BOTS / bot), "--port", "0"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--data", str(folder / "data"), *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                process_group=0,  # so that Ctrl-C can be sent as a terminal does: to all of it
            )
        self.port = 0

    async def up(self, workers: int = 1) -> None:
        async with asyncio.timeout(40):
            while len(ports := re.findall(r"Ready: ws://127.0.0.1:(\d+)/", self.log.read_text())) < workers:
                assert self.process.poll() is None, self.log.read_text()
                await asyncio.sleep(0.05)
        self.port = int(ports[0])

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def joined(self, session: str, **options: Any) -> connect:
        return joined(f"ws://127.0.0.1:{self.port}/orchestrate", session, **options)

    def ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    async def ended(self) -> int:
        return await asyncio.wait_for(asyncio.to_thread(self.process.wait), 20)

    def children(self) -> list[int]:
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [pid for pid in map(int, text.split()) if b"leibniz_voice" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@asynccontextmanager
async def running(folder: Path, *arguments: str, workers: int = 1, **options: str) -> AsyncIterator[Process]:
    """The process, up; killed afterwards if it is still there."""
    more = ("--workers", str(workers)) if workers > 1 else ()
    process = Process(folder, *arguments, *more, **options)
    try:
        await process.up(workers)
        yield process
    finally:
        if process.process.poll() is None:
            process.process.terminate()
            await process.ended()


def troubles(log: str) -> list[str]:
    return [line for line in log.splitlines() if "ERROR" in line or "Traceback" in line or "WARNING" in line]


# --------------------------------------------------------------------------------------------------- draining


def test_a_server_with_room_is_ready() -> None:
    async def main() -> None:
        async with served(ECHO.build) as server:
            base = server.address.replace("ws://", "http://").replace("/orchestrate", "")
            assert await get(f"{base}/ready") == (200, "ready\n")
            status, metrics = await get(f"{base}/metrics")
            assert status == 200
            assert re.search(r"^leibniz_uptime_seconds \d", metrics, re.M)
            assert json.loads((await get(f"{base}/health"))[1])["uptime_seconds"] >= 0

    asyncio.run(main())


def test_a_server_that_is_full_or_stood_still_is_not_ready() -> None:
    async def main() -> None:
        async with served(ECHO.build, limits=Limits(connections=1)) as server:
            page = server.address.replace("ws://", "http://").replace("/orchestrate", "/ready")
            async with joined(server) as socket:
                await ready(socket)
                assert await get(page) == (503, "full\n")
            await asyncio.sleep(0.1)
            assert await get(page) == (200, "ready\n")
            time.sleep(0.6)  # noqa: ASYNC251 - this is what is to be noticed
            await asyncio.sleep(0.1)
            assert await get(page) == (503, "overloaded\n")

    asyncio.run(main())


def test_sigterm_lets_the_turn_be_finished_and_tells_the_client_to_reconnect(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, bot="assistant.py") as process:
            async with process.joined("s1") as socket, process.joined("s2") as quiet:
                await asyncio.gather(ready(socket), ready(quiet))
                await types(socket, "what are your opening hours")
                await until(socket, type="response_ready")
                process.process.terminate()
                await asyncio.wait_for(quiet.wait_closed(), 5)
                assert quiet.close_code == 1012
                assert await get(process.url("/ready")) == (503, "draining\n")
                with pytest.raises(websockets.InvalidStatus) as refused:
                    async with process.joined("s3"):
                        pass
                assert refused.value.response.status_code == 503
                await until(socket, lambda m: m.get("trigger") == "tts_complete")
                await asyncio.wait_for(socket.wait_closed(), 5)
                assert socket.close_code == 1012
            assert await process.ended() == 0
        assert not [line for line in troubles(process.log.read_text()) if "loop is blocked" not in line]
        async with running(tmp_path, bot="assistant.py") as process, process.joined("s1") as socket:
            again = await ready(socket)
            assert (again["resumed"], again["turn_number"]) == (True, 1)

    asyncio.run(main())


def test_two_signals_at_once_are_one_wish(tmp_path: Path) -> None:
    """`timeout` signals the process and its group; `uv run` passes on what the group has got already."""

    async def main() -> None:
        bot = running(tmp_path, "--drain", "0.5", bot="assistant.py")
        async with bot as process, process.joined("s1") as socket:
            await answering(socket)
            process.process.terminate()
            await asyncio.sleep(0.02)
            process.process.terminate()
            with pytest.raises(websockets.ConnectionClosed, match="1012"):
                await until(socket, lambda message: False)
            assert await process.ended() == 0

    asyncio.run(main())


def test_a_second_sigterm_ends_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, bot="assistant.py") as process, process.joined("s1") as socket:
            await ready(socket)
            await types(socket, "what are your opening hours")
            await until(socket, type="response_ready")
            process.process.terminate()
            await asyncio.sleep(0.3)
            assert process.process.poll() is None
            process.process.terminate()
            assert await process.ended() == 1  # not 0: the turn was not finished

    asyncio.run(main())


# --------------------------------------------------------------------------------------------------- workers


def test_workers_share_port_sessions_tokens_and_numbers(tmp_path: Path) -> None:
    key = TokenKey(SECRET)

    async def main() -> None:
        async with running(tmp_path, workers=3, LEIBNIZ_SECRET=SECRET) as process:
            made = [key.mint(f"s{n}", now=time.time()) for n in range(12)]
            sockets = [
                await process.joined(f"s{n}", additional_headers={"Authorization": f"Bearer {made[n]}"})
                for n in range(12)
            ]
            greetings = [await ready(socket) for socket in sockets]
            for _ in range(4):  # whichever worker answers
                assert json.loads((await get(process.url("/health")))[1])["active_sessions"] == 12
                metrics = (await get(process.url("/metrics")))[1]
                assert re.search(r"^leibniz_sessions 12\.0$", metrics, re.M)
                assert re.search(r'^leibniz_connections_total\{kind="new"\}', metrics, re.M) is None
            refused = 0
            for value in made:  # twelve used tokens, shown to whichever worker, four times
                for _ in range(4):
                    with pytest.raises(websockets.InvalidStatus):
                        await process.joined("s1", additional_headers={"Authorization": f"Bearer {value}"})
                    refused += 1
            assert refused == 48
            taken = 0
            for n, greeting in enumerate(greetings):  # a session goes on at whichever worker; the old one is told
                async with process.joined(
                    f"s{n}", additional_headers={"Authorization": f"Bearer {greeting['token']}"}
                ) as newer:
                    assert (await ready(newer))["resumed"]
                    await asyncio.wait_for(sockets[n].wait_closed(), 5)
                    taken += sockets[n].close_code == 4409
            assert taken == 12

    asyncio.run(main())


def test_a_worker_that_dies_is_replaced_and_its_counters_are_kept(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, workers=2) as process:
            for n in range(8):
                async with process.joined(f"s{n}") as socket:
                    await ready(socket)
            counted = r'^leibniz_connections_total\{kind="new"\} 8\.0$'
            await asyncio.sleep(1.5)  # the supervisor reads the counters every second
            victim = process.children()[0]
            os.kill(victim, signal.SIGKILL)
            await process.up(workers=3)  # a third line "Ready"
            assert len(process.children()) == 2
            assert victim not in process.children()
            for _ in range(4):
                assert re.search(counted, (await get(process.url("/metrics")))[1], re.M)
            process.process.terminate()
            assert await process.ended() == 0

    asyncio.run(main())


async def answering(socket: ClientConnection) -> None:
    """Ask, and return when the bot speaks."""
    await ready(socket)
    await types(socket, "what are your opening hours")
    await until(socket, type="response_ready")


def test_ctrl_c_lets_workers_finish_their_turn(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, bot="assistant.py", workers=2) as process, process.joined("s1") as socket:
            await answering(socket)
            process.ctrl_c()
            await until(socket, lambda m: m.get("trigger") == "tts_complete")
            await asyncio.wait_for(socket.wait_closed(), 5)
            assert socket.close_code == 1012
            assert await process.ended() == 0
            log = process.log.read_text()
            assert log.count("Stopping.") == 1
            assert not [line for line in troubles(log) if "loop is blocked" not in line]

    asyncio.run(main())


@pytest.mark.full
def test_a_second_ctrl_c_ends_workers_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, bot="assistant.py", workers=2) as process, process.joined("s1") as socket:
            await answering(socket)
            process.ctrl_c()
            await asyncio.sleep(0.3)
            assert process.process.poll() is None
            process.ctrl_c()
            assert await process.ended() == 1  # not 0: the turn was not finished

    asyncio.run(main())


def test_ctrl_c_while_workers_start_ends_them_without_a_complaint(tmp_path: Path) -> None:
    async def main() -> None:
        process = Process(tmp_path, "--workers", "2")
        async with asyncio.timeout(20):
            while len(process.children()) < 2:
                await asyncio.sleep(0.01)
        process.ctrl_c()
        assert await process.ended() == 0
        assert process.log.read_text() == "Stopping.\n"

    asyncio.run(main())


def test_no_worker_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, workers=2) as process:
            workers = process.children()
            process.process.kill()
            await process.ended()
            async with asyncio.timeout(10):
                while any(Path(f"/proc/{pid}").exists() for pid in workers):
                    await asyncio.sleep(0.05)

    asyncio.run(main())


def test_a_worker_whose_supervisor_died_while_it_started_ends(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()

    async def main() -> None:
        process = Process(tmp_path, LEIBNIZ_WORKER=f"0:{gone.pid}:{tmp_path}")
        try:
            assert await process.ended() == -signal.SIGTERM
        finally:
            process.process.kill()  # else one that lives on would hold up the tests

    asyncio.run(main())


def test_numbers_of_several_processes_are_added_up() -> None:
    one = '# HELP a_total x\n# TYPE a_total counter\na_total{k="q\\"\\n"} 2.0\n'
    one += '# TYPE a_created gauge\na_created{k="q"} 9\n'
    two = one.replace("2.0", "3.0").replace("9", "7")
    gauge = "# HELP up_uptime_seconds x\n# TYPE up_uptime_seconds gauge\nup_uptime_seconds 5\n"
    total = add_up([one, two, gauge, gauge.replace("5", "6")])
    assert 'a_total{k="q\\"\\n"} 5.0' in total
    assert 'a_created{k="q"} 7.0' in total
    assert "up_uptime_seconds 6.0" in total
    assert "uptime" not in add_up([one, gauge], only_counters=True)
    assert add_up([total]) == total


# --------------------------------------------------------------------------------------------------- watchdog


def test_a_blocked_loop_is_reported_with_its_stack_while_it_is_blocked() -> None:
    reports: list[tuple[float, str]] = []
    sink = logger.add(lambda message: reports.append((time.perf_counter(), str(message))), level="WARNING")

    def dawdle() -> None:
        """Block for 0.6 s, and, on a machine that is late, until it is told, for 10 s at most."""
        before, began = len(reports), time.perf_counter()
        while (now := time.perf_counter()) < began + 0.6 or (len(reports) == before and now < began + 10):
            pass

    async def main() -> list[float]:
        ended = []
        watchdog = Watchdog()
        watchdog.start()
        await asyncio.sleep(0.2)
        for _ in range(3):
            dawdle()
            ended.append(time.perf_counter())
            await asyncio.sleep(0.1)
        assert watchdog.is_overloaded
        watchdog.stop()
        return ended

    try:
        ended = asyncio.run(main())
    finally:
        logger.remove(sink)
    told = [(at, text) for at, text in reports if "dawdle" in text]
    assert len(told) == 3
    for end, (at, text) in zip(ended, told, strict=True):
        assert at < end  # how soon, 150 ms, is measured by benchmarks/watchdog.py
        assert "test_operations.py" in text
