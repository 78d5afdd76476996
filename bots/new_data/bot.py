"""The bot: what it knows stands in `content/`, how it works below. `leibniz serve bot.py` serves it."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from leibniz_voice.bots.content import BotContent
from leibniz_voice.bots.parts import embedded_parts
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

CONTENT = BotContent.load(Path(__file__).parent / "content")
INTENT = KeywordIntent(examples=CONTENT.examples)
PASSAGES = SqliteRetriever(folder=CONTENT.passages, synonyms=CONTENT.synonyms)


def build(session: Session) -> Pipeline:
    """Return the pipeline of one conversation. Any Pipecat STT, LLM or TTS service may stand in it."""
    return Pipeline(
        [
            session.input,
            SileroVAD(),
            EmbeddedSTT(phrases=CONTENT.phrases),
            TurnAggregator(),
            Parallel(
                {"intent": INTENT, "retrieval": PASSAGES},
                fallback={"intent": IntentResult(), "retrieval": RetrievalResult()},
            ),
            Responder(templates=CONTENT.templates),
            EmbeddedTTS(),
            InterruptionGate(),
            StateTracker(record=session.record),
            session.output,
        ]
    )


def lifespan() -> AbstractAsyncContextManager[None]:
    """Around serving: voice and recogniser are warm before the first call, and end with the bot."""
    return embedded_parts(CONTENT.phrases)


if __name__ == "__main__":
    from leibniz_voice.bots.cli.main import run_file

    run_file(__file__)
