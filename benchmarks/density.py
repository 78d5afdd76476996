"""What a conversation costs: CPU, memory, and how evenly the bot's audio comes, at growing numbers of conversations.

    .venv/bin/python benchmarks/density.py [--seconds 16] [--runs 1] [--out docs/results/density.json]

Compares the servers of density_servers.py: ours, a floor, stock Pipecat, default and best-tuned. Each conversation
sends 20 ms of audio all the time, at its own phase: 8 s in a circle, espeak-ng speech, then silence, in which the bot
answers. The server has core 0 for itself, the clients (this program's second process) core 1. Services are stubs, voice
detection is real. CPU: user and system time of the server's process over the measured seconds, in percent of a core per
conversation. Memory: growth of its resident memory from the smallest to the largest number, per conversation. Jitter:
how far the gap between two chunks of the bot's audio at the client is from 20 ms, past the first five of an answer; by
the kernel's time of arrival, so that the clients' own lateness does not count. The summary has the straight line
through CPU by number of conversations, and how far the worst point is from it. All of it takes 7 minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import os
import platform
import random
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import soxr

HERE = Path(__file__).parent
RATE, CHUNK, CYCLE_S = 16_000, 640, 8.0
SEED = 7
SO_TIMESTAMPNS = 35  # Linux: the time of arrival comes with what is received
KINDS = {"floor": (10, 40, 70, 100), "ours": (10, 40, 70, 100), "tuned": (3, 12), "stock": (3, 12)}
TEXTS = (
    "what are your opening hours on the weekend",
    "where is the order that I placed last week",
    "can I rent a bicycle for two days",
)


def speech() -> list[list[bytes]]:
    """For each text 8 s of PCM16 in 20 ms blocks: speech, then silence."""
    cycles = []
    for text in TEXTS:
        command = ["espeak-ng", "-v", "en+m3", "-s", "160", "--stdout", text]
        wav = subprocess.run(command, capture_output=True, check=True).stdout[44:]
        samples = soxr.resample(np.frombuffer(wav, np.int16), 22050, RATE)
        pcm = np.zeros(int(CYCLE_S * RATE), np.int16)
        pcm[: len(samples)] = samples[: len(pcm)]
        data = pcm.tobytes()
        cycles.append([data[at : at + CHUNK] for at in range(0, len(data), CHUNK)])
    return cycles


def websocket_frame(payload: bytes) -> bytes:
    """A binary frame of a client; its mask is zero, so that nothing need be computed while measuring."""
    return (
        b"\x82"
        + (bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload)))
        + bytes(4)
        + payload
    )


# ---------------------------------------------------------------------------------------------- the clients


class Client:
    """One conversation: sends what it is told to, notes when the bot's audio comes.

    The time is the kernel's, of the moment at which the packet came in: how late this program reads does not count, as
    long as it reads before the next chunk comes. So one message is read at a time.
    """

    def __init__(self, port: int, number: int) -> None:
        self.arrivals: list[float] = []  # unix seconds
        self.closed = ""  # what the server closed with; "" while open
        self._path, self._port = f"/orchestrate?session_id=c{number}", port
        self._sock = socket.socket()
        self._message = bytearray()  # a message, its head included, as far as it has come
        self._wanted = 2  # bytes of it that are to come next, at least

    async def connect(self) -> None:
        """Open the WebSocket."""
        loop = asyncio.get_running_loop()
        self._sock.setblocking(False)
        await loop.sock_connect(self._sock, ("127.0.0.1", self._port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = (
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await loop.sock_sendall(self._sock, request.encode())
        answer = b""
        async with asyncio.timeout(20):
            while not answer.endswith(b"\r\n\r\n"):
                answer += await loop.sock_recv(self._sock, 1)
        assert answer.startswith(b"HTTP/1.1 101"), answer[:200]
        self._sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        loop.add_reader(self._sock, self._read)

    def send(self, message: bytes) -> None:
        """Send a whole message; a server that does not read for so long that the buffers are full fails here."""
        sent = self._sock.send(message)
        assert sent == len(message), "the server does not read"

    def close(self) -> None:
        """Leave."""
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while not self.closed:
                data, extra, *_ = self._sock.recvmsg(self._wanted, 64)
                if not data:
                    self.closed = "without a word"
                    break
                self._message += data
                self._take(struct.unpack("qq", extra[0][2][:16]) if extra else None)

    def _take(self, at: tuple[int, int] | None) -> None:
        message = self._message
        head = 4 if len(message) > 1 and message[1] == 126 else 2
        size = (
            head + (struct.unpack_from(">H", message, 2)[0] if head == 4 else message[1])
            if len(message) >= head
            else head
        )
        self._wanted = size - len(message)
        if self._wanted:
            return
        opcode, payload = message[0] & 15, bytes(message[head:])
        if opcode == 2 and len(payload) >= CHUNK:
            self.arrivals.append(at[0] + at[1] / 1e9 if at else time.time())
        elif opcode == 9:  # a ping
            self.send(b"\x8a" + bytes([0x80 | len(payload)]) + bytes(4) + payload)
        elif opcode == 8:
            self.closed = repr(payload)
        self._message, self._wanted = bytearray(), 2


async def clients(kind: str, port: int, n: int, settle_s: float, seconds: float, pid: int) -> dict[str, Any]:
    """Hold `n` conversations; return what was measured of the server `pid` and of the audio."""
    loop, rng = asyncio.get_running_loop(), random.Random(SEED)
    is_stock = kind in ("stock", "tuned")
    cycles = [[websocket_frame(_protobuf(block) if is_stock else block) for block in cycle] for cycle in speech()]
    joined = []
    for number in range(n):
        own_port = port + number if is_stock else port
        joined.append(Client(own_port, number))
        await joined[-1].connect()
        await asyncio.sleep(0.02)
    groups: list[list[tuple[Client, list[bytes], int]]] = [[] for _ in range(20)]  # one for each ms of the 20
    for client in joined:
        groups[rng.randrange(20)].append((client, rng.choice(cycles), rng.randrange(len(cycles[0]))))
    begin = loop.time() + 0.1
    measured: dict[str, Any] = {}
    late_ms = 0.0
    for tick in range(int((settle_s + seconds) * 1000)):
        due = begin + tick / 1000
        delay = due - loop.time()
        await asyncio.sleep(max(delay, 0))
        late_ms = max(late_ms, -delay * 1000) if tick > settle_s * 1000 else 0.0
        block = tick // 20
        for client, cycle, offset in groups[tick % 20]:
            client.send(cycle[(block + offset) % len(cycle)])
        if tick == int(settle_s * 1000):
            measured = {"cpu": cpu_s(pid), "at": time.time()}
    cpu, took = cpu_s(pid) - measured["cpu"], time.time() - measured["at"]
    assert not [client.closed for client in joined if client.closed]
    jitter = np.abs(gaps_ms(joined, measured["at"]) - 20.0)
    return {
        "kind": kind,
        "n": n,
        "cpu_percent": 100 * cpu / took / n,
        "core_percent": 100 * cpu / took,
        "rss_mb": rss_mb(pid),
        "chunks_per_conversation_s": sum(sum(a > measured["at"] for a in c.arrivals) for c in joined) / n / took,
        "jitter_ms": {p: float(np.percentile(jitter, p)) if len(jitter) else None for p in (50, 99, 99.9)},
        "client_late_ms": late_ms,
    }


def gaps_ms(joined: list[Client], since: float) -> np.ndarray:
    """Ms between consecutive chunks of one answer, past its first five."""
    gaps: list[float] = []
    for client in joined:
        run = 0
        for before, after in zip(client.arrivals, client.arrivals[1:], strict=False):
            run = 0 if after - before > 1.0 else run + 1
            if run > 5 and before > since:
                gaps.append((after - before) * 1000)
    return np.array(gaps)


def _protobuf(block: bytes) -> bytes:
    from pipecat.frames.protobufs import frames_pb2 as wire

    audio = wire.AudioRawFrame(audio=block, sample_rate=RATE, num_channels=1)  # type: ignore[attr-defined]
    return wire.Frame(audio=audio).SerializeToString()  # type: ignore[attr-defined]


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


# ---------------------------------------------------------------------------------------------- the comparison


def run(kind: str, n: int, port: int, seconds: float, profile: str = "") -> dict[str, Any]:
    """One server and its clients."""
    program = [
        sys.executable,
        *(["-m", "cProfile", "-o", profile] if profile else []),
        str(HERE / "density_servers.py"),
    ]
    server = subprocess.Popen([*program, kind, str(port), str(n)], stdout=subprocess.PIPE, text=True)
    os.sched_setaffinity(server.pid, {0})
    try:
        assert server.stdout is not None
        while server.stdout.readline().strip() != "up":
            assert server.poll() is None
        for task in Path(f"/proc/{server.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {0})
        command = [sys.executable, __file__, "--clients", kind, str(port), str(n), str(seconds), str(server.pid)]
        result = subprocess.run(["taskset", "-c", "1", *command], capture_output=True, text=True, check=False)
        if result.returncode:
            return {"kind": kind, "n": n, "failed": result.stderr[-300:]}
        return json.loads(result.stdout.strip().splitlines()[-1])
    finally:
        server.send_signal(2 if profile else 9)
        server.wait()


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """CPU and memory per conversation of each kind, and their ratios."""
    out: dict[str, Any] = {}
    for kind in KINDS:
        good = [r for r in results if r["kind"] == kind and "failed" not in r]
        if len(good) < 2:
            continue
        largest, smallest = max(good, key=lambda r: r["n"]), min(good, key=lambda r: r["n"])
        same = [r for r in good if r["n"] == largest["n"]]
        growth = (largest["rss_mb"] - smallest["rss_mb"]) / (largest["n"] - smallest["n"])
        jitter = float(np.median([r["jitter_ms"]["99"] for r in same]))
        cpu = float(np.median([r["cpu_percent"] for r in same]))
        out[kind] = {"n": largest["n"], "cpu_percent": cpu, "mb": growth, "jitter_p99_ms": jitter, "line": line(good)}
    ours = out.get("ours")
    if ours:
        for values in out.values():
            values["cpu_ratio_to_ours"] = values["cpu_percent"] / ours["cpu_percent"]
            values["mb_ratio_to_ours"] = values["mb"] / ours["mb"]
    if ours and "floor" in out:
        ours["cpu_times_floor"] = ours["cpu_percent"] / out["floor"]["cpu_percent"]
        ours["jitter_p99_above_floor_ms"] = ours["jitter_p99_ms"] - out["floor"]["jitter_p99_ms"]
    return out


def line(results: list[dict[str, Any]]) -> dict[str, float] | None:
    """The straight line through the CPU of the process at each number of conversations, in percent of a core.

    And how far the worst point is from it, as a share of that point. None for less than three numbers.
    """
    n = np.array([r["n"] for r in results], float)
    core = np.array([r["core_percent"] for r in results])
    if len(set(n)) < 3:
        return None
    each, base = np.polyfit(n, core, 1)
    return {"base": base, "each": each, "worst_off": float(np.max(np.abs(base + each * n - core) / core))}


def main() -> None:
    """Run all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=16.0)
    parser.add_argument("--settle", type=float, default=9.0)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--n", nargs="+", type=int)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--profile", default="")
    parser.add_argument("--clients", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.clients:
        kind, port, n, seconds, pid = options.clients
        print(json.dumps(asyncio.run(clients(kind, int(port), int(n), 9.0, float(seconds), int(pid)))))
        return
    versions = {name: importlib.metadata.version(name) for name in ("pipecat-ai", "websockets", "onnxruntime")}
    about = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "versions": versions,
        "seed": SEED,
        "load_before": os.getloadavg()[0],
    }
    print(json.dumps(about))
    results, port = [], 21_000
    for _ in range(options.runs):
        for kind in options.kinds:
            for n in options.n or KINDS[kind]:
                result = run(kind, n, port, options.seconds, options.profile)
                result["load"] = os.getloadavg()[0]
                port += n + 1
                results.append(result)
                print(json.dumps(result), flush=True)
    report = {**about, "load_after": os.getloadavg()[0], "summary": summary(results), "results": results}
    print(json.dumps(report["summary"], indent=1))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
