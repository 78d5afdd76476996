"""`BargeInPolicy`: every kind of input, and the decision it must give."""

from __future__ import annotations

from itertools import product

import pytest

from leibniz_voice.pipeline.bargein import BargeInPolicy, Decision
from leibniz_voice.pipeline.errors import ConfigurationError

NOTHING, PAUSE, RESUME, INTERRUPT = Decision.NOTHING, Decision.PAUSE, Decision.RESUME, Decision.INTERRUPT
POLICY = BargeInPolicy()  # confidence 0.7, pause at 0.35, confirm 250 ms, quiet -7 dB for 250 ms, faint -25 dB

# Each band of an input, with values inside it and at its edges.
CONFIDENCES = {"none": (0.0, 0.35), "hint": (0.351, 0.5, 0.7), "sure": (0.701, 1.0)}
LENGTHS = {"silent": (0.0, -1.0), "short": (0.1, 32.0, 249.9), "long": (250.0, 251.0, 5000.0)}
LEVELS = {"user": (20.0, 0.0, -7.0), "quiet": (-7.01, -12.0, -25.0), "faint": (-25.01, -60.0)}

# (length, level, confidence) -> (decision while playing, decision while paused)
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
    ("long", "user", "none"): (NOTHING, NOTHING),
    ("long", "user", "hint"): (PAUSE, NOTHING),
    ("long", "user", "sure"): (INTERRUPT, INTERRUPT),
    **{("long", level, sure): (NOTHING, RESUME) for level in ("quiet", "faint") for sure in CONFIDENCES},
    **{("silent", level, sure): (NOTHING, RESUME) for level in LEVELS for sure in CONFIDENCES},
}


def test_the_table_has_every_combination() -> None:
    assert set(TABLE) == set(product(LENGTHS, LEVELS, CONFIDENCES))


@pytest.mark.parametrize("row", TABLE, ids="-".join)
def test_speech_is_decided_by_the_table(row: tuple[str, str, str]) -> None:
    length, level, sure = row
    for speech_ms, level_db, confidence in product(LENGTHS[length], LEVELS[level], CONFIDENCES[sure]):
        for is_paused, wanted in enumerate(TABLE[row]):
            got = POLICY.on_speech(confidence, speech_ms, bool(is_paused), level_db)
            assert got is wanted, (confidence, speech_ms, bool(is_paused), level_db)


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


@pytest.mark.parametrize(
    ("confidence", "wanted"), [(1.0, INTERRUPT), (0.71, INTERRUPT), (0.7, NOTHING), (0.0, NOTHING)]
)
def test_the_clients_own_word_counts_above_the_threshold(confidence: float, wanted: Decision) -> None:
    assert POLICY.on_client_says(confidence) is wanted


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
        {"quiet_db": 0.0},
        {"quiet_db": 30.0},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        BargeInPolicy(**wrong)
