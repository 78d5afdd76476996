"""When words are a turn: the pure core of the turn aggregator."""

from __future__ import annotations

import random

import pytest

from leibniz_voice.pipeline.listening.utterance import (
    BEHIND_S,
    UNCLEAR,
    Committed,
    Discarded,
    Started,
    Utterance,
    Words,
)
from leibniz_voice.pipeline.states import State


def test_words_before_the_silence_are_committed_at_the_silence() -> None:
    utterance = Utterance()
    assert utterance.on_speech_started(0) == [Started()]
    assert utterance.on_words("where is", True, 1) == [Words(("where is",), True)]
    assert utterance.on_words("my order", True, 2) == [Words(("where is", "my order"), True)]
    assert utterance.on_speech_stopped(3) == [Committed("where is my order")]


def test_a_final_after_the_silence_commits_at_once() -> None:
    utterance = Utterance()
    utterance.on_speech_started(0)
    assert utterance.on_speech_stopped(1) == []
    assert utterance.on_words("hello", True, 1.2)[-1] == Committed("hello")


def test_a_fragment_replaces_the_one_that_is_pending() -> None:
    utterance = Utterance()
    utterance.on_words("wher", False, 0, is_client=True)
    utterance.on_words("where is", False, 0, is_client=True)
    assert utterance.fragments == ("where is",)
    utterance.on_words("where is it", True, 0, is_client=True)
    utterance.on_words("pl", False, 0, is_client=True)
    assert utterance.on_client_turn_end(1) == [Committed("where is it pl")]


def test_no_word_for_five_seconds_discards() -> None:
    utterance = Utterance()
    utterance.on_speech_started(0)
    utterance.on_speech_stopped(1)
    assert utterance.deadline == 6
    assert utterance.on_deadline(6) == [Discarded("no_words")]
    assert utterance.state is State.IDLE


def test_an_empty_client_turn_is_discarded() -> None:
    utterance = Utterance()
    utterance.on_speech_started(0)
    assert utterance.on_client_turn_end(1) == [Discarded("empty")]


@pytest.mark.parametrize(("voiced_ms", "last"), [(200, Discarded("noise")), (900, Committed(UNCLEAR))])
def test_unclear_speech_is_a_turn_unless_it_was_short(voiced_ms: float, last: object) -> None:
    utterance = Utterance()
    utterance.on_speech_started(0)
    utterance.on_speech_stopped(1)
    assert utterance.on_unclear(voiced_ms, 1.1)[-1] == last


def test_a_late_final_joins_the_turn_that_is_being_answered() -> None:
    utterance = Utterance()
    utterance.on_words("where is my", True, 0, is_client=True)
    utterance.on_client_turn_end(0)
    assert utterance.on_words("order", True, 0.1, is_client=True) == [Committed("where is my order", is_joined=True)]


def test_words_after_a_new_onset_while_thinking_are_a_new_turn_behind_the_unanswered_one() -> None:
    utterance = Utterance()
    utterance.on_words("where is my order", True, 0, is_client=True)
    utterance.on_client_turn_end(0)
    utterance.on_speech_started(0.3)
    utterance.on_cut(False, 0.6)
    assert utterance.fragments == ("where is my order",)
    utterance.on_words("and when", True, 1)
    assert utterance.on_speech_stopped(1.5) == [Committed("where is my order and when")]


def test_the_words_that_interrupt_a_spoken_answer_come_first() -> None:
    utterance = Utterance()
    utterance.on_words("tell me everything", True, 0, is_client=True)
    utterance.on_client_turn_end(0)
    utterance.on_state(State.SPEAKING, 1)
    utterance.on_speech_started(2)
    utterance.on_words("stop", False, 2.2)
    assert utterance.on_cut(True, 2.3) == [Words(("stop",), False)]


def test_a_backchannel_over_the_bot_is_no_turn() -> None:
    utterance = Utterance()
    utterance.on_words("tell me everything", True, 0, is_client=True)
    utterance.on_client_turn_end(0)
    utterance.on_state(State.SPEAKING, 1)
    utterance.on_speech_started(2)
    utterance.on_speech_stopped(2.3)
    assert utterance.on_words("okay", True, 2.5)[-1] == Words((), True)
    assert utterance.fragments == ()


def test_speech_that_began_while_the_reply_ended_takes_the_floor_when_it_is_over() -> None:
    utterance = Utterance()
    utterance.on_words("hello", True, 0, is_client=True)
    utterance.on_client_turn_end(0)
    utterance.on_state(State.SPEAKING, 1)
    utterance.on_speech_started(1.9)
    assert utterance.on_state(State.IDLE, 2)[0] == Started()


