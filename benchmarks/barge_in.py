"""Speech onset until the bot is silent at a real client: ours beside stock Pipecat, in one run, over real sockets.

    .venv/bin/python benchmarks/barge_in.py [--onsets 40] [--kinds ours stock quick] [--slow] [--crowd 50]

Each kind of bot (barge_in_servers.py) is a process; all kinds run at the same time, each with one client that speaks
and plays at real time: real speech (human_speech.py) with its onset known to the sample, at a random phase, over an
answer of 12 s. Silent is the last sample of the answer that the client played, to the sample; what waits in its buffer
is played unless it was told to stop (`pause`, `interrupted`; stock: its InterruptionFrame); the 5 ms in which it fades
count. The lead is the audio which the client held, not yet played, when the user began. Then come coughs and noises:
false interruptions and resumes. `--slow`: the client of ours looks at what came every 60 ms only.
`--crowd`: so many other conversations go on at our server, which are talked over too, with clients in a third process.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import random
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from barge_in_servers import MEASURED
from human_speech import INTERRUPTIONS, RATE, VOICES, onset_in, say
from loguru import logger
from pipecat.frames.frames import InputAudioRawFrame, OutputAudioRawFrame, TextFrame
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from websockets.asyncio.client import connect

from leibniz_voice.pipeline.testing.audio import cough, noise
from leibniz_voice.transports.client.client import WebSocketClient
from leibniz_voice.transports.client.playback import PaperMicrophone, Playback

HERE = Path(__file__).parent
SEED = 11
SPEECH_S = 1.3  # of each utterance, at most
FALSE_ALARMS = 10  # sounds that are no speech, after the onsets
AFTER_S = 1.0  # listened on after it
TICK_S = 0.02
CHUNK = 512  # samples that the detector hears at a time


class OurClient(WebSocketClient):
    """The library's client; counts audio that comes between `interrupted` and the next reply."""

    stale = 0

    def _on_message(self, message: str | bytes) -> None:
        self.stale += isinstance(message, bytes) and not self.playback.is_open
        super()._on_message(message)

    async def ask(self) -> None:
        """Have the bot answer."""
        await self.send("stt_fragment", text="where is my order", is_final=True)
        await self.send("vad_end")

    @property
    def start_s(self) -> float:
        """Loop time of the start of the call."""
        return self._start_s


class SlowClient(OurClient):
    """Looks at what came every 60 ms only, as a busy phone does."""

    _late: list[str | bytes] | None = None

    def _on_message(self, message: str | bytes) -> None:
        if self._late is None:
            self._late = []
            asyncio.get_running_loop().call_later(0.06, self._look)
        self._late.append(message)

    def _look(self) -> None:
        late, self._late = self._late or [], None
        for message in late:
            super()._on_message(message)


class StockClient:
    """The same for Pipecat's protobuf: plays at once what comes, drops what it holds when told of an interruption."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.playback = Playback(sample_rate=RATE)
        self.microphone = PaperMicrophone()
        self.events: list[Any] = []  # none: the protocol has none of ours
        self.interrupted_s: list[float] = []  # loop times
        self.start_s = 0.0  # loop time of the start of the call
        self._serializer = ProtobufFrameSerializer()

    async def __aenter__(self) -> StockClient:
        self._socket = await connect(self._url, compression=None)
        self.start_s = asyncio.get_running_loop().time()
        self.playback.start(self.start_s)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._pace())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._socket.close()

    async def ask(self) -> None:
        """Have the bot answer."""
        await self._send(TextFrame("where is my order"))

    async def speak(self, pcm: bytes) -> tuple[float, float]:
        """As `WebSocketClient.speak`."""
        begin_s = self._tick * TICK_S
        self.microphone.push(pcm)
        while not self.microphone.is_empty:
            await asyncio.sleep(TICK_S / 2)
        return begin_s, self._tick * TICK_S

    async def _send(self, frame: Any) -> None:
        message = await self._serializer.serialize(frame)
        await self._socket.send(message)

    async def _read(self) -> None:
        async for message in self._socket:
            now = asyncio.get_running_loop().time()
            frame = await self._reader.deserialize(message)
            if isinstance(frame, InputAudioRawFrame):  # what it calls any audio that it reads
                self.playback.push(frame.audio, now)
            elif frame is None and message:  # it does not read interruptions itself
                self.playback.drop(now)
                self.playback.reopen()
                self.interrupted_s.append(now)

    async def _pace(self) -> None:
        loop = asyncio.get_running_loop()
        self._tick = 0
        while True:
            await asyncio.sleep(self.start_s + (self._tick + 1) * TICK_S - loop.time())
            self.playback.advance(loop.time())
            pcm = self.microphone.take(self._tick)
            self._tick += 1
            await self._send(OutputAudioRawFrame(pcm, RATE, 1))

    _tick = 0
    _reader = ProtobufFrameSerializer()


async def onsets(client: Any, count: int, rng: random.Random) -> list[dict[str, Any]]:
    """Talk over the bot `count` times; each onset in s of the call, with the client's lead then."""
    found = []
    for number in range(count):
        played = client.playback.played
        await client.ask()
        while client.playback.played < played + RATE // 2:
            await asyncio.sleep(0.01)
        text, voice = INTERRUPTIONS[number % len(INTERRUPTIONS)], rng.choice(VOICES)
        speech = say(text, voice)[: int(SPEECH_S * RATE) * 2]
        silence = bytes(2 * rng.randrange(640, 640 + 512))
        held_ms = client.playback.held_ms
        begin_s, _ = await client.speak(silence + speech)
        onset_s = begin_s + len(silence) / 2 / RATE + onset_in(speech) / RATE
        await asyncio.sleep(AFTER_S)
        client.playback.advance(asyncio.get_running_loop().time())
        end_s = len(client.playback.heard) / 2 / RATE
        found.append({"onset_s": onset_s, "end_s": end_s, "held_ms": held_ms, "text": text, "voice": voice})
    return found


