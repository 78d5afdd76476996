"""A million bad inputs against a running server: it stays up, answers each clearly, and does not grow.

    .venv/bin/python benchmarks/bad_inputs.py [--inputs 1000000] [--seed 7] [--out docs/results/bad_inputs.json]

Three kinds, in a seeded mixture: messages on open WebSockets (mutated and random JSON, wrong types, deep nesting, any
Unicode, audio of any length, in any order, sessions resumed), bytes in place of WebSocket frames, and bytes in place of
the HTTP request. Checked: the process lives; every text message is accepted or answered by exactly one `error` with a
documented code, in order, as the codec says of it; close codes are documented ones; resident memory after the first
tenth and at the end. Rate limits are lifted, as a flood is another test (hostile.py). The bot is density_servers.py's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from leibniz_voice.pipeline.errors import ProtocolError
from leibniz_voice.transports.dialects import protocol

sys.path.insert(0, str(Path(__file__).parent))

BATCH = 40  # messages between two pings
PER_CONNECTION = 4000
CODES = {int(code) for code in protocol.CloseCode}
VALID = (
    '{"type":"hello","v":1,"sample_rate":16000,"out_sample_rate":16000}',
    '{"type":"stt_fragment","text":"what are your opening hours","is_final":true}',
    '{"type":"vad_end"}',
    '{"type":"user_speaking","confidence":0.92}',
    '{"type":"ack","turn":1,"played_ms":420}',
    '{"type":"ping"}',
)
VALUES = (None, True, False, 0, -1, 1e308, 10**400, 2**63, "", "x" * 5000, [], {}, [[]], {"a": {}}, "\ud800", "é", 0.5)
LETTERS = ['"', "{", "}", "[", "]", ":", ",", "\\", "\0", "e", "9", "-", ".", "\u2028", "\U0001f600", "NaN", "Infinity"]


def text(rng: random.Random) -> str:
    """One text message, mostly bad."""
    kind = rng.randrange(7)
    if kind == 0:
        return rng.choice(VALID)
    if kind == 1:  # a letter or three changed
        letters = list(rng.choice(VALID))
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(letters))
            letters[at : at + rng.randrange(2)] = rng.choice(LETTERS)
        return "".join(letters)
    if kind == 2:  # fields of wrong kinds, missing, and more of them
        fields = json.loads(rng.choice(VALID))
        for name in rng.sample(sorted(fields), rng.randint(1, len(fields))):
            if rng.random() < 0.3:
                del fields[name]
            else:
                fields[name] = rng.choice(VALUES)
        return json.dumps(fields)
    if kind == 3:
        depth = rng.choice((1, 10, 1000, 30_000))
        return rng.choice(("[", '{"a":', '{"type":[')) * min(depth, 6000)
    if kind == 4:
        return "".join(
            chr(rng.choice((rng.randrange(128), rng.randrange(0x800, 0xD800)))) for _ in range(rng.randrange(60))
        )
    if kind == 5:
        return json.dumps(rng.choice(VALUES), allow_nan=False)
    return rng.choice(VALID)[: rng.randrange(60)]


def message(rng: random.Random) -> str | bytes:
    """One message."""
    return rng.randbytes(rng.choice((0, 1, 2, 3, 639, 640, 641, 3200))) if rng.random() < 0.2 else text(rng)


def expected(sent: str | bytes) -> str | None:
    """The code of the error that must answer this; None if it is to be accepted."""
    try:
        if isinstance(sent, bytes):
            protocol.check_audio(sent)
        elif isinstance(protocol.decode_text(sent), protocol.Hello):
            return "bad_field"  # not the first message
    except ProtocolError as error:
        return error.code
    return None


class Findings:
    """What was seen."""

    def __init__(self) -> None:
        self.inputs = 0
        self.errors: Counter[str] = Counter()
        self.closes: Counter[str] = Counter()
        self.wrong: list[str] = []


async def talk(address: str, rng: random.Random, count: int, found: Findings) -> None:
    """Messages on one WebSocket."""
    async with connect(f"{address}?session_id=bad{rng.randrange(40)}", compression=None, max_queue=None) as socket:
        await socket.send(rng.choice((VALID[0], "{", VALID[1], bytes(640))))
        await until(socket, "pong", [], ping=True)
        for _ in range(count // BATCH):
            batch = [message(rng) for _ in range(BATCH)]
            wanted = [code for sent in batch if (code := expected(sent)) is not None]
            got: list[str] = []
            pings = sum(sent == VALID[5] for sent in batch)
            for sent in batch:
                await socket.send(sent)
            for _ in range(pings):
                await until(socket, "pong", got)
            await until(socket, "pong", got, ping=True)
            found.inputs += BATCH
            found.errors.update(got)
            if got != wanted:
                found.wrong.append(f"wanted {wanted}, got {got}"[:400])
        await socket.close()


async def until(socket: ClientConnection, kind: str, errors: list[str], *, ping: bool = False) -> None:
    """Read to a message of `kind`; note the errors."""
    if ping:
        await socket.send(VALID[5])
    async with asyncio.timeout(20):
        while True:
            received = await socket.recv()
            if isinstance(received, bytes):
                continue
            fields = json.loads(received)
            if fields["type"] == "error":
                errors.append(fields["code"])
            elif fields["type"] == kind:
                return


async def bytes_for_frames(host: str, port: int, rng: random.Random, found: Findings) -> None:
    """Garbage after a good handshake."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(
        f"GET /orchestrate?session_id=raw{rng.randrange(40)} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: "
        "Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    try:
        async with asyncio.timeout(20):
            await reader.readuntil(b"\r\n\r\n")
            kind = rng.randrange(4)
            if kind == 0:
                writer.write(rng.randbytes(rng.randint(14, 400)))
            elif kind == 1:  # text that is not UTF-8
                writer.write(b"\x81\x84" + bytes(4) + b"\xff\xfe\x80\x80")
            elif kind == 2:  # longer than allowed, or lying about it
                writer.write(b"\x82\xff" + struct.pack(">Q", rng.choice((65537, 2**40, 2**63))) + bytes(4))
            else:  # no mask, reserved bits, fragments of control frames
                writer.write(bytes([rng.randrange(256), rng.randrange(126)]) + rng.randbytes(130))
            writer.write_eof()
            data = await reader.read()
        found.closes[str(close_code(data))] += 1
    except (OSError, asyncio.IncompleteReadError):
        found.closes["dropped"] += 1
    finally:
        writer.close()
    found.inputs += 1


