"""What-if: measures of recordings, conditions on them, and replays under other settings."""

from __future__ import annotations

import base64

import pytest

from leibniz_voice.lab.recording.spans import spans_of
from leibniz_voice.lab.replay.compare import failing, table
from leibniz_voice.lab.replay.condition import Condition
from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.testing import Measures, RecordedEvent, Recording, measures_of

NAMES = tuple(Measures().values())


def heard(start: float, end: float) -> list[RecordedEvent]:
    """The bot's audio on the wire, 20 ms at a time."""
    count = round((end - start) / 0.02)
    return [
        RecordedEvent(start + 0.02 * at, "wire", "to_user", "audio", {"rate": 16000, "samples": 320})
        for at in range(count)
    ]


def said(kind: str, start: float, end: float) -> RecordedEvent:
    return RecordedEvent(end, "user", "to_bot", "label", {"kind": kind, "start": start, "end": end})


def moved(at: float, previous: str, state: str, trigger: str) -> RecordedEvent:
    fields = {"previous": previous, "state": state, "trigger": trigger, "turn_id": 1}
    return RecordedEvent(at, "StateTracker", "downstream", "StateChangedFrame", fields)


def told(kind: str, at: float) -> RecordedEvent:
    return RecordedEvent(at, "wire", "to_user", kind, {"turn": 1})


def measured(*events: RecordedEvent | list[RecordedEvent]) -> Measures:
    flat = [each for event in events for each in (event if isinstance(event, list) else [event])]
    return measures_of(Recording(tuple(sorted(flat, key=lambda event: event.at))))


def test_the_response_latency_is_from_the_last_sample_to_the_first_of_the_answer():
    measures = measured(said("turn", 1, 2), heard(2.5, 4), said("turn", 5, 6), heard(6.7, 7), said("turn", 8, 9))
    assert measures.response_latency == pytest.approx(0.6)
    assert measures.values()["response_rate"] == pytest.approx(2 / 3)


def test_an_interruption_is_yielded_to_within_two_seconds():
    quick = measured(heard(1, 2.38), said("turn", 2, 3.5), told("interrupted", 2.4))
    assert quick.yield_latency == pytest.approx(0.38, abs=0.03)
    slow = measured(heard(1, 6), said("turn", 2, 3.5))
    assert (slow.interruptions, slow.values()["yield_rate"], slow.yield_latency) == (1, 0, None)


def test_a_bot_that_begins_while_the_user_speaks_interrupts():
    assert measured(said("turn", 1, 4), heard(2, 3)).agent_interruptions == 1
    assert measured(said("turn", 1, 4), heard(4.1, 5)).agent_interruptions == 0


@pytest.mark.parametrize("kind", ["backchannel", "vocal_tic", "non_directed"])
def test_what_is_to_be_passed_over_may_hold_the_bot_but_not_stop_it(kind):
    assert measured(heard(1, 6), said(kind, 2, 2.3)).selectivity(kind) == 1
    held = measured(heard(1, 2.4), told("pause", 2.1), told("resume", 2.6), heard(2.9, 5), said(kind, 2, 2.3))
    assert held.selectivity(kind) == 1
    assert measured(heard(1, 2.4), told("interrupted", 2.2), said(kind, 2, 2.3)).selectivity(kind) == 0


def test_what_is_not_for_the_bot_must_not_be_answered():
    assert measured(said("vocal_tic", 1, 1.2), heard(2, 3)).selectivity("vocal_tic") == 0
    assert measured(said("backchannel", 1, 1.2), heard(2, 3)).selectivity("backchannel") == 1


def test_a_turn_that_is_ended_in_a_pause_is_cut_off():
    end = moved(1.6, "listening", "thinking", "vad_end")
    assert measured(said("turn", 1, 3), end).false_cutoffs == 1
    assert measured(said("turn", 1, 1.4), end).false_cutoffs == 0


def test_a_reply_that_a_cough_has_cut_is_interrupted_falsely():
    cut = moved(2.3, "speaking", "interrupt", "barge_in")
    assert measured(heard(1, 2.3), said("vocal_tic", 2, 2.2), cut).false_interruptions == 1
    assert measured(heard(1, 2.3), said("turn", 2, 3), cut).false_interruptions == 0


