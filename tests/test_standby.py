"""When the embedded recogniser speaks up for the one in front of it."""

from __future__ import annotations

import pytest

from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.standby import Standby


def test_words_in_time_keep_the_stand_in_quiet():
    standby = Standby(is_down=lambda: False, patience_s=1.5)
    standby.on_started()
    assert standby.wait_s == 1.5
    assert standby.on_words(is_final=False)
    assert standby.on_words(is_final=True)
    assert not standby.takes(standby.utterance)


def test_an_interim_result_alone_is_no_answer():
    standby = Standby(is_down=lambda: False)
    standby.on_started()
    assert standby.on_words(is_final=False)
    assert standby.takes(1)


def test_words_that_come_after_the_stand_ins_are_dropped_until_the_next_utterance():
    standby = Standby(is_down=lambda: False)
    standby.on_started()
    assert standby.takes(1)
    assert not standby.on_words(is_final=True)
    standby.on_started()
    assert standby.on_words(is_final=True)
    assert not standby.takes(2)


def test_an_utterance_is_answered_for_although_the_next_one_has_begun():
    standby = Standby(is_down=lambda: False)
    standby.on_started()
    standby.on_started()
    assert standby.takes(1)
    assert standby.on_words(is_final=True), "of the second one"
    assert not standby.takes(2)


def test_one_that_is_down_is_not_waited_for():
    down = [True]
    standby = Standby(is_down=lambda: down[0])
    assert standby.wait_s == 0.0
    down[0] = False
    assert standby.wait_s > 0.0


def test_a_patience_of_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="patience_s is 0"):
        Standby(is_down=lambda: False, patience_s=0)