def close_code(data: bytes) -> int | str:
    """The code of the first close frame in what a server sent."""
    at = 0
    while at + 2 <= len(data):
        length, head = data[at + 1] & 127, 2
        if length == 126:
            length, head = struct.unpack_from(">H", data, at + 2)[0], 4
        if data[at] & 15 == 8:
            return struct.unpack_from(">H", data, at + head)[0] if length >= 2 else "none"
        at += head + length
    return "eof"


async def bytes_for_a_request(host: str, port: int, rng: random.Random, found: Findings) -> None:
    """Garbage in place of HTTP."""
    reader, writer = await asyncio.open_connection(host, port)
    kind = rng.randrange(3)
    path = "".join(chr(rng.randrange(33, 127)) for _ in range(rng.randrange(60)))
    request = {
        0: rng.randbytes(rng.randint(1, 200)) + b"\r\n\r\n",
        1: f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        2: f"GET /orchestrate?session_id={path} HTTP/1.1\r\nOrigin: {path}\r\nAuthorization: {path}\r\n\r\n".encode(),
    }[kind]
    try:
        async with asyncio.timeout(20):
            writer.write(request)
            if kind == 0:
                writer.write_eof()  # else the server would wait for the rest
            answer = await reader.read()
        status = answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "dropped"
        found.closes[f"http {status}"] += 1
    except OSError:
        found.closes["dropped"] += 1
    finally:
        writer.close()
    found.inputs += 1


async def storm(address: str, *, inputs: int, seed: int, found: Findings, at_tenth: Any = None) -> None:
    """Send `inputs` bad inputs: one of a hundred is a connection of bytes, the others are messages."""
    rng = random.Random(seed)
    host, _, port = address.removeprefix("ws://").partition("/")[0].rpartition(":")
    while found.inputs < inputs:
        try:
            await talk(address, rng, min(PER_CONNECTION, inputs), found)
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else "none"
            found.closes[str(code)] += 1
            found.wrong.append(f"a WebSocket was closed with {code}")
        for _ in range(max(1, min(PER_CONNECTION, inputs) // 400)):
            await bytes_for_frames(host, int(port), rng, found)
            await bytes_for_a_request(host, int(port), rng, found)
        if at_tenth is not None and found.inputs > inputs / 10:
            at_tenth()
            at_tenth = None
    bad = [code for code in found.closes if code.isdigit() and int(code) not in CODES]
    found.wrong += [f"close code {code} is not documented" for code in bad]
    found.wrong += [f"error code {code} is not documented" for code in found.errors if code not in protocol.ERROR_CODES]


async def serve(port: int) -> None:
    """The server under test."""
    import density_servers
    from loguru import logger

    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    lifted = {"control_per_s": 1e9, "control_burst": 1e9, "frames_per_s": 1e9, "audio_burst_s": 1e9}
    await density_servers.ours(port, 100, **lifted)


async def main() -> None:
    """Run, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--server", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server:
        await serve(options.server)
        return
    from density import cpu_s, rss_mb

    port = 21_999
    command = [sys.executable, __file__, "--server", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - before anything runs
    assert server.stdout is not None
    assert server.stdout.readline().strip() == "up"
    found, memory, began = Findings(), {"start": rss_mb(server.pid)}, time.perf_counter()
    try:
        await storm(
            f"ws://127.0.0.1:{port}/orchestrate",
            inputs=options.inputs,
            seed=options.seed,
            found=found,
            at_tenth=lambda: memory.update(tenth=rss_mb(server.pid)),
        )
        memory["end"] = rss_mb(server.pid)
        lives = server.poll() is None
        cpu = cpu_s(server.pid)
    finally:
        server.kill()
        server.wait()
    report = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "seed": options.seed,
        "inputs": found.inputs,
        "seconds": round(time.perf_counter() - began, 1),
        "server_cpu_s": cpu,
        "server_lives": lives,
        "rss_mb": memory,
        "errors": dict(found.errors),
        "closes": dict(found.closes),
        "wrong": len(found.wrong),
        "examples_of_wrong": found.wrong[:5],
        "load": os.getloadavg()[0],
    }
    print(json.dumps(report, indent=1))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
