"""A stored hash is read whole or refused, and what is written can be read by anybody."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leibniz_voice.pipeline.conversation.snapshot import (
    HISTORY_BYTES,
    ConversationFields,
    DamagedSnapshot,
    parse,
    trim_history,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)
TEXT = st.text(st.characters(codec="utf-8"))
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
CONVERSATIONS = st.builds(
    ConversationFields,
    state=st.sampled_from(["idle", "listening", "thinking", "speaking", "interrupt"]),
    turn_number=st.integers(0, 2**53 - 1),
    turn_id=st.integers(0, 2**53 - 1),
    text_buffer=st.lists(TEXT, max_size=4),
    intent=OBJECT,
    rag_results=OBJECT,
    llm_response=TEXT,
    history=st.lists(OBJECT, max_size=3),
    last_update=st.floats(0, 1e12),
    timestamps=st.dictionaries(TEXT, st.floats(0, 1e12), max_size=3),
)


@given(CONVERSATIONS)
def test_what_is_written_is_read_back(conversation):
    """Every conversation survives the way into the hash and back."""
    assert parse(conversation.to_fields()) == conversation


def test_empty_values_are_the_contracts():
    """A new session's hash shows `{}`, `[]` and an empty text, not null."""
    fields = ConversationFields().to_fields()
    assert fields["state"] == "idle"
    assert fields["turn_number"] == "0"
    assert fields["text_buffer"] == "[]"
    assert fields["intent"] == "{}"
    assert fields["rag_results"] == "{}"
    assert fields["llm_response"] == ""
    assert parse({"state": "idle"}) == ConversationFields()


@given(st.dictionaries(st.sampled_from(list(ConversationFields().to_fields())), st.text(max_size=40)))
def test_any_text_is_read_or_refused(fields):
    """Whatever a hash holds, reading it has two outcomes."""
    try:
        parse({"state": "idle", **fields})
    except DamagedSnapshot as error:
        assert ":" in str(error)  # noqa: PT017 - both outcomes are right


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("state", "sleeping"),
        ("state", ""),
        ("schema", "2"),
        ("turn_number", "-1"),
        ("turn_number", "many"),
        ("turn_id", "1.5"),
        ("text_buffer", '["a", 1]'),
        ("text_buffer", "{}"),
        ("text_buffer", '["a"'),
        ("intent", "[]"),
        ("intent", '{"confidence": NaN}'),
        ("rag_results", "null"),
        ("rag_results", '{"a":' * 100_000),
        ("history", '["text"]'),
        ("last_update", "nan"),
        ("timestamps", '{"idle_to_listening": "noon"}'),
        ("timestamps", '{"idle_to_listening": 1' + "0" * 400 + "}"),
        ("llm_response", "x" * 2_000_000),
    ],
)
def test_damage_is_refused_and_named(field, text):
    """The error names the field, so that a warning can."""
    with pytest.raises(DamagedSnapshot, match=field):
        parse({**ConversationFields().to_fields(), field: text})


def test_unknown_fields_are_no_damage():
    """Others may add fields to the hash."""
    assert parse({"state": "thinking", "shop": "7"}).state == "thinking"


def test_history_keeps_the_newest_messages_within_8_kib():
    """The limit counts bytes, not characters."""
    history = [{"turn_id": turn, "text": "ü" * 500, "heard": "", "interrupted": False} for turn in range(40)]
    stored = ConversationFields(history=history).to_fields()["history"]
    kept = json.loads(stored)
    assert len(stored.encode()) <= HISTORY_BYTES
    assert kept == history[-len(kept) :]
    assert len(trim_history(history)) == len(kept) == 7


@pytest.mark.parametrize("sign", ["x", "ü", "\n", "\U0001f600"])
def test_a_long_answer_that_was_cut_stays_in_the_history_with_what_was_heard(sign):
    """Its text gives way; what was heard of it does only if it is too long by itself."""
    old = {"turn_id": 1, "text": "Yes.", "heard": "Yes.", "interrupted": False}
    long = {"turn_id": 2, "text": sign * 9000, "heard": "Once upon", "interrupted": True}
    stored = ConversationFields(history=[old, long]).to_fields()["history"]
    (kept,) = json.loads(stored)
    assert len(stored.encode()) <= HISTORY_BYTES
    assert (kept["turn_id"], kept["heard"], kept["interrupted"]) == (2, "Once upon", True)
    assert sign * 9000 != kept["text"] == sign * len(kept["text"])
    (kept,) = trim_history([{**long, "heard": "x" * 9000}])
    assert len(json.dumps([kept], ensure_ascii=False).encode()) <= HISTORY_BYTES
    assert kept["heard"]
    assert long["text"] == sign * 9000  # the memory of the conversation keeps all


def test_words_that_utf8_or_json_cannot_hold_do_not_stop_the_rest():
    """A client's lone surrogate becomes a question mark; a NaN from a service empties its field only."""
    conversation = ConversationFields(
        state="thinking", text_buffer=["\ud800 hi"], llm_response="\udfff", rag_results={"score": float("nan")}
    )
    fields = conversation.to_fields()
    assert all(text.encode() is not None for text in fields.values())
    assert parse(fields).text_buffer == ["? hi"]
    assert fields["llm_response"] == "?"
    assert fields["rag_results"] == "{}"
