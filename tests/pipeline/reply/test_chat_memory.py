"""What the LLM is told of the conversation: what was heard, bounded, passages only for the newest question."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import uuid
from typing import Any

import pytest
from pipecat.processors.aggregators.llm_context import LLMContext

from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.reply.chat_memory import INTERRUPTED, ChatMemory


def told(memory: ChatMemory) -> list[tuple[str, Any]]:
    return [(message["role"], message.get("content")) for message in memory.context.get_messages()]


def test_passages_stand_with_the_newest_question_only() -> None:
    memory = ChatMemory(LLMContext())
    memory.ask(1, "when", "From nine.")
    assert "From nine." in told(memory)[0][1]
    memory.played(1, "From nine.")
    memory.ask(2, "where", "In Kiel.")
    assert told(memory)[:2] == [("user", "when"), ("assistant", "From nine.")]
    assert "In Kiel." in told(memory)[2][1]


def test_the_passages_of_a_question_that_was_never_answered_go_with_the_next_one() -> None:
    memory = ChatMemory(LLMContext())
    memory.ask(1, "when", "From nine.")
    memory.ask(2, "where", "In Kiel.")
    assert told(memory)[0] == ("user", "when")


def test_a_cut_answer_is_kept_as_far_as_it_was_heard_and_marked() -> None:
    memory = ChatMemory(LLMContext())
    memory.ask(1, "when")
    memory.cut(1, "From nine", was_audible=True)
    assert told(memory) == [("user", "when"), ("assistant", f"From nine {INTERRUPTED}")]


def test_a_question_cut_before_its_answer_was_audible_is_asked_anew_by_the_next_turn() -> None:
    memory = ChatMemory(LLMContext())
    memory.ask(1, "when")
    memory.cut(1, "", was_audible=False)
    memory.ask(2, "when and where")
    assert told(memory) == [("user", "when and where")]


def test_what_a_tool_may_have_done_is_not_forgotten() -> None:
    memory = ChatMemory(LLMContext())
    memory.ask(1, "buy it")
    memory.tool_called(1, "c1", "buy", {"what": "bike"})
    memory.cut(1, "", was_audible=False)
    memory.tool_answered("c1", {"bought": True})
    assert [role for role, _ in told(memory)] == ["user", "assistant", "tool", "assistant"]
    assert told(memory)[2][1] == '{"bought": true}'


def test_words_before_a_tool_call_stand_before_it() -> None:
    memory = ChatMemory(LLMContext())
    memory.ask(1, "price")
    memory.said(1, "Let me see. ")
    memory.tool_called(1, "c1", "price", {})
    assert told(memory)[1] == ("assistant", "Let me see.")
    memory.tool_answered("c1", {"euros": 900})
    memory.said(1, "Let me see.  Nine hundred. And")
    memory.tool_called(1, "c2", "stock", {})
    memory.tool_answered("c2", 3)
    memory.played(1, "Let me see.  Nine hundred. And three are left.")
    said = [content for role, content in told(memory) if role == "assistant" and content]
    assert said == ["Let me see.", "Nine hundred. And", "three are left."]


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        ("", [INTERRUPTED]),
        ("Let me", ["Let me", INTERRUPTED]),
        ("Let me see.", ["Let me see.", INTERRUPTED]),
        ("Let me see. Nine", ["Let me see.", f"Nine {INTERRUPTED}"]),
    ],
)
def test_of_a_cut_answer_round_a_tool_call_each_piece_is_kept_as_heard(heard: str, said: list[str]) -> None:
    memory = ChatMemory(LLMContext())
    memory.ask(1, "price")
    memory.said(1, "Let me see.")
    memory.tool_called(1, "c1", "price", {})
    memory.tool_answered("c1", {"euros": 900})
    memory.cut(1, heard, was_audible=True)
    assert [content for role, content in told(memory) if role == "assistant" and content] == said


def test_a_call_that_is_known_only_after_its_turn_was_cut_brings_its_question_back() -> None:
    memory = ChatMemory(LLMContext())
    memory.ask(1, "buy it")
    memory.cut(1, "", was_audible=False)
    memory.ask(2, "and a coke")
    memory.tool_called(1, "c1", "buy", {})
    assert told(memory) == [("user", "buy it"), ("assistant", None), ("tool", "IN_PROGRESS"), ("user", "and a coke")]


@dataclasses.dataclass
class Table:
    seats: int
    day: datetime.date


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("no words")


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("result", "content"),
    [
        (None, "COMPLETED"),
        ("", "COMPLETED"),
        ("no JSON {", "no JSON {"),
        (False, "false"),
        (0, "0"),
        ([], "[]"),
        ({}, "{}"),
        ({"day": datetime.date(2026, 1, 2)}, '{"day": "2026-01-02"}'),
        (datetime.timedelta(minutes=5), '"0:05:00"'),
        (decimal.Decimal("1.50"), '"1.50"'),
        ({3, 1, 2}, "[1, 2, 3]"),
        ((1, "zwei"), '[1, "zwei"]'),
        (Table(4, datetime.date(2026, 1, 2)), '{"seats": 4, "day": "2026-01-02"}'),
        (b"abc", '"abc"'),
        (uuid.UUID(int=7), f'"{uuid.UUID(int=7)}"'),
        ({(1, 2): "a tuple as key"}, "{(1, 2): 'a tuple as key'}"),
        (CIRCLE, "[[...]]"),
        (Mute(), '"a Mute that cannot be told (RuntimeError)"'),
        (b"\xff", '"a bytes that cannot be told (UnicodeDecodeError)"'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_result_of_any_type_is_told(result: Any, content: str) -> None:
    memory = ChatMemory(LLMContext())
    memory.ask(1, "look")
    memory.tool_called(1, "c1", "look", {})
    memory.tool_answered("c1", result)
    assert told(memory)[-1] == ("tool", content)


def test_the_oldest_turns_go_whole_and_the_instructions_stay() -> None:
    memory = ChatMemory(LLMContext([{"role": "developer", "content": "Be brief."}]), max_messages=4)
    for turn in range(1, 6):
        memory.ask(turn, f"q{turn}")
        memory.tool_called(turn, f"c{turn}", "look", {})
        memory.played(turn, f"a{turn}")
    assert [content for _, content in told(memory)] == ["Be brief.", "q5", None, "IN_PROGRESS", "a5"]


def test_a_long_conversation_is_bounded_in_characters() -> None:
    memory = ChatMemory(LLMContext(), max_chars=1000)
    for turn in range(1, 50):
        memory.ask(turn, "x" * 100)
        memory.played(turn, "y" * 100)
    assert sum(len(content) for _, content in told(memory)) <= 1000


def test_bounds_that_hold_no_turn_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        ChatMemory(LLMContext(), max_messages=1)
