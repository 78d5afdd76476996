"""`Bench`: one processor between two probes, without a pipeline, to be looked at from all sides.

    async with Bench(TurnAggregator()) as bench:
        await bench.send(ClientFragmentFrame(text="hello", is_final=True))
        assert bench.below(TextBufferFrame)

`check_processor` stands on it; it is also the shortest way to a test of a single processor.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
from collections.abc import Awaitable, Callable, Collection, Generator
from typing import Any, NamedTuple, TypeVar

from pipecat.clocks.system_clock import SystemClock
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    ControlFrame,
    DataFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    OutputAudioRawFrame,
    StartFrame,
    SystemFrame,
    TextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameCallback, FrameDirection, FrameProcessor, FrameProcessorSetup
from pipecat.utils.asyncio.task_manager import TaskManager

from .. import frames as leibniz_frames
from ..engine.consumes import LIFECYCLE
from ..engine.processor import Processor
from .audio import RATE, silence
from .fuzz.stamps import spoken

F = TypeVar("F", bound=Frame)

DOWN, UP = FrameDirection.DOWNSTREAM, FrameDirection.UPSTREAM
RETURN_S = 10.0  # how long one `send` may take
MAX_SEEN = 100_000  # frames a bench keeps; past it the oldest go


@dataclasses.dataclass
class UnknownDataFrame(DataFrame):
    """Data that no processor can know; an interruption may flush it."""


@dataclasses.dataclass
class UnknownControlFrame(ControlFrame):
    """A control frame that no processor can know."""


@dataclasses.dataclass
class UnknownSystemFrame(SystemFrame):
    """A system frame that no processor can know."""


class Seen(NamedTuple):
    """A frame that left the processor."""

    frame: Frame
    direction: FrameDirection
    at: float  # loop time, s
    task: asyncio.Task[Any] | None  # in which it was pushed


class _Worker:
    """Stands for Pipecat's worker; processors of one conversation share it."""

    app_resources = None


class _Probe(FrameProcessor):
    """An end of the bench: keeps what it gets, and hands nothing on."""

    def __init__(self, seen: list[Seen], arrived: asyncio.Event) -> None:
        super().__init__(enable_direct_mode=True)
        self._seen = seen  # where it is kept
        self._arrived = arrived  # set with each frame

    async def queue_frame(
        self, frame: Frame, direction: FrameDirection = DOWN, callback: FrameCallback | None = None
    ) -> None:
        """Keep the frame. Never suspends."""
        self._seen.append(Seen(frame, direction, asyncio.get_running_loop().time(), asyncio.current_task()))
        del self._seen[:-MAX_SEEN]
        self._arrived.set()