async def false_alarms(client: Any, count: int) -> str:
    """Cough and hiss over the bot `count` times: how often it paused, went on, and was stopped for nothing."""
    interrupted = pauses = resumes = 0
    for number in range(count):
        played = client.playback.played
        await client.ask()
        while client.playback.played < played + RATE // 2:
            await asyncio.sleep(0.01)
        begin_s = asyncio.get_running_loop().time()
        await client.speak(noise(400, dbfs=-22, seed=number) if number % 2 else cough(dbfs=-12, seed=number))
        await asyncio.sleep(AFTER_S)
        told = [event.kind for event in client.events if event.at_s > begin_s - client.start_s]
        pauses, resumes = pauses + told.count("pause"), resumes + told.count("resume")
        interrupted += "interrupted" in told or any(at > begin_s for at in getattr(client, "interrupted_s", ()))
    return f"  of {count} coughs and noises: false interruptions {interrupted}, pauses {pauses}, resumes {resumes}"


def silent_after(heard: np.ndarray, onset_s: float, end_s: float) -> float:
    """ms from the onset to the last sample of the answer that was played."""
    sounding = np.flatnonzero(heard[round(onset_s * RATE) : round(end_s * RATE)])
    return (int(sounding[-1]) + 1) * 1000 / RATE if len(sounding) else 0.0


def row(name: str, values: list[float]) -> str:
    """One line of the report."""
    if not values:
        return f"{name:<46} none"
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return f"{name:<46}{p50:7.1f}{p95:8.1f}{p99:8.1f}   n {len(values)}"


async def be_crowd(port: int, count: int) -> None:
    """Be `count` callers, each at its own pace, until killed."""

    async def call(number: int) -> None:
        rng = random.Random(number)
        await asyncio.sleep(number * 0.05)
        async with OurClient(f"ws://127.0.0.1:{port}", max_s=1.0) as client:
            while True:
                await client.ask()
                await asyncio.sleep(rng.uniform(3, 6))
                await client.speak(say(rng.choice(INTERRUPTIONS), rng.choice(VOICES)))
                await asyncio.sleep(1)

    await asyncio.gather(*(call(number) for number in range(count)))


@asynccontextmanager
async def crowd(port: int, count: int) -> AsyncIterator[None]:
    """So many callers, meanwhile."""
    if not count:
        yield
        return
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, "--be-crowd", str(port), str(count))
    await asyncio.sleep(12 + 0.05 * count)
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def measure(kind: str, count: int, *, slow: bool, others: int) -> tuple[str, list[str], float]:
    """Run one kind of bot; its name, its lines, its p50."""
    rng = random.Random(SEED)
    async with serving(kind) as (port, notes), crowd(port, others if kind == "ours" else 0):
        if kind == "ours":
            client: Any = (SlowClient if slow else OurClient)(f"ws://127.0.0.1:{port}", session_id=MEASURED)
        else:
            client = StockClient(f"ws://127.0.0.1:{port}")
        async with client:
            await asyncio.sleep(0.5)
            trials = await onsets(client, count, rng)
            heard = np.frombuffer(bytes(client.playback.heard), np.int16)
            start_s, events = client.start_s, list(client.events)
            alarms = await false_alarms(client, FALSE_ALARMS)
    silent = [silent_after(heard, trial["onset_s"], trial["end_s"]) for trial in trials]
    lines = [
        row("onset -> silent at the client", silent),
        row("client's lead at the onset", [t["held_ms"] for t in trials]),
    ]
    if kind == "ours":
        lines += split(trials, notes, events, start_s, silent)
        lines[-1] += f", stale frames after it {client.stale}"
    lines.append(alarms)
    for trial, ms in zip(trials, silent, strict=True):
        print(f"  {kind} {ms:6.1f} ms  {trial['voice']}: {trial['text']}", file=sys.stderr)
    return kind, lines, float(np.percentile(silent, 50))


