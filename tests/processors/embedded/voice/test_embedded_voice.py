"""The embedded voice: words in time, audio in order, silence when it is cut, and no reply left open by a failure."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
)
from pipecat.pipeline.worker import PipelineWorker

from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.frames import (
    ReplyAudioFrame,
    ReplyEndedFrame,
    ReplyInterruptedFrame,
    ReplySpeechFrame,
    ReplyStartedFrame,
    ReplyTextFrame,
)
from leibniz_voice.pipeline.text.pronunciation import Pronunciation
from leibniz_voice.processors.embedded.voice.espeak import EspeakVoice
from leibniz_voice.processors.embedded.workers.shared import close_all, shared_worker
from leibniz_voice.processors.embedded.workers.worker import WorkerProcess
from leibniz_voice.processors.tts import EmbeddedTTS
from tests.support.chains import Recorder, chain
from tests.support.tools import needs

pytestmark = needs("espeakng_loader")
TEXT = "Your order of $42.50 was shipped on Monday, and it will reach you before Friday."


class Ears(Recorder):
    """What is heard behind the voice."""

    def audio(self, turn_id: int) -> list[ReplyAudioFrame]:
        return [frame for frame in self.of(ReplyAudioFrame) if frame.turn_id == turn_id]

    def words(self, turn_id: int) -> list[tuple[str, float]]:
        return [word for frame in self.audio(turn_id) for word in frame.words]

    def has_ended(self, turn_id: int) -> bool:
        return any(frame.turn_id == turn_id for frame in self.of(ReplyEndedFrame))


class Bot:
    """An EmbeddedTTS in a running pipeline."""

    def __init__(self, **settings: Any) -> None:
        self.worker: PipelineWorker | None = None  # while it runs
        self.before = Recorder()  # sees the errors, which go upstream
        self.after = Ears()
        self.tts = EmbeddedTTS(**settings)

    async def send(self, *frames: Frame) -> None:
        assert self.worker is not None
        await self.worker.queue_frames(list(frames))

    async def reply(self, turn_id: int, *sentences: str, ends: bool = True) -> None:
        texts = [ReplySpeechFrame(turn_id=turn_id, text=sentence) for sentence in sentences]
        await self.send(ReplyStartedFrame(turn_id=turn_id), *texts, *[ReplyEndedFrame(turn_id=turn_id)] * ends)


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Bot]:
    bot = Bot(**settings)
    async with chain(bot.before, bot.tts, bot.after) as bot.worker:
        yield bot


async def asked(worker: WorkerProcess) -> None:
    """Wait until the worker has a request; there is no event for it."""
    async with asyncio.timeout(10):
        while not worker.in_flight:
            await asyncio.sleep(0)


def go(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def all_of_it() -> None:
        try:
            await main()
        finally:
            await close_all()

    asyncio.run(all_of_it())


async def spoken(voice: EspeakVoice, text: str) -> tuple[np.ndarray, list[tuple[str, float]]]:
    chunks = [chunk async for chunk in voice.speak(text)]
    return np.frombuffer(b"".join(pcm for pcm, _ in chunks), np.int16), [word for _, words in chunks for word in words]


# -- voice -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_words_follow_each_other_within_the_audio(rate: int):
    async def main() -> None:
        audio, words = await spoken(EspeakVoice(sample_rate=rate), f"{TEXT} Is there anything else?")
        assert 5 < len(audio) / rate < 10
        assert np.abs(audio.astype(int)).max() > 3000
        times = [ms for _, ms in words]
        assert times == sorted(times)
        assert len(set(words)) == len(words)
        assert times[-1] < len(audio) * 1000 / rate
        assert {"Your", "order", "Monday", "Friday", "else"} <= {word for word, _ in words}

    go(main)


@pytest.mark.slow
def test_words_come_with_the_chunk_in_which_they_begin():
    async def main() -> None:
        at_ms = 0.0
        async for pcm, words in EspeakVoice().speak(TEXT):
            ms = len(pcm) / 32
            assert 20 <= ms <= 40
            assert all(at_ms <= word_ms < at_ms + ms for _, word_ms in words)
            at_ms += ms

    go(main)


@pytest.mark.slow
def test_speech_begins_where_the_word_times_say():
    async def main() -> None:
        audio, words = await spoken(EspeakVoice(), "Stop, stop, stop.")
        loud = np.abs(audio.astype(int)) > 500
        for _, ms in words[1:]:  # each follows a pause
            onset = int(ms * 16)
            assert not loud[onset - 1600 : onset - 1120].any()
            assert loud[onset : onset + 2400].any()

    go(main)


@pytest.mark.slow
def test_contractions_are_whole_words():
    async def main() -> None:
        _, words = await spoken(EspeakVoice(), "We don't ship, and I can\u2019t say who'd've.")
        assert [word for word, _ in words] == ["We", "don't", "ship", "and", "I", "can\u2019t", "say", "who'd've"]

    go(main)


@pytest.mark.slow
def test_an_unknown_voice_is_named():
    async def main() -> None:
        with pytest.raises(ConfigurationError, match="no-such-voice"):
            await spoken(EspeakVoice(voice="no-such-voice"), "hello")

    go(main)


@pytest.mark.slow
def test_odd_text_is_spoken_or_silent_but_never_an_error():
    async def main() -> None:
        for text in ("", "...", "\0", "<speak>&amp;</speak>", "\U0001f600", "日本語", "a" * 5000, "[[h@l'oU]]"):
            await spoken(EspeakVoice(), text)
        audio, _ = await spoken(EspeakVoice(), "Still there.")
        assert len(audio) > 8000

    go(main)


@pytest.mark.slow
def test_leaving_the_iteration_stops_the_voice_for_good():
    async def main() -> None:
        voice = EspeakVoice()
        async with aclosing(voice.speak(TEXT)) as chunks:
            await anext(chunks)
        audio, words = await spoken(voice, "Next one.")
        assert [word for word, _ in words] == ["Next", "one"]
        assert len(audio) < 32000

    go(main)


# -- processor -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_reply_goes_on_in_order_and_ends_after_its_last_audio():
    async def main() -> None:
        async with running() as bot:
            await bot.reply(3, "The first sentence.", "The second one.")
            await bot.after.until(lambda: bot.after.has_ended(3))
            frames = bot.after.of(ReplyStartedFrame, ReplySpeechFrame, ReplyAudioFrame, ReplyEndedFrame)
            assert isinstance(frames[0], ReplyStartedFrame)
            assert not bot.after.of(ReplySpeechFrame)
            assert isinstance(frames[-1], ReplyEndedFrame)
            assert all(20 <= len(frame.audio) / 32 <= 100 for frame in bot.after.audio(3))
            assert [frame.sample_rate for frame in bot.after.audio(3)] == [16000] * len(bot.after.audio(3))

    go(main)


@pytest.mark.slow
def test_word_times_count_from_the_first_sample_of_the_reply():
    async def main() -> None:
        async with running() as bot:
            await bot.reply(1, "One two three.", "Four five.")
            await bot.reply(2, "Six.")
            await bot.after.until(lambda: bot.after.has_ended(2))
            words = bot.after.words(1)
            assert [word.lower() for word, _ in words] == ["one", "two", "three", "four", "five"]
            assert all(earlier < later for (_, earlier), (_, later) in pairwise(words))
            assert bot.after.words(2)[0][1] < 50

    go(main)


@pytest.mark.slow
@pytest.mark.parametrize("interruption", [ReplyInterruptedFrame(turn_id=1), InterruptionFrame()])
def test_an_interruption_silences_the_reply_at_once_and_the_next_one_speaks(interruption: InterruptionFrame):
    async def main() -> None:
        async with running() as bot:
            await bot.reply(1, *[TEXT] * 8, ends=False)
            await bot.after.until(lambda: bot.after.audio(1))
            await bot.send(interruption)
            await bot.after.until(lambda: bot.after.of(InterruptionFrame))
            cut_at = len(bot.after.audio(1))
            await bot.send(ReplySpeechFrame(turn_id=1, text="too late"), ReplyEndedFrame(turn_id=1))
            await bot.reply(2, "I am listening.")
            await bot.after.until(lambda: bot.after.has_ended(2))
            assert len(bot.after.audio(1)) == cut_at < 8 * 100
            assert bot.after.words(2)

    go(main)


@pytest.mark.slow
def test_the_interruption_of_an_older_reply_leaves_the_newer_one_alone():
    async def main() -> None:
        async with running() as bot:
            await bot.reply(2, TEXT, TEXT)
            await bot.send(ReplyInterruptedFrame(turn_id=1))
            await bot.after.until(lambda: bot.after.has_ended(2))
            assert [word for word, _ in bot.after.words(2)].count("Monday") == 2

    go(main)


@pytest.mark.slow
def test_a_long_reply_is_made_only_so_far_ahead_of_real_time():
    async def main() -> None:
        async with running(lead_s=2.0) as bot:
            await bot.reply(1, *["Somebody speaks for quite a while in this sentence."] * 60)
            await bot.after.until(lambda: len(bot.after.audio(1)) >= 45)
            for _ in range(200):
                await asyncio.sleep(0)
            assert sum(len(frame.audio) for frame in bot.after.audio(1)) / 32000 < 2.5

    go(main)


@pytest.mark.slow
def test_a_killed_voice_costs_at_most_one_sentence_and_no_error_if_nothing_of_it_was_heard():
    async def main() -> None:
        async with running() as bot:
            await bot.reply(1, "Hello.")
            await bot.after.until(lambda: bot.after.has_ended(1))
            worker = shared_worker("espeak", {})
            os.kill(worker.pid, signal.SIGSTOP)
            await bot.reply(2, "Somebody kills me.", "I go on.")
            await asked(worker)
            os.kill(worker.pid, signal.SIGKILL)
            await bot.after.until(lambda: bot.after.has_ended(2))
            assert [word for word, _ in bot.after.words(2)][-2:] == ["go", "on"]
            assert worker.crashes == 1
            assert not bot.before.of(ErrorFrame)

    go(main)


@pytest.mark.slow
def test_a_voice_that_cannot_speak_tells_the_error_and_ends_the_reply():
    async def main() -> None:
        async with running(voice="no-such-voice") as bot:
            await bot.reply(1, "Hello.", "Hello again.")
            await bot.after.until(lambda: bot.after.has_ended(1))
            assert "no-such-voice" in bot.before.of(ErrorFrame)[0].error
            assert not bot.after.audio(1)

    go(main)


@pytest.mark.slow
def test_a_voice_that_keeps_silent_is_given_up_after_its_bound():
    async def main() -> None:
        async with running(first_byte_s=0.2) as bot:
            await bot.reply(1, "Hello.")
            await bot.after.until(lambda: bot.after.has_ended(1) or bot.before.of(ErrorFrame))
            worker = shared_worker("espeak", {})
            os.kill(worker.pid, signal.SIGSTOP)
            await bot.reply(2, "Nobody hears this.")
            await bot.after.until(lambda: bot.after.has_ended(2))
            assert "no sound within" in bot.before.of(ErrorFrame)[-1].error
            os.kill(worker.pid, signal.SIGCONT)

    go(main)


@pytest.mark.slow
def test_an_end_frame_waits_for_what_is_still_to_be_spoken():
    async def main() -> None:
        async with running() as bot:
            await bot.reply(1, "Goodbye.", ends=False)
            await bot.send(EndFrame())
            await bot.after.until(lambda: bot.after.of(EndFrame))
            assert bot.after.words(1)

    go(main)


@pytest.mark.slow
def test_ten_conversations_speak_at_once_through_one_process():
    async def main() -> None:
        async def converse(turn_id: int) -> list[str]:
            async with running() as bot:
                await bot.reply(turn_id, f"This is number {turn_id}.", "Goodbye.")
                await bot.after.until(lambda: bot.after.has_ended(turn_id))
                return [word for word, _ in bot.after.words(turn_id)]

        said = await asyncio.gather(*(converse(turn_id) for turn_id in range(1, 11)))
        assert [words[3] for words in said] == [str(turn_id) for turn_id in range(1, 11)]
        assert all(words[-1] == "Goodbye" for words in said)

    go(main)


@pytest.mark.slow
def test_a_model_without_a_responder_is_cleaned_and_said_as_the_list_tells() -> None:
    async def main() -> None:
        pronunciation = Pronunciation({"bikes": "by sickles"}, spells=True)
        async with running(pronunciation=pronunciation) as bot:
            tokens = ("<think>no", "</think>**Bi", "kes** like", " AB12. ", "Two")
            await bot.send(ReplyStartedFrame(turn_id=1), LLMFullResponseStartFrame(), *map(LLMTextFrame, tokens))
            await bot.send(LLMFullResponseEndFrame(), ReplyEndedFrame(turn_id=1))
            await bot.after.until(lambda: bot.after.has_ended(1))
            assert [frame.text for frame in bot.after.of(ReplyTextFrame)] == ["Bikes like AB12.", "Two"]
            assert [word for word, _ in bot.after.words(1)] == ["Bikes", "like", "AB12", "Two"]

    go(main)
