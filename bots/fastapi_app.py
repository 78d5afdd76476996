"""The assistant inside a FastAPI application, beside routes of your own.

    pip install 'leibniz-voice[embedded,fastapi]'
    uvicorn leibniz_voice.bots.fastapi_app:app          console: http://127.0.0.1:8000/voice/

Starlette is the same, with `Mount("/voice", app=voice)`. The environment is that of `leibniz serve`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI

from leibniz_voice.bots import assistant
from leibniz_voice.bots.cli.scripts import set_up_log
from leibniz_voice.transports import AsgiApp, open_store

set_up_log()  # as `leibniz serve` does: INFO, so that nobody's words are logged


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Around serving: the store, the voice and the recogniser, then the conversations."""
    async with AsyncExitStack() as stack:
        store = await open_store(os.environ.get("REDIS_URL"), directory=".leibniz")
        stack.push_async_callback(store.close)
        await stack.enter_async_context(assistant.lifespan())
        voice = AsgiApp(
            assistant.build,
            store=store,
            secret=os.environ.get("LEIBNIZ_SECRET"),
            origins=os.environ.get("LEIBNIZ_ORIGINS", "").split(),
        )
        app.state.voice = await stack.enter_async_context(voice)
        app.mount("/voice", voice)
        yield


app = FastAPI(title="A shop with a voice", lifespan=lifespan)


@app.get("/calls")
async def calls() -> dict[str, Any]:
    """A route of your own: how many are talking to the bot."""
    return {"calls": app.state.voice.health()["active_sessions"]}
