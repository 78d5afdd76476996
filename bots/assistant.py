"""A support bot for a small shop, with nothing but what `pip install` brings: no key, no server, no download.

    leibniz serve bots/assistant.py

What it understands and says stands in `assistant_data/`: edit a passage and the answer changes.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from leibniz_voice.bots.content import BotContent
from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session
from leibniz_voice.processors import (
    EmbeddedSTT,
    EmbeddedTTS,
    InterruptionGate,
    KeywordIntent,
    Responder,
    SileroVAD,
    SqliteRetriever,
    StateTracker,
    TurnAggregator,
)
from leibniz_voice.processors.embedded.workers import close_all

CONTENT = BotContent.load(Path(__file__).parent / "assistant_data")
INTENT = KeywordIntent(examples=CONTENT.examples)
RETRIEVER = SqliteRetriever(folder=CONTENT.passages, synonyms=CONTENT.synonyms)


def build(session: Session) -> Pipeline:
    """Return the pipeline of one conversation."""
    return Pipeline(
        [
            session.input,
            SileroVAD(),
            EmbeddedSTT(phrases=CONTENT.phrases),
            TurnAggregator(),
            Parallel(
                {"intent": INTENT, "retrieval": RETRIEVER},
                deadline_s=5.0,
                fallback={"intent": IntentResult(), "retrieval": RetrievalResult()},
            ),
            Responder(templates=CONTENT.templates),
            EmbeddedTTS(),
            InterruptionGate(),
            StateTracker(record=session.record),
            session.output,
        ]
    )


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """Around serving: end the voice's and the recogniser's processes with the bot."""
    try:
        yield
    finally:
        await close_all()


if __name__ == "__main__":
    from leibniz_voice.bots.cli.main import run_file

    run_file(__file__)