def test_words_without_any_speech_detector_are_committed_after_a_pause() -> None:
    utterance = Utterance()
    utterance.on_words("hello there", True, 1)
    assert utterance.deadline == pytest.approx(1.8)
    assert utterance.on_deadline(1.8) == [Committed("hello there")]


@pytest.mark.parametrize("seed", range(200))
def test_every_word_is_in_exactly_one_turn(seed: int) -> None:
    """1,000 orders of finals, speech and cuts; each word said is committed once, or still in the buffer."""
    for case in range(5):
        dice = random.Random(seed * 5 + case)
        utterance, said, turns, now = Utterance(), [], [], 0.0
        for step in range(dice.randrange(4, 40)):
            now += dice.random()
            match dice.randrange(6):
                case 0:
                    actions = utterance.on_speech_started(now)
                case 1:
                    actions = utterance.on_speech_stopped(now)
                case 2 | 3:
                    word = f"w{step}"
                    said.append(word)
                    actions = utterance.on_words(word, True, now)
                case 4 if utterance.state in (State.THINKING, State.SPEAKING):
                    was_heard = utterance.state is State.SPEAKING
                    if not was_heard and turns:
                        turns.pop()
                    actions = utterance.on_cut(was_heard, now)
                case _ if utterance.state is State.THINKING:
                    actions = utterance.on_state(State.SPEAKING, now)
                case _ if utterance.state is State.SPEAKING:
                    actions = utterance.on_state(State.IDLE, now)
                case _:
                    actions = []
            for action in actions:
                if isinstance(action, Committed):
                    words = action.text.split()
                    if turns and turns[-1] and words[: len(turns[-1])] == turns[-1]:
                        turns.pop()  # the unanswered turn goes on in front of this one
                    turns.append(words)
        assert sorted([*(w for turn in turns for w in turn), *" ".join(utterance.fragments).split()]) == sorted(said)


def committed_without_a_final() -> Utterance:
    utterance = Utterance()
    utterance.on_words("where is", True, 0)
    utterance.on_words("my orde", False, 0.1)
    assert utterance.on_deadline(0.9) == [Committed("where is my orde")]
    return utterance


def test_the_late_final_of_a_committed_fragment_is_not_said_twice() -> None:
    utterance = committed_without_a_final()
    assert utterance.on_words("My orde.", True, 1) == []
    utterance.on_state(State.SPEAKING, 1.1)
    utterance.on_state(State.IDLE, 2)
    assert utterance.fragments == ()


def test_the_late_final_of_a_committed_fragment_corrects_it_while_it_can() -> None:
    utterance = committed_without_a_final()
    assert utterance.on_words("my order", True, 1) == [Committed("where is my order", is_joined=True)]


def test_after_the_answer_only_what_a_late_final_says_more_is_news() -> None:
    utterance = committed_without_a_final()
    utterance.on_state(State.SPEAKING, 1)
    utterance.on_state(State.IDLE, 2)
    utterance.on_words("my orde please, now", True, 2.1)
    assert utterance.fragments == ("please, now",)


def test_the_same_words_in_a_new_utterance_are_news() -> None:
    utterance = committed_without_a_final()
    utterance.on_state(State.SPEAKING, 1)
    utterance.on_state(State.IDLE, 2)
    utterance.on_speech_started(3)
    utterance.on_words("my orde", True, 3.5)
    assert utterance.fragments == ("my orde",)


@pytest.mark.parametrize(
    ("voiced_ms", "likeness", "is_turn"),
    [
        (900, "backchannel", False),
        (900, "", True),
        (300, "", False),
        (300, "interjection", True),
        (120, "interjection", False),
    ],
)
def test_what_unclear_speech_sounds_like_decides_over_the_bot(voiced_ms: float, likeness: str, is_turn: bool) -> None:
    utterance = Utterance()
    utterance.state = State.SPEAKING
    utterance.on_speech_started(0)
    utterance.on_speech_stopped(1)
    actions = utterance.on_unclear(voiced_ms, 1.1, likeness)
    assert actions == ([Words((UNCLEAR,), True), Committed(UNCLEAR)] if is_turn else [Discarded("noise")])


def test_a_backchannel_says_nothing_while_the_bot_is_silent() -> None:
    utterance = Utterance()
    utterance.on_speech_started(0)
    utterance.on_speech_stopped(1)
    assert utterance.on_unclear(900, 1.1, "backchannel") == [Discarded("noise")]


