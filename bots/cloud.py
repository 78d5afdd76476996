"""The shop's support desk with cloud services, each by its environment variables and on its own.

    DEEPGRAM_API_KEY=... leibniz serve bots/cloud.py                           hears everything, not only its phrases
    CARTESIA_API_KEY=... CARTESIA_VOICE_ID=... leibniz serve bots/cloud.py     another voice
    LLM_BASE_URL=groq LLM_API_KEY=... leibniz serve bots/cloud.py              answers in its own words

Whatever is not configured is the embedded part, as in bots/assistant.py, and so is whatever fails. docs/cloud.md has
the table of variables; `leibniz doctor bots/cloud.py` tells which of them work.
"""

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from leibniz_voice.bots.content import BotContent
from leibniz_voice.bots.parts import embedded_parts, llm_from
from leibniz_voice.bots.services import prepare, recognisers, voices
from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session
from leibniz_voice.pipeline.services import UNKNOWN
from leibniz_voice.processors import (
    InterruptionGate,
    KeywordIntent,
    Responder,
    SileroVAD,
    SqliteRetriever,
    StateTracker,
    TurnAggregator,
)

PROMPT = (
    "You are the voice of a bicycle shop, on the telephone. Answer in one to three short spoken sentences, without "
    "lists or markup, from the passages you are given; say so if they do not tell."
)
CONTENT = BotContent.load(Path(__file__).parent / "assistant_data")
INTENT = KeywordIntent(examples=CONTENT.examples)
PASSAGES = SqliteRetriever(folder=CONTENT.passages, synonyms=CONTENT.synonyms)
WORDED = {intent.label for intent in CONTENT.intents if intent.answer}  # these need no LLM


def build(session: Session) -> Pipeline:
    """Return the pipeline of one conversation."""
    llm = llm_from(os.environ)
    return Pipeline(
        [
            session.input,
            SileroVAD(),
            *recognisers(os.environ, phrases=CONTENT.phrases),
            TurnAggregator(),
            Parallel(
                {"intent": INTENT, "retrieval": PASSAGES},
                deadline_s=5.0,
                fallback={"intent": IntentResult(), "retrieval": RetrievalResult()},
            ),
            Responder(
                templates=CONTENT.templates,
                context=PROMPT,
                llm_intents={UNKNOWN, *CONTENT.examples} - WORDED if llm is not None else (),
            ),
            *([llm] if llm is not None else []),
            *voices(os.environ),
            InterruptionGate(),
            StateTracker(record=session.record),
            session.output,
        ]
    )


def lifespan() -> AbstractAsyncContextManager[None]:
    """Around serving: the embedded parts are warm before the first call, whether or not they will be needed."""
    prepare(os.environ)
    return embedded_parts(CONTENT.phrases)


if __name__ == "__main__":
    from leibniz_voice.bots.cli.main import run_file

    run_file(__file__)
