"""The content of bots/assistant.py, and the errors of its loader."""

from __future__ import annotations

import asyncio
import re
import tomllib
from pathlib import Path

import pytest

import leibniz_voice.bots
from leibniz_voice.bots.content import BotContent, IntentSpec, load_intents
from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.services import IntentResult
from leibniz_voice.processors.intent import KeywordIntent
from leibniz_voice.processors.retrieval import SqliteRetriever

DATA = Path(leibniz_voice.bots.__file__).parent / "assistant_data"
CONTENT = BotContent.load(DATA)
QUESTIONS = tomllib.loads((DATA / "questions.toml").read_text(encoding="utf-8"))
INTENT = KeywordIntent(examples=CONTENT.examples)
RETRIEVER = SqliteRetriever(folder=CONTENT.passages, synonyms=CONTENT.synonyms)

PARAPHRASES = {
    "when are you open": "opening_hours",
    "opening hours please": "opening_hours",
    "where's my order": "order_status",
    "Where is my package?": "order_status",
    "I'd like to return something": "returns",
    "how do I return a bike": "returns",
    "do you rent mountain bikes": "rental",
    "how much does shipping cost": "delivery_cost",
    "can you fix my bike": "repair",
    "hello": "greeting",
    "hi": "greeting",
    "thanks": "thanks",
    "bye": "goodbye",
    "are you open on weekends": "weekend_hours",
    "I want my money back": "refund",
    "can i pay by credit card": "payment",
    "do you sell tents": "tents",
    "which helmet is best": "helmets",
    "I want to speak to a human": "contact",
    "what's your phone number": "contact",
    "where are you located": "location",
    "can I test ride a bike": "test_ride",
    "stop": "stop",
    "is there a guarantee on bikes": "warranty",
    "do you have parking": "parking",
    "what size frame do i need": "bike_size",
    "do you sell gift cards": "gift_cards",
    "please cancel my order": "cancel_order",
    "when will my order be delivered": "order_status",
    "can you repair a flat tire": "repair",
    "how long does shipping take": "delivery_time",
}
FOREIGN = [
    "tell me a joke",
    "how is the weather tomorrow",
    "do you sell pizza",
    "what time is it",
    "play some music",
    "how old are you",
    "can you book a flight for me",
    "turn on the lights",
    "what is your favorite color",
    "i want to order a coffee",
    "who is the president",
    "what is two plus two",
    "do you like dogs",
    "read me the news",
    "where is the train station",
    "translate this for me",
    "is it raining",
    "what is your name",
    "how much does an elephant weigh",
    "can i bring my dog",
    "do you love me",
    "how long is the river",
    "what is the meaning of life",
    "i want to go home",
    "when is the next bus",
]


def answer(text: str) -> str:
    async def both() -> str:
        intent, found = await INTENT.classify(text), await RETRIEVER.retrieve(text)
        return CONTENT.templates.get(intent.label, "{context}").replace("{context}", found.context)

    return asyncio.run(both())


def test_there_is_enough_of_it() -> None:
    assert len(CONTENT.phrases) >= 40
    assert len(CONTENT.intents) >= 20
    assert len(list(CONTENT.passages.glob("*.md"))) >= 20
    assert {"what are your opening hours", "where is my order"} <= set(CONTENT.phrases)
    assert (len(QUESTIONS["listed"]), len(QUESTIONS["unlisted"])) == (30, 10)


@pytest.mark.parametrize("intent", CONTENT.intents, ids=lambda intent: intent.label)
def test_every_phrase_is_its_own_intent_and_finds_an_answer(intent: IntentSpec) -> None:
    for phrase in intent.phrases:
        assert asyncio.run(INTENT.classify(phrase)) == IntentResult(intent.label, 1.0)
        assert answer(phrase)


@pytest.mark.parametrize("intent", [i for i in CONTENT.intents if i.answer is None], ids=lambda intent: intent.label)
def test_all_phrases_of_an_intent_find_the_passage_of_its_name(intent: IntentSpec) -> None:
    for phrase in intent.phrases:
        best = asyncio.run(RETRIEVER.retrieve(phrase)).results[0]
        assert best.source == intent.label.replace("_", "-") + ".md", phrase


