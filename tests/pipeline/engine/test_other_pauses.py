"""The other ways to pause a processor, on Pipecat's own base and on ours, which is to do the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    FunctionCallResultFrame,
    InputAudioRawFrame,
    InterruptionFrame,
    TextFrame,
    UserStartedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from leibniz_voice.pipeline import Processor
from leibniz_voice.pipeline.engine.holding import MAX_HELD
from leibniz_voice.pipeline.testing.bench import UnknownSystemFrame
from tests.support.pausing import BASES, Run, run


def slow(base: type[FrameProcessor], takes_s: float) -> type[FrameProcessor]:
    class Slow(base):  # type: ignore[misc,valid-type]
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame):
                await asyncio.sleep(takes_s)

    return Slow


async def paused(it: Run, until_ready: bool, *frames: Frame | str) -> None:
    """Hold the frames, and begin to release them, without waiting for the end of that."""
    if until_ready:
        await it.until_ready()
        await it.send(*frames)
        it.ready.set()
    else:
        await it.processor.pause_processing_frames()
        await it.send(*frames)
        it.aside(it.processor.resume_processing_frames())


@BASES
def test_paused_data_waits_and_system_frames_do_not(base: type[FrameProcessor]) -> None:
    async def script(it: Run) -> None:
        await it.processor.pause_processing_frames()
        await it.send("a", UnknownSystemFrame(), "b")
        await asyncio.sleep(1)
        await it.processor.resume_processing_frames()
        await asyncio.sleep(0.1)

    assert run(base, script).handled == [("UnknownSystemFrame", 0.0), ("a", 1.0), ("b", 1.0)]


@BASES
def test_paused_system_frames_hold_up_all_others(base: type[FrameProcessor]) -> None:
    async def script(it: Run) -> None:
        await it.processor.pause_processing_system_frames()
        await it.send("a", "b")
        await asyncio.sleep(1)
        await it.processor.resume_processing_system_frames()
        await asyncio.sleep(0.1)

    assert run(base, script).handled == [("a", 1.0), ("b", 1.0)]


@BASES
def test_has_queued_frame_sees_what_a_pause_holds(base: type[FrameProcessor]) -> None:
    found: list[bool] = []

    async def script(it: Run) -> None:
        async def look() -> None:
            await asyncio.sleep(0.1)
            found.append(it.processor.has_queued_frame(TextFrame))
            found.append(it.processor.has_queued_frame(UnknownSystemFrame))

        await look()
        await it.processor.pause_processing_frames()
        await it.send("a", "b", UnknownSystemFrame())
        await look()
        await it.processor.resume_processing_frames()
        await look()

    run(base, script)
    assert found == [False, False, True, False, False, False]


@BASES
def test_a_handler_that_pauses_and_resumes_hands_nothing_on_twice(base: type[FrameProcessor]) -> None:
    class Nervous(base):  # type: ignore[misc,valid-type]
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame):
                await self.pause_processing_frames()
                await self.resume_processing_frames()

    async def script(it: Run) -> None:
        await it.processor.pause_processing_frames()
        await it.send("a", "b")
        await it.processor.resume_processing_frames()
        await asyncio.sleep(0.1)

    assert [text for text, _ in run(Nervous, script).handled] == ["a", "b"]


@BASES
def test_two_who_resume_hand_nothing_on_twice(base: type[FrameProcessor]) -> None:
    class Slow(base):  # type: ignore[misc,valid-type]
        async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
            await super().push_frame(frame, direction)
            if isinstance(frame, TextFrame):
                await asyncio.sleep(0.1)

    async def script(it: Run) -> None:
        await it.processor.pause_processing_frames()
        await it.send("a", "b")
        await asyncio.gather(*(it.processor.resume_processing_frames() for _ in range(2)))
        await asyncio.sleep(0.5)

    assert [text for text, _ in run(Slow, script).handled] == ["a", "b"]


@BASES
def test_a_resume_that_is_cancelled_loses_nothing(base: type[FrameProcessor]) -> None:
    async def script(it: Run) -> None:
        await it.processor.pause_processing_frames()
        await it.send("a", "b")
        resuming = asyncio.create_task(it.processor.resume_processing_frames())
        await asyncio.sleep(0.01)
        resuming.cancel()
        await asyncio.sleep(0.3)
        await it.send("c")
        await asyncio.sleep(0.2)

    assert [text for text, _ in run(slow(base, 0.1), script).handled] == ["a", "b", "c"]


@BASES
def test_a_handler_that_waits_for_what_was_cancelled_strands_nothing(base: type[FrameProcessor]) -> None:
    class Waits(base):  # type: ignore[misc,valid-type]
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame) and frame.text == "a":
                gone = asyncio.create_task(asyncio.sleep(9))
                gone.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await gone

    async def script(it: Run) -> None:
        await it.processor.pause_processing_frames()
        await it.send("a", "b")
        await it.processor.resume_processing_frames()
        await asyncio.sleep(0.1)

    assert [text for text, _ in run(Waits, script).handled] == ["a", "b"]


def test_nothing_is_left_of_a_release_when_the_processor_is_cleaned_up() -> None:
    async def script(it: Run) -> None:
        await it.until_ready()
        await it.send("a", "b")
        it.ready.set()
        await asyncio.sleep(0.5)

    done = run(slow(Processor, 1000), script)
    assert done.handled == []
    assert done.ended < 1


@BASES
@pytest.mark.parametrize("until_ready", [False, True])
def test_a_system_frame_passes_what_is_being_released(base: type[FrameProcessor], until_ready: bool) -> None:
    async def script(it: Run) -> None:
        await paused(it, until_ready, "a", "b", "c")
        await asyncio.sleep(0.5)
        it.aside(it.send(UnknownSystemFrame()))
        await asyncio.sleep(5)

    handled = run(slow(base, 1), script).handled
    assert handled == [("UnknownSystemFrame", 0.5), ("a", 1.0), ("b", 2.0), ("c", 3.0)]


@BASES
@pytest.mark.parametrize("until_ready", [False, True])
def test_an_interruption_drops_what_is_not_released_yet(base: type[FrameProcessor], until_ready: bool) -> None:
    """It cuts the frame in hand on Pipecat's base; on ours a handler is run to its end."""

    async def script(it: Run) -> None:
        await paused(it, until_ready, "a", "b", FunctionCallResultFrame("f", "1", {}, 1), "c")
        await asyncio.sleep(0.5)
        it.aside(it.send(InterruptionFrame()))
        await asyncio.sleep(0.1)
        it.aside(it.send("d"))
        await asyncio.sleep(5)

    names = [name for name, _ in run(slow(base, 1), script).handled]
    assert [name for name in names if name != "a"] == ["InterruptionFrame", "FunctionCallResultFrame", "d"]


