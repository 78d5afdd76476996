"""The embedded recogniser: its phrases in other voices than the bot's, nothing else, and no word lost to a barge-in."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import soxr
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.worker import PipelineWorker

from leibniz_voice.pipeline.errors import WorkerCrashed
from leibniz_voice.pipeline.frames import SpeechChunkFrame, UnrecognizedSpeechFrame
from leibniz_voice.processors.embedded.recogniser.sphinx import Recognition, SphinxRecogniser
from leibniz_voice.processors.embedded.workers.shared import close_all, shared_worker
from leibniz_voice.processors.embedded.workers.worker import WorkerProcess
from leibniz_voice.processors.stt import EmbeddedSTT
from tests.support.chains import Recorder, chain
from tests.support.speech import spoken
from tests.support.tools import needs

pytestmark = needs("pocketsphinx")
RATE = 16000
PHRASES = [
    "Where is my order?", "I want to return an item.", "How do I get a refund?", "What are your opening hours?",
    "Do you ship abroad?", "How much does shipping cost?", "Can I change my delivery address?", "Cancel my order!",
    "What payment methods do you accept?", "Is this item in stock?", "Where is the nearest store?", "Talk to a human",
]  # fmt: skip
UNLISTED = [
    "what is the capital of france", "who won the football match last night", "my grandmother likes to bake apple pie",
    "i think the blue whale is the largest animal",
]  # fmt: skip
own_voice = partial(spoken, by="bot", voice="en-us+f3")  # a variant of the bot's voice


def padded(speech: np.ndarray, *, noise: float = 0.0, before_s: float = 0.5, after_s: float = 0.3) -> bytes:
    """What a VAD cuts out: some quiet, the speech, the hangover."""
    audio = np.concatenate([np.zeros(int(before_s * RATE)), speech, np.zeros(int(after_s * RATE))])
    audio += np.random.default_rng(1).normal(0, noise, len(audio)) if noise else 0
    return np.clip(audio, -32768, 32767).astype(np.int16).tobytes()


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


def recognised(utterances: list[bytes], rate: int = RATE) -> list[Recognition]:
    found: list[Recognition] = []

    async def main() -> None:
        recogniser = SphinxRecogniser(phrases=PHRASES)
        found.extend([await recogniser.recognise(utterance, rate) for utterance in utterances])

    go(main)
    return found


# -- recogniser ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@needs("flite")
@pytest.mark.parametrize("noise", [0.0, 8.0])
@pytest.mark.parametrize("voice", ["slt", "rms"])
def test_listed_phrases_are_heard_and_others_rejected(voice: str, noise: float):
    heard = recognised([padded(spoken(phrase, voice=voice), noise=noise) for phrase in [*PHRASES, *UNLISTED]])
    assert [one.text for one in heard] == PHRASES + [""] * len(UNLISTED)


@pytest.mark.slow
def test_a_variant_of_the_bots_own_voice_is_heard():
    phrases = PHRASES[:4]
    assert [one.text for one in recognised([padded(own_voice(phrase)) for phrase in phrases])] == phrases


@pytest.mark.slow
def test_silence_and_noise_are_no_phrase():
    rng = np.random.default_rng(2)
    bursts = [rng.normal(0, level, 8000).astype(np.int16) for level in (0, 30, 300, 3000)]
    assert {one.text for one in recognised([b"", *map(padded, bursts)])} == {""}


@pytest.mark.slow
def test_audio_of_a_telephone_is_resampled():
    pcm = np.frombuffer(padded(own_voice(PHRASES[0])), np.int16)
    assert recognised([soxr.resample(pcm, RATE, 8000).tobytes()], 8000)[0].best_guess == PHRASES[0]


@pytest.mark.slow
def test_an_invented_word_is_heard_by_its_pronunciation():
    async def main() -> None:
        phrases = ["call leibnizia", "call your mother"]
        recogniser = SphinxRecogniser(phrases=phrases, pronunciations={"leibnizia": "L AY B N IH T S IY AH"})
        heard = await recogniser.recognise(speech, RATE)
        assert heard.best_guess == phrases[0]

    speech = padded(own_voice("call libe-nitsia"))
    go(main)


@pytest.mark.slow
def test_a_killed_recogniser_costs_one_utterance():
    speech = padded(own_voice(PHRASES[0]))

    async def main() -> None:
        recogniser = SphinxRecogniser(phrases=PHRASES)
        await recogniser.warm_up()
        os.kill(recogniser.pid, signal.SIGSTOP)
        lost = asyncio.create_task(recogniser.recognise(speech, RATE))
        await asyncio.sleep(0)
        os.kill(recogniser.pid, signal.SIGKILL)
        with pytest.raises(WorkerCrashed):
            await lost
        assert (await recogniser.recognise(speech, RATE)).text == PHRASES[0]

    go(main)


# -- processor -------------------------------------------------------------------------------------------------


class Ears(Recorder):
    """What is heard behind the recogniser."""

    @property
    def results(self) -> list[str]:
        return [getattr(frame, "text", "") for frame in self.of(TranscriptionFrame, UnrecognizedSpeechFrame)]


class Bot:
    """An EmbeddedSTT in a running pipeline."""

    def __init__(self, **options: Any) -> None:
        self.worker: PipelineWorker | None = None  # while it runs
        self.before = Recorder()  # sees the errors, which go upstream
        self.after = Ears()
        self.stt = EmbeddedSTT(phrases=PHRASES, **options)

    async def send(self, *frames: Frame) -> None:
        assert self.worker is not None
        await self.worker.queue_frames(list(frames))

    async def hear(
        self,
        speech: np.ndarray,
        *,
        rate: int = RATE,
        channels: int = 1,
        is_told_of_chunks: bool = False,
        has_ended: bool = True,
    ) -> None:
        """Send quiet, speech, quiet as a microphone and a VAD with 100 ms onset and 300 ms hangover would."""
        pcm = np.frombuffer(padded(speech, before_s=1.0, after_s=0.3), np.int16)
        pcm = soxr.resample(pcm, RATE, rate) if rate != RATE else pcm
        size = rate // 50
        frames: list[Frame] = [
            InputAudioRawFrame(np.repeat(pcm[at : at + size], channels).tobytes(), rate, channels)
            for at in range(0, len(pcm), size)
        ]
        if is_told_of_chunks:
            loud = [bool(np.abs(pcm[at : at + size].astype(int)).max() > 300) for at in range(0, len(pcm), size)]
            told = [SpeechChunkFrame(confidence=0.9 * is_loud, speech_ms=100.0) for is_loud in loud]
            frames = [frame for pair in zip(frames, told, strict=True) for frame in pair]
        frames.insert(55 * (1 + is_told_of_chunks), VADUserStartedSpeakingFrame(start_secs=0.1))
        await self.send(*frames, *[VADUserStoppedSpeakingFrame(stop_secs=0.3)] * has_ended)


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Bot]:
    bot = Bot(**options)
    async with chain(bot.before, bot.stt, bot.after) as bot.worker:
        yield bot


@pytest.mark.slow
def test_an_utterance_becomes_a_final_transcription_after_the_end_of_speech_has_gone_on():
    speech = own_voice(PHRASES[0])

    async def main() -> None:
        async with running() as bot:
            await bot.hear(speech)
            await bot.after.until(lambda: bot.after.results)
            kept = bot.after.of(VADUserStoppedSpeakingFrame, TranscriptionFrame)
            assert isinstance(kept[0], VADUserStoppedSpeakingFrame)
            assert kept[1].text == PHRASES[0]
            assert kept[1].finalized
            assert len(bot.after.of(InputAudioRawFrame)) == len(bot.before.of(InputAudioRawFrame)) > 100

    go(main)


@pytest.mark.slow
def test_unlisted_speech_is_reported_with_its_length_and_without_words():
    speech = own_voice("my grandmother likes to bake apple pie")

    async def main() -> None:
        async with running() as bot:
            await bot.hear(speech)
            await bot.after.until(lambda: bot.after.results)
            assert not bot.after.of(TranscriptionFrame)
            voiced_ms = bot.after.of(UnrecognizedSpeechFrame)[0].voiced_ms
            assert abs(voiced_ms - len(speech) / 16) < 50

    go(main)


@pytest.mark.slow
def test_the_words_are_known_when_the_vad_has_waited_for_the_end():
    speech = own_voice(PHRASES[0])

    async def main() -> None:
        async with running() as bot:
            await bot.hear(speech, is_told_of_chunks=True, has_ended=False)
            worker = shared_worker("sphinx", SphinxRecogniser(phrases=PHRASES).options)
            await asked(worker)
            async with asyncio.timeout(10):
                while worker.in_flight:
                    await asyncio.sleep(0)
            assert not bot.after.results
            await bot.send(VADUserStoppedSpeakingFrame(stop_secs=0.3))
            await bot.after.until(lambda: bot.after.results)
            assert bot.after.results == [PHRASES[0]]

    go(main)


@pytest.mark.slow
def test_a_pause_within_an_utterance_does_not_cut_it():
    # Quiet for 0.4 s between the words, and a VAD that waits longer.
    first, second = own_voice("where is"), own_voice("my order")
    speech = np.concatenate([first, np.zeros(3000, np.int16), second])

    async def main() -> None:
        async with running() as bot:
            await bot.hear(speech, is_told_of_chunks=True)
            await bot.after.until(lambda: bot.after.results)
            assert bot.after.results == [PHRASES[0]]

    go(main)


@pytest.mark.slow
def test_words_that_interrupt_are_not_lost():
    speech = own_voice(PHRASES[1])

    async def main() -> None:
        async with running() as bot:
            await bot.hear(speech)
            await bot.send(InterruptionFrame())
            await bot.after.until(lambda: bot.after.results)
            assert bot.after.results == [PHRASES[1]]

    go(main)


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "channels"), [(48000, 1), (16000, 2)])
def test_other_rates_and_two_channels_are_heard(rate: int, channels: int):
    speech = own_voice(PHRASES[2])

    async def main() -> None:
        async with running() as bot:
            await bot.hear(speech, rate=rate, channels=channels)
            await bot.after.until(lambda: bot.after.results)
            assert bot.after.results == [PHRASES[2]]

    go(main)


@pytest.mark.slow
def test_endless_speech_is_cut_into_utterances():
    async def main() -> None:
        async with running() as bot:
            await bot.send(VADUserStartedSpeakingFrame(start_secs=0.1))
            await bot.send(*[InputAudioRawFrame(bytes(640), RATE, 1)] * 800, VADUserStoppedSpeakingFrame())
            await bot.after.until(lambda: len(bot.after.results) == 2)

    go(main)


@pytest.mark.slow
def test_an_utterance_survives_the_death_of_its_recogniser():
    speech = own_voice(PHRASES[3])

    async def main() -> None:
        async with running() as bot:
            await bot.hear(speech)
            await bot.after.until(lambda: bot.after.results)
            worker = shared_worker("sphinx", SphinxRecogniser(phrases=PHRASES).options)
            os.kill(worker.pid, signal.SIGSTOP)
            await bot.hear(speech)
            await asked(worker)
            os.kill(worker.pid, signal.SIGKILL)
            await bot.after.until(lambda: len(bot.after.results) == 2)
            assert worker.crashes == 1
            assert bot.after.results == [PHRASES[3]] * 2
            assert not bot.before.of(ErrorFrame)

    go(main)


@pytest.mark.slow
def test_ten_conversations_are_heard_at_once_by_one_process():
    speeches = [own_voice(phrase) for phrase in PHRASES[:10]]

    async def main() -> None:
        async def converse(speech: np.ndarray) -> list[str]:
            async with running() as bot:
                await bot.hear(speech)
                await bot.after.until(lambda: bot.after.results)
                return bot.after.results

        heard = await asyncio.gather(*map(converse, speeches))
        assert [text for (text,) in heard] == PHRASES[:10]

    go(main)
