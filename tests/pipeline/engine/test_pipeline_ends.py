"""`Pipeline(source=, sink=)`: ends of one's own, as Pipecat's `Pipeline` takes them; by itself and inside others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pipecat.frames.frames import Frame, TextFrame
from pipecat.pipeline.parallel_pipeline import ParallelPipeline
from pipecat.pipeline.pipeline import Pipeline as PipecatPipeline
from pipecat.pipeline.pipeline import PipelineSink, PipelineSource
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from leibniz_voice.pipeline import Pipeline, Processor, Stage, consumes
from leibniz_voice.pipeline.errors import PipelineOrderError
from leibniz_voice.pipeline.testing import run_virtual

DOWN, UP = FrameDirection.DOWNSTREAM, FrameDirection.UPSTREAM


class Texts(Processor):
    """Marks texts downstream."""

    @consumes(TextFrame)
    async def _on_text(self, frame: TextFrame, direction: FrameDirection) -> None:
        frame.text += "." if direction is DOWN else "'"
        await self.push_frame(frame, direction)


class Last(FrameProcessor):
    """Keeps the texts that come by."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            self.texts.append(frame.text)
        await self.push_frame(frame, direction)


class Beside(FrameProcessor):
    """A compound processor of the kind that Pipecat's own are: it takes what leaves its inner pipeline, both ways."""

    def __init__(self, kind: type[PipecatPipeline], inner: list[FrameProcessor]) -> None:
        super().__init__(enable_direct_mode=True)
        self.left: list[tuple[str, FrameDirection]] = []
        self.source, self.sink = PipelineSource(self._left), PipelineSink(self._left)
        self.inner = kind(inner, source=self.source, sink=self.sink)

    async def setup(self, setup: Any) -> None:
        await super().setup(setup)
        await self.inner.setup(setup)

    async def cleanup(self) -> None:
        await super().cleanup()
        await self.inner.cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        end = self.source if direction is DOWN else self.sink
        await end.queue_frame(frame, direction)

    async def _left(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, TextFrame):
            self.left.append((frame.text, direction))
        await self.push_frame(frame, direction)


def run(pipeline: PipecatPipeline, script: Callable[[PipelineWorker], Awaitable[None]]) -> None:
    """Run a pipeline in virtual time, and the script once it has started."""

    async def main() -> None:
        worker = PipelineWorker(pipeline, enable_rtvi=False, enable_turn_tracking=False, idle_timeout_secs=None)
        started = asyncio.Event()

        async def on_started(*_: Any) -> None:
            started.set()

        worker.add_event_handler("on_pipeline_started", on_started)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        running = asyncio.create_task(runner.run())
        await started.wait()
        await script(worker)
        await asyncio.sleep(0.01)
        await worker.cancel()
        await running

    run_virtual(main())


@pytest.mark.parametrize("inner", [PipecatPipeline, Pipeline])
@pytest.mark.parametrize("outer", [PipecatPipeline, Pipeline])
def test_frames_leave_by_the_given_ends(outer: type[PipecatPipeline], inner: type[PipecatPipeline]) -> None:
    beside, last = Beside(inner, [Texts(), Texts()]), Last()

    async def script(worker: PipelineWorker) -> None:
        await worker.queue_frame(TextFrame("down"))
        await asyncio.sleep(0.01)
        await last.push_frame(TextFrame("up"), UP)

    run(outer([beside, last]), script)
    assert beside.left == [("down..", DOWN), ("up''", UP)]
    assert last.texts == ["down.."]


@pytest.mark.parametrize("kind", [PipecatPipeline, Pipeline])
def test_parallel_pipelines_branches_may_be_ours(kind: type[PipecatPipeline], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipecat.pipeline.parallel_pipeline.Pipeline", kind)
    last = Last()
    parallel = ParallelPipeline([Texts()], [Texts(), Texts()])

    async def script(worker: PipelineWorker) -> None:
        await worker.queue_frame(TextFrame("a"))
        await asyncio.sleep(0.01)

    run(PipecatPipeline([parallel, last]), script)
    assert last.texts == ["a..."]  # one frame, which the branches share; ParallelPipeline passes it on once


@pytest.mark.parametrize("around", [PipecatPipeline, Pipeline, ParallelPipeline])
def test_a_pipeline_with_its_own_ends_stands_in_others(around: Callable[[list[FrameProcessor]], Any]) -> None:
    beside, last = Beside(Pipeline, [Texts()]), Last()

    async def script(worker: PipelineWorker) -> None:
        await worker.queue_frame(TextFrame("a"))
        await asyncio.sleep(0.01)

    run(PipecatPipeline([around([beside]), last]), script)
    assert last.texts == ["a."]


def test_processors_are_the_chain_as_given_and_the_ends_are_entry_and_neighbours() -> None:
    chain: list[FrameProcessor] = [Texts(), Texts()]
    source, sink = Texts(), Texts()
    pipeline = Pipeline(chain, source=source, sink=sink)
    assert pipeline.processors == chain
    assert pipeline.entry_processors == [source]
    assert [source.next, chain[1].next, sink.next] == [chain[0], sink, None]
    pipeline.processors.clear()
    assert pipeline.processors == chain


def test_an_empty_chain_still_joins_its_ends() -> None:
    source, sink = Texts(), Texts()
    assert Pipeline([], source=source, sink=sink).processors == []
    assert source.next is sink


@pytest.mark.parametrize("kind", [PipecatPipeline, Pipeline])
def test_ends_with_metrics_count(kind: type[PipecatPipeline]) -> None:
    class Measures(FrameProcessor):
        def can_generate_metrics(self) -> bool:
            return True

    source, middle, sink = Measures(), Measures(), Measures()
    nested = PipecatPipeline([kind([middle], source=source, sink=sink)])
    assert nested.processors_with_metrics() == [source, middle, sink]


def test_given_ends_stand_under_the_rules_of_the_order() -> None:
    class Gate(Texts):
        stage = Stage.GATE

    class Voice(Texts):
        stage = Stage.VOICE

    with pytest.raises(PipelineOrderError, match="Voice comes after Gate"):
        Pipeline([Voice()], source=Gate())
    with pytest.raises(PipelineOrderError, match="Voice comes after Gate"):
        Pipeline([Gate()], sink=Voice())
    twice = Texts()
    with pytest.raises(PipelineOrderError, match="twice"):
        Pipeline([twice], sink=twice)
    with pytest.raises(PipelineOrderError, match="more than 100"):
        Pipeline([Texts() for _ in range(99)], source=Texts(), sink=Texts())