@BASES
def test_a_cancel_passes_what_is_being_released(base: type[FrameProcessor]) -> None:
    async def script(it: Run) -> None:
        await paused(it, True, "a", "b", "c")
        await asyncio.sleep(1.5)

    done = run(slow(base, 1), script)
    assert done.log[:3] == [("StartFrame", 0.0), ("a", 1.0), ("CancelFrame", 1.51)]
    assert done.ended == 1.51


@BASES
def test_a_system_frame_does_not_pass_those_that_were_held(base: type[FrameProcessor]) -> None:
    """Pipecat's base releases all held system frames first; ours does when one more comes, which passes the data."""

    async def script(it: Run) -> None:
        await paused(it, True, "a", UserStartedSpeakingFrame(), "b", UnknownSystemFrame(), "c")
        await asyncio.sleep(0.5)
        it.aside(it.send(InterruptionFrame()))
        await asyncio.sleep(0.1)
        it.aside(it.send("d"))
        await asyncio.sleep(5)

    handled = run(slow(base, 1), script).handled
    names = [name for name, _ in handled if name != "a"]
    assert names == ["UserStartedSpeakingFrame", "UnknownSystemFrame", "InterruptionFrame", "d"]
    assert ("InterruptionFrame", 0.5) in handled


def test_a_cancel_frame_that_comes_by_itself_is_held_like_any_other() -> None:
    async def script(it: Run) -> None:
        await it.until_ready()
        await it.send("a", CancelFrame(), "b")
        await asyncio.sleep(1)
        it.ready.set()
        await asyncio.sleep(0.1)

    assert run(Processor, script).log == [("StartFrame", 0.0), ("CancelFrame", 1.0)]


@BASES
@pytest.mark.parametrize("filler", [lambda: TextFrame("x"), lambda: InputAudioRawFrame(b"", 16000, 1)])
def test_a_pause_that_holds_too_much_loses_no_end_and_no_result(
    base: type[FrameProcessor], filler: Callable[[], Frame]
) -> None:
    async def script(it: Run) -> None:
        await it.until_ready()
        await it.send(FunctionCallResultFrame("f", "1", {}, 1), *(filler() for _ in range(MAX_HELD)), EndFrame())
        await it.send(*(filler() for _ in range(MAX_HELD)))
        it.ready.set()
        await asyncio.sleep(0.1)

    names = [name for name, _ in run(base, script).log]
    assert "FunctionCallResultFrame" in names
    assert "EndFrame" in names


@BASES
def test_a_pause_before_the_start_that_holds_too_much_loses_no_start(base: type[FrameProcessor]) -> None:
    async def flood(it: Run) -> None:
        asyncio.get_running_loop().call_later(0.5, it.ready.set)
        await it.until_ready()
        asyncio.get_running_loop().call_later(0.2, lambda: asyncio.ensure_future(it.send(*audio)))

    async def script(it: Run) -> None:
        await asyncio.sleep(0.1)

    audio = [InputAudioRawFrame(b"", 16000, 1) for _ in range(MAX_HELD + 5)]
    assert run(base, script, at_setup=flood).log[0] == ("StartFrame", 0.5)
