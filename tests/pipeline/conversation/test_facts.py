"""The facts of a conversation: one writer each, everybody reads."""

from __future__ import annotations

import ast
import asyncio
import inspect

import pytest

from leibniz_voice.pipeline.conversation.facts import STUCK_S, ConversationFacts
from leibniz_voice.pipeline.conversation.prepared import Prepared
from leibniz_voice.pipeline.conversation.resume import Resumption
from leibniz_voice.pipeline.engine.conductor import Conductor
from leibniz_voice.pipeline.frames import SpeculativeContextFrame
from leibniz_voice.pipeline.listening.words import key_of
from leibniz_voice.pipeline.states import State
from leibniz_voice.pipeline.testing import run_virtual
from tests.support import ROOT

FOLDERS = ("pipeline", "lab", "processors", "transports", "bots")
WRITERS = {  # method of the facts -> the only file that calls it
    "open_conversation": "processors/tracker.py",
    "say_prepares": "processors/responder.py",
    "hold_prepared": "pipeline/reply/preparation.py",
    "commit_turn_id": "processors/turns.py",
    "audio_passed": "processors/gate.py",
    "reply_closed": "processors/gate.py",
    "gate_saw": "processors/gate.py",
    "when_stuck": "pipeline/session.py",
    "await_gate": "pipeline/reply/cuts.py",
    "await_nothing": "pipeline/engine/conductor.py",
}
FACTS = [name for name, member in inspect.getmembers(ConversationFacts) if isinstance(member, property)]


def prepared(facts: ConversationFacts, text: str) -> Prepared:
    frame = SpeculativeContextFrame(turn_id=facts.mint_turn_id(), text=text, answers={})
    return Prepared(frame, key_of(text), 0.0, lambda reason: None)


def test_each_fact_has_one_writer() -> None:
    callers: dict[str, set[str]] = {name: set() for name in WRITERS}
    for path in (p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in callers:
                callers[node.func.attr].add(str(path.relative_to(ROOT)))
    assert callers == {name: {path} for name, path in WRITERS.items()}


@pytest.mark.parametrize("name", FACTS)
def test_a_fact_cannot_be_written_from_outside(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(Conductor(), name, None)


def test_turn_ids_only_grow_also_over_those_of_an_earlier_conversation() -> None:
    facts = ConversationFacts()
    assert facts.mint_turn_id() == 1
    resumption = Resumption(State.LISTENING, turn_id=7)
    facts.open_conversation(session_id="s", turn_id=7, resumption=resumption)
    assert (facts.session_id, facts.turn_id, facts.resumption) == ("s", 7, resumption)
    assert facts.mint_turn_id() == 8
    facts.open_conversation(session_id="s", turn_id=2, resumption=None)
    assert facts.turn_id == 8


@pytest.mark.parametrize(("said", "expected"), [("Where is it?", 1), ("where is that", 2)])
def test_a_commit_takes_the_prepared_replys_id_for_the_same_words_only(said: str, expected: int) -> None:
    facts = ConversationFacts()
    facts.hold_prepared(prepared(facts, "where is it"))
    assert facts.commit_turn_id(said) == expected
    assert facts.prepared is None  # decided about, either way
    assert facts.commit_turn_id(said) == expected + 1


def test_a_commit_does_not_take_the_id_of_a_reply_that_another_turn_has_overtaken() -> None:
    facts = ConversationFacts()
    facts.hold_prepared(prepared(facts, "where is it"))
    facts.mint_turn_id()
    assert facts.commit_turn_id("where is it") == 3


def test_a_reply_that_is_prepared_after_a_commit_is_held() -> None:
    facts = ConversationFacts()
    facts.hold_prepared(prepared(facts, "one"))
    facts.commit_turn_id("two")
    later = prepared(facts, "three")
    facts.hold_prepared(later)
    assert facts.prepared is later
    facts.hold_prepared(None)
    assert facts.prepared is None


@pytest.mark.parametrize(
    ("has_gate", "is_seen", "is_over", "is_told"),
    [(True, False, False, True), (True, True, False, False), (True, False, True, False), (False, False, False, False)],
)
def test_a_conversation_whose_gate_never_sees_the_interruption_is_ended(
    has_gate: bool, is_seen: bool, is_over: bool, is_told: bool
) -> None:
    reasons: list[str] = []

    async def main() -> None:
        facts = ConversationFacts()
        facts.when_stuck(reasons.append)
        if has_gate:
            facts.gate_saw(0)
        facts.await_gate(3)
        if is_seen:
            facts.gate_saw(3)
        if is_over:
            facts.await_nothing()
        await asyncio.sleep(STUCK_S + 0.1)

    run_virtual(main())
    assert [("interruption of turn 3" in reason) for reason in reasons] == [True] * is_told
