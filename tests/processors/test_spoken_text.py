"""`SpokenText` before a voice: any voice gets cleaned texts, in any pipeline."""

from __future__ import annotations

import asyncio

import pytest
from pipecat.frames.frames import (
    AggregatedTextFrame,
    Frame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TTSSpeakFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline as StockPipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.workers.runner import WorkerRunner

from leibniz_voice.pipeline.testing import Bench
from leibniz_voice.pipeline.text.cleaning import CLEANED, Cleaning
from leibniz_voice.processors import SpokenText
from tests.pipeline.reply.test_llm_reply import StockVoice

TOKENS = ("<thi", "nk>no</thi", "nk>**Hi", "** 😀", ". See [x](", "https://a.example).", " 2 <")


def texts_behind(*frames: Frame, cleaning: Cleaning | None = None) -> list[str]:
    """What of the frames' texts passes."""

    async def main() -> list[str]:
        async with Bench(SpokenText(cleaning=cleaning or Cleaning())) as bench:
            for frame in frames:
                await bench.send(frame)
            return [frame.text for frame in bench.below(Frame) if hasattr(frame, "text")]

    return asyncio.run(main())


def response(*tokens: str) -> list[Frame]:
    return [LLMFullResponseStartFrame(), *map(LLMTextFrame, tokens), LLMFullResponseEndFrame()]


def test_a_response_is_cleaned_while_it_grows() -> None:
    assert "".join(texts_behind(*response(*TOKENS))) == "Hi. See x. 2 <"
    assert "".join(texts_behind(*response(*TOKENS), cleaning=Cleaning(markup=False))).startswith("**Hi** 😀. See [x]")


def test_whole_texts_are_cleaned_and_one_of_which_nothing_is_left_is_not_sent() -> None:
    speak = TTSSpeakFrame("**Hi** 😀"), TTSSpeakFrame("😀")
    sentences = [AggregatedTextFrame(text, "sentence") for text in ("<think>No.", "No.</think>", "_Yes_.")]
    said = TTSTextFrame("*said*", "word")
    assert texts_behind(*speak, *sentences, said) == ["Hi", "Yes.", "*said*"]


def test_what_was_cleaned_or_is_only_shown_passes() -> None:
    shown = LLMTextFrame("**shown**")
    shown.skip_tts = True
    done = LLMTextFrame("*a*")
    done.metadata[CLEANED] = True
    assert texts_behind(LLMFullResponseStartFrame(), done, shown) == ["*a*", "**shown**"]


def test_an_interruption_drops_what_was_held() -> None:
    frames = [LLMFullResponseStartFrame(), LLMTextFrame("<think>no"), InterruptionFrame(), LLMTextFrame("Yes")]
    assert texts_behind(*frames) == ["Yes"]


@pytest.mark.slow
def test_a_voice_of_pipecats_in_a_pipeline_of_pipecats_gets_cleaned_text() -> None:
    async def main() -> str:
        voice = StockVoice()
        worker = PipelineWorker(StockPipeline([SpokenText(), voice]), enable_rtvi=False, cancel_on_idle_timeout=False)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        task = asyncio.create_task(runner.run())
        await worker.queue_frames(response(*TOKENS))
        async with asyncio.timeout(10):
            while " ".join(voice.texts).count(" ") < 4:
                await asyncio.sleep(0.01)
        await worker.cancel()
        await task
        return " ".join(" ".join(voice.texts).split())

    assert asyncio.run(main()) == "Hi. See x. 2 <"
