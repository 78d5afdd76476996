"""The contract check: it passes for every processor of ours, and names what each broken one does wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMContextFrame,
    OutputAudioRawFrame,
    StartFrame,
    TextFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.filters.identity_filter import IdentityFilter
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup

from leibniz_voice import processors
from leibniz_voice.pipeline import Parallel, Processor, TurnContextFrame, UserTurnFrame, consumes
from leibniz_voice.pipeline.frames import (
    ClientFragmentFrame,
    ClientTurnEndFrame,
    PlaybackPauseFrame,
    PlaybackResumeFrame,
    ReplyAudioFrame,
    ReplyEndedFrame,
    ReplySpeechFrame,
    ReplyStartedFrame,
    ReplyTextFrame,
    SpeechChunkFrame,
    StateChangedFrame,
    TextBufferFrame,
    UserSpeakingFrame,
    UtteranceStartedFrame,
)
from leibniz_voice.pipeline.testing.audio import RATE, chunks, silence, speech_like
from leibniz_voice.pipeline.testing.bench import UnknownControlFrame, UnknownDataFrame
from leibniz_voice.pipeline.testing.check import CheckFailed, check_processor
from leibniz_voice.pipeline.testing.scripted import (
    Heard,
    Script,
    ScriptedIntent,
    ScriptedLLM,
    ScriptedRetriever,
    ScriptedSTT,
    ScriptedSTTGuest,
    ScriptedVoice,
    Step,
)
from leibniz_voice.pipeline.testing.scripted_tts import Manner, ScriptedTTS
from leibniz_voice.pipeline.testing.stamps import spoken, stamped
from leibniz_voice.processors import (
    EmbeddedSTT,
    EmbeddedTTS,
    InterruptionGate,
    Responder,
    SileroVAD,
    StateTracker,
    TurnAggregator,
)
from leibniz_voice.transports.endpoints import ClientInput, ClientOutput
from leibniz_voice.transports.memory import MemoryWire

DOWN = FrameDirection.DOWNSTREAM
SLOW = Script(Step(delay_s=0.1, each_s=0.01))

# -- what makes them work ------------------------------------------------------------------------------------------


def microphone() -> list[Frame]:
    return [InputAudioRawFrame(chunk, RATE, 1) for chunk in chunks(speech_like(500) + silence(500))]


def utterance() -> list[Frame]:
    return [VADUserStartedSpeakingFrame(), *microphone()[:25], VADUserStoppedSpeakingFrame()]


def words() -> list[Frame]:
    return [
        ClientFragmentFrame(text="hello", is_final=True),
        ClientTurnEndFrame(),
        TranscriptionFrame("more", "", ""),
        VADUserStartedSpeakingFrame(),
        TranscriptionFrame("a new one", "", ""),
        VADUserStoppedSpeakingFrame(),
    ]


def two_turns() -> list[Frame]:
    return [UserTurnFrame(turn_id=1, text="one"), UserTurnFrame(turn_id=2, text="two")]


def answers() -> list[Frame]:
    return [
        UserTurnFrame(turn_id=1, text="one"),
        TurnContextFrame(turn_id=1, text="one"),
        UserTurnFrame(turn_id=2, text="two"),
        TurnContextFrame(turn_id=2, text="two"),
    ]


def reply() -> list[Frame]:
    return [
        ReplyStartedFrame(turn_id=1),
        ReplyTextFrame(turn_id=1, text=spoken(1, 3), is_final=True),
        ReplySpeechFrame(turn_id=1, text=spoken(1, 3)),
        ReplyEndedFrame(turn_id=1),
    ]


def playback() -> list[Frame]:
    audio = [ReplyAudioFrame(stamped(1, seq), RATE, 1, turn_id=1) for seq in range(20)]
    return [UserTurnFrame(turn_id=1, text="one"), ReplyStartedFrame(turn_id=1), *audio, ReplyEndedFrame(turn_id=1)]


def barge_in() -> list[Frame]:
    return [
        *playback(),
        StateChangedFrame(previous="thinking", state="speaking", trigger="response_ready", turn_id=1),
        SpeechChunkFrame(confidence=0.9, speech_ms=64),
        SpeechChunkFrame(confidence=0.1, speech_ms=0),
        TextBufferFrame(fragments=("stop that",), is_final=True),
        UserSpeakingFrame(confidence=1.0),
    ]


def conversation() -> list[Frame]:
    return [UtteranceStartedFrame(), TextBufferFrame(fragments=("one",)), *answers()[:2], *playback()[1:]]


def pauses() -> list[Frame]:
    return [*playback(), PlaybackPauseFrame(turn_id=1), PlaybackResumeFrame(turn_id=1)]


def parallel() -> Parallel:
    hanging = ScriptedRetriever(script=Script(Step(hangs_at=0)))
    branches = {"intent": ScriptedIntent(script=SLOW), "rag": hanging}
    return Parallel(branches, deadline_s=0.4, fallback={"intent": 0, "rag": 1})


def parallel_of_processors() -> Parallel:
    return Parallel({"lane": [IdentityFilter(), ScriptedSTT()]}, deadline_s=0.4, fallback={"lane": None})


OURS: dict[str, tuple[Callable[[], FrameProcessor], Callable[[], Sequence[Frame]]]] = {
    "SileroVAD": (SileroVAD, microphone),
    "TurnAggregator": (TurnAggregator, words),
    "Parallel": (parallel, two_turns),
    "Parallel of processors": (parallel_of_processors, two_turns),
    "Responder": (Responder, answers),
    "Responder that greets": (lambda: Responder(greeting="Hello."), answers),
    "EmbeddedTTS": (EmbeddedTTS, reply),
    "InterruptionGate": (InterruptionGate, barge_in),
    "StateTracker": (StateTracker, conversation),
    "ClientInput": (ClientInput, words),
    "ClientOutput": (lambda: ClientOutput(wire=MemoryWire()), pauses),
    "ScriptedSTT": (lambda: ScriptedSTT([Heard("one")] * 3), words),
    "ScriptedSTTGuest": (lambda: ScriptedSTTGuest([Heard("one")] * 3, from_queue=True), words),
    "ScriptedLLM": (lambda: ScriptedLLM(script=SLOW), lambda: [LLMContextFrame(context=LLMContext())]),
    "ScriptedLLM on replies": (lambda: ScriptedLLM(script=SLOW, on_reply=True), reply),
    "ScriptedVoice": (lambda: ScriptedVoice(script=SLOW), reply),
    "ScriptedTTS in order": (lambda: ScriptedTTS(script=SLOW), reply),
    "ScriptedTTS that is slow": (lambda: ScriptedTTS(Manner.SLOW_SYSTEM, script=SLOW), reply),
    "a stock processor": (IdentityFilter, reply),
}


@pytest.mark.parametrize("name", OURS)
def test_every_processor_keeps_the_contract(name: str) -> None:
    factory, frames = OURS[name]
    check_processor(factory, frames=frames)


@pytest.mark.slow
def test_the_embedded_recogniser_keeps_the_contract() -> None:
    check_processor(lambda: EmbeddedSTT(phrases=["hello there"]), frames=utterance)


def test_no_public_processor_is_left_out() -> None:
    public = {name for name in processors.__all__ if isinstance(getattr(processors, name), type)}
    public = {name for name in public if issubclass(getattr(processors, name), FrameProcessor)}
    assert public <= {"EmbeddedSTT", *OURS}


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
        check_processor(lambda: ScriptedTTS(Manner.OWN_TASK, script=SLOW), frames=reply)


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
