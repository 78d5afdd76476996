"""`check_processor`: the contract that every processor can be put through, ours, Pipecat's, or your own.

    def test_my_processor_keeps_the_contract():
        check_processor(MyProcessor, frames=lambda: [UserTurnFrame(turn_id=1, text="hello")])

It runs in virtual time, a new instance for each part, and raises one `CheckFailed` with a sentence per violation:

1. StartFrame, EndFrame, CancelFrame, interruptions in both directions, and errors go on.
2. No frame that it does not consume is lost, doubled or sent back, in either direction.
3. Frames of one kind keep their order.
4. After `cleanup` none of its tasks is left, also when it is cut off in the middle of its work.
5. After an interruption it emits nothing that belongs to before. System frames, transcripts and uninterruptible frames
   may follow, but not out of a turn task.
6. Handlers never suspend (inline processors; queued ones may).
7. Two instances do not disturb each other; one survives being set up and cleaned up twice.
8. An exception in a handler becomes an ErrorFrame upstream, and the next frame flows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    StartFrame,
    SystemFrame,
    TranscriptionFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from ...processors.embedded.workers.shared import close_all
from ..engine.processor import Processor
from ..errors import LeibnizError
from ..frames import ReplyInterruptedFrame
from .bench import DOWN, UP, Bench, Seen, UnknownDataFrame, may_keep, sample_frames, unknown_frames
from .clock import run_virtual

Factory = Callable[[], FrameProcessor]
Input = Frame | tuple[Frame, FrameDirection]

GAP_S = 0.02  # between the frames of the caller's script
END_S = 60.0  # how long an EndFrame may wait for what is under way
CUTS_S = (0.0, 0.005, 0.05, 0.3)  # when the interruption comes, after the script
TURNS_OF_THE_LOOP = 20  # after cleanup, for cancelled tasks to end in


class CheckFailed(LeibnizError, AssertionError):  # noqa: N818 - it reads as the event it is
    """A processor breaks the contract; `violations` has one sentence for each way."""

    def __init__(self, violations: Sequence[str]) -> None:
        super().__init__("\n".join(violations))
        self.violations = list(violations)  # at least one


def check_processor(
    factory: Factory,
    *,
    frames: Callable[[], Sequence[Input]] = list,
    consumes: Collection[type[Frame]] | None = None,
    keeps: Collection[type[Frame]] = (),
    settle_s: float = 1.0,
) -> None:
    """Put processors made by `factory` through the contract. Raises `CheckFailed`.

    `frames()` returns new input that makes it work, `(frame, direction)` or downstream, 20 ms apart. `consumes` are
    the types that it may keep to itself, where `@consumes` does not say. `keeps` are types that it may emit after an
    interruption although they belong to before. `settle_s` is how long it may need to be done, in virtual time.
    """
    violations = run_virtual(
        _find_violations(factory, frames=frames, consumes=consumes, keeps=keeps, settle_s=settle_s)
    )
    if violations:
        raise CheckFailed(violations)


async def _find_violations(
    factory: Factory,
    *,
    frames: Callable[[], Sequence[Input]] = list,
    consumes: Collection[type[Frame]] | None = None,
    keeps: Collection[type[Frame]] = (),
    settle_s: float = 1.0,
) -> list[str]:
    """As `check_processor`, in the running loop (its time should be virtual), and the sentences are returned."""
    check = _Check(factory, frames, consumes, tuple(keeps), settle_s)
    parts = [
        check.starts,  # where it fails, the others would only repeat it
        check.forwards,
        check.loses_nothing,
        check.keeps_no_task,
        check.is_silent_after_a_cut,
        check.never_suspends,
        check.stands_alone,
        check.survives_a_second_setup,
        check.reports_exceptions,
    ]
    try:
        for part in parts:
            try:
                await part()
            except Exception as error:  # a processor under test may raise anything; it is a finding, not our failure
                check.says(f"raises {type(error).__name__} ({error}) while it is checked whether it {_words(part)}")
            if part == check.starts and check.violations:
                break
    finally:
        await close_all()
    return list(dict.fromkeys(check.violations))


@dataclass
class _Check:
    factory: Factory
    frames: Callable[[], Sequence[Input]]
    consumes: Collection[type[Frame]] | None
    keeps: tuple[type[Frame], ...]
    settle_s: float

    def __post_init__(self) -> None:
        self.name = "the processor"  # known with the first instance
        self.violations: list[str] = []  # sentences

    def says(self, sentence: str) -> None:
        self.violations.append(f"{self.name} {sentence}")

    @asynccontextmanager
    async def bench(self, *, is_started: bool = True) -> AsyncIterator[Bench]:
        processor = self.factory()
        self.name = type(processor).__name__
        async with Bench(processor, is_started=False) as bench:
            if is_started:
                await self.start(bench)
            yield bench
            await self.settle()

    async def start(self, bench: Bench) -> bool:
        frame = StartFrame()
        await bench.send(frame)
        return await bench.until_seen(frame, self.settle_s)

    async def settle(self) -> None:
        await asyncio.sleep(self.settle_s)

    async def feed(self, bench: Bench) -> int:
        """Send the caller's script; return the newest turn in it."""
        turn_id = 1
        for item in self.frames():
            frame, direction = item if isinstance(item, tuple) else (item, DOWN)
            turn_id = max(turn_id, getattr(frame, "turn_id", 0))
            await bench.send(frame, direction)
            await asyncio.sleep(GAP_S)
        return turn_id

    # -- 1 and 2, 3 --------------------------------------------------------------------------------------------

    async def starts(self) -> None:
        async with self.bench(is_started=False) as bench:
            if not await self.start(bench):
                self.says("does not forward StartFrame, so nothing behind it ever starts")

    async def forwards(self) -> None:
        for is_fed in (False, True):
            async with self.bench() as bench:
                if is_fed:
                    await self.feed(bench)
                await self._forwards(bench, InterruptionFrame(), DOWN)
                await self._forwards(bench, InterruptionFrame(), UP)
                await self._forwards(bench, ReplyInterruptedFrame(turn_id=1), DOWN)
                await self._forwards(bench, ErrorFrame("an error of the check"), UP)
                await self._forwards(bench, EndFrame(), DOWN, END_S)
            async with self.bench() as bench:
                if is_fed:
                    await self.feed(bench)
                await self._forwards(bench, CancelFrame(), DOWN)

    async def _forwards(self, bench: Bench, frame: Frame, direction: FrameDirection, within_s: float = 0.0) -> None:
        await bench.send(frame, direction)
        if not await bench.until_seen(frame, within_s or self.settle_s, direction):
            self.says(f"does not forward {type(frame).__name__} {direction.name.lower()}")

    async def loses_nothing(self) -> None:
        for direction in (DOWN, UP):
            for is_fed in (False, True):
                async with self.bench() as bench:
                    if is_fed:
                        await self.feed(bench)
                    sent = unknown_frames()
                    sent += [f for f in sample_frames() if not may_keep(bench.processor, f, self.consumes)]
                    for frame in sent:
                        await bench.send(frame, direction)
                    await self.settle()
                    self._judge_passage(bench, sent, direction)

    def _judge_passage(self, bench: Bench, sent: list[Frame], direction: FrameDirection) -> None:
        ids = {frame.id for frame in sent}
        out = [seen for seen in bench.seen if seen.frame.id in ids]
        passed = [seen.frame for seen in out if seen.direction is direction]
        way = direction.name.lower()
        lost = ids - {frame.id for frame in passed}
        if lost:
            names = ", ".join(sorted({type(f).__name__ for f in sent if f.id in lost}))
            self.says(f"loses {len(lost)} of {len(ids)} frames that it does not consume, {way}: {names}")
        if len(passed) > len(ids) - len(lost):
            self.says(f"passes a frame that it does not consume twice, {way}")
        if len(out) > len(passed):
            self.says(f"sends a frame that it does not consume back where it came from, {way}")
        for is_system in (False, True):  # system frames may overtake others, as they do in Pipecat's queues
            order = [f.id for f in passed if isinstance(f, SystemFrame) is is_system]
            wrong = next((pair for pair in pairwise(order) if pair[0] > pair[1]), None)
            if wrong is not None:
                names = {f.id: f.name for f in sent}
                self.says(f"reorders frames {way}: {names[wrong[0]]} came out before {names[wrong[1]]}")

    # -- 4 -----------------------------------------------------------------------------------------------------

    async def keeps_no_task(self) -> None:
        async with self.bench() as bench:  # what instances share, as a model or a worker process, is made once
            await self.feed(bench)
        for is_settled in (True, False):
            before = asyncio.all_tasks()
            bench = Bench(self.factory())
            async with bench:
                await self.feed(bench)
                if is_settled:
                    await self.settle()
            for _ in range(TURNS_OF_THE_LOOP):
                await asyncio.sleep(0)
            left = asyncio.all_tasks() - before
            if left:
                names = ", ".join(sorted(task.get_name() for task in left))
                when = "" if is_settled else " in the middle of its work"
                self.says(f"keeps {len(left)} task(s) after cleanup{when}: {names}")
                for task in left:
                    task.cancel()
                return

    # -- 5 -----------------------------------------------------------------------------------------------------

    async def is_silent_after_a_cut(self) -> None:
        for after_s in CUTS_S:
            for is_named in (False, True):
                async with self.bench() as bench:
                    await self._cut(bench, after_s, is_named)

    async def _cut(self, bench: Bench, after_s: float, is_named: bool) -> None:
        turn_id = await self.feed(bench)
        await asyncio.sleep(after_s)
        old = set(bench.processor._engine_tasks) if isinstance(bench.processor, Processor) else set()
        cut = ReplyInterruptedFrame(turn_id=turn_id) if is_named else InterruptionFrame()
        await bench.send(cut)
        if not await bench.until_seen(cut, self.settle_s):
            return  # told by `forwards`
        silent_from, cut_at = len(bench.seen), asyncio.get_running_loop().time()
        await self.settle()
        for seen in bench.seen[silent_from:]:
            if self._is_stale(seen, old):
                late_ms = (seen.at - cut_at) * 1000
                self.says(f"emits {type(seen.frame).__name__} {late_ms:.0f} ms after an interruption, from before it")
                break
        frame = UnknownDataFrame()
        await bench.send(frame)
        if not await bench.until_seen(frame, self.settle_s):
            self.says("passes no frame any more after an interruption")

    def _is_stale(self, seen: Seen, old: Collection[Any]) -> bool:
        frame = seen.frame
        if isinstance(frame, self.keeps):
            return False
        if seen.task in old:
            return True
        may_follow = (SystemFrame, TranscriptionFrame, InterimTranscriptionFrame)
        return frame.interruptible and not isinstance(frame, may_follow)

    # -- 6, 7, 8 -----------------------------------------------------------------------------------------------

    async def never_suspends(self) -> None:
        async with self.bench() as bench:
            await self.feed(bench)
            for frame in sample_frames():
                await bench.send(frame)
            await self.feed(bench)
            await self.settle()
            for cut in (ReplyInterruptedFrame(turn_id=1), InterruptionFrame()):
                await bench.send(cut)
            await self.feed(bench)
            await bench.send(EndFrame())
            await self.settle()
        for handler in dict.fromkeys(bench.suspended):
            self.says(f"suspends in {handler}; a handler decides, changes its state, then pushes, and awaits no more")

    async def stands_alone(self) -> None:
        async with self.bench() as one, self.bench() as other:
            if one.processor is other.processor:
                self.says("is one and the same object each time the factory is called")
                return
            await self.settle()
            quiet_from = len(other.seen)
            await self.feed(one)
            await self.settle()
            if len(other.seen) > quiet_from:
                frame = other.seen[quiet_from].frame
                self.says(f"emits {type(frame).__name__} when another instance is fed")

    async def survives_a_second_setup(self) -> None:
        bench = Bench(self.factory(), is_started=False)
        await bench.set_up()
        await bench.processor.cleanup()
        await bench.set_up()
        if not await self.start(bench):
            self.says("does not forward StartFrame when it is set up for the second time")
        await self.feed(bench)
        await bench.processor.cleanup()
        await bench.processor.cleanup()

    async def reports_exceptions(self) -> None:
        async with self.bench() as bench:
            processor: Any = bench.processor
            frame: Frame = UnknownDataFrame()
            names = ["process_frame"]
            if isinstance(processor, Processor) and not processor._takes_all:
                consumed = [f for f in sample_frames() if processor._handler(type(f)) is not None]
                if not consumed:
                    return
                frame, names = consumed[0], list(set(processor._consumed.values()))
            genuine = {name: getattr(processor, name) for name in names}
            for name in names:
                setattr(processor, name, _fails)
            if isinstance(processor, Processor):
                processor._engine_routes.forget()
            await bench.send(frame)
            await self.settle()
            if not any(isinstance(s.frame, ErrorFrame) and s.direction is UP for s in bench.seen):
                self.says("turns an exception in a handler into no ErrorFrame upstream")
            for name in names:
                setattr(processor, name, genuine[name])
            if isinstance(processor, Processor):
                processor._engine_routes.forget()
            await self._forwards(bench, UnknownDataFrame(), DOWN)


async def _fails(frame: Frame, direction: FrameDirection) -> None:
    raise RuntimeError("an exception of the check")


def _words(part: Callable[..., Any]) -> str:
    return part.__name__.replace("_", " ")
