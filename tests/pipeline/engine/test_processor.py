"""The inline processor: routes, order, errors, pauses, hooks, observers; in our pipeline and in stock ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from pipecat.frames.frames import (
    CancelFrame,
    DataFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameProcessorPauseUrgentFrame,
    FrameProcessorResumeUrgentFrame,
    InputAudioRawFrame,
    InterruptionFrame,
    StartFrame,
    SystemFrame,
    TextFrame,
)
from pipecat.observers.base_observer import BaseObserver, FrameProcessed, FramePushed
from pipecat.pipeline.parallel_pipeline import ParallelPipeline
from pipecat.pipeline.pipeline import Pipeline as StockPipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from leibniz_voice.pipeline import Pipeline, Processor, Stage, consumes
from leibniz_voice.pipeline.errors import ConfigurationError, PipelineOrderError
from leibniz_voice.pipeline.testing import run_virtual

DOWN, UP = FrameDirection.DOWNSTREAM, FrameDirection.UPSTREAM
Log = list[tuple[str, str]]


class Texts(Processor):
    """Logs texts and passes them on."""

    def __init__(self, name: str, log: Log) -> None:
        super().__init__(name=name)
        self.log = log

    @consumes(TextFrame)
    async def _on_text(self, frame: TextFrame, direction: FrameDirection) -> None:
        self.log.append((self.name, frame.text))
        await self.push_frame(frame, direction)


class Audio(Processor):
    """Cares for audio only."""

    @consumes(InputAudioRawFrame)
    async def _on_audio(self, frame: Frame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)


class Guest(FrameProcessor):
    """A queued processor of Pipecat's kind, with a short think."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await asyncio.sleep(0)
        await self.push_frame(frame, direction)


class Everything(Processor):
    """Sees every frame, as a Pipecat processor does."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.seen.append(frame)
        await self.push_frame(frame, direction)


class Errors(Processor):
    """Collects error frames that come by."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[ErrorFrame] = []

    @consumes(ErrorFrame)
    async def _on_error(self, frame: ErrorFrame, direction: FrameDirection) -> None:
        self.errors.append(frame)
        await self.push_frame(frame, direction)


def run(
    pipeline: FrameProcessor,
    script: Callable[[PipelineWorker], Awaitable[None]],
    observers: Sequence[BaseObserver] = (),
) -> None:
    """Run a pipeline in virtual time, the script once it has started, and cancel it afterwards."""

    async def main() -> None:
        worker = PipelineWorker(
            pipeline,  # type: ignore[arg-type]
            enable_rtvi=False,
            enable_turn_tracking=False,
            idle_timeout_secs=None,
            observers=list(observers),
        )
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


def texts(*words: str) -> list[TextFrame]:
    return [TextFrame(text=word) for word in words]


def test_a_frame_goes_straight_to_the_next_that_consumes_it() -> None:
    log: Log = []
    chain = [Texts("a", log), Audio(), Audio(), Texts("b", log)]

    async def script(_: PipelineWorker) -> None:
        await chain[0].queue_frame(TextFrame(text="1"))
        assert log == [("a", "1"), ("b", "1")]  # inline: over when queue_frame returns

    run(Pipeline(chain), script)


def test_a_consumed_frame_goes_on_only_if_its_handler_pushes_it() -> None:
    log: Log = []

    class Eater(Processor):
        @consumes(TextFrame)
        async def _on_text(self, frame: Frame, direction: FrameDirection) -> None:
            pass

    first = Texts("a", log)

    async def script(_: PipelineWorker) -> None:
        await first.queue_frame(TextFrame(text="1"))

    run(Pipeline([first, Eater(), Texts("b", log)]), script)
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

    run(Pipeline([both]), script)
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

    run(Pipeline([first, *middle, last]), script)
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

    run(Pipeline([first, Audio(), last]), script)
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

    run(Pipeline([Texts("zero", log), first, Bounce()]), script)
    assert log == [("a", "1"), ("a", "1'"), ("zero", "1'")]


def test_a_handler_that_raises_becomes_an_error_upstream_and_the_next_frame_flows() -> None:
    log: Log = []
    errors = Errors()

    class Fragile(Processor):
        @consumes(TextFrame)
        async def _on_text(self, frame: TextFrame, direction: FrameDirection) -> None:
            if frame.text == "bad":
                raise ValueError("cannot read this")
            await self.push_frame(frame, direction)

    first, fragile = Texts("a", log), Fragile(name="fragile")

    async def script(_: PipelineWorker) -> None:
        for frame in texts("bad", "good"):
            await first.queue_frame(frame)
        await fragile.queue_frame(TextFrame(text="bad"))  # as a guest would push it

    run(Pipeline([errors, first, fragile, Texts("b", log)]), script)
    assert log == [("a", "bad"), ("a", "good"), ("b", "good")]
    assert ["cannot read this" in e.error and e.processor is fragile for e in errors.errors] == [True, True]


def test_a_recursion_error_is_raised_and_never_made_a_frame() -> None:
    errors = Errors()

    class Deep(Processor):
        @consumes(TextFrame)
        async def _on_text(self, frame: TextFrame, direction: FrameDirection) -> None:
            raise RecursionError

    first = Texts("a", [])

    async def script(_: PipelineWorker) -> None:
        with pytest.raises(RecursionError):
            await first.queue_frame(TextFrame(text="1"))

    run(Pipeline([errors, first, Deep()]), script)
    assert errors.errors == []


def test_a_hundred_in_a_row_start_and_one_more_is_refused() -> None:
    log: Log = []

    async def script(_: PipelineWorker) -> None:
        await chain[0].queue_frame(TextFrame(text="1"))

    chain = [Texts("a", log), *(Audio() for _ in range(98)), Texts("b", log)]
    run(Pipeline(chain), script)
    assert log[-1] == ("b", "1")
    with pytest.raises(PipelineOrderError, match="more than 100"):
        Pipeline([Audio() for _ in range(101)])


