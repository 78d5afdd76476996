"""What the LLM is told of a conversation that goes on: the same as if it had never been cut off."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pipecat.processors.aggregators.llm_context import LLMContext

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session
from leibniz_voice.pipeline.conversation.conversation_record import ConversationRecord
from leibniz_voice.pipeline.conversation.resume import Exchange, resumption_of
from leibniz_voice.pipeline.conversation.snapshot import ConversationFields, parse
from leibniz_voice.pipeline.reply.chat_memory import INTERRUPTED, ChatMemory
from leibniz_voice.pipeline.testing import AsyncCall, run_offline
from leibniz_voice.processors import EmbeddedTTS, InterruptionGate, Responder, StateTracker, TurnAggregator
from leibniz_voice.transports.dialects.protocol import UserSpeaking

ANSWER = "We open at nine. On Sunday at ten. Come by."


class Bot:
    """Answers everything with the same three sentences, and shows what it remembers."""

    def __init__(self, **options: Any) -> None:
        self.responder = Responder(context="Be brief.", **options)

    def build(self, session: Session) -> Pipeline:
        async def intent(turn: Any) -> IntentResult:
            return IntentResult("hours", 0.9)

        async def retrieval(turn: Any) -> RetrievalResult:
            return RetrievalResult(context=ANSWER)

        fallback = {"intent": IntentResult(), "retrieval": RetrievalResult()}
        parts = [
            session.input,
            TurnAggregator(),
            Parallel({"intent": intent, "retrieval": retrieval}, fallback=fallback),
        ]
        parts += [self.responder, EmbeddedTTS(), InterruptionGate(), StateTracker(record=session.record)]
        return Pipeline([*parts, session.output])

    @property
    def told(self) -> list[tuple[str, Any]]:
        return [(m["role"], m.get("content")) for m in self.responder.memory.context.get_messages()]  # type: ignore[union-attr]


async def greeted(call: AsyncCall) -> None:
    """Hear the greeting."""
    await call.until_state("speaking")
    await call.until_state("idle")


async def asked(call: AsyncCall, question: str) -> None:
    """Ask, and hear the answer to its end."""
    count = len(call.wire.of_type("response_ready"))
    await call.types(question)
    await call.until(lambda: len(call.wire.of_type("response_ready")) > count, "an answer")
    await call.until_state("idle")


def continued(fields: ConversationFields, script: Any = None) -> tuple[Bot, ConversationFields]:
    """The conversation at another process."""

    async def nothing(call: AsyncCall) -> None:
        await call.until(lambda: call.states[-1] == "idle", "idle")

    bot = Bot(greeting="Hello.")
    call = run_offline(bot.build, script or nothing, fields=parse(fields.to_fields()))
    return bot, call.record.fields


@pytest.mark.slow
def test_a_conversation_that_goes_on_remembers_its_questions_answers_and_what_was_heard() -> None:
    async def script(call: AsyncCall) -> None:
        await greeted(call)
        await asked(call, "when are you open")
        await call.types("and on sunday")
        await call.until(lambda: call.states[-1] == "speaking", "the answer")
        await asyncio.sleep(1)
        await call.sends(UserSpeaking(confidence=1.0))  # cut
        await asked(call, "stop")

    here = Bot(greeting="Hello.")
    fields = run_offline(here.build, script).record.fields
    there, _ = continued(fields)
    assert there.told == here.told
    contents = [content for _, content in there.told]
    assert contents[:2] == ["Be brief.", "Hello."]
    assert [content for role, content in there.told if role == "user"] == ["when are you open", "and on sunday", "stop"]
    assert sum(INTERRUPTED in content for content in contents) == 1


@pytest.mark.slow
def test_a_question_whose_answer_was_cut_unheard_is_remembered_once() -> None:
    async def script(call: AsyncCall) -> None:
        await greeted(call)
        await call.types("when are you open")
        await call.until(lambda: call.states[-1] == "thinking", "thinking")
        await call.sends(UserSpeaking(confidence=1.0))
        await asked(call, "on sunday")

    here = Bot(greeting="Hello.")
    fields = run_offline(here.build, script).record.fields
    there, _ = continued(fields)
    assert there.told == here.told
    assert [content for role, content in there.told if role == "user"] == ["when are you open on sunday"]


@pytest.mark.slow
@pytest.mark.parametrize("is_cut", [False, True])
def test_a_reply_that_goes_on_is_remembered_whole(is_cut: bool) -> None:
    async def script(call: AsyncCall) -> None:
        if is_cut:
            await call.until_heard(200)
            await call.sends(UserSpeaking(confidence=1.0))
        await asyncio.sleep(5)

    history = [{"turn_id": 6, "question": "who", "text": "Us.", "heard": "Us.", "interrupted": False}]
    fields = ConversationFields(
        state="speaking", turn_id=7, text_buffer=["when"], llm_response=ANSWER, heard="We open at nine. On Sunday",
        is_complete=True, history=history,
    )  # fmt: skip
    there, after = continued(fields, script)
    assert there.told[1:4] == [("user", "who"), ("assistant", "Us."), ("user", "when")]
    role, answer = there.told[4]
    assert role == "assistant"
    assert answer.startswith("We open at nine. On") if is_cut else answer == ANSWER
    assert (INTERRUPTED in answer) is is_cut
    assert after.history[-1]["question"] == "when"


def test_the_stored_messages_are_read_as_turns_whatever_they_hold() -> None:
    history = [
        {"turn_id": 1, "question": "", "text": "Hello.", "heard": "Hello.", "interrupted": False},
        {"turn_id": 2, "text": "An older version's.", "heard": "", "interrupted": False},
        {"turn_id": 3, "question": "", "text": "Unheard.", "heard": "", "interrupted": True},
        {"turn_id": 4, "question": "why", "text": "Because it is so.", "heard": "Because", "interrupted": True},
        {"turn_id": "5", "question": "why", "text": "x"},
        {"turn_id": 6, "question": ["why"], "text": "x"},
        {},
    ]
    assert resumption_of(ConversationFields(history=history)).exchanges == (
        Exchange(1, "", "Hello.", False),
        Exchange(2, "", "An older version's.", False),
        Exchange(4, "why", "Because", True),
    )


def test_what_is_recalled_is_bounded_as_what_was_said_here() -> None:
    history = [{"turn_id": n, "question": f"q{n}", "text": f"a{n}", "interrupted": False} for n in range(50)]
    memory = ChatMemory(LLMContext(), max_messages=4)
    memory.recall(resumption_of(ConversationFields(history=history)))
    assert [m["content"] for m in memory.context.get_messages()] == ["q48", "a48", "q49", "a49"]  # type: ignore[index]
    memory.recall(None)
    assert len(memory.context.get_messages()) == 4


def test_an_earlier_conversation_that_was_speaking_is_adopted_with_its_question() -> None:
    record = ConversationRecord("s")
    record.adopt(ConversationFields(state="speaking", turn_id=3, text_buffer=["when", "then"], llm_response="At nine."))
    assert record.fields.history[0]["question"] == "when then"
