"""Good conversations beside hostile clients: 100 that never read, 100 that never finish the handshake, 10 that flood.

    .venv/bin/python benchmarks/hostile.py [--good 20] [--seconds 20] [--out docs/results/hostile.json]

The server is density_servers.py's with the limits that a server has by default (only the connections per address are
raised, as all come from one machine). First the good ones are alone, then the bad ones join them. Shown: jitter of the
bot's audio at the good ones in both times, growth of the server's memory, and how long each kind of bad client lived.
The server has core 0,
the clients core 1, the bad ones with less right to it. A client that never reads asks a question first, so that the bot
talks to it; its receive buffer is 4 KiB.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
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

sys.path.insert(0, str(Path(__file__).parent))
from density import SEED, Client, rss_mb, speech, websocket_frame

NEVER_READ, NEVER_SHAKE, FLOOD = 100, 100, 10
QUESTION = ('{"type":"stt_fragment","text":"where is my order","is_final":true}', '{"type":"vad_end"}')


def text_frame(text: str) -> bytes:
    """A text frame of a client, with a mask of zero."""
    data = text.encode()
    return b"\x81" + bytes([0x80 | len(data)]) + bytes(4) + data


def handshake(session: str) -> bytes:
    """A good one."""
    return (
        f"GET /orchestrate?session_id={session} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


async def raw(port: int) -> socket.socket:
    """A socket that nobody reads for us."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return sock