def test_frames_before_the_start_are_held_and_keep_their_order() -> None:
    log: Log = []

    class Slow(Processor):
        async def setup(self, setup: Any) -> None:
            await super().setup(setup)
            await asyncio.sleep(1)

    class Early(Processor):
        @consumes(StartFrame)
        async def _on_start(self, frame: Frame, direction: FrameDirection) -> None:
            for early in texts("1", "2"):
                await self.push_frame(early)
            await self.push_frame(frame, direction)
            await self.push_frame(TextFrame(text="3"))

    async def script(_: PipelineWorker) -> None:
        pass

    run(Pipeline([Early(), Slow(), Texts("b", log)]), script)
    assert log == [("b", "1"), ("b", "2"), ("b", "3")]


def test_a_paused_processor_holds_data_lets_system_frames_by_and_resumes_in_order() -> None:
    log: Log = []
    first, last, every = Texts("a", log), Texts("b", log), Everything()

    async def script(worker: PipelineWorker) -> None:
        await first.queue_frame(TextFrame(text="0"))
        await worker.queue_frame(FrameProcessorPauseUrgentFrame(processor=last))
        await asyncio.sleep(0.01)
        for frame in texts("1", "2"):
            await first.queue_frame(frame)
        await first.queue_frame(SystemFrame())
        assert [text for name, text in log if name == "b"] == ["0"]
        assert type(every.seen[-1]) is SystemFrame
        await worker.queue_frame(FrameProcessorResumeUrgentFrame(processor=last))
        await asyncio.sleep(0.01)

    run(Pipeline([first, Audio(), last, every]), script)
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

    run(Pipeline([first, last]), script)
    assert [text for name, text in log if name == "b"] == ["keep", "after"]


@pytest.mark.parametrize(
    "frame", [InterruptionFrame(), EndFrame(), CancelFrame(), ErrorFrame(error="x")], ids=lambda f: type(f).__name__
)
def test_lifecycle_frames_visit_everybody(frame: Frame) -> None:
    visited = []

    class Watch(Processor):
        @consumes(InterruptionFrame, EndFrame, CancelFrame, ErrorFrame)
        async def _on_any(self, frame: Frame, direction: FrameDirection) -> None:
            visited.append(self.name)
            await self.push_frame(frame, direction)

    chain = [Watch(name="a"), Audio(), Watch(name="b"), Guest(), Watch(name="c")]

    async def script(_: PipelineWorker) -> None:
        await chain[0].queue_frame(frame)
        await asyncio.sleep(0.01)

    run(Pipeline(chain), script)
    assert visited[:3] == ["a", "b", "c"]


def test_nothing_flows_after_a_cancel() -> None:
    log: Log = []
    first, last = Texts("a", log), Texts("b", log)

    async def script(_: PipelineWorker) -> None:
        await first.queue_frame(TextFrame(text="1"))
        await last.queue_frame(CancelFrame())
        await first.queue_frame(TextFrame(text="2"))

    run(Pipeline([first, last]), script)
    assert ("b", "2") not in log


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

    run(Pipeline([first, quiet, last]), script)
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

    run(Pipeline([first, Audio(), Texts("b", log)]), script, () if is_late else (hops,))
    assert ("a", "b") in hops.pushed
    assert hops.processed[:2] == ["a", "b"]


def test_relinking_takes_effect_at_once() -> None:
    log: Log = []
    first, old, new = Texts("a", log), Texts("old", log), Texts("new", log)

    async def script(_: PipelineWorker) -> None:
        await first.queue_frame(TextFrame(text="1"))
        first.link(new)  # leave the old one out
        await first.queue_frame(TextFrame(text="2"))

    run(Pipeline([first, old, new]), script)
    assert log == [("a", "1"), ("old", "1"), ("new", "1"), ("a", "2"), ("new", "2")]


@pytest.mark.parametrize("around", [StockPipeline, lambda chain: ParallelPipeline(chain)])
def test_ours_run_in_stock_pipelines(around: Callable[[list[FrameProcessor]], FrameProcessor]) -> None:
    log: Log = []
    inner = around([Texts("a", log), Guest(), Audio(), Texts("b", log)])

    async def script(worker: PipelineWorker) -> None:
        await worker.queue_frame(TextFrame(text="1"))
        await asyncio.sleep(0.05)

    run(StockPipeline([inner]), script)
    assert log == [("a", "1"), ("b", "1")]


def test_wrong_use_is_refused_with_a_reason() -> None:
    with pytest.raises(ConfigurationError, match="async def"):

        class _(Processor):
            @consumes(TextFrame)
            def _on_text(self, frame: Frame, direction: FrameDirection) -> None: ...

    with pytest.raises(ConfigurationError, match="frame classes"):
        consumes(str)  # type: ignore[type-var]
    with pytest.raises(ConfigurationError, match="use one of them"):

        class _(Processor):
            @consumes(TextFrame)
            async def _on_text(self, frame: Frame, direction: FrameDirection) -> None: ...

            async def process_frame(self, frame: Frame, direction: FrameDirection) -> None: ...


def test_an_order_that_cannot_work_is_refused_with_a_reason() -> None:
    class Gate(Audio):
        stage = Stage.GATE

    class Voice(Audio):
        stage = Stage.VOICE

    with pytest.raises(PipelineOrderError, match="Voice comes after Gate but must come before it: the gate can only"):
        Pipeline([Gate(), Audio(), Voice()])
    twice = Audio()
    with pytest.raises(PipelineOrderError, match="twice"):
        Pipeline([twice, Texts("a", []), twice])
