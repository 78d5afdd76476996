"""Paced playout with an explicit clock: never too far ahead, nothing lost or doubled, nothing of a cut reply."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.transports.playout.playout import Playout

RATE = 16_000
CHUNK = 320  # samples in 20 ms
LEAD_MS = 60.0
START_S = 81_234.567  # a loop's clock begins anywhere


def speech(n: int, first: int = 0) -> bytes:
    """`n` samples that count from `first`, none of them zero, so each can be told from silence and its twin."""
    return ((np.arange(first, first + n) % 30_000) + 1).astype("<i2").tobytes()


def play(playout: Playout, *, seconds: float, start_s: float = START_S, step_s: float = 0.02) -> list[bytes]:
    """Tick for some seconds and collect what left."""
    return [chunk for n in range(round(seconds / step_s)) for chunk in playout.take(start_s + n * step_s)]


def loaded(seconds: float, turn_id: int = 1, **settings) -> Playout:
    playout = Playout(**settings)
    playout.push_audio(turn_id, speech(int(seconds * playout.sample_rate)))
    return playout


def test_a_reply_starts_with_the_lead_and_goes_on_at_real_time():
    playout = loaded(1.0)
    assert [len(playout.take(START_S + n * 0.02)) for n in range(6)] == [3, 1, 1, 1, 1, 1]
    assert len(playout.take(START_S + 0.105)) == 0


def test_every_sample_leaves_once_and_in_order():
    playout = loaded(0.5)
    playout.end(1)
    assert b"".join(play(playout, seconds=1)) == speech(RATE // 2)


def test_every_chunk_is_20_ms_and_the_last_one_is_filled_with_silence():
    playout = Playout()
    playout.push_audio(1, speech(500))
    assert len(play(playout, seconds=0.1)) == 1  # the rest waits for more
    playout.end(1)
    chunks = playout.take(START_S + 0.2)
    assert [len(chunk) for chunk in chunks] == [2 * CHUNK]
    assert chunks[0] == speech(180, 320) + bytes(2 * 140)


def test_other_rates_have_their_own_chunk_length():
    assert {len(chunk) for chunk in play(loaded(0.2, sample_rate=24_000), seconds=0.1)} == {960}


def test_a_late_source_shifts_the_clock_and_causes_no_burst():
    playout = loaded(0.06)
    assert len(play(playout, seconds=1)) == 3
    playout.push_audio(1, speech(RATE, 960))
    later_s = START_S + 1.0
    assert [len(playout.take(later_s + n * 0.02)) for n in range(4)] == [3, 1, 1, 1]
    assert playout.played_ms(later_s + 0.06) == pytest.approx(120)


def test_a_stalled_event_loop_causes_no_burst_either():
    playout = loaded(3.0)
    play(playout, seconds=0.1)
    assert len(playout.take(START_S + 1.5)) == 3


def test_played_follows_the_clock_and_never_passes_what_was_sent():
    playout = loaded(0.1)
    assert playout.played_ms(START_S) == 0
    playout.take(START_S)
    assert playout.played_ms(START_S + 0.03) == pytest.approx(30)
    assert playout.played_ms(START_S + 5) == pytest.approx(60)


def test_a_pause_holds_the_clock_and_what_waits():
    playout = loaded(1.0)
    play(playout, seconds=0.2)
    playout.pause(START_S + 0.21)
    assert playout.is_paused
    assert playout.take(START_S + 0.5) == []
    assert playout.played_ms(START_S + 0.5) == pytest.approx(210)


def test_resuming_goes_on_at_the_same_sample():
    playout = loaded(1.0)
    playout.end(1)
    sent = play(playout, seconds=0.2)
    playout.pause(START_S + 0.2)
    playout.resume(START_S + 3.2)
    assert playout.played_ms(START_S + 3.2) == pytest.approx(200)
    sent += play(playout, seconds=2, start_s=START_S + 3.2)
    assert b"".join(sent) == speech(RATE)


def test_pausing_twice_and_resuming_without_a_pause_change_nothing():
    playout = loaded(1.0)
    play(playout, seconds=0.2)
    playout.resume(START_S + 0.2)
    playout.pause(START_S + 0.2)
    playout.pause(START_S + 0.4)
    playout.resume(START_S + 0.5)
    playout.resume(START_S + 0.9)
    assert playout.played_ms(START_S + 0.5) == pytest.approx(200)


def test_a_cut_tells_what_was_heard_and_drops_the_rest():
    playout = loaded(1.0)
    play(playout, seconds=0.2)
    assert playout.cut(1, START_S + 0.25) == pytest.approx(240)  # 180 + 60 ms were sent
    assert playout.take(START_S + 0.26) == []
    assert playout.turn_id is None
    assert playout.held_ms == 0


def test_nothing_of_a_cut_turn_or_an_older_one_is_taken_any_more():
    playout = Playout()
    playout.cut(5, START_S)
    assert playout.push_audio(5, speech(640)) == 0
    assert playout.push_audio(4, speech(640)) == 0
    playout.end(5)
    assert playout.take(START_S) == []
    assert playout.finished(START_S) is None
    assert playout.dropped_samples == 1280


def test_a_cut_leaves_a_newer_reply_alone_and_lifts_the_pause():
    playout = loaded(1.0)
    playout.take(START_S)
    playout.push_audio(2, speech(CHUNK, 7))
    playout.pause(START_S + 0.02)
    assert playout.cut(1, START_S + 0.04) == pytest.approx(20)
    assert playout.take(START_S + 0.05) == [speech(CHUNK, 7)]


def test_a_cut_of_an_older_turn_does_not_touch_the_playing_one():
    playout = loaded(1.0, turn_id=7)
    playout.take(START_S)
    playout.pause(START_S + 0.02)
    assert playout.cut(6, START_S + 0.02) == 0
    assert playout.is_paused
    assert playout.turn_id == 7


def test_a_reply_finishes_once_when_its_last_sample_is_played():
    playout = loaded(0.05)
    playout.end(1)
    assert len(playout.take(START_S)) == 3
    assert playout.finished(START_S + 0.049) is None
    assert playout.finished(START_S + 0.05) == 1  # the silence that fills its last chunk is no part of it
    assert playout.finished(START_S + 1) is None


def test_a_gap_between_two_sentences_does_not_finish_the_reply():
    playout = loaded(0.05)
    playout.take(START_S)
    assert playout.finished(START_S + 9) is None


def test_a_paused_reply_does_not_finish():
    playout = loaded(0.04)
    playout.end(1)
    playout.take(START_S)
    playout.pause(START_S + 0.01)
    assert playout.finished(START_S + 9) is None
    playout.resume(START_S + 9)
    assert playout.finished(START_S + 9.03) == 1


def test_a_reply_without_audio_finishes_at_once():
    playout = Playout()
    playout.end(4)
    assert playout.finished(START_S) == 4


def test_audio_after_the_end_was_played_is_dropped_and_counted():
    playout = loaded(0.02)
    playout.end(1)
    playout.take(START_S)
    assert playout.push_audio(1, speech(100)) == 0
    assert playout.finished(START_S + 1) == 1
    assert playout.push_audio(1, speech(100)) == 0
    assert playout.dropped_samples == 200


def test_a_newer_reply_waits_until_the_older_one_is_played():
    playout = loaded(0.04)
    playout.push_audio(2, speech(CHUNK, 5000))
    assert b"".join(play(playout, seconds=0.2)) == speech(2 * CHUNK)
    assert playout.finished(START_S + 0.2) == 1
    assert playout.take(START_S + 0.2) == [speech(CHUNK, 5000)]


def test_the_buffer_is_bounded_in_seconds():
    playout = Playout(max_s=1.0)
    assert playout.push_audio(1, speech(RATE - 100)) == RATE - 100
    assert playout.push_audio(1, speech(500)) == 100
    assert playout.dropped_samples == 400
    assert playout.held_ms == 1000
    playout.take(START_S)
    assert playout.push_audio(1, speech(5000)) == 3 * CHUNK


def test_the_number_of_waiting_replies_is_bounded():
    playout = Playout(max_replies=2)
    assert [playout.push_audio(n, speech(10)) for n in range(1, 4)] == [10, 10, 0]


def test_half_a_sample_is_not_taken():
    playout = Playout()
    assert playout.push_audio(1, b"\1\0\1") == 1


def test_heard_words_are_those_that_began():
    playout = Playout()
    playout.push_audio(1, speech(RATE), [("we", 0.0), ("open", 30.0), ("at", 90.0), ("nine", 200.0)])
    assert playout.heard_words(START_S) == ()
    play(playout, seconds=0.1)
    assert playout.heard_words(START_S + 0.095) == ("we", "open", "at")


@pytest.mark.parametrize("lead_ms", [0, 19, 101, float("nan")])
def test_a_lead_that_would_stutter_or_leak_is_refused(lead_ms):
    with pytest.raises(ConfigurationError):
        Playout(lead_ms=lead_ms)


class Client:
    """A client by the book: plays what it has at real time, obeys pause, resume and interrupted. Its own arithmetic."""

    def __init__(self) -> None:
        self.ahead = 0.0  # samples received and not played
        self.received = bytearray()
        self.paused = False
        self._at_s = START_S

    def advance(self, now_s: float) -> None:
        if not self.paused:
            self.ahead = max(0.0, self.ahead - (now_s - self._at_s) * RATE)
        self._at_s = now_s

    @property
    def played(self) -> float:
        return len(self.received) / 2 - self.ahead


steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 2500)),
        st.tuples(st.just("tick"), st.floats(0, 0.15)),
        st.tuples(st.just("tick"), st.just(0.02)),
        st.tuples(st.sampled_from(["pause", "resume", "cut", "end"]), st.just(0)),
    ),
    max_size=60,
)


@given(steps, st.sampled_from([20.0, 60.0, 100.0]))
def test_a_walk_never_runs_ahead_and_never_loses_or_doubles_a_sample(walk, lead_ms):
    playout, client = Playout(lead_ms=lead_ms), Client()
    now_s, turn_id, pushed, ended = START_S, 1, 0, False
    for step, amount in walk:
        if step == "push" and not ended:
            pushed += playout.push_audio(turn_id, speech(amount, pushed))
        elif step == "tick":
            now_s += amount
            client.advance(now_s)
            for chunk in playout.take(now_s):
                client.received += chunk
                client.ahead += CHUNK
        elif step in ("pause", "resume"):
            client.advance(now_s)
            client.paused = step == "pause"
            playout.pause(now_s) if client.paused else playout.resume(now_s)
        elif step == "end":
            ended = True
            playout.end(turn_id)
        is_over = playout.finished(now_s) is not None
        if step == "cut" or is_over:
            heard_ms = playout.cut(turn_id, now_s)
            assert heard_ms == 0 if is_over else heard_ms == pytest.approx(min(client.played, pushed) / 16, abs=0.01)
            assert playout.push_audio(turn_id, speech(CHUNK)) == 0
            assert playout.take(now_s) == []
            turn_id, pushed, ended, client = turn_id + 1, 0, False, Client()
            client.advance(now_s)
            client.paused = playout.is_paused
            continue
        assert client.ahead <= lead_ms * RATE / 1000 + 0.01
        sent = min(len(client.received) // 2, pushed)
        assert client.received[: 2 * sent] == speech(sent)
        assert not any(client.received[2 * sent :])
        assert playout.played_ms(now_s) == pytest.approx(min(client.played, pushed) / 16, abs=0.01)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=20))
def test_pushes_of_any_size_come_out_whole(sizes):
    playout, total = Playout(), 0
    for size in sizes:
        total += playout.push_audio(1, speech(size, total))
    playout.end(1)
    out = b"".join(play(playout, seconds=total / RATE + 0.1))
    assert out[: 2 * total] == speech(total)
    assert len(out) == 2 * CHUNK * -(-total // CHUNK)


def test_what_was_heard_follows_the_clients_own_word():
    playout = loaded(2.0)
    play(playout, seconds=1.0)
    now_s = START_S + 1.0
    assert playout.played_ms(now_s) == pytest.approx(1000, abs=21)
    playout.acknowledge(1, 600.0, now_s)
    assert playout.played_ms(now_s) == pytest.approx(600, abs=21)
    assert playout.played_ms(now_s + 0.02) == pytest.approx(620, abs=21)
    assert len(playout.take(now_s)) == 1, "the pace stays: one more chunk is due"
    playout.acknowledge(1, 5000.0, now_s)
    assert playout.played_ms(now_s) == pytest.approx(1000, abs=21), "nobody is ahead of what was sent"
    playout.acknowledge(1, 0.0, now_s)
    playout.acknowledge(7, 900.0, now_s)
    assert playout.played_ms(now_s) == pytest.approx(0, abs=21), "of another reply nothing is learnt"


def test_a_reply_is_finished_when_a_client_that_is_behind_has_heard_it():
    playout = loaded(0.5)
    playout.end(1)
    play(playout, seconds=0.4)
    playout.acknowledge(1, 100.0, START_S + 0.4)
    play(playout, seconds=0.2, start_s=START_S + 0.4)
    assert playout.finished(START_S + 0.6) is None
    assert playout.finished(START_S + 0.82) == 1


def test_a_client_is_believed_to_be_a_second_behind_at_most():
    playout = loaded(5.0)
    play(playout, seconds=4.0)
    playout.acknowledge(1, 0.0, START_S + 4.0)
    assert playout.played_ms(START_S + 4.0) == pytest.approx(3000, abs=21)
