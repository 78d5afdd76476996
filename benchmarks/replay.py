"""Do recordings of live conversations replay to the same decisions?

Serves the assistant with recording on, has clients talk to it over WebSockets in real time, with real speech:
questions, an interruption at a random moment, a backchannel, noise, typed words; then replays every recording in
virtual time and compares. 20 conversations, 4 at a time: about a minute and a half.

    python benchmarks/replay.py [--n 20] [--at-once 4] [--keep DIR] [--only-replay]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from loguru import logger

from leibniz_voice.bots.cli.scripts import lifespan_of, load_bot, set_up_log
from leibniz_voice.lab.recording.recording_folder import RecordingFolder
from leibniz_voice.lab.replay.decisions import decisions_of, differences, drift_s
from leibniz_voice.lab.replay.replay import replay
from leibniz_voice.pipeline.testing import Recording
from leibniz_voice.transports import WebSocketServer
from leibniz_voice.transports.client.client import WebSocketClient

BOT = str(Path(__file__).parent.parent / "bots" / "assistant.py")
QUESTIONS = (
    "what are your opening hours", "where is my order", "do you sell helmets", "can you repair my bicycle",
    "how much does delivery cost", "what is your return policy", "are you open on sunday", "how fast do you deliver",
)  # fmt: skip
VOICES = ("slt", "rms", "awb", "kal")
RATE = 16_000


def speech(text: str, voice: str) -> bytes:
    """16 kHz PCM16 mono of flite, which is not the bot's voice."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", file.name], check=True, capture_output=True)
        raw = subprocess.run(
            ["sox", file.name, "-t", "raw", "-r", str(RATE), "-e", "signed", "-b", "16", "-c", "1", "-"],
            check=True, capture_output=True,
        )  # fmt: skip
    return raw.stdout


def noise(rng: random.Random, seconds: float) -> bytes:
    samples = np.random.default_rng(rng.randrange(1 << 30)).normal(0, 1500, int(seconds * RATE))
    return samples.astype(np.int16).tobytes()


async def converse(url: str, seed: int) -> None:
    """One conversation: a question, something said over its answer, another question, typed or spoken."""
    rng = random.Random(seed)
    first, second = rng.sample(QUESTIONS, 2)
    voice = rng.choice(VOICES)
    async with WebSocketClient(url, session_id=f"live-{seed}") as client:
        await asyncio.sleep(0.3 + rng.random() / 2)
        await client.speak(speech(first, voice))
        if not await client.until(lambda: client.state == "speaking", timeout_s=6):
            return
        await asyncio.sleep(rng.uniform(0.2, 1.5))
        what = seed % 4
        if what == 0:
            await client.speak(speech(second, voice))
        elif what == 1:
            await client.speak(noise(rng, rng.uniform(0.05, 0.3)))
        elif what == 2:
            await client.speak(speech("okay", voice))
        else:
            await client.send("stt_fragment", text=second, is_final=True)
            await client.send("vad_end")
        await client.until(lambda: client.state == "idle", timeout_s=12)
        await asyncio.sleep(rng.random() / 2)


async def record(folder: Path, n: int, at_once: int) -> None:
    """Have `n` conversations with a server that records."""
    bot = load_bot(BOT)
    recordings = RecordingFolder(folder)
    try:
        async with lifespan_of(bot):
            build = recordings.records(bot.build, bot=BOT)
            async with WebSocketServer(build, port=0) as server:
                gate = asyncio.Semaphore(at_once)

                async def one(seed: int) -> None:
                    async with gate:
                        await converse(server.address, seed)

                await asyncio.gather(*(one(seed) for seed in range(n)))
    finally:
        recordings.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20, help="conversations (default: %(default)s)")
    parser.add_argument("--at-once", type=int, default=4, help="of them at the same time (default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the recordings in this folder")
    parser.add_argument("--only-replay", action="store_true", help="the recordings that are in --keep DIR already")
    options = parser.parse_args()
    set_up_log("ERROR")
    logger.disable("leibniz_voice")
    folder = options.keep or Path(tempfile.mkdtemp(prefix="leibniz-replay-"))
    began = time.monotonic()
    try:
        if not options.only_replay:
            asyncio.run(record(folder, options.n, options.at_once))
        print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, "
              f"load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d')}")  # fmt: skip
        if not options.only_replay:
            print(f"{options.n} live conversations, {options.at_once} at a time, {time.monotonic() - began:.0f} s\n")
        build, same = load_bot(BOT).build, 0
        files = sorted(folder.glob("*.leibniz.gz"), key=lambda file: int(file.name.split("-")[1]))
        for file in files:
            recording = Recording.load(file)
            before = time.monotonic()
            after = replay(recording, build).recording
            took_s = time.monotonic() - before
            found = differences(recording, after)
            same += not found
            states = recording.states == after.states
            turns = [t.user for t in recording.turns] == [t.user for t in after.turns]
            cuts = sum(turn.interrupted for turn in recording.turns)
            print(f"{recording.session_id:9} {recording.length_s:5.1f} s  {len(recording.turns)} turns, {cuts} cut  "
                  f"{len(decisions_of(recording)):3} decisions  {file.stat().st_size >> 10:4} KiB  "
                  f"states {'same' if states else 'OTHER'}  turns {'same' if turns else 'OTHER'}  "
                  f"times within {drift_s(recording, after) * 1000:3.0f} ms  {recording.length_s / took_s:4.0f}x  "
                  f"{'the same' if not found else found[0]}")  # fmt: skip
        print(f"\nthe same states, turns and decisions: {same} of {len(files)}")
    finally:
        if options.keep is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
