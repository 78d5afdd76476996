"""Does the bot understand what it is asked aloud? Listed and unlisted questions, in voices that are not its own.

    python benchmarks/questions.py                    starts bots/assistant.py for the run
    python benchmarks/questions.py --url ws://127.0.0.1:8004/orchestrate

Each question is spoken by flite (slt, rms) and the espeak-ng command (en-us+f3; the bot itself speaks plain "en"),
sent over the WebSocket in real time, 20 ms at a time, one conversation each, and the reply's text is compared with
bots/assistant_data/questions.toml. Needs flite, espeak-ng and sox on the PATH.

Target: in every voice at least 28 of 30 listed questions answered rightly, and at least 9 of 10 unlisted ones answered
by "I didn't get that". Exit status 0 if it is met, 1 if not, 2 if the run was impossible.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = ROOT / "bots" / "assistant_data" / "questions.toml"
NOT_UNDERSTOOD = "I didn't get that"
RATE = 16000  # samples per second, mono int16
MESSAGE = RATE * 2 * 20 // 1000  # bytes in 20 ms
WAIT_S = 15.0  # from the last word to the end of the reply's text
READY_S = 60.0  # for the bot to start
MIN_LISTED, MIN_UNLISTED = 28, 9
VOICES = {
    "flite slt": ("flite", "-voice", "slt", "-t", "{text}", "-o", "{wav}"),
    "flite rms": ("flite", "-voice", "rms", "-t", "{text}", "-o", "{wav}"),
    "espeak-ng en-us+f3": ("espeak-ng", "-v", "en-us+f3", "-w", "{wav}", "{text}"),
}


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to ask: `expected` is what the right answer contains."""

    text: str
    expected: str
    is_listed: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of one question in one voice."""

    question: Question
    voice: str
    reply: str  # "" if none came
    heard: str  # the bot's transcript
    has_audio: bool
    wait_ms: float  # last spoken sample to `response_ready`; nan without a reply

    @property
    def is_right(self) -> bool:
        return self.has_audio and self.question.expected in self.reply


class Impossible(Exception):
    """The run cannot be made; the message says what is missing."""


def load_questions() -> list[Question]:
    """The listed and the unlisted questions of the assistant."""
    table = tomllib.loads(QUESTIONS.read_text(encoding="utf-8"))
    listed = [Question(text, expected, True) for text, expected in table["listed"].items()]
    return [*listed, *(Question(text, NOT_UNDERSTOOD, False) for text in table["unlisted"])]


def speak(voice: str, text: str, folder: Path) -> bytes:
    """`text` in `voice` as 16 kHz mono int16, 0.3 s of silence in front; ends with the last sound."""
    wav = folder / "speech.wav"
    subprocess.run([part.format(text=text, wav=wav) for part in VOICES[voice]], check=True, capture_output=True)
    trim = ["reverse", "silence", "1", "0.01", "0.1%", "reverse", "pad", "0.3", "0"]
    raw = ["-r", str(RATE), "-c", "1", "-b", "16", "-e", "signed", "-t", "raw", "-"]
    return subprocess.run(["sox", str(wav), *raw, *trim], check=True, capture_output=True).stdout


async def send_microphone(socket: ClientConnection, speech: bytes, last_word: asyncio.Future[float]) -> None:
    """Send `speech` in real time, then silence until cancelled. `last_word` gets the time of the last sample."""
    loop = asyncio.get_running_loop()
    started, sent = loop.time(), 0
    while True:
        chunk = speech[sent * MESSAGE : (sent + 1) * MESSAGE]
        if not chunk and not last_word.done():
            last_word.set_result(loop.time())
        await socket.send(chunk.ljust(MESSAGE, b"\0"))
        sent += 1
        await asyncio.sleep(max(0.0, started + sent * 0.02 - loop.time()))


async def hear_reply(socket: ClientConnection, heard: list[str], reply: list[str], at: list[float]) -> None:
    """Fill in the transcript, the reply's sentences and the time of `response_ready`; ends with the first audio.

    The text of a reply is complete before or after its first audio, so both are waited for.
    """
    is_complete = False
    async for message in socket:
        if isinstance(message, bytes):
            if is_complete:
                return
            continue
        event = json.loads(message)
        kind = event.get("type")
        if kind == "state_update" and event.get("text_buffer") and not at:
            heard[:] = event["text_buffer"]
        elif kind == "error":
            reply.append(f"[error: {event.get('code')}]")
            return
        elif kind in ("response_ready", "response_text"):
            reply.append(event["text"])
            at.append(asyncio.get_running_loop().time())
            is_complete = is_complete or bool(event.get("final"))


async def ask(url: str, name: str, question: Question, voice: str, speech: bytes) -> Asked:
    """One conversation with one question."""
    heard: list[str] = []
    reply: list[str] = []
    at: list[float] = []
    last_word: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    has_audio = False
    async with connect(f"{url}?session_id={name}", compression=None) as socket:
        microphone = asyncio.create_task(send_microphone(socket, speech, last_word))
        with suppress(TimeoutError):
            async with asyncio.timeout(len(speech) / (2 * RATE) + WAIT_S):
                await hear_reply(socket, heard, reply, at)
                has_audio = True
        microphone.cancel()
        await asyncio.gather(microphone, return_exceptions=True)
    wait_ms = (at[0] - last_word.result()) * 1000 if at and last_word.done() else float("nan")
    return Asked(question, voice, " ".join(reply), " ".join(heard), has_audio, wait_ms)


async def ask_all(url: str, questions: list[Question], voices: list[str], parallel: int) -> list[Asked]:
    """Every question in every voice, `parallel` conversations at a time."""
    slots = asyncio.Semaphore(parallel)
    run = f"questions-{os.getpid()}"

    async def one(number: int, question: Question, voice: str, speech: bytes) -> Asked:
        async with slots:
            return await ask(url, f"{run}-{number}", question, voice, speech)

    with tempfile.TemporaryDirectory() as folder:
        spoken = [(q, voice, speak(voice, q.text, Path(folder))) for voice in voices for q in questions]
    return await asyncio.gather(*(one(number, *item) for number, item in enumerate(spoken)))


@asynccontextmanager
async def running_bot(bot: str, folder: Path) -> AsyncIterator[str]:
    """Start `leibniz serve` on any free port; yields its ws:// address, ends it afterwards."""
    command = [sys.executable, "-m", "leibniz_voice.bots.cli.main", "serve", bot, "--port", "0", "--data", str(folder)]
    log = folder / "bot.log"
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=stderr)
    try:
        yield await ready_address(process, log)
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(process.wait(), 10.0)
        except TimeoutError:
            process.kill()
            await process.wait()


