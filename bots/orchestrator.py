"""The reference bot of the contract: intent and retrieval as HTTP services, an LLM when the question needs one.

    leibniz serve bots/orchestrator.py        ws://127.0.0.1:8004/orchestrate?session_id=ID

It takes text fragments (`stt_fragment`, `vad_end`) from clients that do their own speech recognition, or audio, of
which its own recogniser hears the phrases in `assistant_data/intents.toml`; any STT service can stand in its place.

    REDIS_URL      where conversations are kept (read by `leibniz serve`)
    INTENT_URL     POST {INTENT_URL}/api/v1/classify, default http://intent-service:8002
    RAG_URL        POST {RAG_URL}/api/v1/query, default http://rag-service:8003
    LLM_BASE_URL   openai, groq, gemini, or an OpenAI-compatible address; with LLM_API_KEY and LLM_MODEL.
                   Without any of them a complex question is answered with its best passage.
    PORT           default 8004 (read by `leibniz serve`)
"""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from leibniz_voice.bots.content import BotContent
from leibniz_voice.bots.parts import embedded_parts, llm_from
from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session
from leibniz_voice.processors import (
    EmbeddedSTT,
    EmbeddedTTS,
    HttpIntent,
    HttpRetriever,
    InterruptionGate,
    Responder,
    SileroVAD,
    StateTracker,
    TurnAggregator,
)
from leibniz_voice.processors.intent import INTENT_URL
from leibniz_voice.processors.retrieval import RETRIEVAL_URL

PROMPT = (
    "You are the voice of a shop, on the telephone. Answer in one to three short spoken sentences, without lists or "
    "markup, and only from the passages you are given; say so if they do not tell."
)
PHRASES = BotContent.load(Path(__file__).parent / "assistant_data").phrases


def build(session: Session) -> Pipeline:
    """Return the pipeline of one conversation."""
    llm = llm_from(os.environ)
    return Pipeline(
        [
            session.input,
            SileroVAD(),
            EmbeddedSTT(phrases=PHRASES),
            TurnAggregator(),
            Parallel(
                {
                    "intent": HttpIntent(base_url=os.environ.get("INTENT_URL", INTENT_URL)),
                    "retrieval": HttpRetriever(base_url=os.environ.get("RAG_URL", RETRIEVAL_URL)),
                },
                deadline_s=5.05,  # each has its own 5.0 s
                fallback={"intent": IntentResult(), "retrieval": RetrievalResult()},
            ),
            Responder(context=PROMPT),
            *([llm] if llm is not None else []),
            EmbeddedTTS(),
            InterruptionGate(),
            StateTracker(record=session.record),
            session.output,
        ]
    )


def lifespan() -> AbstractAsyncContextManager[None]:
    """Around serving: warm up before the first call, close everything after the last."""
    return embedded_parts(PHRASES)


if __name__ == "__main__":
    from leibniz_voice.bots.cli.main import run_file

    run_file(__file__)
