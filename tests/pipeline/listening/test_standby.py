"""When the embedded recogniser speaks up for the one in front of it."""

from __future__ import annotations

import pytest
from pipecat.frames.frames import VADUserStoppedSpeakingFrame

from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.listening.standby import Standby
from tests.support.tools import needs


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


def test_late_words_of_an_utterance_that_was_answered_for_are_not_those_of_the_next():
    standby = Standby(is_down=lambda: False)
    standby.on_started()
    standby.on_ended()
    assert standby.takes(1)
    standby.on_started()
    assert standby.on_words(is_final=False), "an interim is of the one that goes on"
    assert not standby.on_words(is_final=True), "of the first one"
    standby.on_ended()
    assert standby.takes(2)


def test_words_are_those_of_the_oldest_utterance_that_has_none():
    standby = Standby(is_down=lambda: False)
    for _ in range(2):
        standby.on_started()
        standby.on_ended()
    assert standby.on_words(is_final=True)
    assert not standby.takes(1)
    assert standby.takes(2)


def test_words_that_never_came_are_not_awaited_longer_than_the_next_utterance():
    """Else one that missed an utterance would be an utterance late for the rest of the conversation."""
    standby = Standby(is_down=lambda: False)
    standby.on_started()
    standby.on_ended()
    assert standby.takes(1)
    standby.on_started()
    standby.on_ended()
    assert standby.on_words(is_final=True)
    assert not standby.takes(2)


def test_late_words_count_where_the_stand_in_had_none():
    standby = Standby(is_down=lambda: False)
    standby.on_started()
    standby.on_ended()
    assert standby.takes(1)
    standby.on_not_understood(1)
    assert standby.on_words(is_final=True)


def test_a_cough_costs_no_words_of_the_next_utterance():
    standby = Standby(is_down=lambda: False)
    standby.on_started()
    standby.on_ended()
    assert standby.takes(1)
    standby.on_not_understood(1)
    standby.on_started()
    assert standby.on_words(is_final=True)
    standby.on_ended()
    assert not standby.takes(2)


def test_one_that_is_down_owes_nothing():
    down = [True]
    standby = Standby(is_down=lambda: down[0])
    standby.on_started()
    standby.on_ended()
    assert standby.takes(1)
    down[0] = False
    standby.on_started()
    assert standby.on_words(is_final=True)
    standby.on_ended()
    assert not standby.takes(2)


def test_all_parts_of_a_long_utterance_are_taken():
    standby = Standby(is_down=lambda: False)
    standby.on_started()
    standby.on_ended()
    assert standby.takes(1)
    standby.on_not_understood(1)
    standby.on_ended()
    assert standby.takes(1)


def test_one_that_is_down_is_not_waited_for():
    down = [True]
    standby = Standby(is_down=lambda: down[0])
    assert standby.wait_s == 0.0
    down[0] = False
    assert standby.wait_s > 0.0


def test_a_patience_of_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="patience_s is 0"):
        Standby(is_down=lambda: False, patience_s=0)


@pytest.mark.slow
@needs("pocketsphinx")
@pytest.mark.parametrize("is_early", [False, True], ids=["at the stop", "in the first silence"])
def test_what_was_said_before_the_first_one_went_down_is_told_first(is_early: bool):
    from ...processors.embedded.recogniser.test_embedded_recogniser import PHRASES, go, own_voice, running

    down = [False]
    first, second = own_voice(PHRASES[0]), own_voice(PHRASES[7])

    async def main() -> None:
        async with running(standby=Standby(is_down=lambda: down[0], patience_s=5.0)) as bot:
            await bot.hear(first, is_told_of_chunks=is_early)
            await bot.after.until(lambda: bot.after.of(VADUserStoppedSpeakingFrame))
            down[0] = True
            await bot.hear(second, is_told_of_chunks=is_early)
            await bot.after.until(lambda: len(bot.after.results) == 2)
            assert bot.after.results == [PHRASES[0], PHRASES[7]]

    go(main)