def test_a_cut_is_no_false_interruption_where_its_turn_ends_in_the_same_instant():
    cut = moved(3, "speaking", "interrupt", "barge_in")
    turns = [moved(1, "listening", "thinking", "vad_end"), moved(3, "listening", "thinking", "vad_end")]
    assert measured(turns[0], cut, turns[1]).false_interruptions == 0
    assert measured(*turns, cut).false_interruptions == 1


def test_the_end_of_a_turn_that_interrupted_is_that_of_its_speech():
    """Speech over the bot ends before the state says that the user has the floor."""
    onset = RecordedEvent(2.1, "SileroVAD", "downstream", "VADUserStartedSpeakingFrame", {"speech_ms": 100.0})
    offset = RecordedEvent(3.3, "SileroVAD", "downstream", "VADUserStoppedSpeakingFrame", {"silence_ms": 300.0})
    turn = RecordedEvent(3.31, "TurnAggregator", "downstream", "UserTurnFrame", {"turn_id": 1, "text": "stop"})
    moves = [
        moved(1, "thinking", "speaking", "response_ready"),
        moved(3.31, "speaking", "interrupt", "barge_in"),
        moved(3.31, "interrupt", "listening", "resume_listening"),
        moved(3.31, "listening", "thinking", "vad_end"),
    ]
    measures = measured(heard(1, 2.1), told("pause", 2.1), onset, offset, turn, moves, heard(3.5, 4))
    assert measures.response_latency == pytest.approx(0.5)
    assert measures.yield_latency == pytest.approx(0.1, abs=0.03)


def test_a_client_knows_its_user_by_the_loudness_of_the_microphone():
    rate, loud = 16000, base64.b64encode(b"\x00\x20\x00\xe0" * 400).decode()  # 50 ms
    speech = [
        RecordedEvent(1 + 0.05 * at, "client", "to_bot", "audio", {"rate": rate, "samples": 800, "pcm": loud})
        for at in range(20)
    ]
    states = [
        RecordedEvent(at, "client", "to_user", "state_update", {"state": state, "turn": 1, "trigger": trigger})
        for at, state, trigger in ((1.1, "listening", "stt_start"), (2.3, "thinking", "vad_end"))
    ]
    recording = Recording(tuple(sorted(speech + states, key=lambda event: event.at)), side="client")
    (span,) = spans_of(recording, "to_bot")
    assert span == pytest.approx((0.95, 1.95), abs=0.05)


def test_measures_add_up():
    one = measured(said("turn", 1, 2), heard(2.5, 4), said("backchannel", 3, 3.1))
    two = one + one
    assert (two.turns, two.selectivity("backchannel"), two.response_latency) == (2, 1, one.response_latency)
    assert "L_R response latency" in dict(two.told())


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("turns > 1", True),
        ("turns>=2 and false_cutoffs == 0", True),
        ("turns < 2 or false_cutoffs != 0", False),
        ("turns > 5 or turns == 2", True),
        ("yield_latency > 0", False),
    ],
)
def test_a_condition_is_judged(text, holds):
    condition = Condition(text, NAMES)
    assert bool(failing([condition], Measures(turns=2))) is holds


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "write NAME > NUMBER"),
        ("turns", "write NAME > NUMBER"),
        ("turn > 1", "there is no measure turn; there are response_latency"),
        ("turns > many", "'many' is no number"),
        ("turns > 1 turns", "stands where `and` or `or` should"),
        ("__import__('os')", "is not understood"),
        ("turns > 1 and", "write NAME > NUMBER"),
        ("turns > 1 or " * 100, "too long"),
    ],
)
def test_a_wrong_condition_is_refused_in_a_line_that_helps(text, reason):
    with pytest.raises(ConfigurationError, match=reason):
        Condition(text, NAMES)


def test_the_table_says_what_is_better():
    before, after = Measures(turns=2, false_cutoffs=3, response_s=[0.5]), Measures(turns=2, response_s=[0.9])
    lines = {line.split("  ")[0]: line for line in table(before, after, {"vad.hangover_ms": "600"}).splitlines()}
    assert lines["false cut-offs"].split()[-3:] == ["3", "0", "better"]
    assert lines["response p50"].endswith("worse")
    assert "vad.hangover_ms=600" in lines[""]


# -- the commands ------------------------------------------------------------------------------------------------
