"""A recorded call with Pipecat's real OpenAI service replays without it: its tokens come from the recording."""

from __future__ import annotations

import asyncio

import pytest
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.openai.llm import OpenAILLMService

from leibniz_voice.lab.replay.decisions import differences
from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session, UserTurnFrame
from leibniz_voice.pipeline.testing import AsyncCall, ScriptedTTS, Tape, replay
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator
from tests.support.fake_openai import FakeOpenAI, says


async def complex_query(turn: UserTurnFrame) -> IntentResult:
    return IntentResult("complex_query", 0.9)


def builder(llm: FrameProcessor):
    def build(session: Session) -> Pipeline:
        asked = Parallel({"intent": complex_query}, fallback={"intent": IntentResult(), "retrieval": RetrievalResult()})
        ends = [InterruptionGate(), StateTracker(record=session.record), session.output]
        return Pipeline([session.input, TurnAggregator(), asked, Responder(), llm, ScriptedTTS(), *ends])

    return build


@pytest.mark.slow
def test_a_language_models_answers_come_from_the_recording():
    tape = Tape()

    async def talk() -> list[dict]:
        async with FakeOpenAI(says("We have ", 0.05, "red ones. ", "And blue ones."), says("Nine.")) as server:
            async with AsyncCall(tape.records(builder(server.service()))) as call:
                for question in ("what colours are there", "when do you open"):
                    await call.types(question)
                    await call.until_state("speaking")
                    await call.until_state("idle")
            return server.asked

    assert len(asyncio.run(talk())) == 2
    recording = tape.recording
    assert [turn.reply for turn in recording.turns] == ["We have red ones. And blue ones.", "Nine."]
    unreachable = OpenAILLMService(api_key="none", base_url="http://127.0.0.1:9/v1")
    after = replay(recording, builder(unreachable))
    assert differences(recording, after.recording) == []
    assert after.counts["llm recorded"] == 2
    assert [turn.reply for turn in after.recording.turns] == [turn.reply for turn in recording.turns]
