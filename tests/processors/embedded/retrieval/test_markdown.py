"""Markdown as passages that can be spoken, and groups of synonyms. What is found with them: test_retrieval.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.processors.embedded.retrieval.markdown import MAX_PASSAGE, load_synonyms, split_markdown, synonym_key
from leibniz_voice.processors.embedded.retrieval.stop_words import FUNCTION_WORDS, MAX_TEXT, normalised


def test_text_before_the_first_heading_is_a_section_with_the_files_title() -> None:
    assert split_markdown("Hello.\n\n# Tents ##\nWe sell them.\n", title="shop") == [
        ("shop", "Hello."),
        ("Tents", "We sell them."),
    ]


def test_a_heading_without_text_makes_no_passage() -> None:
    assert split_markdown("# One\n\n## Two\nText.", title="x") == [("Two", "Text.")]


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("**two** `people` and _one_ more", "two people and one more"),
        ("see [our shop](http://x.y/z) or ![a picture](p.png)", "see our shop or a picture"),
        ("- first\n- second", "first second"),
        ("1. first\n2) second", "first second"),
        ("> said\nby\nsomebody", "said by somebody"),
        ("a snake_case_name stays", "a snake_case_name stays"),
    ],
)
def test_marks_are_removed_so_that_it_can_be_spoken(written: str, spoken: str) -> None:
    assert split_markdown(written, title="x") == [("x", spoken)]


def test_a_long_section_is_cut_between_sentences_and_loses_none() -> None:
    sentences = [f"Sentence number {number} of a long text." for number in range(100)]
    pieces = [text for _, text in split_markdown(" ".join(sentences), title="x")]
    assert len(pieces) > 1
    assert max(map(len, pieces)) <= MAX_PASSAGE
    assert " ".join(pieces) == " ".join(sentences)


def test_a_group_of_synonyms_is_found_by_each_member_and_by_its_plural(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text("Bicycle, bike  # both\n\nbike, cycle\n", encoding="utf-8")
    groups = load_synonyms(path)
    assert groups["bicycle"] == ("bicycle", "bike")
    assert groups[synonym_key(["bikes"])] == ("bicycle", "bike", "cycle")
    assert synonym_key(["glass"]) == "glass"


def test_a_group_of_one_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text("a, b\n# nothing\nalone\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="line 3: needs two or more words"):
        load_synonyms(path)


def test_words_are_compared_without_case_signs_and_a_recognisers_remarks() -> None:
    assert normalised("What's YOUR\u2019s  order (unclear) no. [noise] 12?") == "whats yours order no 12"
    assert len(normalised("a" * 3 * MAX_TEXT)) == MAX_TEXT
    assert all(normalised(word) == word for word in FUNCTION_WORDS)
