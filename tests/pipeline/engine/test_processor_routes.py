"""Where a frame goes, in what order, and who is told: in our pipelines and in stock ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pipecat.frames.frames import DataFrame, Frame, TextFrame
from pipecat.observers.base_observer import BaseObserver, FrameProcessed, FramePushed
from pipecat.pipeline.parallel_pipeline import ParallelPipeline
from pipecat.pipeline.pipeline import Pipeline as StockPipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from leibniz_voice.pipeline import Pipeline, Processor, consumes
from leibniz_voice.pipeline.errors import PipelineOrderError
from tests.support.chains import Audio, Guest, Log, Texts, run_chain, texts

DOWN, UP = FrameDirection.DOWNSTREAM, FrameDirection.UPSTREAM


def test_a_frame_goes_straight_to_the_next_that_consumes_it() -> None:
    log: Log = []
    chain = [Texts("a", log), Audio(), Audio(), Texts("b", log)]

    async def script(_: PipelineWorker) -> None:
        await chain[0].queue_frame(TextFrame(text="1"))
        assert log == [("a", "1"), ("b", "1")]  # inline: over when queue_frame returns

    run_chain(Pipeline(chain), script)


def test_a_consumed_frame_goes_on_only_if_its_handler_pushes_it() -> None:
    log: Log = []

    class Eater(Processor):
        @consumes(TextFrame)
        async def _on_text(self, frame: Frame, direction: FrameDirection) -> None:
            pass

    first = Texts("a", log)

    async def script(_: PipelineWorker) -> None:
        await first.queue_frame(TextFrame(text="1"))

    run_chain(Pipeline([first, Eater(), Texts("b", log)]), script)
    assert log == [("a", "1")]


def test_subclasses_of_a_consumed_type_count_and_the_nearest_wins() -> None:
    seen = []

    class Special(TextFrame):
        pass

    class Both(Processor):
        @consumes(DataFrame)
        async def _on_data(self, frame: Frame, direction: FrameDirection) -> None:
            seen.append("data")

        @consumes(Special)
        async def _on_special(self, frame: Frame, direction: FrameDirection) -> None:
            seen.append("special")

    both = Both()

    async def script(_: PipelineWorker) -> None:
        await both.queue_frame(TextFrame(text=""))
        await both.queue_frame(Special(text=""))

    run_chain(Pipeline([both]), script)
    assert seen == ["data", "special"]


@pytest.mark.parametrize("guests", [0, 1, 3])
def test_frames_of_one_source_keep_their_order_also_round_guests(guests: int) -> None:
    log: Log = []
    first, last = Texts("a", log), Texts("b", log)
    middle = [p for _ in range(guests) for p in (Guest(), Audio())]
    words = [str(i) for i in range(50)]

    async def script(_: PipelineWorker) -> None:
        for frame in texts(*words):
            await first.queue_frame(frame)
        await asyncio.sleep(0.1)

    run_chain(Pipeline([first, *middle, last]), script)
    assert [text for name, text in log if name == "b"] == words


def test_two_tasks_pushing_into_one_processor_lose_and_mix_nothing() -> None:
    log: Log = []
    first, last = Texts("a", log), Texts("b", log)

    async def script(_: PipelineWorker) -> None:
        async def push(mark: str) -> None:
            for number in range(100):
                await first.queue_frame(TextFrame(text=f"{mark}{number}"))
                await asyncio.sleep(0)

        await asyncio.gather(push("x"), push("y"))

    run_chain(Pipeline([first, Audio(), last]), script)
    for mark in "xy":
        assert [t for n, t in log if n == "b" and t[0] == mark] == [f"{mark}{i}" for i in range(100)]


def test_a_push_from_within_a_handler_is_handled_in_the_same_run() -> None:
    log: Log = []

    class Bounce(Processor):
        @consumes(TextFrame)
        async def _on_text(self, frame: TextFrame, direction: FrameDirection) -> None:
            await self.push_frame(TextFrame(text=frame.text + "'"), UP)

    first = Texts("a", log)

    async def script(_: PipelineWorker) -> None:
        await first.queue_frame(TextFrame(text="1"))

    run_chain(Pipeline([Texts("zero", log), first, Bounce()]), script)
    assert log == [("a", "1"), ("a", "1'"), ("zero", "1'")]


def test_a_hundred_in_a_row_start_and_one_more_is_refused() -> None:
    log: Log = []

    async def script(_: PipelineWorker) -> None:
        await chain[0].queue_frame(TextFrame(text="1"))

    chain = [Texts("a", log), *(Audio() for _ in range(98)), Texts("b", log)]
    run_chain(Pipeline(chain), script)
    assert log[-1] == ("b", "1")
    with pytest.raises(PipelineOrderError, match="more than 100"):
        Pipeline([Audio() for _ in range(101)])


def test_frame_hooks_and_callbacks_work_on_any_processor() -> None:
    log: Log = []
    first, quiet, last = Texts("a", log), Audio(name="quiet"), Texts("b", log)
    events: list[str] = []

    async def script(_: PipelineWorker) -> None:
        await first.queue_frame(TextFrame(text="0"))
        for name in ("before_process", "after_process", "before_push", "after_push"):

            async def note(_: Any, frame: Frame, name: str = name) -> None:
                if isinstance(frame, TextFrame):
                    events.append(name)

            quiet.add_event_handler(f"on_{name}_frame", note)

        async def called(*_: Any) -> None:
            events.append("callback")

        await first.queue_frame(TextFrame(text="1"), DOWN, called)

    run_chain(Pipeline([first, quiet, last]), script)
    assert events == ["before_process", "before_push", "after_push", "after_process", "callback"]
    assert log == [("a", "0"), ("b", "0"), ("a", "1"), ("b", "1")]


class Hops(BaseObserver):
    """Notes every hop it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.pushed: list[tuple[str, str]] = []
        self.processed: list[str] = []

    async def on_push_frame(self, data: FramePushed) -> None:
        if isinstance(data.frame, TextFrame):
            self.pushed.append((data.source.name, data.destination.name))

    async def on_process_frame(self, data: FrameProcessed) -> None:
        if isinstance(data.frame, TextFrame):
            self.processed.append(data.processor.name)


