"""How the inline processor starts, fails and ends, and what it refuses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pipecat.frames.frames import CancelFrame, EndFrame, ErrorFrame, Frame, InterruptionFrame, StartFrame, TextFrame
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection

from leibniz_voice.pipeline import Pipeline, Processor, Stage, consumes
from leibniz_voice.pipeline.errors import ConfigurationError, PipelineOrderError
from tests.support.chains import Audio, Guest, Log, Recorder, Texts, run_chain, texts


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

    run_chain(Pipeline([Early(), Slow(), Texts("b", log)]), script)
    assert log == [("b", "1"), ("b", "2"), ("b", "3")]


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

    run_chain(Pipeline(chain), script)
    assert visited[:3] == ["a", "b", "c"]


def test_nothing_flows_after_a_cancel() -> None:
    log: Log = []
    first, last = Texts("a", log), Texts("b", log)

    async def script(_: PipelineWorker) -> None:
        await first.queue_frame(TextFrame(text="1"))
        await last.queue_frame(CancelFrame())
        await first.queue_frame(TextFrame(text="2"))

    run_chain(Pipeline([first, last]), script)
    assert ("b", "2") not in log


def test_a_handler_that_raises_becomes_an_error_upstream_and_the_next_frame_flows() -> None:
    log: Log = []
    errors = Recorder(ErrorFrame)

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

    run_chain(Pipeline([errors, first, fragile, Texts("b", log)]), script)
    assert log == [("a", "bad"), ("a", "good"), ("b", "good")]
    assert ["cannot read this" in e.error and e.processor is fragile for e in errors.of(ErrorFrame)] == [True, True]


def test_a_recursion_error_is_raised_and_never_made_a_frame() -> None:
    errors = Recorder(ErrorFrame)

    class Deep(Processor):
        @consumes(TextFrame)
        async def _on_text(self, frame: TextFrame, direction: FrameDirection) -> None:
            raise RecursionError

    first = Texts("a", [])

    async def script(_: PipelineWorker) -> None:
        with pytest.raises(RecursionError):
            await first.queue_frame(TextFrame(text="1"))

    run_chain(Pipeline([errors, first, Deep()]), script)
    assert errors.frames == []


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
