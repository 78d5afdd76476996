"""The embedded retriever: real files, a real index."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger

from leibniz_voice.pipeline.errors import ConfigurationError, StoreError
from leibniz_voice.pipeline.frames import UserTurnFrame
from leibniz_voice.pipeline.services import RetrievalResult, Retriever
from leibniz_voice.processors.embedded.retrieval.markdown import split_markdown
from leibniz_voice.processors.retrieval import Refreshed, SqliteRetriever

FILES = {
    "hours.md": "# Opening hours\n\nWe are open from nine to six.\n",
    "tents.md": "# Tents\n\nWe sell **tents** for [two people](http://x.y).\n\n## Winter tents\n\n- Four poles.\n",
    "deep/rental.md": "You can rent a bicycle for a day.\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "passages"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def synonyms(tmp_path: Path) -> Path:
    path = tmp_path / "synonyms.txt"
    path.write_text("# comment\nbicycle, bike\nrent, hire, get on loan  # behind it too\n\n", encoding="utf-8")
    return path


def ask(retriever: SqliteRetriever, text: str) -> RetrievalResult:
    return asyncio.run(retriever.retrieve(text))


def test_the_context_is_the_best_passage_without_its_heading(folder: Path) -> None:
    result = ask(SqliteRetriever(folder=folder), "What are your opening hours?")
    assert result.context == "We are open from nine to six."
    assert result.results[0].title == "Opening hours"
    assert result.results[0].source == "hours.md"
    assert result.results[0].score > 0


def test_each_section_is_a_passage_that_can_be_spoken(folder: Path) -> None:
    retriever = SqliteRetriever(folder=folder)
    assert ask(retriever, "winter tents").context == "Four poles."
    assert ask(retriever, "tents for two people").context == "We sell tents for two people."


def test_words_are_found_in_other_forms(folder: Path) -> None:
    assert ask(SqliteRetriever(folder=folder), "when does it open").context == "We are open from nine to six."


def test_results_are_at_most_top_best_first(folder: Path) -> None:
    for number in range(5):
        (folder / f"{number}.md").write_text("A tent " * (number + 1), encoding="utf-8")
    scores = [passage.score for passage in ask(SqliteRetriever(folder=folder), "tent").results]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert len(ask(SqliteRetriever(folder=folder, top=1), "tent").results) == 1


@pytest.mark.parametrize("text", ["hire a bike", "rent bikes", "can i get on loan a bike"])
def test_synonyms_find_the_passage_that_lacks_the_word(folder: Path, synonyms: Path, text: str) -> None:
    assert ask(SqliteRetriever(folder=folder, synonyms=synonyms), text).context == "You can rent a bicycle for a day."
    assert ask(SqliteRetriever(folder=folder), "hire a bike") == RetrievalResult([], "")


@pytest.mark.parametrize("text", ["", "   ", "how do you do it", "what is the capital of france", "(unclear)", "***"])
def test_nothing_that_fits_is_an_empty_result(folder: Path, text: str) -> None:
    assert ask(SqliteRetriever(folder=folder), text) == RetrievalResult([], "")


def test_one_word_in_common_is_too_little_of_a_longer_question(folder: Path) -> None:
    text = "nine famous green elephants"
    assert ask(SqliteRetriever(folder=folder), text) == RetrievalResult([], "")
    assert ask(SqliteRetriever(folder=folder, min_coverage=0.0), text).context == "We are open from nine to six."


@pytest.mark.parametrize(
    "text", ['tents" OR title:*', "tents) NOT (tents", "NEAR(tents)", "tents*^", "'; DROP TABLE f"]
)
def test_no_text_is_read_as_an_operator(folder: Path, text: str) -> None:
    retriever = SqliteRetriever(folder=folder, min_coverage=0.0)
    ask(retriever, text)
    assert ask(retriever, "winter tents").context == "Four poles."


def test_any_text_gets_an_answer_without_a_warning(folder: Path, synonyms: Path) -> None:
    retriever = SqliteRetriever(folder=folder, synonyms=synonyms, min_coverage=0.0)
    warnings: list[str] = []

    @settings(max_examples=200, deadline=None)
    @given(st.text(max_size=80))
    def asked(text: str) -> None:
        assert isinstance(ask(retriever, text), RetrievalResult)

    sink = logger.add(warnings.append, level="WARNING")
    asked()
    logger.remove(sink)
    assert warnings == []


def test_a_foreign_database_keeps_its_tables(folder: Path, tmp_path: Path) -> None:
    database = tmp_path / "theirs.db"
    with sqlite3.connect(database) as theirs:
        theirs.executescript("CREATE TABLE files (name TEXT); INSERT INTO files VALUES ('kept')")
    SqliteRetriever(folder=folder, database=database).close()
    assert theirs.execute("SELECT name FROM files").fetchall() == [("kept",)]
    theirs.close()


def test_a_changed_folder_is_read_again_only_where_it_changed(folder: Path) -> None:
    retriever = SqliteRetriever(folder=folder)
    assert retriever.refresh() == Refreshed()
    (folder / "hours.md").write_text("# Opening hours\n\nWe are open all day.\n", encoding="utf-8")
    (folder / "tents.md").unlink()
    (folder / "new.md").write_text("Helmets cost forty euros.", encoding="utf-8")
    assert retriever.refresh() == Refreshed(added=1, changed=1, removed=1)
    assert ask(retriever, "opening hours").context == "We are open all day."
    assert ask(retriever, "helmets").context == "Helmets cost forty euros."
    assert ask(retriever, "winter tents") == RetrievalResult()


def test_a_new_time_alone_counts_as_a_change(folder: Path) -> None:
    retriever = SqliteRetriever(folder=folder)
    os.utime(folder / "hours.md", ns=(1, 1))
    assert retriever.refresh() == Refreshed(changed=1)
    assert len(ask(retriever, "opening hours").results) == 1


def test_an_index_on_disk_is_used_again(folder: Path, tmp_path: Path) -> None:
    database = tmp_path / "index.db"
    SqliteRetriever(folder=folder, database=database).close()
    again = SqliteRetriever(folder=folder, database=database)
    assert again.refresh() == Refreshed()
    assert ask(again, "opening hours").context == "We are open from nine to six."


def test_an_index_of_another_version_is_built_anew(folder: Path, tmp_path: Path) -> None:
    database = tmp_path / "index.db"
    with sqlite3.connect(database) as old:
        old.executescript("CREATE TABLE leibniz_files (old TEXT); PRAGMA user_version = 99")
    old.close()
    assert ask(SqliteRetriever(folder=folder, database=database), "opening hours").context


def test_a_file_that_cannot_be_read_leaves_the_index_as_it_was(folder: Path) -> None:
    retriever = SqliteRetriever(folder=folder)
    (folder / "hours.md").unlink()
    (folder / "wrong.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match=r"wrong\.md: cannot be read as UTF-8"):
        retriever.refresh()
    assert ask(retriever, "opening hours").context == "We are open from nine to six."


def test_what_cannot_work_is_refused_with_the_place(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere: no such folder"):
        SqliteRetriever(folder=tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        SqliteRetriever(folder=folder, synonyms=tmp_path / "none.txt")
    with pytest.raises(ConfigurationError, match="min_coverage"):
        SqliteRetriever(folder=folder, min_coverage=2.0)
    (tmp_path / "s.txt").write_text("a, b\nalone\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"s\.txt, line 2: needs two or more"):
        SqliteRetriever(folder=folder, synonyms=tmp_path / "s.txt")
    (tmp_path / "no.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="delete it"):
        SqliteRetriever(folder=folder, database=tmp_path / "no.db")


def test_after_close_nothing_is_found(folder: Path) -> None:
    retriever = SqliteRetriever(folder=folder)
    retriever.close()
    assert ask(retriever, "opening hours") == RetrievalResult()


def test_a_long_section_is_cut_between_sentences(folder: Path) -> None:
    (folder / "long.md").write_text("# Saddles\n\n" + "A saddle is made of leather. " * 100, encoding="utf-8")
    results = ask(SqliteRetriever(folder=folder), "leather saddle").results
    assert len(results) == 3
    assert all(len(passage.text) <= 1200 and passage.text.endswith("leather.") for passage in results)


def test_a_long_section_is_cut_between_the_sentences_of_its_script() -> None:
    chinese = "\u978d\u5ea7\u662f\u76ae\u7684\u3002" * 400
    pieces = [text for _, text in split_markdown(chinese, title="x")]
    assert [len(piece) for piece in pieces] == [1200, 1200]
    dutch = "Zadels zijn er v.a. 9 euro, d.w.z. bijna gratis, bij Dr. Jansen. " * 40
    assert all(text.endswith("Jansen.") for _, text in split_markdown(dutch, title="x"))


def test_it_answers_a_turn_as_a_branch_does(folder: Path) -> None:
    retriever = SqliteRetriever(folder=folder)
    assert isinstance(retriever, Retriever)
    result = asyncio.run(retriever(UserTurnFrame(turn_id=1, text="opening hours")))
    assert json.loads(json.dumps(result.as_json()))["results"][0]["title"] == "Opening hours"
