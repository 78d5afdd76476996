"""`Loudness`, and what the detector makes of it: a voice further away does not take the floor from the bot."""

from __future__ import annotations

import asyncio

import numpy as np
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    InputAudioRawFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)

from leibniz_voice.pipeline.frames import SpeechChunkFrame
from leibniz_voice.pipeline.listening.loudness import ASSUMED_DBFS, PACE, Loudness
from leibniz_voice.pipeline.testing.bench import Bench
from leibniz_voice.processors.vad import SileroVAD


def said(loudness: Loudness, dbfs: float, *, is_user: bool = True, ms: float = 500) -> float:
    """A stretch whose loudest chunk is at `dbfs`; how far that is above the usual."""
    loudness.feed(dbfs - 10)
    level = loudness.feed(dbfs)
    loudness.end(ms, is_user=is_user)
    return level


def test_the_first_words_of_the_user_set_the_usual_level() -> None:
    loudness = Loudness()
    assert said(loudness, -40) == -40 - ASSUMED_DBFS
    assert loudness.usual_dbfs == -40


def test_later_words_move_it_a_little() -> None:
    loudness = Loudness()
    said(loudness, -20)
    said(loudness, -10)
    assert loudness.usual_dbfs == -20 + PACE * 10


def test_speech_over_the_bot_and_knocks_teach_nothing() -> None:
    loudness = Loudness()
    said(loudness, -20)
    said(loudness, -40, is_user=False)
    said(loudness, -5, ms=100)
    assert loudness.usual_dbfs == -20


def test_the_loudest_chunk_of_a_stretch_counts_until_it_ends() -> None:
    loudness = Loudness(assumed_dbfs=-20)
    assert [loudness.feed(level) for level in (-40, -25, -45)] == [-20, -5, -5]
    loudness.end(96, is_user=False)
    assert loudness.feed(-40) == -20


class Model:
    """Voice wherever it is not digitally silent; answers at once."""

    chunk_samples, dropped = 512, 0

    def stream(self, sample_rate: int) -> Model:
        """Itself."""
        return self

    def submit(self, chunk: np.ndarray, callback) -> None:
        """Answer."""
        callback(0.95 if np.any(chunk) else 0.01)

    def reset(self) -> None:
        """Nothing to forget."""

    def close(self) -> None:
        """Nothing to end."""


def hear(*sounds: tuple[float, int] | type) -> Bench:
    """Play (dBFS, chunks) and frames that say what the bot does; silence after each sound."""

    async def main() -> Bench:
        async with Bench(SileroVAD(model=Model())) as bench:
            for sound in sounds:
                if isinstance(sound, type):
                    await bench.send(sound())
                    continue
                dbfs, count = sound
                wave = np.full(512 * count, 32768 * 10 ** (dbfs / 20)).astype(np.int16)
                for part in np.split(np.concatenate((wave, np.zeros(512 * 12, np.int16))), count + 12):
                    await bench.send(InputAudioRawFrame(part.tobytes(), 16_000, 1))
                    await asyncio.sleep(0)
            return bench

    return asyncio.run(main())


def starts(bench: Bench) -> int:
    """How often speech was told to start; as often as to stop."""
    assert len(bench.below(VADUserStartedSpeakingFrame)) == len(bench.below(VADUserStoppedSpeakingFrame))
    return len(bench.below(VADUserStartedSpeakingFrame))


def test_a_quieter_voice_over_the_bot_is_no_start_but_told_in_chunks() -> None:
    bench = hear((-20, 10), BotStartedSpeakingFrame, (-32, 10))
    assert starts(bench) == 1
    levels = [chunk.level_db for chunk in bench.below(SpeechChunkFrame) if chunk.speech_ms][-10:]
    assert levels == [-12.0] * 10 or all(abs(level + 12) < 0.1 for level in levels)


def test_the_user_over_the_bot_is_a_start() -> None:
    assert starts(hear((-20, 10), BotStartedSpeakingFrame, (-23, 10))) == 2


def test_a_quieter_voice_is_a_start_while_the_bot_is_silent() -> None:
    assert starts(hear((-20, 10), BotStartedSpeakingFrame, BotStoppedSpeakingFrame, (-32, 10))) == 2


def test_speech_that_rises_to_the_users_level_is_a_start_then() -> None:
    async def main() -> Bench:
        async with Bench(SileroVAD(model=Model())) as bench:
            await bench.send(BotStartedSpeakingFrame())
            for dbfs in [-40] * 6 + [-20] * 6 + [-200] * 12:
                wave = np.full(512, 32768 * 10 ** (dbfs / 20)).astype(np.int16)
                await bench.send(InputAudioRawFrame(wave.tobytes(), 16_000, 1))
                await asyncio.sleep(0)
            return bench

    bench = asyncio.run(main())
    assert starts(bench) == 1
    assert bench.below(VADUserStartedSpeakingFrame)[0].metadata["speech_ms"] == 7 * 32
