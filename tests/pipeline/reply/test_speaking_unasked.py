"""Whatever asks the bot to speak by itself is heard, by any voice, and every answer after it is heard too."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from pipecat.frames.frames import (
    TranscriptionFrame,
    TTSSpeakFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameProcessor

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session
from leibniz_voice.pipeline.reply.answers import MOST_PROMPTS, Prompts
from leibniz_voice.pipeline.states import State
from leibniz_voice.pipeline.testing import AsyncCall, ScriptedRetriever, ScriptedTTS, ScriptedVoice, run_virtual
from leibniz_voice.processors import EmbeddedTTS, InterruptionGate, Responder, StateTracker, TurnAggregator

FALLBACK = {"intent": IntentResult(), "retrieval": RetrievalResult()}
VOICES: list[Callable[[], FrameProcessor]] = [EmbeddedTTS, ScriptedTTS, ScriptedVoice]
PROMPT, ANSWER = "Are you still there?", "Here is the answer to it."


def builder(voice: Callable[[], FrameProcessor], seen: list[Pipeline], **options: Any) -> Callable[[Session], Pipeline]:
    async def intent(turn: Any) -> IntentResult:
        return IntentResult("x", 1.0)

    def build(session: Session) -> Pipeline:
        branches = {"intent": intent, "retrieval": ScriptedRetriever(ANSWER)}
        seen.append(
            Pipeline(
                [
                    session.input,
                    TurnAggregator(),
                    Parallel(branches, fallback=FALLBACK),
                    Responder(templates={"x": "{context}"}, **options),
                    voice(),
                    InterruptionGate(),
                    StateTracker(record=session.record),
                    session.output,
                ]
            )
        )
        return seen[-1]

    return build


async def ask_to_speak(pipeline: Pipeline, text: str = PROMPT, *, at: type | None = None) -> None:
    """Queue the frame at the pipeline's head, as an application does, or into a processor, as a tool does."""
    there = pipeline if at is None else next(p for p in pipeline.processors if isinstance(p, at))
    await there.queue_frame(TTSSpeakFrame(text))


def said(call: AsyncCall) -> list[str]:
    return [m["text"] for m in call.wire.of_type("response_ready") if m["text"]]


def talk(
    voice: Callable[[], FrameProcessor], script: Callable[[AsyncCall, Pipeline], Any], **options: Any
) -> AsyncCall:
    async def main() -> AsyncCall:
        seen: list[Pipeline] = []
        async with AsyncCall(builder(voice, seen, **options)) as call:
            await script(call, seen[0])
        return call

    return run_virtual(main())


async def asks(call: AsyncCall, text: str) -> None:
    before = len(said(call))
    await call.types(text)
    await call.until(lambda: len(said(call)) > before, f"the answer to {text}", timeout_s=5)
    await call.until_state("idle", timeout_s=20)


@pytest.mark.parametrize("at", [None, FrameProcessor], ids=["at the head", "at the voice"])
@pytest.mark.parametrize("voice", VOICES, ids=lambda voice: voice.__name__)
def test_a_prompt_is_heard_and_so_is_every_answer_after_it(
    voice: Callable[[], FrameProcessor], at: type | None
) -> None:
    async def script(call: AsyncCall, pipeline: Pipeline) -> None:
        await asks(call, "one")
        await ask_to_speak(pipeline, at=voice if at and voice is EmbeddedTTS else None)
        await call.until_state("speaking", timeout_s=5)
        await call.until_state("idle", timeout_s=20)
        for text in ("two", "three"):
            await asks(call, text)

    call = talk(voice, script)
    assert len(said(call)) == 4
    assert call.record.fields.turn_number == 3
    history = [message["text"] for message in call.record.fields.history]
    assert history == [ANSWER, PROMPT, ANSWER, ANSWER]
    assert [message["heard"] for message in call.record.fields.history][1].split()[-1] == "there?"


def test_a_prompt_waits_until_the_answer_that_is_being_given_is_over() -> None:
    async def script(call: AsyncCall, pipeline: Pipeline) -> None:
        await call.types("one")
        await call.until_state("speaking", timeout_s=5)
        await ask_to_speak(pipeline)
        await call.until_state("idle", timeout_s=20)
        await call.until_state("speaking", timeout_s=5)
        await call.until_state("idle", timeout_s=20)

    call = talk(EmbeddedTTS, script)
    assert said(call) == [ANSWER, PROMPT]
    assert [message["interrupted"] for message in call.record.fields.history] == [False, False]


def test_a_prompt_waits_until_the_user_has_said_what_he_has_to_say() -> None:
    async def script(call: AsyncCall, pipeline: Pipeline) -> None:
        await call.detects(VADUserStartedSpeakingFrame())
        await ask_to_speak(pipeline)
        await asyncio.sleep(1)
        assert call.states[-1] == "listening"
        await call.detects(TranscriptionFrame("one", "", ""))
        await call.detects(VADUserStoppedSpeakingFrame())
        await call.until(lambda: len(said(call)) == 2, "the prompt", timeout_s=20)

    assert said(talk(EmbeddedTTS, script)) == [ANSWER, PROMPT]


def test_the_user_may_interrupt_a_prompt_and_is_answered() -> None:
    async def script(call: AsyncCall, pipeline: Pipeline) -> None:
        await ask_to_speak(pipeline, "This is a long notice about everything that we have. " * 4)
        await call.until_state("speaking", timeout_s=5)
        await asyncio.sleep(1)
        await asks(call, "one")

    call = talk(EmbeddedTTS, script)
    assert said(call)[1:] == [ANSWER]
    first = call.record.fields.history[0]
    assert first["interrupted"]
    assert first["heard"].startswith("This is a long")


def test_markup_of_a_prompt_is_not_said() -> None:
    async def script(call: AsyncCall, pipeline: Pipeline) -> None:
        await ask_to_speak(pipeline, "**Hello** there.")
        await call.until(lambda: bool(said(call)), "the prompt", timeout_s=5)

    assert said(talk(EmbeddedTTS, script)) == ["Hello there."]


def test_prompts_wait_in_order_and_the_oldest_of_too_many_is_dropped() -> None:
    prompts = Prompts()
    for number in range(MOST_PROMPTS + 1):
        prompts.ask(str(number))
    prompts.ask("  ")
    assert prompts.take(is_reply_open=True) == ""
    prompts.state = State.LISTENING
    assert prompts.take(is_reply_open=False) == ""
    prompts.state = State.IDLE
    assert [prompts.take(is_reply_open=False) for _ in range(MOST_PROMPTS + 1)] == [
        *map(str, range(1, MOST_PROMPTS + 1)),
        "",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_whenever_a_prompt_comes_every_question_is_answered_and_the_end_is_idle(seed: int) -> None:
    chance = random.Random(seed)

    async def script(call: AsyncCall, pipeline: Pipeline) -> None:
        for number in range(4):
            await ask_to_speak(pipeline)
            await asyncio.sleep(chance.uniform(0, 2.5))
            await call.types(f"question {number}")
            await asyncio.sleep(chance.uniform(0, 2.5))
        await asyncio.sleep(30)
        await asks(call, "and the last one")

    call = talk(chance.choice(VOICES), script)
    assert call.states[-1] == "idle"
    history = call.record.fields.history
    assert history[-1]["text"] == ANSWER
    assert not history[-1]["interrupted"]
    assert all(message["text"] in (ANSWER, PROMPT, "") for message in history)
    assert [m["text"] for m in history].count(PROMPT) <= 4
