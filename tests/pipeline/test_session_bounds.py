"""The session: it starts or fails with its reason, and ends in bounded time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from pipecat.frames.frames import CancelFrame, EndFrame, Frame, StartFrame, TextFrame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from leibniz_voice.pipeline import Pipeline, Processor, Session, consumes
from leibniz_voice.pipeline.session import SessionFailed
from leibniz_voice.pipeline.testing import run_virtual
from tests.pipeline.engine.test_turn_tasks import Worker
from tests.support.chains import Guest, Recorder, started


class DropsEnd(FrameProcessor):
    """A guest that loses EndFrame and CancelFrame."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, (EndFrame, CancelFrame)):
            await self.push_frame(frame, direction)


class Swallows(FrameProcessor):
    """A guest whose handler swallows every cancellation."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        while isinstance(frame, TextFrame):
            if asyncio.get_running_loop().time() > 100:
                return
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(200)


class NeverStarts(FrameProcessor):
    """A guest that keeps StartFrame."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, StartFrame):
            await self.push_frame(frame, direction)


@pytest.mark.parametrize("guest", [DropsEnd, Swallows, Guest])
@pytest.mark.parametrize("how", ["end", "cancel"])
def test_a_session_ends_in_bounded_time_whatever_a_guest_does(guest: type[FrameProcessor], how: str) -> None:
    async def main() -> None:
        loop, head = asyncio.get_running_loop(), Worker()
        async with started(Recorder(), guest(), head) as session:
            await session.input.queue_frame(TextFrame(text="1"))
            await asyncio.sleep(0.01)
            at = loop.time()
            await (session.end(timeout_s=1.0) if how == "end" else session.cancel())
            assert loop.time() - at <= (6.0 if how == "end" else 5.0)
            await asyncio.wait_for(session.wait(), 1) if not session.abandoned else None
            await asyncio.sleep(200)  # let the stubborn one go, for the loop to close

    run_virtual(main())


def test_a_pipeline_that_never_starts_fails_with_a_reason_and_is_taken_down() -> None:
    async def main() -> None:
        before = len(asyncio.all_tasks())
        with pytest.raises(SessionFailed, match="did not start: nothing happened for 10 s"):
            async with started(Recorder(), NeverStarts(), Recorder()):
                pass
        await asyncio.sleep(1)
        assert len(asyncio.all_tasks()) == before
        with pytest.raises(SessionFailed, match="must return a Pipeline"):
            await Session("s", input=Recorder(), output=Recorder()).start(lambda s: None)  # type: ignore[arg-type,return-value]

    run_virtual(main())


@pytest.mark.parametrize("is_nested", [False, True])
def test_an_output_behind_which_nothing_leaves_the_pipeline_is_refused_at_once(is_nested: bool) -> None:
    async def main() -> None:
        session = Session("s", input=Recorder(), output=Recorder())
        pipeline = Pipeline([session.input], sink=session.output)
        began = asyncio.get_running_loop().time()
        with pytest.raises(SessionFailed, match=r"put session\.output last in the list"):
            await session.start(lambda _: Pipeline([pipeline]) if is_nested else pipeline)
        assert asyncio.get_running_loop().time() == began

    run_virtual(main())


class Broken(Processor):
    """Fails in one of the two places where a processor starts."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    async def setup(self, setup: Any) -> None:
        await super().setup(setup)
        if self.where == "setup":
            raise ValueError("no such voice")

    @consumes(StartFrame)
    async def _on_start(self, frame: Frame, direction: FrameDirection) -> None:
        if self.where == "start":
            raise ValueError("no such voice")
        await self.push_frame(frame, direction)


@pytest.mark.parametrize("where", ["setup", "start"])
def test_a_processor_that_cannot_start_fails_the_session_at_once_with_its_reason(where: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        at = loop.time()
        with pytest.raises(SessionFailed, match="no such voice"):
            async with started(Recorder(), Broken(where), Recorder()):
                pass
        assert loop.time() - at < 5

    run_virtual(main())


def test_a_start_that_is_cancelled_leaves_nothing_running() -> None:
    async def main() -> None:
        before = len(asyncio.all_tasks())
        session = Session("s", input=Recorder(), output=Recorder())
        starting = asyncio.create_task(session.start(lambda s: Pipeline([s.input, NeverStarts(), s.output])))
        await asyncio.sleep(0.5)
        starting.cancel()
        await asyncio.wait({starting})
        await asyncio.sleep(1)
        assert len(asyncio.all_tasks()) == before

    run_virtual(main())
