"""The inline processor that is paused: what waits, what passes, what lifts it."""

from __future__ import annotations

import asyncio

from pipecat.frames.frames import (
    FrameProcessorPauseUrgentFrame,
    FrameProcessorResumeUrgentFrame,
    InterruptionFrame,
    SystemFrame,
    TextFrame,
)
from pipecat.pipeline.worker import PipelineWorker

from leibniz_voice.pipeline import Pipeline
from tests.support.chains import Audio, Log, Recorder, Texts, run_chain, texts


def test_a_paused_processor_holds_data_lets_system_frames_by_and_resumes_in_order() -> None:
    log: Log = []
    first, last, every = Texts("a", log), Texts("b", log), Recorder()

    async def script(worker: PipelineWorker) -> None:
        await first.queue_frame(TextFrame(text="0"))
        await worker.queue_frame(FrameProcessorPauseUrgentFrame(processor=last))
        await asyncio.sleep(0.01)
        for frame in texts("1", "2"):
            await first.queue_frame(frame)
        await first.queue_frame(SystemFrame())
        assert [text for name, text in log if name == "b"] == ["0"]
        assert type(every.frames[-1]) is SystemFrame
        await worker.queue_frame(FrameProcessorResumeUrgentFrame(processor=last))
        await asyncio.sleep(0.01)

    run_chain(Pipeline([first, Audio(), last, every]), script)
    assert [text for name, text in log if name == "b"] == ["0", "1", "2"]


def test_an_interruption_lifts_a_pause_and_drops_what_may_be_dropped() -> None:
    log: Log = []
    first, last = Texts("a", log), Texts("b", log)

    async def script(worker: PipelineWorker) -> None:
        await last.pause_processing_frames()
        keep = TextFrame(text="keep")
        keep.interruptible = False
        for frame in (TextFrame(text="drop"), keep):
            await first.queue_frame(frame)
        await first.queue_frame(InterruptionFrame())
        await first.queue_frame(TextFrame(text="after"))

    run_chain(Pipeline([first, last]), script)
    assert [text for name, text in log if name == "b"] == ["keep", "after"]
