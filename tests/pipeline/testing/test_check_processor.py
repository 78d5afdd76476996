"""`check_processor` names what each broken processor does wrong, and nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputAudioRawFrame,
    StartFrame,
    TextFrame,
    TTSSpeakFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup

from leibniz_voice.pipeline import Processor, TurnContextFrame, UserTurnFrame, consumes
from leibniz_voice.pipeline.testing.audio import RATE, silence
from leibniz_voice.pipeline.testing.bench import UnknownControlFrame, UnknownDataFrame
from leibniz_voice.pipeline.testing.check import CheckFailed, check_processor
from leibniz_voice.pipeline.testing.fuzz.stamps import spoken
from leibniz_voice.pipeline.testing.scripted.scripted_services import ServiceScript, ServiceStep
from leibniz_voice.pipeline.testing.scripted.scripted_tts import Manner, ScriptedTTS

DOWN = FrameDirection.DOWNSTREAM
SLOW = ServiceScript(ServiceStep(delay_s=0.1, each_s=0.01))

# -- broken ones -----------------------------------------------------------------------------------------------------


class KeepsStart(Processor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, StartFrame):
            await self.push_frame(frame, direction)


class KeepsEnd(Processor):
    @consumes(EndFrame)
    async def _on_end(self, frame: Frame, direction: FrameDirection) -> None:
        pass


class KeepsUpstreamInterruption(Processor):
    @consumes(InterruptionFrame)
    async def _on_interruption(self, frame: Frame, direction: FrameDirection) -> None:
        await self.push_frame(frame)


class Loses(Processor):
    """Loses every second frame of data, whatever it is."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.count += isinstance(frame, UnknownDataFrame)
        if not (isinstance(frame, UnknownDataFrame) and self.count % 4 == 0):
            await self.push_frame(frame, direction)


class LosesQueued(FrameProcessor):
    """One of Pipecat's kind that passes only what it knows."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, UnknownControlFrame):
            await self.push_frame(frame, direction)


class Reorders(Processor):
    """Lets every second frame of data go first."""

    def __init__(self) -> None:
        super().__init__()
        self.held: Frame | None = None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, UnknownControlFrame):
            await self.push_frame(frame, direction)
        elif self.held is None:
            self.held = frame
        else:
            held, self.held = self.held, None
            await self.push_frame(frame, direction)
            await self.push_frame(held, direction)


class Doubles(Processor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, UnknownControlFrame):
            await self.push_frame(frame, direction)


class KeepsTask(Processor):
    async def setup(self, setup: FrameProcessorSetup) -> None:
        await super().setup(setup)
        self.create_task(asyncio.sleep(1e6), "forgotten")


class EmitsAfterCut(Processor):
    """Works in a task that no interruption cancels."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: set[asyncio.Task[None]] = set()

    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: Frame, direction: FrameDirection) -> None:
        self.tasks.add(self.create_task(self._work()))

    async def _work(self) -> None:
        await asyncio.sleep(0.1)
        await self.push_frame(OutputAudioRawFrame(silence(20), RATE, 1))

    async def cleanup(self) -> None:
        for task in self.tasks:
            await self.cancel_task(task)
        await super().cleanup()


class SwallowsCut(Processor):
    """A turn task that swallows its cancellation, and says something afterwards that would be allowed to others."""

    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: Frame, direction: FrameDirection) -> None:
        self.turn_task(self._work())

    async def _work(self) -> None:
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            await asyncio.sleep(0.15)
        await self.push_frame(TurnContextFrame(turn_id=1))


class Suspends(Processor):
    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: Frame, direction: FrameDirection) -> None:
        await asyncio.sleep(0)
        await self.push_frame(frame, direction)


class SuspendsAtCut(Processor):
    """As above, in a handler of a frame that takes Pipecat's way."""

    @consumes(InterruptionFrame)
    async def _on_interruption(self, frame: Frame, direction: FrameDirection) -> None:
        await asyncio.sleep(0.01)
        await self.push_frame(frame, direction)


