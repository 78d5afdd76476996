"""A server of ours on a free loopback port, and a client's end of its conversations, message by message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect

from leibniz_voice.bots.cli.scripts import load_bot
from leibniz_voice.pipeline.session import Build
from leibniz_voice.processors.embedded.workers.shared import close_all
from leibniz_voice.transports import WebSocketServer
from tests.support import ROOT

SECRET = "correct horse battery staple, and then some"


@cache
def bot(name: str) -> Any:
    """Return a bot of bots/ by its file's name: the module, with `build` in it."""
    return load_bot(str(ROOT / "bots" / name))


@asynccontextmanager
async def served(build: Build, **options: Any) -> AsyncIterator[WebSocketServer]:
    """Serve `build` on a free port; afterwards nothing of it is left, also no worker of the embedded parts."""
    try:
        async with WebSocketServer(build, port=0, **options) as server:
            yield server
    finally:
        await close_all()


def joined(
    server: WebSocketServer | str, session_id: str = "s1", *, path: str = "/orchestrate", more: str = "", **options: Any
) -> connect:
    """Return a client's connection to a session of a server, or of an address.

    `more` is the rest of the query ("&token=..."), `options` are those of websockets.
    """
    address = server if isinstance(server, str) else server.address.replace("/orchestrate", path)
    return connect(f"{address}?session_id={quote(session_id)}{more}", **options)


async def until(
    socket: ClientConnection,
    wanted: Callable[[dict[str, Any]], bool] = lambda message: True,
    *,
    timeout_s: float = 20.0,
    **fields: Any,
) -> dict[str, Any]:
    """Read up to a message that has these values, and is `wanted`; what is read before is lost."""
    async with asyncio.timeout(timeout_s):
        while True:
            text = await socket.recv()
            if isinstance(text, str):
                message = json.loads(text)
                if fields.items() <= message.items() and wanted(message):
                    return message


async def types(socket: ClientConnection, text: str) -> None:
    """Do the client's own speech recognition: one final fragment, and the end of the turn."""
    await socket.send(json.dumps({"type": "stt_fragment", "text": text, "is_final": True}))
    await socket.send(json.dumps({"type": "vad_end"}))
