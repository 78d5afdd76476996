"""A store started for one piece of work, and writes to it, for the tests of the stores."""

from __future__ import annotations

import asyncio

from leibniz_voice.pipeline.conversation.snapshot import ConversationFields
from leibniz_voice.pipeline.conversation.store import Write


def run(store, body):
    async def whole():
        await store.start()
        try:
            return await body()
        finally:
            await store.close()

    return asyncio.run(whole())


def a_write(claim, sequence=1, *, state="thinking", log=(), log_start=1, **more):
    fields = ConversationFields(state=state, **more).to_fields()
    return Write(claim.session_id, claim.owner, claim.epoch, sequence, fields, log, log_start)


def outcomes(results):
    return [result.outcome for result in results]
