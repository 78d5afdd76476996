"""The phrases of the embedded recogniser: into dictionary words, and a clear word where that cannot be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from leibniz_voice.bots.content import load_intents
from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.processors.embedded.recogniser.phrases import (
    dictionary_of,
    normalise_phrase,
    number_words,
    phrase_book,
)
from leibniz_voice.processors.stt import EmbeddedSTT
from tests.support.tools import needs

pytestmark = needs("pocketsphinx")


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("Where's my order #12?", "where's my order twelve"),
        ("Do you ship to the U.K.?", "do you ship to the u k"),
        ("The 2nd, the 20th & the 31st", "the second the twentieth and the thirty first"),
        ("It\u2019s $42.50 -- 10% off!", "it's forty two point five zero dollars ten percent off"),
        ("A caf\u00e9, 'quoted'", "a cafe quoted"),
        ("1,250 items", "one thousand two hundred fifty items"),
    ],
)
def test_phrases_are_brought_into_the_words_of_the_dictionary(written: str, normal: str):
    assert normalise_phrase(written) == normal


def test_long_numbers_are_read_digit_by_digit():
    assert number_words(0) == "zero"
    assert number_words(999_999) == "nine hundred ninety nine thousand nine hundred ninety nine"
    assert number_words(1_000_000) == "one zero zero zero zero zero zero"


def test_a_phrase_is_answered_as_it_was_listed_first():
    assert phrase_book(["Stop!", "stop"]) == {"stop": "Stop!"}


@pytest.mark.parametrize("wrong", [[], "one phrase", ["?!"], ["word " * 50]])
def test_a_list_that_cannot_be_heard_is_refused(wrong: Any):
    with pytest.raises(ConfigurationError):
        phrase_book(wrong)


def test_a_word_without_a_pronunciation_is_named_with_its_phrase():
    with pytest.raises(ConfigurationError, match=r"'xqzzy' in the phrase 'Open Xqzzy'"):
        EmbeddedSTT(phrases=["Open Xqzzy"])


def test_a_word_of_a_bots_content_is_named_with_its_file_and_table(tmp_path: Path):
    path = tmp_path / "intents.toml"
    path.write_text("[repair]\nphrases = ['mend my xqzzy']\n")
    where = (
        rf"^{re.escape(str(path))}, \[repair\] phrases: .*'xqzzy' in the phrase 'mend my xqzzy'.*; use another word$"
    )
    with pytest.raises(ConfigurationError, match=where):
        EmbeddedSTT(phrases=[phrase for intent in load_intents(path) for phrase in intent.phrases])


def test_a_pronunciation_that_is_given_goes_before_the_dictionary(tmp_path: Path):
    path = tmp_path / "words.dict"
    path.write_text("a AH\na(2) EY\nab AE B\n")
    lines = dictionary_of({"a ab x": "A ab x"}, {"X": "EH K S", "ab": "B"}, path)
    assert lines == ["a AH", "a(2) EY", "ab B", "x EH K S"]