@pytest.mark.parametrize("is_late", [False, True])
def test_an_observer_is_told_the_hops_that_happen(is_late: bool) -> None:
    log: Log = []
    first, hops = Texts("a", log), Hops()

    async def script(worker: PipelineWorker) -> None:
        await first.queue_frame(TextFrame(text="0"))
        if is_late:
            hops.pushed.clear()
            worker.add_observer(hops)
            await asyncio.sleep(0)
            await first.queue_frame(TextFrame(text="1"))
        await asyncio.sleep(0.01)

    run_chain(Pipeline([first, Audio(), Texts("b", log)]), script, () if is_late else (hops,))
    assert ("a", "b") in hops.pushed
    assert hops.processed[:2] == ["a", "b"]


def test_relinking_takes_effect_at_once() -> None:
    log: Log = []
    first, old, new = Texts("a", log), Texts("old", log), Texts("new", log)

    async def script(_: PipelineWorker) -> None:
        await first.queue_frame(TextFrame(text="1"))
        first.link(new)  # leave the old one out
        await first.queue_frame(TextFrame(text="2"))

    run_chain(Pipeline([first, old, new]), script)
    assert log == [("a", "1"), ("old", "1"), ("new", "1"), ("a", "2"), ("new", "2")]


@pytest.mark.parametrize("around", [StockPipeline, lambda chain: ParallelPipeline(chain)])
def test_ours_run_in_stock_pipelines(around: Callable[[list[FrameProcessor]], FrameProcessor]) -> None:
    log: Log = []
    inner = around([Texts("a", log), Guest(), Audio(), Texts("b", log)])

    async def script(worker: PipelineWorker) -> None:
        await worker.queue_frame(TextFrame(text="1"))
        await asyncio.sleep(0.05)

    run_chain(StockPipeline([inner]), script)
    assert log == [("a", "1"), ("b", "1")]
