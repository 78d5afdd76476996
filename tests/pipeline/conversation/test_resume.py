"""A conversation goes on in another process, from each state that can be stored."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session
from leibniz_voice.pipeline.conversation.resume import resumption_of, split_at_unheard
from leibniz_voice.pipeline.conversation.snapshot import ConversationFields, parse
from leibniz_voice.pipeline.frames import UserTurnFrame
from leibniz_voice.pipeline.testing import AsyncCall, run_offline
from leibniz_voice.processors import EmbeddedTTS, InterruptionGate, Responder, StateTracker, TurnAggregator
from tests.support.serving import bot

BOT = bot("assistant.py")
ANSWER = "We are open all week. On Sunday from ten to four. Come by."


async def to_idle(call: AsyncCall) -> None:
    await call.until_state("idle")


def resumed(fields: ConversationFields, script: Any = to_idle, build: Any = BOT.build) -> AsyncCall:
    """Run `script` on a conversation that begins with stored fields, as a store would give them."""
    return run_offline(build, script, fields=parse(fields.to_fields()))


def test_the_client_learns_the_state_at_once() -> None:
    async def script(call: AsyncCall) -> None:
        await call.until(lambda: call.wire.of_type("state_update"), "state_update")

    call = resumed(ConversationFields(state="listening", turn_id=3, text_buffer=["where is"]), script)
    first = call.wire.of_type("state_update")[0]
    assert (first["state"], first["trigger"], first["turn"]) == ("listening", "resumed", 3)
    assert first["text_buffer"] == ["where is"]


@pytest.mark.parametrize("state", ["listening", "interrupt"])
def test_words_of_an_unfinished_turn_stay_in_front(state: str) -> None:
    async def script(call: AsyncCall) -> None:
        await call.types("is my order")
        await call.until(lambda: call.replies, "reply")

    call = resumed(ConversationFields(state=state, turn_id=3, text_buffer=["where"]), script)
    assert "order" in call.replies[0]
    assert call.record.fields.text_buffer == ["where", "is my order"]
    assert call.record.fields.turn_id == 4


def test_a_pending_fragment_is_replaced_by_the_next_one() -> None:
    async def script(call: AsyncCall) -> None:
        await call.types("where is my order")
        await call.until(lambda: call.replies, "reply")

    fields = ConversationFields(state="listening", text_buffer=["where is my"], is_pending=True)
    assert resumed(fields, script).record.fields.text_buffer == ["where is my order"]


def test_a_turn_whose_end_was_lost_is_ended_by_silence() -> None:
    fields = ConversationFields(state="listening", turn_id=3, text_buffer=["where is my order"])
    call = resumed(fields, lambda call: call.until(lambda: call.replies, "reply"))
    assert "order" in call.replies[0]


def test_idle_goes_on_idle() -> None:
    async def script(call: AsyncCall) -> None:
        await asyncio.sleep(8)
        await call.types("where is my order")
        await call.until(lambda: call.replies, "reply")

    call = resumed(ConversationFields(turn_id=7, turn_number=5), script)
    assert [m["turn"] for m in call.wire.of_type("response_ready")] == [8]


def test_a_thinking_turn_is_answered_again_under_its_id_with_its_keys() -> None:
    asked: list[tuple[int, str, str]] = []

    async def intent(turn: UserTurnFrame) -> IntentResult:
        asked.append((turn.turn_id, turn.text, turn.idempotency_key("intent")))
        return IntentResult("hours", 0.9)

    async def retrieval(turn: UserTurnFrame) -> RetrievalResult:
        return RetrievalResult(context=ANSWER)

    def build(session: Session) -> Pipeline:
        fallback = {"intent": IntentResult(), "retrieval": RetrievalResult()}
        parts = [
            session.input,
            TurnAggregator(),
            Parallel({"intent": intent, "retrieval": retrieval}, fallback=fallback),
        ]
        parts += [Responder(greeting="Hello."), EmbeddedTTS(), InterruptionGate()]
        return Pipeline([*parts, StateTracker(record=session.record), session.output])

    call = resumed(ConversationFields(state="thinking", turn_id=7, text_buffer=["when are you", "open"]), build=build)
    assert asked == [(7, "when are you open", "offline:7:intent")]
    assert call.replies == ["Hours: " + ANSWER]
    assert call.record.fields.turn_number == 1
    assert [m["turn"] for m in call.wire.of_type("response_ready")] == [7]


def test_a_spoken_answer_goes_on_with_its_first_sentence_not_heard_to_the_end() -> None:
    fields = ConversationFields(
        state="speaking", turn_id=7, text_buffer=["when"], llm_response=ANSWER, heard="We are open all week. On Sunday",
        is_complete=True,
    )  # fmt: skip
    call = resumed(fields)
    assert call.replies == ["On Sunday from ten to four. Come by."]
    assert call.record.fields.turn_number == 1
    assert call.record.fields.llm_response == ANSWER
    assert call.record.fields.heard == ANSWER
    assert call.record.fields.history[-1] == {
        "turn_id": 7, "question": "when", "text": ANSWER, "heard": ANSWER, "interrupted": False
    }  # fmt: skip
    assert call.states[1:] == ["speaking", "idle"]


def test_what_was_heard_grows_word_by_word_and_includes_the_other_process() -> None:
    seen: list[str] = []

    async def script(call: AsyncCall) -> None:
        await call.until(lambda: seen.append(call.record.fields.heard) or call.states[-1] == "idle", "idle")

    fields = ConversationFields(
        state="speaking", turn_id=7, text_buffer=["when"], llm_response=ANSWER, heard="We are open all week. On",
        is_complete=True,
    )  # fmt: skip
    resumed(fields, script)
    grown = [text for text in dict.fromkeys(seen) if text]
    assert grown[1].startswith("We are open all week. On")
    assert all(ANSWER.replace(".", "").startswith(text.replace(".", "")) for text in grown)
    assert len(grown) >= 8


def test_an_incomplete_answer_is_asked_for_again() -> None:
    fields = ConversationFields(
        state="speaking", turn_id=7, text_buffer=["where is my order"], llm_response="Your", heard="Your"
    )
    call = resumed(fields)
    assert len(call.replies) == 1
    assert "order" in call.replies[0]
    assert [m["turn"] for m in call.wire.of_type("response_ready")] == [7]
    assert call.record.fields.turn_number == 1


def test_a_resumed_reply_can_be_interrupted() -> None:
    async def script(call: AsyncCall) -> None:
        await call.until_heard(700)
        await call.types("do you sell helmets")
        await call.until_state("idle")

    fields = ConversationFields(
        state="speaking", turn_id=7, text_buffer=["when"], llm_response=ANSWER, is_complete=True
    )
    call = resumed(fields, script)
    cut = next(message for message in call.record.fields.history if message["turn_id"] == 7)
    assert cut["interrupted"]
    assert ANSWER.startswith(cut["heard"])
    assert "helmets" in call.replies[-1]
    assert call.record.fields.turn_number == 1


def test_a_greeting_goes_on_and_counts_as_no_turn() -> None:
    fields = ConversationFields(state="speaking", turn_id=1, llm_response="Hello there. I can help.", is_complete=True)
    call = resumed(fields)
    assert call.record.fields.turn_number == 0
    assert call.states[-1] == "idle"


@pytest.mark.parametrize(
    ("heard", "rest"),
    [
        ("", ANSWER),
        ("We", ANSWER),
        ("We are open all week.", ANSWER),
        ("we are open all week on", "On Sunday from ten to four. Come by."),
        ("We are open all week. On Sunday from ten to four. Come", "Come by."),
        ("We are open all week. On Sunday from ten to four. Come by.", "Come by."),
        ("other words entirely", ANSWER),
    ],
)
def test_a_sentence_is_heard_once_a_word_after_it_has_begun(heard: str, rest: str) -> None:
    said, left = split_at_unheard(ANSWER, heard)
    assert left == rest
    assert f"{said} {left}".strip() == ANSWER


def test_titles_and_decimals_end_no_sentence() -> None:
    assert split_at_unheard("Dr. Smith takes 2.5 hours. Wait here.", "Dr. Smith takes")[0] == ""


CHINESE = "\u6211\u4eec\u5f00\u95e8\u3002\u8bf7\u8fdb\u3002"  # two sentences, the first of 5 characters
PARTS = "We sell parts, e.g. brakes. Ask Inc. owners."
LONG = f"{'word ' * 55}, {'more ' * 40}. End."


@pytest.mark.parametrize(
    ("text", "heard", "said"),
    [
        (PARTS, "We sell parts, e.g. brakes. Ask", "We sell parts, e.g. brakes."),
        (CHINESE, CHINESE[:6], CHINESE[:5]),
        (CHINESE, CHINESE[:5], ""),
        ("Gru\u00df, Fu\u00df, Ma\u00df, Ru\u00df und so. Ja.", "Gru\u00df, Fu\u00df, Ma\u00df, Ru\u00df und so.", ""),
        ("1. Helmets\n2. Gloves\nThat is all.", "1. Helmets 2. Gloves That", "1. Helmets\n2. Gloves"),
        (LONG, f"{'word ' * 55}, more", f"{'word ' * 55},"),
    ],
)
def test_it_goes_on_with_the_sentences_that_the_voice_has(text: str, heard: str, said: str) -> None:
    assert split_at_unheard(text, heard) == (said, text[len(said) :].strip())


def test_every_stored_state_has_a_way_on() -> None:
    for state in ("idle", "listening", "thinking", "speaking", "interrupt"):
        assert resumption_of(ConversationFields(state=state)).state in ("idle", "listening", "thinking", "speaking")