@pytest.mark.parametrize(("question", "expected"), QUESTIONS["listed"].items())
def test_every_listed_question_is_answered_rightly(question: str, expected: str) -> None:
    assert question in CONTENT.phrases
    assert expected in answer(question)


@pytest.mark.parametrize("question", [*QUESTIONS["unlisted"], "(unclear)"])
def test_no_unlisted_question_finds_anything(question: str) -> None:
    assert asyncio.run(INTENT.classify(question)) == IntentResult()
    assert asyncio.run(RETRIEVER.retrieve(question)).context == ""


def test_typed_paraphrases_are_understood_or_admitted_not_to_be() -> None:
    """The threshold was chosen on these, so they show that it is sensible, not how good it is elsewhere."""
    labels = {text: asyncio.run(INTENT.classify(text)).label for text in [*PARAPHRASES, *FOREIGN]}
    assert sum(labels[text] == label for text, label in PARAPHRASES.items()) >= 23
    assert {labels[text] for text in FOREIGN} == {"unknown"}
    assert {text for text, label in PARAPHRASES.items() if labels[text] not in (label, "unknown")} == set()


def test_every_word_is_in_the_recognisers_dictionary() -> None:
    pocketsphinx = pytest.importorskip("pocketsphinx")
    path = Path(pocketsphinx.get_model_path()) / "en-us" / "cmudict-en-us.dict"
    known = {line.split(maxsplit=1)[0] for line in path.read_text(encoding="utf-8").splitlines() if line}
    assert {word for phrase in CONTENT.phrases for word in phrase.split()} - known == set()


def test_every_answer_can_be_spoken() -> None:
    texts = [path.read_text(encoding="utf-8").split("\n", 1)[1].strip() for path in CONTENT.passages.glob("*.md")]
    for text in [*texts, *(template for template in CONTENT.templates.values() if template != "{context}")]:
        assert re.fullmatch(r"[A-Z][A-Za-z ,.?\n]+[.?]", text), text
        assert len(re.findall(r"[.?](?:\s|$)", text)) <= 3, text


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ("", r"no intent in it; add a table"),
        ("[a\n", r"is not valid TOML: .*line 1"),
        ("a = 1", r"intents\.toml, a: stands outside of any table"),
        ("[Bad-Name]\nphrases = ['x']", r"\[Bad-Name\]: name an intent in lower case"),
        ("[a]\nanswer = 'x'", r"\[a\] phrases: missing; add phrases = "),
        ("[a]\nphrases = []", r"\[a\] phrases: must be a list with at least one"),
        ("[a]\nphrases = 'x'", r"\[a\] phrases: must be a list"),
        ("[a]\nphrases = [1]", r"\[a\] phrases: 1 must be words in lower case"),
        ("[a]\nphrases = ['Hello?']", r"\[a\] phrases: 'Hello\?' must be words in lower case"),
        ("[a]\nphrases = ['x']\nanswers = 'y'", r"\[a\] answers: unknown key"),
        ("[a]\nphrases = ['x']\nanswer = ' '", r"\[a\] answer: must be a text"),
        ("[a]\nphrases = ['x']\nanswer = '{passage}'", r"\[a\] answer: only {context} can be filled in"),
        ("[a]\nphrases = ['x']\nanswer = '{context'", r"\[a\] answer: braces do not match"),
        ("[a]\nphrases = ['x']\n[b]\nphrases = ['x']", r"\[b\] phrases: \"x\" stands in \[a\] already; keep it in one"),
    ],
)
def test_the_loader_names_the_place_and_the_repair(tmp_path: Path, toml: str, complaint: str) -> None:
    path = tmp_path / "intents.toml"
    path.write_text(toml, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        load_intents(path)
    assert str(path) in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"intents\.toml: cannot be read"):
        load_intents(tmp_path / "intents.toml")
    with pytest.raises(ConfigurationError, match=r"passages: no such folder"):
        BotContent.load(tmp_path)


def test_a_bot_without_synonyms_loads(tmp_path: Path) -> None:
    (tmp_path / "passages").mkdir()
    (tmp_path / "intents.toml").write_text("[a]\nphrases = ['x y', \"don't\"]\nanswer = 'So: {context}'", "utf-8")
    content = BotContent.load(tmp_path)
    assert content.synonyms is None
    assert content.examples == {"a": ["x y", "don't"]}
    assert content.templates == {"a": "So: {context}"}