def test_the_final_of_a_fragment_that_was_news_replaces_it_and_does_not_join() -> None:
    """The fragment may have cut the turn already, and the cut be on its way: joined, its words would be asked twice."""
    utterance = Utterance()
    utterance.on_words("where is it", True, 0, is_client=True)
    utterance.on_client_turn_end(1)
    utterance.on_words("plea", False, 1.1, is_client=True)
    assert utterance.on_words("please", True, 1.2, is_client=True) == [Words(("please",), True)]
    assert utterance.on_cut(False, 1.3) == [Words(("where is it", "please"), True)]
    assert utterance.on_client_turn_end(1.4) == [Committed("where is it please")]


def due_over_protected_speech() -> Utterance:
    """A complete turn waits for the end of protected speech."""
    utterance = Utterance()
    utterance.state = State.SPEAKING
    utterance.hold(True)
    utterance.on_speech_started(0)
    utterance.on_words("where is", True, 0.5)
    assert utterance.on_speech_stopped(1) == []
    return utterance


def test_a_turn_that_waits_for_protected_speech_is_not_committed_while_the_user_goes_on() -> None:
    utterance = due_over_protected_speech()
    utterance.on_speech_started(2)
    assert utterance.hold(False) == [Words(("where is",), True)]
    utterance.on_words("my parcel", True, 2.5)
    assert utterance.on_speech_stopped(3) == [Committed("where is my parcel")]


def test_a_turn_that_waits_for_a_reply_is_not_committed_while_the_user_goes_on() -> None:
    utterance = due_over_protected_speech()
    utterance.on_speech_started(2)
    utterance.on_state(State.IDLE, 2.2)
    assert utterance.deadline is None
    utterance.on_words("my parcel", True, 2.5)
    assert utterance.on_speech_stopped(3) == [Committed("where is my parcel")]


def test_protected_speech_that_ends_before_the_newest_words_are_final_does_not_end_the_turn() -> None:
    utterance = due_over_protected_speech()
    utterance.on_speech_started(2)
    utterance.on_words("my par", False, 2.5)
    utterance.on_speech_stopped(3)
    assert utterance.hold(False) == [Words(("where is", "my par"), False)]
    assert utterance.on_words("my parcel", True, 3.2)[-1] == Committed("where is my parcel")


def test_a_turn_that_the_client_ended_in_the_hangover_is_committed_when_it_is_over() -> None:
    utterance = Utterance()
    utterance.state = State.SPEAKING
    utterance.hold(True)
    utterance.on_speech_started(0)
    utterance.on_words("where is it", False, 0.5, is_client=True)
    assert utterance.on_client_turn_end(1) == []
    assert utterance.hold(False) == [Words(("where is it",), False)]
    utterance.on_speech_stopped(1.2)
    assert utterance.on_deadline(utterance.deadline or 0) == [Committed("where is it")]


def test_noise_after_a_turn_that_the_client_ended_does_not_open_it_again() -> None:
    utterance = Utterance()
    utterance.state = State.SPEAKING
    utterance.hold(True)
    utterance.on_words("where is it", False, 0.5, is_client=True)
    assert utterance.on_client_turn_end(1) == []
    utterance.on_speech_started(2)
    utterance.on_speech_stopped(2.1)
    assert utterance.hold(False)[-1] == Committed("where is it")


def test_a_complete_turn_is_not_kept_waiting_by_a_cut() -> None:
    utterance = due_over_protected_speech()
    utterance.on_cut(True, 2)
    assert utterance.deadline == 2 + BEHIND_S
    assert utterance.on_deadline(2 + BEHIND_S) == [Committed("where is")]


def test_what_a_client_says_after_the_answer_is_news_even_if_it_repeats_itself() -> None:
    utterance = Utterance()
    utterance.on_words("yes", False, 0, is_client=True)
    assert utterance.on_client_turn_end(0.1) == [Committed("yes")]
    utterance.on_state(State.SPEAKING, 1)
    utterance.on_state(State.IDLE, 2)
    utterance.on_words("yes please", True, 3, is_client=True)
    assert utterance.on_client_turn_end(3.1) == [Committed("yes please")]


@pytest.mark.parametrize("was_heard", [False, True])
def test_words_that_came_too_late_for_a_renewed_turn_are_the_next_one(was_heard: bool) -> None:
    utterance = Utterance()
    utterance.on_words("where is it", False, 0)
    assert utterance.on_deadline(1.0) == [Committed("where is it")]
    utterance.on_words("where is it and when", True, 1.1)
    utterance.on_words("please", True, 1.2)
    utterance.on_cut(was_heard, 1.3)
    utterance.on_renewed("where is it and when")
    assert utterance.fragments == ("please",)
    assert utterance.deadline is not None
    assert utterance.on_deadline(utterance.deadline) == [Committed("where is it and when please")]
