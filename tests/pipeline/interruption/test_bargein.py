"""`BargeInPolicy`: every kind of input, and the decision it must give."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.interruption.policy import BargeInPolicy, Decision, Stance
from leibniz_voice.pipeline.listening.loudness import QUIET_DB
from leibniz_voice.pipeline.states import State

NOTHING, PAUSE, RESUME, INTERRUPT = Decision.NOTHING, Decision.PAUSE, Decision.RESUME, Decision.INTERRUPT
AWAIT = Decision.AWAIT
POLICY = BargeInPolicy()  # confidence 0.7, pause at 0.2, confirm 250 ms (1,200 with words), quiet -5.5 dB, faint -25 dB
NEVER, ALWAYS = BargeInPolicy(stance=Stance.NEVER), BargeInPolicy(stance=Stance.ALWAYS)

# Each band of an input, with values inside it and at its edges.
CONFIDENCES = {"none": (0.0, 0.2), "hint": (0.201, 0.5, 0.7), "sure": (0.701, 1.0)}
LENGTHS = {
    "silent": (0.0, -1.0),
    "short": (0.1, 32.0, 249.9),
    "long": (250.0, 251.0, 1199.9),
    "endless": (1200.0, 5000.0),
}
LEVELS = {"user": (20.0, 0.0, -QUIET_DB), "quiet": (-QUIET_DB - 0.01, -12.0, -25.0), "faint": (-25.01, -60.0)}
EARS = {  # who listens besides the detector -> arguments
    "nobody": {},
    "recogniser": {"has_words": True, "is_awaited": True},
    "recogniser that has spoken": {"has_words": True},
}

# (length, level, confidence) -> (decision while playing, decision while paused), where nobody else listens
TABLE = {
    ("short", "user", "none"): (NOTHING, NOTHING),
    ("short", "user", "hint"): (PAUSE, NOTHING),
    ("short", "user", "sure"): (PAUSE, NOTHING),
    ("short", "quiet", "none"): (NOTHING, NOTHING),
    ("short", "quiet", "hint"): (PAUSE, NOTHING),
    ("short", "quiet", "sure"): (PAUSE, NOTHING),
    ("short", "faint", "none"): (NOTHING, NOTHING),
    ("short", "faint", "hint"): (NOTHING, NOTHING),
    ("short", "faint", "sure"): (NOTHING, NOTHING),
    **{
        (length, "user", sure): decisions
        for length in ("long", "endless")
        for sure, decisions in {
            "none": (NOTHING, NOTHING),
            "hint": (PAUSE, NOTHING),
            "sure": (INTERRUPT, INTERRUPT),
        }.items()
    },
    **{
        (length, level, sure): (NOTHING, RESUME)
        for length in ("long", "endless")
        for level in ("quiet", "faint")
        for sure in CONFIDENCES
    },
    **{("silent", level, sure): (NOTHING, RESUME) for level in LEVELS for sure in CONFIDENCES},
}
# What differs where a recogniser listens: it is given the time to tell words, and the last word.
WITH_WORDS = {("long", "user", "sure"): (PAUSE, NOTHING)}
UNTIL_IT_HAS_SPOKEN = {("silent", level, sure): (NOTHING, AWAIT) for level in LEVELS for sure in CONFIDENCES}
TABLES = {
    "nobody": TABLE,
    "recogniser": TABLE | WITH_WORDS | UNTIL_IT_HAS_SPOKEN,
    "recogniser that has spoken": TABLE | WITH_WORDS,
}


def test_the_table_has_every_combination() -> None:
    assert set(TABLE) == set(product(LENGTHS, LEVELS, CONFIDENCES))
    assert set(TABLES) == set(EARS)


def decisions(policy: BargeInPolicy, row: tuple[str, str, str], is_paused: bool, **more: bool) -> set[Decision]:
    """All that a policy decides within a row."""
    length, level, sure = row
    return {
        policy.on_speech(confidence, speech_ms, is_paused, level_db, **more)
        for speech_ms, level_db, confidence in product(LENGTHS[length], LEVELS[level], CONFIDENCES[sure])
    }


@pytest.mark.parametrize("ears", EARS)
def test_speech_is_decided_by_the_table(ears: str) -> None:
    for row, wanted in TABLES[ears].items():
        assert decisions(POLICY, row, False, **EARS[ears]) == {wanted[False]}, row
        assert decisions(POLICY, row, True, **EARS[ears]) == {wanted[True]}, row


@pytest.mark.parametrize("ears", EARS)
def test_nothing_holds_a_bot_that_is_never_interrupted_nor_protected_speech(ears: str) -> None:
    for row in TABLE:
        for policy, protected in ((NEVER, False), (POLICY, True), (ALWAYS, True)):
            assert decisions(policy, row, False, is_protected=protected, **EARS[ears]) == {NOTHING}, row
            assert decisions(policy, row, True, is_protected=protected, **EARS[ears]) == {RESUME}, row


@pytest.mark.parametrize("ears", EARS)
def test_a_bot_that_is_always_interrupted_asks_for_no_confirmation(ears: str) -> None:
    for row, wanted in TABLES[ears].items():
        expected = (INTERRUPT, INTERRUPT) if row[1:] == ("user", "sure") and row[0] != "silent" else wanted
        assert decisions(ALWAYS, row, False, **EARS[ears]) == {expected[False]}, row
        assert decisions(ALWAYS, row, True, **EARS[ears]) == {expected[True]}, row


def test_speech_of_unknown_level_counts_as_the_users() -> None:
    assert POLICY.on_speech(0.9, 250, True) is INTERRUPT


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", NOTHING),
        ("  ", NOTHING),
        ("mhm", NOTHING),
        ("Mm hmm.", NOTHING),
        ("okay", NOTHING),
        ("Uh-huh", NOTHING),
        ("yeah yeah right", NOTHING),
        ("yeah yeah yeah okay", INTERRUPT),  # four are no backchannel any more
        ("stop", INTERRUPT),
        ("okay but wait", INTERRUPT),
        ("no", INTERRUPT),
    ],
)
def test_words_that_are_no_backchannel_interrupt(text: str, wanted: Decision) -> None:
    assert POLICY.on_words(text) is wanted
    assert POLICY.on_words(text, is_protected=True) is NOTHING
    assert NEVER.on_words(text) is NOTHING
    assert ALWAYS.on_words(text) is (INTERRUPT if text.strip() else NOTHING)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("stop", NOTHING), ("stop it", INTERRUPT), ("mhm okay", NOTHING), ("okay but", INTERRUPT), ("", NOTHING)],
)
def test_fewer_words_than_asked_for_do_not_interrupt(text: str, wanted: Decision) -> None:
    assert BargeInPolicy(min_words=2).on_words(text) is wanted


@pytest.mark.parametrize(
    ("confidence", "wanted"), [(1.0, INTERRUPT), (0.71, INTERRUPT), (0.7, NOTHING), (0.0, NOTHING)]
)
def test_the_clients_own_word_counts_above_the_threshold(confidence: float, wanted: Decision) -> None:
    assert POLICY.on_client_says(confidence) is wanted
    assert ALWAYS.on_client_says(confidence) is wanted
    assert POLICY.on_client_says(confidence, is_protected=True) is NOTHING
    assert NEVER.on_client_says(confidence) is NOTHING


@pytest.mark.parametrize("state", State)
def test_a_bot_that_thinks_has_rules_of_its_own_if_it_is_given_some(state: State) -> None:
    thinking = BargeInPolicy(confirm_ms=600)
    policy = BargeInPolicy(thinking=thinking)
    assert policy.while_in(state) is (thinking if state is State.THINKING else policy)
    assert POLICY.while_in(state) is POLICY


def test_a_lower_threshold_is_one_for_the_pause_too() -> None:
    policy = BargeInPolicy(confidence=0.2)
    assert policy.on_speech(0.25, 32, False) is PAUSE


def test_a_pause_can_wait_for_full_confidence() -> None:
    policy = BargeInPolicy(pause_confidence=0.7)
    assert policy.on_speech(0.6, 32, False) is NOTHING
    assert policy.on_speech(0.71, 32, False) is PAUSE


@pytest.mark.parametrize(
    "wrong",
    [
        {"confidence": 1.0},
        {"confidence": -0.1},
        {"pause_confidence": 1.0},
        {"confirm_ms": -1.0},
        {"quiet_ms": -1.0},
        {"patient_ms": -1.0},
        {"verdict_ms": -1.0},
        {"min_words": 0},
        {"thinking": BargeInPolicy(thinking=BargeInPolicy())},
        {"quiet_db": 0.0},
        {"quiet_db": 30.0},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        BargeInPolicy(**wrong)
