"""A support bot for a small shop, with nothing but what `pip install` brings: no key, no server, no download.

    leibniz serve bots/assistant.py

What it understands and says stands in `assistant_data/`: edit a passage and the answer changes.
"""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from leibniz_voice.bots.content import BotContent
from leibniz_voice.bots.parts import embedded_parts
from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session, UserTurnFrame
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

CONTENT = BotContent.load(Path(__file__).parent / "assistant_data")
INTENT = KeywordIntent(examples=CONTENT.examples)
PASSAGES = SqliteRetriever(folder=CONTENT.passages, synonyms=CONTENT.synonyms)


async def retrieve(turn: UserTurnFrame) -> RetrievalResult:
    """Find passages by the user's words; where these are in none, by other phrases of the same intent."""
    found = await PASSAGES.retrieve(turn.text)
    if not found.context:
        intent = await INTENT.classify(turn.text)
        for phrase in CONTENT.examples.get(intent.label, ()):
            found = found if found.context else await PASSAGES.retrieve(phrase)
    return found


def build(session: Session) -> Pipeline:
    """Return the pipeline of one conversation."""
    return Pipeline(
        [
            session.input,
            SileroVAD(),
            EmbeddedSTT(phrases=CONTENT.phrases),
            TurnAggregator(),
            Parallel(
                {"intent": INTENT, "retrieval": retrieve},
                deadline_s=5.0,
                fallback={"intent": IntentResult(), "retrieval": RetrievalResult()},
                speculate=("intent", "retrieval"),
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
