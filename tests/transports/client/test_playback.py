"""The client's loudspeaker and microphone on paper: what is heard and said when. Pure."""

import pytest

from leibniz_voice.transports.client.playback import PaperMicrophone, Playback
from tests.support.pcm import CHUNK, loud


def test_playback_fills_the_time_before_late_audio_with_silence():
    speaker = Playback()
    speaker.start(10.0)
    speaker.push(CHUNK, 10.1)
    speaker.advance(10.2)
    assert len(speaker.heard) == 2 * 3200
    assert loud(speaker.heard)[0] == 1600
    assert len(loud(speaker.heard)) == 320


def test_a_pause_keeps_the_audio_and_a_drop_loses_it():
    speaker = Playback()
    speaker.start(0.0)
    speaker.begin(1, 0.0)
    speaker.push(CHUNK * 5, 0.0)
    speaker.pause(0.02)
    speaker.resume(1.0)
    speaker.advance(1.02)
    assert speaker.played_ms == pytest.approx(40, abs=0.1)
    speaker.drop(1.02)
    speaker.push(CHUNK, 1.03)
    speaker.advance(2.0)
    assert speaker.played_ms == pytest.approx(40, abs=0.1)
    assert speaker.dropped == 4 * 320


def test_the_position_of_a_reply_does_not_count_the_tail_of_the_one_before():
    speaker = Playback()
    speaker.start(0.0)
    speaker.begin(1, 0.0)
    speaker.push(CHUNK * 3, 0.0)
    speaker.begin(2, 0.02)
    speaker.push(CHUNK, 0.02)
    speaker.advance(0.05)
    assert speaker.played_ms == 0
    speaker.advance(0.1)
    assert speaker.played_ms == pytest.approx(20, abs=0.1)


def test_what_the_microphone_skipped_was_silence():
    microphone = PaperMicrophone(chunk=320)
    microphone.push(CHUNK + CHUNK[:100])
    assert microphone.take(0) == CHUNK
    last = microphone.take(4)
    assert (len(last), last[:100]) == (640, CHUNK[:100])
    assert len(microphone.said) == 5 * 640
    assert microphone.is_empty