def split(
    trials: list[dict[str, Any]], notes: list[dict[str, Any]], events: list[Any], start_s: float, silent: list[float]
) -> list[str]:
    """Where the time goes, by what the server noted and what the client was told."""
    steps: dict[str, list[float]] = {name: [] for name in STEPS}
    pauses = 0
    for trial, silent_ms in zip(trials, silent, strict=True):
        onset = start_s + trial["onset_s"]
        mine = [note for note in notes if onset - 0.1 < note["at"] < start_s + trial["end_s"]]
        told = [event for event in events if trial["onset_s"] - 0.1 < event.at_s < trial["end_s"]]
        pauses += sum(event.kind == "pause" for event in told)
        pause = next((n for n in mine if n["what"] == "PlaybackPauseFrame"), None)
        cut = next((n for n in mine if n["what"] == "ReplyInterruptedFrame"), None)
        asked = next((n for n in mine if n["what"] == "BargeInFrame"), None)
        told_pause = next((e for e in told if e.kind == "pause"), None)
        told_cut = next((e for e in told if e.kind == "interrupted"), None)
        if not (pause and cut and asked and told_pause and told_cut):
            continue
        chunk = [n for n in mine if n["what"] == "chunk" and n["at"] <= pause["at"]][-1]
        audio = [n for n in mine if n["what"] == "audio" and n["at"] <= chunk["at"]][-1]
        told_s, cut_s = start_s + told_pause.at_s, start_s + told_cut.at_s
        values = (
            audio["at"] - onset,
            audio["samples"] // CHUNK * CHUNK / RATE - trial["onset_s"],
            chunk["at"] - audio["at"],
            pause["at"] - chunk["at"],
            told_s - pause["at"],
            onset + silent_ms / 1000 - audio["at"],
            cut_s - onset,
            cut["at"] - asked["at"],
            cut_s - cut["at"],
        )
        for name, value in zip(STEPS, values, strict=True):
            steps[name].append(value * 1000)
    lines = [row(f"  {name}", values) for name, values in steps.items()]
    lines.append(f"  pauses {pauses}, interrupted {len(steps[STEPS[0]])} of {len(trials)}")
    return lines


STEPS = (
    "detect: onset -> its audio is at the server",
    "  of it audio: onset -> end of its chunk",
    "model: that -> speech chunk",
    "decide: that -> pause passes the gate",
    "flush: that -> `pause` at the client",
    "all after detection: audio -> silent",
    "onset -> `interrupted` at the client",
    "  of it cancel: asked -> interruption",
    "  of it flush: that -> `interrupted`",
)


@asynccontextmanager
async def serving(kind: str) -> AsyncIterator[tuple[int, list[dict[str, Any]]]]:
    """Run a bot in a process; yields its port, and what it notes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "barge_in_servers.py"), kind, str(port), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    notes: list[dict[str, Any]] = []
    while (line := await process.stdout.readline()).strip() != b"up":
        if not line:
            raise SystemExit(f"the {kind} bot did not start")

    async def read(stream: asyncio.StreamReader) -> None:
        notes.extend([json.loads(line) async for line in stream])

    reader = asyncio.create_task(read(process.stdout))
    try:
        yield port, notes
    finally:
        process.terminate()
        await process.wait()
        await reader


def notes_on(options: argparse.Namespace) -> str:
    """What was special."""
    return " (client reads late)" * options.slow + f" ({options.crowd} other conversations)" * bool(options.crowd)


async def main() -> None:
    """Measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onsets", type=int, default=40)
    parser.add_argument("--kinds", nargs="+", default=["ours", "stock", "quick"], choices=("ours", "stock", "quick"))
    parser.add_argument("--slow", action="store_true", help="the client of ours reads late")
    parser.add_argument("--crowd", type=int, default=0, metavar="N", help="other conversations at our server")
    parser.add_argument("--be-crowd", type=int, nargs=2, metavar=("PORT", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    logger.remove()
    if options.be_crowd:
        await be_crowd(*options.be_crowd)
    for text in INTERRUPTIONS:
        for voice in VOICES:
            say(text, voice)
    load = os.getloadavg()
    results = await asyncio.gather(
        *(measure(kind, options.onsets, slow=options.slow, others=options.crowd) for kind in options.kinds)
    )
    print(f"{date.today()}, {platform.platform()}, Python {platform.python_version()}, "
          f"pipecat-ai {importlib.metadata.version('pipecat-ai')}, {os.cpu_count()} cores, "
          f"load before {load[0]:.1f}, after {os.getloadavg()[0]:.1f}, seed {SEED}")  # fmt: skip
    print(f"{'ms':<46}{'p50':>7}{'p95':>8}{'p99':>8}")
    for kind, lines, _ in results:
        print(f"\n{kind}" + (notes_on(options) if kind == "ours" else ""), *lines, sep="\n")
    p50 = {kind: value for kind, _, value in results}
    for kind in p50:
        if kind != "ours" and "ours" in p50:
            print(f"\n{kind} / ours, p50: {p50[kind] / p50['ours']:.1f}")


if __name__ == "__main__":
    asyncio.run(main())
