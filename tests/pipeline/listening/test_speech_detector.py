"""Onset, hangover and pre-roll are exact in samples, for every short sequence and for long random ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.listening.speech import Chunker, Offset, Onset, QuietReset, SpeechDetector

CHUNK = 512
HIGH, MIDDLE, LOW = 0.9, 0.5, 0.1  # above start, between the thresholds, below stop


def detector(**settings) -> SpeechDetector:
    return SpeechDetector(**{"onset_ms": 64, "hangover_ms": 96, "preroll_ms": 40, **settings})


def feed(detector: SpeechDetector, probabilities) -> list[tuple[int, Onset | Offset]]:
    """Events with the number of the chunk that told them."""
    told = [(n, detector.feed(p, CHUNK)) for n, p in enumerate(probabilities)]
    return [(n, event) for n, event in told if event is not None]


def test_an_onset_is_told_with_the_chunk_that_completes_it():
    assert feed(detector(), [LOW, HIGH, HIGH, HIGH]) == [(2, Onset(512, HIGH, 0))]


def test_a_blip_shorter_than_the_onset_is_no_event_and_its_speech_falls_to_zero():
    ear = detector()
    heard = []
    for probability in (LOW, HIGH, LOW, LOW):
        assert ear.feed(probability, CHUNK) is None
        heard.append(ear.speech_ms)
    assert heard == [0, 32, 0, 0]


def test_an_offset_is_told_at_the_end_of_the_hangover_and_names_the_last_voiced_sample():
    ear = detector()
    assert feed(ear, [HIGH, HIGH, HIGH, LOW, LOW, LOW, LOW])[1:] == [(5, Offset(3 * CHUNK))]
    assert ear.silence_ms == 4 * 32


def test_a_hangover_that_ends_inside_a_chunk_waits_for_its_boundary():
    assert feed(detector(hangover_ms=100), [HIGH, HIGH, LOW, LOW, LOW, LOW])[1:] == [(5, Offset(2 * CHUNK))]


def test_a_dip_shorter_than_the_hangover_does_not_end_speech_and_does_not_count_as_voice():
    ear = detector()
    assert len(feed(ear, [HIGH, HIGH, LOW, LOW, HIGH])) == 1
    assert ear.speech_ms == 3 * 32


def test_a_silence_can_be_told_to_last_longer_and_the_next_voice_sets_it_back():
    ear = detector()
    feed(ear, [HIGH, HIGH, LOW])
    assert ear.wait(160) is None
    assert feed(ear, [LOW] * 3) == []
    assert feed(ear, [HIGH, LOW, LOW, LOW]) == [(3, Offset(7 * CHUNK))]


def test_a_silence_that_is_told_to_end_ends_at_once_if_it_has_lasted_so_long():
    ear = detector()
    feed(ear, [HIGH, HIGH, LOW])
    assert ear.wait(33) is None
    assert feed(ear, [LOW]) == [(0, Offset(2 * CHUNK))]
    feed(ear, [HIGH, HIGH, LOW, LOW])
    assert ear.wait(64) == Offset(6 * CHUNK)
    assert (ear.is_speaking, ear.speech_ms) == (False, 0)


@pytest.mark.parametrize("before", [[LOW], [HIGH, HIGH], [HIGH]])
def test_where_there_is_no_silence_after_speech_nothing_is_ended(before):
    ear = detector()
    feed(ear, before)
    assert ear.wait(0) is None


def test_between_the_thresholds_voice_neither_begins_nor_ends():
    assert feed(detector(), [MIDDLE] * 5) == []
    ear = detector()
    assert len(feed(ear, [HIGH, HIGH, *[MIDDLE] * 20])) == 1
    assert ear.is_speaking
    assert feed(ear, [LOW, MIDDLE, MIDDLE]) == [(2, Offset(22 * CHUNK))]  # once below stop, only start brings it back


def test_pre_roll_reaches_back_but_never_into_the_speech_before():
    events = feed(detector(preroll_ms=400), [*[LOW] * 20, HIGH, HIGH, LOW, LOW, LOW, LOW, HIGH, HIGH])
    assert [e.preroll_sample for _, e in events if isinstance(e, Onset)] == [20 * CHUNK - 6400, 22 * CHUNK]


def test_the_confidence_of_an_onset_is_the_highest_of_its_run():
    assert feed(detector(), [0.99, LOW, 0.7, 0.8])[0][1].confidence == 0.8


def test_lost_audio_passes_time_and_changes_nothing_else():
    ear = detector()
    feed(ear, [HIGH, HIGH])
    ear.skip(10 * CHUNK)
    assert ear.is_speaking
    assert ear.speech_ms == 64
    assert feed(ear, [LOW, LOW, LOW]) == [(2, Offset(12 * CHUNK))]


def test_eight_kilohertz_counts_the_same_milliseconds():
    ear = SpeechDetector(sample_rate=8000, onset_ms=64)
    assert [ear.feed(HIGH, 256) for _ in range(2)] == [None, Onset(0, HIGH, 0)]
    assert ear.speech_ms == 64


def by_hand(probabilities) -> list[tuple[int, str]]:
    """The same rules written a second time, over the whole list: the chunk of each event."""
    voiced, up = [], False
    for p in probabilities:
        up = p >= (0.45 if up else 0.6)
        voiced.append(up)
    events, speaking, run, silence = [], False, 0, 0
    for n, v in enumerate(voiced):
        run, silence = (run + 1, 0) if v else (0, silence + 1)
        if not speaking and run == 2:
            speaking = True
            events.append((n, "Onset"))
        elif speaking and silence == 3:
            speaking = False
            events.append((n, "Offset"))
    return events


@pytest.mark.parametrize("first", [HIGH, MIDDLE, LOW])
def test_every_sequence_of_eight_chunks_gives_the_events_of_the_rules(first):
    for rest in itertools.product((HIGH, MIDDLE, LOW), repeat=7):
        got = [(n, type(e).__name__) for n, e in feed(detector(), (first, *rest))]
        assert got == by_hand((first, *rest))


@given(
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from([160, 256, 512, 1600])), max_size=200),
    st.integers(0, 300),
    st.integers(0, 500),
    st.integers(0, 500),
)
def test_onsets_and_offsets_alternate_and_their_times_grow(chunks, onset_ms, hangover_ms, preroll_ms):
    ear = SpeechDetector(onset_ms=onset_ms, hangover_ms=hangover_ms, preroll_ms=preroll_ms)
    last = 0
    expected: type = Onset
    for probability, samples in chunks:
        event = ear.feed(probability, samples)
        assert (ear.speech_ms > 0) or not ear.is_speaking
        if event is None:
            continue
        assert type(event) is expected
        if isinstance(event, Onset):
            assert last <= event.preroll_sample <= event.start_sample < ear.position
            assert ear.position - event.start_sample >= onset_ms * 16
            last = event.start_sample
        else:
            assert last < event.end_sample <= ear.position - hangover_ms * 16
            assert ear.speech_ms == 0
            last = event.end_sample
        expected = Offset if expected is Onset else Onset


@pytest.mark.parametrize(
    "settings",
    [
        {"start_threshold": 0.3, "stop_threshold": 0.5},
        {"stop_threshold": 0.0},
        {"start_threshold": 1.2},
        {"onset_ms": -1},
        {"hangover_ms": -1},
        {"sample_rate": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigurationError):
        SpeechDetector(**settings)


def test_the_model_forgets_every_two_seconds_of_quiet_and_never_in_speech():
    reset = QuietReset(sample_rate=16000)
    assert [n for n in range(200) if reset.feed(0.01, CHUNK, is_quiet=True)] == [62, 125, 188]
    assert not any(reset.feed(0.01, CHUNK, is_quiet=False) for _ in range(200))


def test_the_model_does_not_forget_right_after_a_chunk_that_may_be_speech():
    reset = QuietReset(sample_rate=16000)
    for _ in range(100):
        assert not reset.feed(0.3, CHUNK, is_quiet=True)
    assert [reset.feed(0.01, CHUNK, is_quiet=True) for _ in range(5)] == [False] * 4 + [True]


@given(st.lists(st.integers(0, 1700), max_size=40))
def test_chunks_are_the_same_whatever_the_blocks_were(sizes):
    audio = np.arange(sum(sizes)).astype(np.int16)
    chunker, at, chunks = Chunker(CHUNK), 0, []
    for size in sizes:
        chunks += chunker.push(audio[at : at + size])
        at += size
    assert all(len(chunk) == CHUNK for chunk in chunks)
    assert len(chunks) == len(audio) // CHUNK
    assert np.array_equal(np.concatenate([*chunks, np.empty(0, np.int16)]), audio[: len(chunks) * CHUNK])
