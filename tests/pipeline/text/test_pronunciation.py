"""Words that a voice is to say otherwise than they are written, and the way back."""

from __future__ import annotations

import asyncio

import pytest

from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.text.pronunciation import Pronunciation

WORDS = {
    "nguyen": "win",
    "SQL": "sequel",
    "US": "U S",
    "राम": "raam",
    "行": "xing",
    "C++": "C plus plus",
    "a/b": "A or B",
}
SAID = {
    "Nguyen and NGUYEN's.": "win and win's.",
    "SQL, sql and MySQL": "sequel, sql and MySQL",
    "We in the US use us.": "We in the U S use us.",
    "राम। रामा": "raam। रामा",
    "银行行": "银xingxing",
    "C++, or A/B.": "C plus plus, or A or B.",
    "Nothing here": "Nothing here",
    "": "",
}
CODES = {
    "Order AB12-X9 of BMX2000.": "Order A B 1 2 X 9 of B M X 2 0 0 0.",
    "A4, MP3, 1234, USA, abc123": "A4, MP3, 1234, USA, abc123",
}


@pytest.mark.parametrize("text", SAID)
def test_whole_words_are_said_as_the_list_tells(text: str) -> None:
    assert Pronunciation(WORDS).spoken(text).text == SAID[text]


@pytest.mark.parametrize("text", CODES)
def test_codes_are_spelt_if_wanted(text: str) -> None:
    assert Pronunciation(spells=True).spoken(text).text == CODES[text]
    assert Pronunciation().spoken(text).text == text


def test_what_is_spelt_can_be_chosen() -> None:
    assert Pronunciation(spells=r"\d{4,}").spoken("order 12345 of 20").text == "order 1 2 3 4 5 of 20"
    with pytest.raises(ConfigurationError, match="no regular expression"):
        Pronunciation(spells="(")
    with pytest.raises(ConfigurationError, match="empty"):
        Pronunciation({" ": "x"})


def test_the_words_that_were_said_are_the_written_ones_again() -> None:
    spoken = Pronunciation(WORDS, spells=True).spoken("So C++ and Nguyen order AB12, OK")
    words = ["So", "C", "plus", "plus", "and", "win", "order", "A", "B", "1", "2", "OK"]
    written = [spoken.written(word) for word in words]
    assert [word for word in written if word] == ["So", "C++", "and", "Nguyen", "order", "AB12", "OK"]
    assert spoken.written("never") == "never"


def test_a_voice_of_pipecats_may_have_it_as_a_text_transform() -> None:
    assert asyncio.run(Pronunciation(WORDS)("Ask Nguyen.", "sentence")) == "Ask win."
