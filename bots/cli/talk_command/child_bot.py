"""A bot that is started for one call: `leibniz serve` in a process of its own, ended with the call."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from ..scripts import UsageError

READY_S = 30.0
END_S = 10.0  # from SIGTERM to SIGKILL


class ChildBot:
    """`async with ChildBot("bots/assistant.py") as bot: await bot.ready()` gives its address.

    Its conversations go to a folder that is deleted afterwards; its log to `log`, shown if it fails.
    """

    def __init__(self, script: str) -> None:
        self._script = script  # path of the bot
        self._folder: tempfile.TemporaryDirectory[str] | None = None  # its data and log; None outside the context
        self._process: asyncio.subprocess.Process | None = None  # None outside the context
        self._drain: asyncio.Task[bytes] | None = None  # reads what it prints after it is ready

    async def __aenter__(self) -> ChildBot:
        self._folder = tempfile.TemporaryDirectory(prefix="leibniz-", ignore_cleanup_errors=True)
        command = ("-m", "leibniz_voice.bots.cli.main", "serve", self._script, "--port", "0")
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                "--data",
                str(Path(self._folder.name) / "data"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                # Nobody else can know its port, so it needs no tokens.
                env={k: v for k, v in os.environ.items() if k != "LEIBNIZ_SECRET"} | {"PYTHONUNBUFFERED": "1"},
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, folder = self._process, self._folder
        self._process = self._folder = None
        try:
            if process is not None and process.returncode is None:
                process.terminate()
                try:
                    async with asyncio.timeout(END_S):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()
        finally:
            if self._drain is not None:
                self._drain.cancel()
            if folder is not None:
                folder.cleanup()

    @property
    def _log(self) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / "bot.log"

    async def ready(self) -> str:
        """Wait until it listens; return its address. Raises `UsageError` with the bot's own words if it does not."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(READY_S):
                async for line in self._process.stdout:
                    text = line.decode(errors="replace")
                    if text.startswith("Ready: "):
                        self._drain = asyncio.create_task(self._process.stdout.read())
                        return text.split()[1].partition("?")[0]
                await self._process.wait()
        except TimeoutError:
            raise UsageError(f"{self._script} is not ready after {READY_S:.0f} s. {self._last_words()}") from None
        raise UsageError(self._last_words() or f"{self._script} ended before it was ready")

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("leibniz serve: ") if lines else ""
