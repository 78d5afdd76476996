"""Words of a user, however many: what a long fragment costs, and what of an endless turn is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from leibniz_voice.pipeline.listening.utterance import MAX_CHARS, Committed, Utterance, Words
from leibniz_voice.pipeline.listening.words import beyond, key_of, newest
from leibniz_voice.pipeline.states import State

TEXTS = st.lists(st.sampled_from(["we", "We,", "don't", "-", "9.30", "où"]), max_size=8).map(" ".join)


@given(TEXTS, TEXTS)
def test_what_a_text_says_beyond_another(start: str, more: str) -> None:
    rest = beyond(start.upper(), f"{start} {more}")
    assert rest is not None
    assert key_of(rest).split() == key_of(more).split()


def test_a_text_that_begins_otherwise_says_nothing_beyond() -> None:
    assert beyond("where is", "where was it") is None


def test_a_late_final_of_very_many_words_is_read_in_one_go() -> None:
    """Word by word from the front, this would take a quarter of an hour, and stop every conversation."""
    text = "a " * 30_000
    utterance = Utterance()
    utterance.on_words(text, False, 0, is_client=True)
    utterance.on_client_turn_end(0)
    utterance.on_state(State.THINKING, 0)
    (joined,) = utterance.on_words(text + "b", True, 0.1, is_client=True)
    assert isinstance(joined, Committed)
    assert joined.text.endswith("a b")


@given(st.lists(st.text("ab ", min_size=1, max_size=9), max_size=6), st.integers(0, 30))
def test_the_newest_words_are_kept(fragments: list[str], most: int) -> None:
    kept = newest(fragments, most)
    assert sum(map(len, kept)) <= most
    assert "".join(fragments).endswith("".join(kept))
    assert kept == fragments or sum(map(len, fragments)) > most


def test_of_an_endless_turn_the_newest_words_are_kept() -> None:
    utterance = Utterance()
    for number in range(400):
        actions = utterance.on_words(f"word{number} " * 50, True, number, is_client=True)
        words = next(action for action in actions if isinstance(action, Words))
        assert sum(map(len, words.fragments)) <= MAX_CHARS
    (turn,) = utterance.on_client_turn_end(400)
    assert isinstance(turn, Committed)
    assert len(turn.text) > MAX_CHARS - 1000
    assert turn.text.split()[-1] == "word399"


def test_of_turns_that_are_cut_again_and_again_the_newest_words_are_put_back() -> None:
    utterance, now = Utterance(), 0.0
    for number in range(100):
        now += 1
        utterance.on_words(f"question{number} " * 50, True, now, is_client=True)
        utterance.on_client_turn_end(now)
        utterance.on_cut(False, now)
        assert sum(map(len, utterance.fragments)) <= MAX_CHARS
    assert utterance.fragments[-1].startswith("question99")
    utterance.on_client_turn_end(now)
    utterance.on_cut(False, now)
    utterance.on_renewed("asked again")
    assert utterance.fragments == ()  # all that was put back is taken back, however much of it was forgotten
