"""Synthetic audio and the stamps in it."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.testing import audio
from leibniz_voice.pipeline.testing.audio import RATE, chunks, duration_ms, level, mix, silence, tone
from leibniz_voice.pipeline.testing.fuzz.stamps import Stamp, spoken, stamped, stamps, turn_in, turns_in_audio
from leibniz_voice.processors.embedded.silero.network import RecurrentState, infer
from leibniz_voice.processors.embedded.workers.shared import close_all


def probabilities(pcm: bytes) -> list[float]:
    """Silero's, chunk by chunk."""
    state = RecurrentState(RATE)
    return [float(infer([state], [np.frombuffer(chunk, np.int16)])[0]) for chunk in chunks(pcm, 32)]


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_every_sound_has_the_length_and_the_level_it_was_asked_for(rate: int) -> None:
    for pcm in (
        tone(250, dbfs=-20, sample_rate=rate),
        audio.noise(250, dbfs=-20, sample_rate=rate),
        audio.speech_like(250, dbfs=-20, sample_rate=rate),
    ):
        assert duration_ms(pcm, sample_rate=rate) == 250
        assert level(pcm) == pytest.approx(-20, abs=0.3)


def test_silence_has_no_level_and_nothing_has_none_either() -> None:
    assert level(silence(20)) == -math.inf
    assert level(b"") == -math.inf
    assert audio.speech_like(0) == b""
    assert audio.at_level(silence(20), -10) == silence(20)


def test_the_same_seed_gives_the_same_samples() -> None:
    for make in (audio.noise, audio.speech_like):
        assert make(100, seed=1) == make(100, seed=1) != make(100, seed=2)
    assert audio.cough(seed=1) == audio.cough(seed=1) != audio.cough(seed=2)


def test_a_mix_is_as_long_as_its_later_end_and_adds_up() -> None:
    assert duration_ms(mix(tone(100), tone(50), at_ms=80)) == 130
    assert level(mix(tone(100), tone(100))) == pytest.approx(level(tone(100)) + 6.02, abs=0.1)
    assert level(mix(silence(100), tone(100), db=-6)) == pytest.approx(-26, abs=0.1)
    assert level(audio.gain(tone(100), 100)) <= 0  # clipped, not wrapped


def test_the_last_chunk_is_filled_up_with_silence() -> None:
    parts = list(chunks(b"\1\0" * 500, 20))
    assert [len(part) for part in parts] == [640, 640]
    assert b"".join(parts)[:1000] == b"\1\0" * 500
    assert not any(parts[1][360:])
    with pytest.raises(ConfigurationError):
        list(chunks(tone(20), 0))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_silero_takes_speech_like_sound_for_speech(seed: int) -> None:
    heard = probabilities(silence(300) + audio.speech_like(1500, seed=seed))[10:]
    assert max(heard[:5]) > 0.7
    assert np.mean(np.array(heard) > 0.6) > 0.8


@pytest.mark.parametrize("make", [audio.noise, tone, lambda ms: audio.cough(), lambda ms: audio.click()])
def test_silero_takes_no_other_sound_for_speech(make: object) -> None:
    assert max(probabilities(silence(200) + make(500) + silence(100))) < 0.4  # type: ignore[operator]


@pytest.mark.slow
def test_speech_is_spoken_once_and_remembered() -> None:
    async def main() -> tuple[bytes, bytes, bytes]:
        try:
            first = await audio.speech("where is my order")
            return first, await audio.speech("where is my order"), await audio.speech("hello", voice="en+f3")
        finally:
            await close_all()

    first, again, other = asyncio.run(main())
    assert first is again
    assert other != first
    assert 800 < duration_ms(first) < 2000
    assert max(probabilities(first)) > 0.9


def test_stamps_survive_cutting_and_joining() -> None:
    pcm = stamped(3, 1) + stamped(3, 2) + stamped(4, 0)
    everything = [Stamp(3, 1), Stamp(3, 2), Stamp(4, 0)]
    assert stamps(pcm) == everything
    assert stamps(pcm[10:-10]) == everything
    assert next(stamp for part in chunks(pcm[2:], 7) for stamp in stamps(part)) == Stamp(3, 1)
    assert turns_in_audio(pcm) == {3, 4}


def test_audio_without_a_stamp_bears_none() -> None:
    for pcm in (b"", b"\0\0", silence(20), tone(100), audio.noise(1000, dbfs=-3), audio.gain(stamped(1, 1), -3)):
        assert stamps(pcm) == []


def test_a_text_names_its_turn() -> None:
    assert turn_in(spoken(12, 3)) == 12
    assert spoken(12, 3).count(".") == 3
    assert turn_in("no number") is None
