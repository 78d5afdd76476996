"""The embedded intent: examples in, a label and a confidence out."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.frames import UserTurnFrame
from leibniz_voice.pipeline.services import IntentClassifier, IntentResult
from leibniz_voice.processors.intent import KeywordIntent

EXAMPLES = {
    "opening_hours": ["what are your opening hours", "when do you open"],
    "order_status": ["where is my order", "when will my order arrive"],
    "thanks": ["thank you"],
}


def classify(text: str, **settings: float) -> IntentResult:
    return asyncio.run(KeywordIntent(examples=EXAMPLES, **settings).classify(text))


@pytest.mark.parametrize("text", ["where is my order", "  Where is my ORDER?! ", "(unclear) where is my order."])
def test_an_example_is_its_intent_with_full_confidence(text: str) -> None:
    assert classify(text) == IntentResult("order_status", 1.0)


@pytest.mark.parametrize(
    ("text", "label"),
    [("when are you open", "opening_hours"), ("so where's my order", "order_status"), ("thank you so much", "thanks")],
)
def test_a_similar_text_is_that_intent_with_less_confidence(text: str, label: str) -> None:
    result = classify(text)
    assert result.label == label
    assert 0.5 <= result.confidence < 1.0


@pytest.mark.parametrize("text", ["what is the capital of france", "", "?!", "(unclear)", "\u0000", "42"])
def test_anything_else_is_unknown(text: str) -> None:
    assert classify(text) == IntentResult("unknown", 0.0)


def test_a_question_form_alone_is_no_similarity() -> None:
    assert classify("when do you sing") == IntentResult()


def test_the_threshold_decides_what_is_unknown() -> None:
    assert classify("when are you open", threshold=1.0) == IntentResult()
    assert classify("my river", threshold=0.01).label != "unknown"


def test_it_answers_a_turn_as_a_branch_does() -> None:
    intent = KeywordIntent(examples=EXAMPLES)
    assert isinstance(intent, IntentClassifier)
    assert asyncio.run(intent(UserTurnFrame(turn_id=3, text="thank you"))) == IntentResult("thanks", 1.0)


@given(st.text(max_size=300))
def test_any_text_gets_a_result_within_range(text: str) -> None:
    result = classify(text)
    assert result.label in {*EXAMPLES, "unknown"}
    assert 0.0 <= result.confidence <= 1.0


@pytest.mark.parametrize(
    ("examples", "complaint"),
    [
        ({}, "needs examples"),
        ({"a": []}, "needs examples"),
        ({"a": ["?"]}, "has no words"),
        ({"a": ["hello"], "b": ["Hello!"]}, "example of 'a' and 'b'"),
    ],
)
def test_examples_that_cannot_work_are_refused(examples: dict[str, list[str]], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        KeywordIntent(examples=examples)


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigurationError, match="threshold"):
        KeywordIntent(examples=EXAMPLES, threshold=threshold)


def test_results_read_as_the_contract_writes_them() -> None:
    assert IntentResult().as_json() == {"intent": "unknown", "confidence": 0.0}
    assert IntentResult("thanks", 0.9).as_json() == {"intent": "thanks", "confidence": 0.9}
