"""The bot of transports/state/test_kills.py: journals each change and side effect into files that survive `kill -9`."""

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session
from leibniz_voice.pipeline.conversation.conversation_record import ConversationRecord
from leibniz_voice.pipeline.frames import UserTurnFrame
from leibniz_voice.processors import EmbeddedTTS, InterruptionGate, Responder, StateTracker, TurnAggregator
from leibniz_voice.processors.embedded.workers.shared import close_all

FOLDER = os.environ["KILL_TEST_FOLDER"]
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT
JOURNAL = os.open(f"{FOLDER}/journal", FLAGS)
EFFECTS = os.open(f"{FOLDER}/effects", FLAGS)


def journalled(record: ConversationRecord) -> ConversationRecord:
    """Write down every change in the step in which it happens."""
    inner = record.changed

    def changed(*args: Any, **options: Any) -> None:
        inner(*args, **options)
        os.write(JOURNAL, (json.dumps(record.to_fields()) + "\n").encode())

    record.changed = changed  # type: ignore[method-assign]
    return record


async def order(turn: UserTurnFrame) -> IntentResult:
    """A call with a side effect: whoever executes it does each key once."""
    await asyncio.sleep(random.uniform(0.0, 0.1))
    os.write(EFFECTS, (json.dumps([turn.idempotency_key("order"), turn.text]) + "\n").encode())
    await asyncio.sleep(random.uniform(0.0, 0.2))
    return IntentResult("done", 1.0)


async def look_up(turn: UserTurnFrame) -> RetrievalResult:
    await asyncio.sleep(0.08)
    return RetrievalResult(context=f"I heard {turn.text}. It is done. Good bye.")


def build(session: Session) -> Pipeline:
    fallback = {"intent": IntentResult(), "retrieval": RetrievalResult()}
    return Pipeline(
        [
            session.input,
            TurnAggregator(),
            Parallel({"intent": order, "retrieval": look_up}, fallback=fallback),
            Responder(templates={"done": "{context}"}),
            EmbeddedTTS(),
            InterruptionGate(),
            StateTracker(record=journalled(session.record)),
            session.output,
        ]
    )


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    try:
        yield
    finally:
        await close_all()