async def ready_address(process: asyncio.subprocess.Process, log: Path) -> str:
    """The address in the readiness line. Raises `Impossible` with the end of the bot's log."""
    assert process.stdout is not None
    with suppress(TimeoutError):
        async with asyncio.timeout(READY_S):
            async for line in process.stdout:
                for word in line.decode(errors="replace").split():
                    if word.startswith("ws://"):
                        return word.rstrip(".,;)").split("?")[0]
    raise Impossible(f"the bot did not start:\n{tail_of(log)}")


def tail_of(log: Path) -> str:
    """The end of a log."""
    return log.read_text(errors="replace")[-2000:]


def first_line(*command: str) -> str:
    """The first line with a digit that a command prints: a program's version."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line.split("  Data at")[0].strip() for line in (done.stdout + done.stderr).splitlines()]
    return next((line for line in lines if any(letter.isdigit() for letter in line)), "unknown version")


def print_machine(parallel: int) -> None:
    """Where and with what this was measured."""
    model = "unknown processor"
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    print(f"machine   {model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.system()}")
    packages = ", ".join(f"{name} {version(name)}" for name in ("pipecat-ai", "pocketsphinx", "espeakng-loader"))
    print(f"versions  Python {platform.python_version()}, {packages}")
    print(f"speech    {first_line('flite', '--version')}; {first_line('espeak-ng', '--version')}")
    print(f"run       {parallel} conversations at a time; no random choice, so no seed\n")


def print_voice(voice: str, asked: list[Asked]) -> bool:
    """One voice's row and its misses; True if it meets the target."""
    listed = [one for one in asked if one.question.is_listed]
    unlisted = [one for one in asked if not one.question.is_listed]
    right, refused = sum(one.is_right for one in listed), sum(one.is_right for one in unlisted)
    waits = [one.wait_ms for one in asked if one.reply and one.wait_ms == one.wait_ms]
    p50, p95 = quantile(waits, 50), quantile(waits, 95)
    print(f"{voice:<20} {right:>4} of {len(listed):<3} {refused:>5} of {len(unlisted):<3} {p50:>8.0f} {p95:>7.0f}")
    for one in asked:
        if not one.is_right:
            print(f'    "{one.question.text}" heard "{one.heard}", said "{one.reply or "nothing"}"')
    return right >= MIN_LISTED * len(listed) / 30 and refused >= MIN_UNLISTED * len(unlisted) / 10


def quantile(values: list[float], percent: int) -> float:
    """The `percent` quantile; nan of nothing."""
    if len(values) < 2:
        return values[0] if values else float("nan")
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


async def measure(options: argparse.Namespace) -> bool:
    """Ask everything, print everything; True if every voice meets the target."""
    print_machine(options.parallel)
    questions, voices, started = load_questions(), options.voice or list(VOICES), time.perf_counter()
    if options.url:
        asked = await ask_all(options.url, questions, voices, options.parallel)
    else:
        with tempfile.TemporaryDirectory() as folder:
            async with running_bot(options.bot, Path(folder)) as url:
                asked = await ask_all(url, questions, voices, options.parallel)
    print(f"{'voice':<20} {'listed, right':>11} {'unlisted':>11} {'wait ms p50':>9} {'p95':>6}")
    met = [print_voice(voice, [one for one in asked if one.voice == voice]) for voice in voices]
    listed = [one for one in asked if one.question.is_listed]
    unlisted = [one for one in asked if not one.question.is_listed]
    print(f"\nlisted    {sum(one.is_right for one in listed)} of {len(listed)} answered rightly")
    print(f"unlisted  {sum(one.is_right for one in unlisted)} of {len(unlisted)} answered by {NOT_UNDERSTOOD!r}")
    print(f"seconds   {time.perf_counter() - started:.0f}")
    print(f"target    {MIN_LISTED} of 30 and {MIN_UNLISTED} of 10 in every voice: {'met' if all(met) else 'NOT MET'}")
    return all(met)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bot", default=str(ROOT / "bots" / "assistant.py"), help="the bot script to start")
    parser.add_argument("--url", help="ask this running bot instead, as in ws://127.0.0.1:8004/orchestrate")
    parser.add_argument("--parallel", type=int, default=8, help="conversations at a time (default: %(default)s)")
    parser.add_argument("--voice", action="append", choices=list(VOICES), help="only this voice (may be repeated)")
    options = parser.parse_args()
    try:
        if missing := [program for program in ("flite", "espeak-ng", "sox") if not shutil.which(program)]:
            raise Impossible(f"install {', '.join(missing)} first; in Debian the packages have the same names")
        return 0 if asyncio.run(measure(options)) else 1
    except (Impossible, OSError) as error:
        print(f"questions.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
