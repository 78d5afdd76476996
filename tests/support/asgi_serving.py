"""An ASGI application served by a real uvicorn, and clients of the conversations in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import connect


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI application on a free port; yields "127.0.0.1:port"."""
    import uvicorn  # an extra: who has it not skips the test

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=2))
    running = asyncio.create_task(server._serve())  # `serve` would take the test's signals
    while not server.started:
        assert not running.done()
        await asyncio.sleep(0.01)
    try:
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


def joined(host: str, session: str = "s1", path: str = "/voice/orchestrate", **options: Any) -> connect:
    """A client of the endpoint at `host`."""
    return connect(f"ws://{host}{path}?session_id={session}", **options)
