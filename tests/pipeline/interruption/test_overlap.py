"""`Overlap`: what is held, for how long, and who ends it. The policy's numbers are test_bargein.py's."""

from __future__ import annotations

import pytest

from leibniz_voice.pipeline.interruption.overlap import Overlap
from leibniz_voice.pipeline.interruption.policy import BargeInPolicy, Decision
from leibniz_voice.pipeline.states import State

NOTHING, PAUSE, RESUME, INTERRUPT = Decision.NOTHING, Decision.PAUSE, Decision.RESUME, Decision.INTERRUPT
AWAIT = Decision.AWAIT
VOICE, SILENCE = (0.9, 64.0, 0.0), (0.1, 0.0, 0.0)  # a chunk each: confidence, speech ms, dB above usual


def overlap(*, has_recogniser: bool = True, state: State = State.SPEAKING) -> Overlap:
    """Of a bot that speaks."""
    made = Overlap(BargeInPolicy())
    made.has_recogniser, made.state = has_recogniser, state
    return made


def test_a_blip_that_no_recogniser_listens_to_ends_with_its_silence() -> None:
    here = overlap()
    assert [here.on_speech(*VOICE), here.on_speech(*SILENCE)] == [PAUSE, RESUME]
    assert not here.is_holding


def test_speech_is_held_until_the_recogniser_has_spoken() -> None:
    here = overlap()
    here.on_start()
    assert [here.on_speech(*VOICE), here.on_speech(*SILENCE)] == [PAUSE, AWAIT]
    assert here.is_holding
    assert here.is_waiting
    assert here.on_words("okay", is_final=True) is RESUME
    assert not here.is_holding


def test_words_that_are_not_final_end_no_wait() -> None:
    here = overlap()
    here.on_start()
    here.on_speech(*VOICE)
    here.on_speech(*SILENCE)
    assert here.on_words("okay", is_final=False) is NOTHING
    assert here.on_words("okay stop", is_final=False) is INTERRUPT
    assert here.is_holding  # until the reply is cut
    assert not here.is_waiting


def test_a_recogniser_that_was_quicker_than_the_detector_is_not_awaited() -> None:
    here = overlap()
    here.on_start()
    here.on_speech(*VOICE)
    assert here.on_words("mhm", is_final=True) is NOTHING
    assert here.on_speech(*SILENCE) is RESUME


def test_speech_that_goes_on_ends_the_wait_and_nothing_else() -> None:
    here = overlap()
    here.on_start()
    here.on_speech(*VOICE)
    here.on_speech(*SILENCE)
    assert here.on_speech(*VOICE) is NOTHING
    assert not here.is_waiting
    assert here.is_holding
    assert here.on_verdict() is NOTHING  # of the first word; the second is going on


def test_the_verdict_on_a_word_before_is_none_on_this_one() -> None:
    here = overlap()
    here.on_start()
    here.on_speech(*VOICE)
    here.on_speech(*SILENCE)
    here.on_start()
    here.on_speech(*VOICE)
    assert here.on_words("mhm", is_final=True) is NOTHING  # the first one
    assert here.on_speech(*SILENCE) is AWAIT
    assert here.on_words("mhm okay", is_final=True) is RESUME


def test_two_words_that_are_over_are_both_awaited() -> None:
    here = overlap()
    for _ in range(2):
        here.on_start()
        here.on_speech(*VOICE)
        here.on_speech(*SILENCE)
    assert here.on_verdict() is NOTHING
    assert here.on_verdict() is RESUME


def test_a_turn_settles_all_that_was_said() -> None:
    here = overlap()
    here.on_start()
    here.on_start()
    here.on_settled()
    assert [here.on_speech(*VOICE), here.on_speech(*SILENCE)] == [PAUSE, RESUME]


def test_sounds_without_any_verdict_are_no_more_than_one_in_arrears() -> None:
    here = overlap()
    for _ in range(9):
        here.on_start()
    here.on_speech(*VOICE)
    here.on_speech(*SILENCE)
    assert [here.on_verdict(), here.on_verdict()] == [NOTHING, RESUME]


def test_without_a_recogniser_nobody_is_awaited() -> None:
    here = overlap(has_recogniser=False)
    here.on_start()
    assert [here.on_speech(*VOICE), here.on_speech(*SILENCE)] == [PAUSE, RESUME]


def test_words_of_the_question_are_not_awaited_during_the_answer() -> None:
    here = overlap()
    here.on_start()
    here.on_settled()
    assert [here.on_speech(*VOICE), here.on_speech(*SILENCE)] == [PAUSE, RESUME]


@pytest.mark.parametrize("is_protected", [False, True])
def test_a_bot_that_thinks_is_not_held(is_protected: bool) -> None:
    here = overlap(state=State.THINKING)
    here.is_protected = is_protected
    assert here.on_speech(*VOICE) is NOTHING
    assert not here.is_holding


def test_protected_speech_hears_nothing() -> None:
    here = overlap()
    here.is_protected = True
    assert here.on_speech(*VOICE) is NOTHING
    assert here.on_words("stop it now", is_final=True) is NOTHING
    assert here.on_client_says(1.0) is NOTHING
    assert not here.is_holding


def test_a_microphone_that_is_turned_off_in_a_word_holds_the_bot_no_longer() -> None:
    here = overlap()
    here.on_start()
    here.on_speech(*VOICE)
    assert here.on_time() is RESUME
    assert here.on_time() is NOTHING


def test_what_is_over_is_forgotten() -> None:
    here = overlap()
    here.on_start()
    here.on_speech(*VOICE)
    here.on_speech(*SILENCE)
    here.forget()
    assert here.on_verdict() is NOTHING
