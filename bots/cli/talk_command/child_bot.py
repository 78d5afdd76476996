"""A bot that is started for one call: `leibniz serve` in a process of its own, which ends with the call's."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ..scripts import UsageError

if TYPE_CHECKING:  # the engine is imported late, as the other commands and --help shall not wait for it
    from leibniz_voice.pipeline.engine.child_process import ChildProcess

READY_S = 30.0
END_S = 10.0  # from SIGTERM to SIGKILL


class ChildBot:
    """`async with ChildBot("bots/assistant.py") as bot: await bot.ready()` gives its address.

    Its conversations go to a folder that is deleted afterwards; its log to `log`, shown if it fails.
    """

    def __init__(self, script: str) -> None:
        self._script = script  # path of the bot
        self._folder: tempfile.TemporaryDirectory[str] | None = None  # its data and log; None outside the context
        self._process: ChildProcess | None = None  # None outside the context
        self._printed: asyncio.StreamReader | None = None  # what it prints; None before the context
        self._pipe: asyncio.ReadTransport | None = None  # where that comes from; None outside the context
        self._drain: asyncio.Task[bytes] | None = None  # reads what it prints after it is ready

    async def __aenter__(self) -> ChildBot:
        self._folder = tempfile.TemporaryDirectory(prefix="leibniz-", ignore_cleanup_errors=True)
        process = self._start(Path(self._folder.name) / "data")
        self._printed = printed = asyncio.StreamReader()
        self._pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(printed), process.stdout
        )
        return self

    def _start(self, data: Path) -> subprocess.Popen[bytes]:
        from leibniz_voice.pipeline.engine.child_process import ChildProcess, going_with_us

        command = [sys.executable, "-m", "leibniz_voice.bots.cli.main", "serve", self._script, "--port", "0"]
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                going_with_us([*command, "--data", str(data)]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                # Nobody else can know its port, so it needs no tokens.
                env={k: v for k, v in os.environ.items() if k != "LEIBNIZ_SECRET"} | {"PYTHONUNBUFFERED": "1"},
            )
        self._process = ChildProcess(process)
        return process

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, pipe, folder = self._process, self._pipe, self._folder
        self._process = self._pipe = self._folder = None
        try:
            if process is not None:
                await process.stop(within_s=END_S)
        finally:
            if self._drain is not None:
                self._drain.cancel()
            if pipe is not None:
                pipe.close()
            if folder is not None:
                folder.cleanup()

    @property
    def _log(self) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / "bot.log"

    async def ready(self) -> str:
        """Wait until it listens; return its address. Raises `UsageError` with the bot's own words if it does not."""
        assert self._process is not None
        assert self._printed is not None
        try:
            async with asyncio.timeout(READY_S):
                async for line in self._printed:
                    text = line.decode(errors="replace")
                    if text.startswith("Ready: "):
                        self._drain = asyncio.create_task(self._printed.read())
                        return text.split()[1].partition("?")[0]
                await self._process.ended(within_s=READY_S)
        except TimeoutError:
            raise UsageError(f"{self._script} is not ready after {READY_S:.0f} s. {self._last_words()}") from None
        raise UsageError(self._last_words() or f"{self._script} ended before it was ready")

    def _last_words(self) -> str:
        from leibniz_voice.pipeline.engine.child_process import last_line

        return last_line(self._log).removeprefix("leibniz serve: ")