def is_gone(sock: socket.socket) -> bool:
    """Whether the server has ended the connection, without reading from it."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
    return struct.unpack_from("B", info)[0] != 1  # TCP_ESTABLISHED


async def life(sock: socket.socket, limit_s: float) -> float:
    """How long the connection lasts from now; nan if longer than `limit_s`."""
    began = time.perf_counter()
    while time.perf_counter() - began < limit_s:
        if is_gone(sock):
            return time.perf_counter() - began
        await asyncio.sleep(0.05)
    return float("nan")


async def never_read(port: int, number: int) -> float:
    """Ask a question, again and again, and read nothing."""
    sock, loop = await raw(port), asyncio.get_running_loop()
    await loop.sock_sendall(sock, handshake(f"deaf{number}"))
    await asyncio.sleep(0.5)

    async def ask() -> None:
        with contextlib.suppress(OSError):
            while True:
                for text in QUESTION:
                    await loop.sock_sendall(sock, text_frame(text))
                await asyncio.sleep(2)

    asking = asyncio.create_task(ask())
    lived = await life(sock, 40)
    asking.cancel()
    sock.close()
    return lived


async def never_shake(port: int, number: int) -> float:
    """Begin a handshake, and add a byte now and then."""
    sock, loop = await raw(port), asyncio.get_running_loop()
    await loop.sock_sendall(sock, handshake("slow")[:60])

    async def drip() -> None:
        with contextlib.suppress(OSError):
            while True:
                await asyncio.sleep(1)
                await loop.sock_sendall(sock, b"X")

    dripping = asyncio.create_task(drip())
    lived = await life(sock, 40)
    dripping.cancel()
    sock.close()
    return lived


async def flood(port: int, number: int) -> float:
    """Send as fast as the server reads: tiny frames, pings, control messages, or audio. Comes back when thrown out."""
    loop = asyncio.get_running_loop()
    kinds = (
        websocket_frame(bytes(2)),
        b"\x89\x80" + bytes(4),
        text_frame('{"type":"ping"}'),
        websocket_frame(bytes(3200)),
    )
    data = kinds[number % 4] * (60_000 // len(kinds[number % 4]))
    sock = await raw(port)
    await loop.sock_sendall(sock, handshake(f"flood{number}"))
    await asyncio.sleep(0.5)
    began = time.perf_counter()
    with contextlib.suppress(OSError):
        async with asyncio.timeout(40):
            while not is_gone(sock):
                await loop.sock_sendall(sock, data)
    lived = time.perf_counter() - began
    sock.close()
    return lived


def jitter(clients: list[Client], since: float) -> dict[str, float]:
    """As in density.py."""
    gaps = []
    for client in clients:
        run = 0
        for before, after in zip(client.arrivals, client.arrivals[1:], strict=False):
            run = 0 if after - before > 1.0 else run + 1
            if run > 5 and before > since:
                gaps.append(abs((after - before) * 1000 - 20))
    return {f"p{p:g}": round(float(np.percentile(gaps, p)), 2) for p in (50, 99, 99.9)}


async def good_ones(port: int, count: int, stop: asyncio.Event) -> list[Client]:
    """Hold `count` conversations until `stop`; their arrivals are in the clients."""
    loop, rng = asyncio.get_running_loop(), random.Random(SEED)
    cycles = [[websocket_frame(block) for block in cycle] for cycle in speech()]
    joined: list[Client] = []
    for number in range(count):
        _, client = await loop.create_connection(lambda i=number: Client(port, i), "127.0.0.1", port)
        await asyncio.wait_for(client.is_up, 20)
        joined.append(client)

    async def talk(client: Client) -> None:
        cycle, offset, begin = rng.choice(cycles), rng.randrange(400), loop.time() + rng.random() * 0.02
        block = 0
        while not stop.is_set():
            await asyncio.sleep(begin + block * 0.02 - loop.time())
            client.transport.write(cycle[(block + offset) % len(cycle)])  # type: ignore[union-attr]
            block += 1

    for client in joined:
        client.task = asyncio.create_task(talk(client))  # type: ignore[attr-defined] # kept from being collected
    return joined


def bad_ones(port: int) -> dict[str, list[float]]:
    """In a process of their own: all bad clients at once; how long each lived."""

    async def all_at_once() -> dict[str, list[float]]:
        kinds = {
            "never_read": (never_read, NEVER_READ),
            "never_shake": (never_shake, NEVER_SHAKE),
            "flood": (flood, FLOOD),
        }
        tasks = {
            name: [asyncio.create_task(make(port, number)) for number in range(count)]
            for name, (make, count) in kinds.items()
        }
        return {name: list(await asyncio.gather(*some)) for name, some in tasks.items()}

    return asyncio.run(all_at_once())


async def main() -> None:
    """Run, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--good", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--bad", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    port = 21_777
    command = [sys.executable, str(Path(__file__).parent / "density_servers.py"), "ours", str(port), "400"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - before anything runs
    assert server.stdout is not None
    assert server.stdout.readline().strip() == "up"
    for task in Path(f"/proc/{server.pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {0})
    os.sched_setaffinity(0, {1})
    try:
        stop = asyncio.Event()
        clients = await good_ones(port, options.good, stop)
        await asyncio.sleep(10)
        began = time.perf_counter()
        await asyncio.sleep(options.seconds)
        before, memory = jitter(clients, began), rss_mb(server.pid)
        began = time.perf_counter()
        attack = await asyncio.create_subprocess_exec(
            "nice", "-n15", sys.executable, __file__, "--bad", str(port), stdout=asyncio.subprocess.PIPE
        )
        most = memory
        while attack.returncode is None:
            most = max(most, rss_mb(server.pid))
            await asyncio.sleep(0.2)
        during = jitter(clients, began)
        assert attack.stdout is not None
        lives: dict[str, list[float]] = json.loads(await attack.stdout.read())
        await asyncio.sleep(2)
        stop.set()
        report: dict[str, Any] = {
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
            "date": time.strftime("%Y-%m-%d %H:%M"),
            "load": os.getloadavg()[0],
            "good": options.good,
            "jitter_ms_before": before,
            "jitter_ms_during": during,
            "attack_s": round(time.perf_counter() - began, 1),
            "rss_growth_mb": {"most": round(most - memory, 1), "after": round(rss_mb(server.pid) - memory, 1)},
            "bad_lived_s": {
                name: {"min": min(some), "max": max(some), "not_gone": sum(np.isnan(some).tolist())}
                for name, some in lives.items()
            },
            "server_lives": server.poll() is None,
        }
        print(json.dumps(report, indent=1))
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(report, indent=1) + "\n")
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    if "--bad" in sys.argv:
        print(json.dumps(bad_ones(int(sys.argv[-1]))))
    else:
        asyncio.run(main())
