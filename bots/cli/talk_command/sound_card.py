"""The sound card, for `leibniz talk --microphone`: by whichever of the system's programs is there."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from ..scripts import UsageError

if TYPE_CHECKING:  # takes time to import; done while the bot starts
    from leibniz_voice.transports.client.client import WebSocketClient

RATE = 16_000
CHUNK = 640  # bytes: 20 ms
END_S = 1.0  # for a program that is told to end
# Raw 16 kHz PCM16 mono, out of each recorder and into each player. PulseAudio and PipeWire, ALSA, SoX.
RECORDERS = {
    "parec": ("--raw", f"--rate={RATE}", "--channels=1", "--format=s16le", "--latency-msec=20"),
    "arecord": ("-q", "-t", "raw", "-f", "S16_LE", "-r", str(RATE), "-c", "1"),
    "rec": ("-q", "-t", "raw", "-r", str(RATE), "-e", "signed", "-b", "16", "-c", "1", "-"),
}
PLAYERS = {
    "pacat": ("--raw", f"--rate={RATE}", "--channels=1", "--format=s16le", "--latency-msec=40"),
    "aplay": ("-q", "-t", "raw", "-f", "S16_LE", "-r", str(RATE), "-c", "1", "--buffer-time=60000"),
    "play": ("-q", "-t", "raw", "-r", str(RATE), "-e", "signed", "-b", "16", "-c", "1", "-"),
}


def find(programs: dict[str, tuple[str, ...]], what: str) -> list[str]:
    """Return the command of the first program that is on the PATH. Raises `UsageError`."""
    for name, arguments in programs.items():
        if path := shutil.which(name):
            return [path, *arguments]
    raise UsageError(f"--microphone needs a program to {what}, but none of {', '.join(programs)} is on the PATH")


class Line:
    """`async with Line(client):` the client hears the microphone, and what it plays is heard."""

    def __init__(self, client: WebSocketClient) -> None:
        self._client = client
        self._processes: list[asyncio.subprocess.Process] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.failure = ""  # why the microphone has fallen silent; "" while it has not

    async def __aenter__(self) -> Line:
        pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        recorder = await asyncio.create_subprocess_exec(
            *find(RECORDERS, "record"), stdin=none, stdout=pipe, stderr=pipe
        )
        self._processes.append(recorder)
        player = await asyncio.create_subprocess_exec(*find(PLAYERS, "play"), stdin=pipe, stdout=none, stderr=none)
        self._processes.append(player)
        self._tasks = [asyncio.create_task(self._hear(recorder)), asyncio.create_task(self._play(player))]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.terminate()
        for process in self._processes:
            try:
                async with asyncio.timeout(END_S):
                    await process.wait()
            except TimeoutError:
                process.kill()

    async def _hear(self, recorder: asyncio.subprocess.Process) -> None:
        assert recorder.stdout is not None
        assert recorder.stderr is not None
        with suppress(asyncio.IncompleteReadError):
            while True:
                self._client.microphone.push(await recorder.stdout.readexactly(CHUNK))
        words = (await recorder.stderr.read(2000)).decode(errors="replace").strip().splitlines()
        self.failure = words[-1] if words else "the recording program has ended"

    async def _play(self, player: asyncio.subprocess.Process) -> None:
        assert player.stdin is not None
        played = len(self._client.playback.heard)
        with suppress(ConnectionError):
            while True:
                heard = self._client.playback.heard
                player.stdin.write(bytes(heard[played:]))
                played = len(heard)
                await player.stdin.drain()
                await asyncio.sleep(0.02)
