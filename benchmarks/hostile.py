"""Good conversations beside hostile clients: 100 that never read, 100 that never finish the handshake, 10 that flood.

    .venv/bin/python benchmarks/hostile.py [--good 20] [--seconds 20] [--out docs/results/hostile.json]

The server is density_servers.py's with the limits that a server has by default (only the connections per address are
raised, as all come from one machine). First the good ones are alone, then the bad ones join them. Shown: jitter of the
bot's audio at the good ones in both times, growth of the server's memory, and how long each kind of bad client lived.
The server has core 0, the clients core 1, the bad ones with less right to it. A client that never reads asks questions
all the same, so that the bot would talk to it; its receive buffer is 4 KiB. Then all of it again, with a new server and
a hundred who are cleverer: they read as far as the first ping, answer it, and read nothing more.
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
from density import SEED, Client, gaps_ms, rss_mb, speech, websocket_frame

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


async def never_read(port: int, number: int, *, reads_first: bool) -> float:
    """Ask a question, again and again, and read nothing; with `reads_first` after the first ping was answered."""
    sock, loop = await raw(port), asyncio.get_running_loop()
    await loop.sock_sendall(sock, handshake(f"deaf{number}"))
    if reads_first:
        answer = b""
        while b"\x89\x04" not in answer[:-4]:  # a ping of four bytes
            answer += await loop.sock_recv(sock, 1)
        await loop.sock_sendall(sock, b"\x8a\x84" + bytes(4) + answer[-4:])
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
    """Send as fast as the server reads: tiny frames, pings, control messages, or audio."""
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
    """As in density.py; `since` in unix seconds."""
    gaps = np.abs(gaps_ms(clients, since) - 20)
    return {"n": len(gaps), **{f"p{p:g}": round(float(np.percentile(gaps, p)), 2) for p in (50, 99, 99.9)}}


async def good_ones(port: int, count: int, stop: asyncio.Event) -> list[Client]:
    """Hold `count` conversations until `stop`; their arrivals are in the clients."""
    loop, rng = asyncio.get_running_loop(), random.Random(SEED)
    cycles = [[websocket_frame(block) for block in cycle] for cycle in speech()]
    joined = [Client(port, number) for number in range(count)]
    for client in joined:
        await client.connect()

    async def talk(client: Client) -> None:
        cycle, offset, begin = rng.choice(cycles), rng.randrange(400), loop.time() + rng.random() * 0.02
        block = 0
        while not stop.is_set():
            await asyncio.sleep(begin + block * 0.02 - loop.time())
            client.send(cycle[(block + offset) % len(cycle)])
            block += 1
        client.close()

    for client in joined:
        client.task = asyncio.create_task(talk(client))  # type: ignore[attr-defined] # kept from being collected
    return joined


def bad_ones(port: int, *, reads_first: bool) -> dict[str, list[float]]:
    """In a process of their own: all bad clients at once; how long each lived."""

    async def all_at_once() -> dict[str, list[float]]:
        kinds = {
            "never_read": [never_read(port, number, reads_first=reads_first) for number in range(NEVER_READ)],
            "never_shake": [never_shake(port, number) for number in range(NEVER_SHAKE)],
            "flood": [flood(port, number) for number in range(FLOOD)],
        }
        tasks = {name: [asyncio.create_task(client) for client in clients] for name, clients in kinds.items()}
        return {name: list(await asyncio.gather(*some)) for name, some in tasks.items()}

    return asyncio.run(all_at_once())


async def attack(port: int, options: argparse.Namespace, *, reads_first: bool) -> dict[str, Any]:
    """One server, its good clients alone, then the bad ones beside them."""
    command = [sys.executable, str(Path(__file__).parent / "density_servers.py"), "ours", str(port), "400"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - before anything runs
    try:
        assert server.stdout is not None
        assert server.stdout.readline().strip() == "up"
        for task in Path(f"/proc/{server.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {0})
        stop = asyncio.Event()
        clients = await good_ones(port, options.good, stop)
        await asyncio.sleep(10)
        began = time.time()
        await asyncio.sleep(options.seconds)
        before, memory, load = jitter(clients, began), rss_mb(server.pid), os.getloadavg()[0]
        began = time.time()
        bad = await asyncio.create_subprocess_exec(
            *("nice", "-n15", sys.executable, __file__, "--bad", str(port), str(int(reads_first))),
            stdout=asyncio.subprocess.PIPE,
        )
        most = memory
        while bad.returncode is None:
            most = max(most, rss_mb(server.pid))
            await asyncio.sleep(0.2)
        during, took_s = jitter(clients, began), time.time() - began
        assert bad.stdout is not None
        lives: dict[str, list[float]] = json.loads(await bad.stdout.read())
        await asyncio.sleep(2)
        stop.set()
        return {
            "load": load,
            "good": options.good,
            "good_closed": sum(bool(client.closed) for client in clients),
            "jitter_ms_before": before,
            "jitter_ms_during": during,
            "p99_rise_ms": round(during["p99"] - before["p99"], 2),
            "attack_s": round(took_s, 1),
            "rss_growth_mb": {"most": round(most - memory, 1), "after": round(rss_mb(server.pid) - memory, 1)},
            "bad_lived_s": {
                name: {"min": round(min(some), 2), "max": round(max(some), 2), "not_gone": sum(np.isnan(some).tolist())}
                for name, some in lives.items()
            },
            "server_lives": server.poll() is None,
        }
    finally:
        server.kill()
        server.wait()


def main() -> None:
    """Run, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--good", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--bad", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.sched_setaffinity(0, {1})
    if options.bad:
        print(json.dumps(bad_ones(options.bad[0], reads_first=bool(options.bad[1]))))
        return
    report = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "never_read": asyncio.run(attack(21_777, options, reads_first=False)),
        "read_one_ping_only": asyncio.run(attack(21_778, options, reads_first=True)),
    }
    print(json.dumps(report, indent=1))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
