"""What tests in a real browser share: Chromium with a WAV as its microphone, and `leibniz serve` as a process."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.tools import command_of, needs

CHROMIUM = command_of("chromium")
BOT = ROOT / "bots" / "assistant.py"
START_S = 30.0
INSECURE_HOST = "console.test"  # to the browser: this machine, by a name that makes no secure context

marks = [
    pytest.mark.slow,
    needs("chromium", "espeak-ng", "sox"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving_process(
    folder: Path, bot: Path = BOT, *, environment: Mapping[str, str] | None = None, port: int = 0
) -> Iterator[str]:
    """The http address of `leibniz serve BOT`, whose files and log go to `folder`; on any free port for 0."""
    port = port or free_port()
    log = (folder / "stderr").open("a+")
    command = [sys.executable, "-m", "leibniz_voice.bots.cli.main", "serve", str(bot), "--port", str(port)]
    server = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        cwd=folder,
        env=dict(environment) if environment else None,
    )
    patience = threading.Timer(START_S, server.kill)
    patience.start()
    assert server.stdout is not None
    line = next((line for line in server.stdout if str(port) in line), None)
    patience.cancel()
    if line is None:
        server.kill()
        server.wait()
        log.seek(0)
        pytest.fail(f"the server did not start:\n{log.read()[-3000:]}")
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(timeout=15)
        server.stdout.close()
        log.close()


def speak(text: str, file: Path, *, rate: int = 48_000, before_s: float = 0.0, after_s: float = 0.0) -> Path:
    """Write `text`, said by a voice that is not the bot's, as a mono WAV with quiet around it."""
    spoken = file.with_suffix(".spoken.wav")
    subprocess.run(["espeak-ng", "-v", "en-us+f3", "-s", "150", "-w", spoken, text], check=True)
    convert = ["sox", spoken, "-r", str(rate), "-c", "1", "-b", "16", file, "pad", str(before_s), str(after_s)]
    subprocess.run(convert, check=True)
    return file


def conversation(file: Path, *said: tuple[float, str], after_s: float = 20.0) -> Path:
    """Write several sayings, each with the quiet before it in seconds, in a voice that is not the bot's."""
    parts = []
    for number, (before_s, text) in enumerate(said):
        spoken, part = (file.with_suffix(f".{number}{kind}.wav") for kind in ("spoken", ""))
        subprocess.run(["flite", "-voice", "slt", "-t", text, "-o", spoken], check=True)
        convert = [
            "sox",
            spoken,
            "-r",
            "48000",
            "-c",
            "1",
            "-b",
            "16",
            part,
            "gain",
            "-n",
            "-3",
            "pad",
            str(before_s),
            "0",
        ]
        subprocess.run(convert, check=True)
        parts.append(part)
    subprocess.run(["sox", *parts, file, "pad", "0", str(after_s)], check=True)
    return file


def flags(microphone_wav: Path) -> list[str]:
    """Chromium's flags for a microphone that plays a file once, from the moment it is opened."""
    return [
        "--no-sandbox",
        "--disable-gpu",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone_wav}%noloop",
        "--autoplay-policy=no-user-gesture-required",
        f"--host-resolver-rules=MAP {INSECURE_HOST} 127.0.0.1",
    ]