class Hangs(Processor):
    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: Frame, direction: FrameDirection) -> None:
        await asyncio.Event().wait()


class SharesState(Processor):
    instances: list[Any] = []  # noqa: RUF012 - the fault

    def __init__(self) -> None:
        super().__init__()
        self.instances.append(self)

    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: Frame, direction: FrameDirection) -> None:
        for instance in self.instances[-2:]:
            await instance.push_frame(frame, direction)


class SetUpOnce(Processor):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    async def setup(self, setup: FrameProcessorSetup) -> None:
        await super().setup(setup)
        self.count += 1
        if self.count > 1:
            raise RuntimeError("set up already")


class HidesErrors(Processor):
    @consumes(TextFrame)
    async def _on_text(self, frame: Frame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)

    async def push_error(self, *args: Any, **kwargs: Any) -> None:
        pass


BROKEN: dict[type[FrameProcessor], str] = {
    KeepsStart: "does not forward StartFrame",
    KeepsEnd: "does not forward EndFrame downstream",
    KeepsUpstreamInterruption: "does not forward InterruptionFrame upstream",
    Loses: "loses 2 of ",
    LosesQueued: "UnknownControlFrame",
    Reorders: "reorders frames",
    Doubles: "twice",
    KeepsTask: "keeps 1 task(s) after cleanup: KeepsTask#",
    EmitsAfterCut: "emits OutputAudioRawFrame",
    Suspends: "suspends in _on_turn on UserTurnFrame",
    SuspendsAtCut: "suspends in _on_interruption on InterruptionFrame",
    Hangs: "TimeoutError",
    SharesState: "when another instance is fed",
    SetUpOnce: "survives a second setup",
    HidesErrors: "into no ErrorFrame",
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_processor_is_named_with_what_it_does_wrong(kind: type[FrameProcessor]) -> None:
    with pytest.raises(CheckFailed) as failure:
        check_processor(kind, frames=lambda: [UserTurnFrame(turn_id=1, text="one")])
    assert all(violation.startswith(kind.__name__) for violation in failure.value.violations)
    assert any(BROKEN[kind] in violation for violation in failure.value.violations)
    if kind is not Hangs:  # what never returns fails everywhere
        about = {sentence.split(" ")[1] for sentence in failure.value.violations}
        assert len(about) == 1  # nothing else is said of it


def test_a_turn_task_that_swallows_its_cancellation_is_found_whatever_it_emits() -> None:
    with pytest.raises(CheckFailed) as failure:
        check_processor(SwallowsCut, frames=lambda: [UserTurnFrame(turn_id=1, text="one")])
    task, frame = failure.value.violations
    assert "keeps 1 task(s) after cleanup in the middle of its work" in task
    assert frame == "SwallowsCut emits TurnContextFrame 50 ms after an interruption, from before it"


def test_a_service_that_speaks_on_after_an_interruption_is_found() -> None:
    with pytest.raises(CheckFailed, match="emits TTSAudioRawFrame"):
        check_processor(lambda: ScriptedTTS(Manner.OWN_TASK, script=SLOW), frames=lambda: [TTSSpeakFrame(spoken(1, 3))])


def test_types_that_may_follow_an_interruption_can_be_named() -> None:
    check_processor(EmitsAfterCut, frames=lambda: [UserTurnFrame(turn_id=1, text="one")], keeps=[OutputAudioRawFrame])


def test_a_guest_must_pass_everything_but_what_it_is_said_to_consume() -> None:
    class KeepsText(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if not isinstance(frame, TextFrame):
                await self.push_frame(frame, direction)

    check_processor(KeepsText)  # nobody says what it consumes
    check_processor(KeepsText, consumes=[TextFrame])
    with pytest.raises(CheckFailed, match="loses"):
        check_processor(KeepsText, consumes=[])


def test_the_same_object_twice_is_no_factory() -> None:
    one = Suspends()
    with pytest.raises(CheckFailed, match="one and the same object"):
        check_processor(lambda: one)