class Bench:
    """Sets a processor up between two probes, and starts it; leaving cleans it up. All times are the loop's."""

    def __init__(self, processor: FrameProcessor, *, is_started: bool = True) -> None:
        self.processor = processor
        self.seen: list[Seen] = []  # everything that left it, in order
        self.suspended: list[str] = []  # handlers that suspended, "handler on frame type"; inline processors only
        self._is_started = is_started  # send a StartFrame on entry
        self._worker = _Worker()  # its conversation
        self._arrived = asyncio.Event()  # set when a frame has left it
        _Probe(self.seen, self._arrived).link(processor)
        processor.link(_Probe(self.seen, self._arrived))
        if isinstance(processor, Processor):
            self._watch(processor)

    async def __aenter__(self) -> Bench:
        await self.set_up()
        if self._is_started:
            await self.send(StartFrame())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.processor.cleanup()

    async def set_up(self) -> None:
        """Set the processor up; `__aenter__` does it."""
        worker: Any = self._worker
        await self.processor.setup(
            FrameProcessorSetup(clock=SystemClock(), task_manager=TaskManager(), pipeline_worker=worker)
        )

    async def send(self, frame: Frame, direction: FrameDirection = DOWN) -> None:
        """Hand the processor a frame. Raises `TimeoutError` if it does not take it within 10 s."""
        async with asyncio.timeout(RETURN_S):
            await self.processor.queue_frame(frame, direction)

    async def until_seen(self, frame: Frame, timeout_s: float, direction: FrameDirection = DOWN) -> bool:
        """Wait until this very frame has left the processor that way; False if it has not in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self.has_passed(frame, direction):
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return False
        return True

    def has_passed(self, frame: Frame, direction: FrameDirection = DOWN) -> bool:
        """Whether this very frame has left the processor that way."""
        return any(seen.frame is frame and seen.direction is direction for seen in self.seen)

    def below(self, frame_type: type[F]) -> list[F]:
        """Frames of a type that left it downstream, in order."""
        return [s.frame for s in self.seen if s.direction is DOWN and isinstance(s.frame, frame_type)]

    def above(self, frame_type: type[F]) -> list[F]:
        """Frames of a type that left it upstream, in order."""
        return [s.frame for s in self.seen if s.direction is UP and isinstance(s.frame, frame_type)]

    def _watch(self, processor: Processor) -> None:
        names = {"process_frame"} if processor._takes_all else set(processor._consumed.values())
        for name in names:
            setattr(processor, name, self._watched(getattr(processor, name), name))

    def _watched(self, handler: Callable[..., Awaitable[None]], name: str) -> Callable[..., Awaitable[None]]:
        @functools.wraps(handler)
        async def watched(frame: Frame, direction: FrameDirection) -> None:
            step = _Step(handler(frame, direction))
            await step
            if step.has_suspended and not (name == "process_frame" and isinstance(frame, LIFECYCLE)):
                self.suspended.append(f"{name} on {type(frame).__name__}")

        return watched


class _Step:
    """Awaits something and notes whether it ever suspended."""

    def __init__(self, work: Awaitable[None]) -> None:
        self._work = work  # a coroutine
        self.has_suspended = False

    def __await__(self) -> Generator[Any, Any, None]:
        steps = self._work.__await__()
        try:
            waits_for = steps.send(None)
            self.has_suspended = True
            while True:
                try:
                    sent = yield waits_for
                except BaseException as error:  # a cancellation above all; it belongs to the handler
                    waits_for = steps.throw(error)
                else:
                    waits_for = steps.send(sent)
        except StopIteration:
            return


def unknown_frames(count: int = 4) -> list[Frame]:
    """Frames of types that no processor can know: `count` (even) of each kind, mixed."""
    kinds = (UnknownDataFrame, UnknownSystemFrame, UnknownControlFrame, UnknownDataFrame)
    return [kind() for _ in range(count) for kind in kinds]


def sample_frames() -> list[Frame]:
    """One new frame of each common type, Pipecat's and ours, that is no lifecycle frame."""
    pcm = silence(20)
    return [
        TextFrame("text"),
        LLMFullResponseStartFrame(),
        LLMTextFrame("text"),
        LLMFullResponseEndFrame(),
        TTSSpeakFrame("text"),
        TranscriptionFrame("text", "", ""),
        InterimTranscriptionFrame("text", "", ""),
        InputAudioRawFrame(pcm, RATE, 1),
        OutputAudioRawFrame(pcm, RATE, 1),
        TTSAudioRawFrame(pcm, RATE, 1),
        UserStartedSpeakingFrame(),
        UserStoppedSpeakingFrame(),
        VADUserStartedSpeakingFrame(),
        VADUserStoppedSpeakingFrame(),
        BotStartedSpeakingFrame(),
        BotStoppedSpeakingFrame(),
        *_our_frames(pcm),
    ]


def _our_frames(pcm: bytes) -> list[Frame]:
    own = [
        kind
        for _, kind in inspect.getmembers(leibniz_frames, inspect.isclass)
        if kind.__module__ == leibniz_frames.__name__ and issubclass(kind, Frame) and not issubclass(kind, LIFECYCLE)
    ]
    values = {"audio": pcm, "sample_rate": RATE, "num_channels": 1, "text": spoken(1)}
    return [kind(**{f.name: values[f.name] for f in _needed(kind)}) for kind in own]


def _needed(kind: type[Any]) -> list[dataclasses.Field[Any]]:
    return [
        f
        for f in dataclasses.fields(kind)
        if f.init and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]


def may_keep(processor: FrameProcessor, frame: Frame, consumes: Collection[type[Frame]] | None) -> bool:
    """Whether a processor may keep a frame: what it consumes; where nobody says what that is, anything known."""
    if consumes is not None:
        return isinstance(frame, tuple(consumes))
    if isinstance(processor, Processor) and not processor._takes_all:
        return processor._handler(type(frame)) is not None
    return not isinstance(frame, (UnknownDataFrame, UnknownControlFrame, UnknownSystemFrame))
