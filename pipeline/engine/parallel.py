"""`Parallel`: asks several branches about one user turn at once, and joins their answers by a deadline.

    UserTurnFrame --+--> intent    --50 ms--+
                    +--> retrieval --80 ms--+--> TurnContextFrame after 80 ms

Pipecat's ParallelPipeline is no join: it passes on whatever comes first, and keeps every frame id for ever.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

from loguru import logger
from pipecat.frames.frames import CancelFrame, EndFrame, Frame, InterruptionFrame, StartFrame, StopFrame
from pipecat.pipeline.pipeline import Pipeline as PipecatPipeline
from pipecat.pipeline.pipeline import PipelineSink, PipelineSource
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup

from ..errors import ConfigurationError
from ..frames import (
    BranchAnswerFrame,
    ReplyInterruptedFrame,
    SpeculativeContextFrame,
    SpeculativeTurnFrame,
    TurnContextFrame,
    UserTurnFrame,
)
from ..listening.words import key_of
from .consumes import consumes
from .guess import GUESSES, SAVED, Guess
from .processor import Processor
from .stages import Stage

Upward = Callable[[Frame, FrameDirection], Coroutine[Any, Any, None]]
Branch = Callable[[UserTurnFrame], Awaitable[Any]]


class Parallel(Processor):
    """Named branches, asked at the same moment about each user turn.

    A branch is an async callable `(UserTurnFrame) -> answer`, or a list of processors, ours or Pipecat's, one of which
    pushes a `BranchAnswerFrame` downstream. Emits at once when all have answered, else at `deadline_s` with what is
    there; `fallback[name]` stands in for a branch that is late or raised.

    Branches in `speculate` (None: those that say `has_side_effects = False`) begin on a guess at the turn, and the
    committed turn takes their answers over if its words are the same; a failed guess is asked again.

    Consumes: `UserTurnFrame` and `SpeculativeTurnFrame` (go on first), interruptions, start and end (go into the
        branches too).
    Emits: one `TurnContextFrame` per turn; `late` names the branches whose fallback is in it. If the responder prepares
        replies: a `SpeculativeContextFrame` when every branch has answered a guess, none of them with its fallback.
    On barge-in: the cut turn's branches are cancelled; an answer that comes anyway is dropped and counted in `counts`.

    Raises `ConfigurationError` for no branches, a deadline <= 0, or a branch without a fallback.
    """

    stage = Stage.BRANCHES

    def __init__(
        self,
        branches: Mapping[str, Branch | Sequence[FrameProcessor]],
        *,
        deadline_s: float = 5.0,
        fallback: Mapping[str, Any] | None = None,
        speculate: Collection[str] | None = None,
    ) -> None:
        super().__init__()
        fallback = fallback or {}
        missing = [name for name in branches if name not in fallback]
        if not branches or missing:
            raise ConfigurationError(
                f"Parallel needs branches, and a fallback for each; no fallback for {', '.join(missing) or 'any'}"
            )
        if deadline_s <= 0:
            raise ConfigurationError(f"deadline_s is {deadline_s}; give the branches a time above 0 seconds")
        self._lanes = [  # the branches that are lists of processors
            Lane(name, branch, upward=self.push_frame) for name, branch in branches.items() if not callable(branch)
        ]
        lanes = iter(self._lanes)
        self._branches: dict[str, Branch] = {  # name -> what answers
            name: branch if callable(branch) else next(lanes) for name, branch in branches.items()
        }
        self._fallback = dict(fallback)  # name -> what stands in
        self._deadline_s = deadline_s
        self._speculating = {  # the branches that may begin on a guess
            name: branch
            for name, branch in self._branches.items()
            if (getattr(branch, "has_side_effects", True) is False if speculate is None else name in speculate)
        }
        self._guess: Guess | None = None  # at the coming turn; None: there is none
        self._newest = 0  # the newest turn asked about; an older one's answer is stale
        self._cut_upto = 0  # turns up to this one were interrupted
        self._join: asyncio.Task[None] | None = None  # the join of the newest turn
        self._last_interruption = 0  # id of the interruption that went into the lanes last
        self.counts: Counter[str] = Counter()  # joined, late, failed, cut, stale, hits, misses, saved_ms

    @property
    def processors(self) -> list[FrameProcessor]:
        """The branches that are pipelines themselves."""
        return [lane.pipeline for lane in self._lanes]

    def wrap_branches(self, wrap: Callable[[str, Branch], Branch]) -> None:
        """Ask what `wrap(name, branch)` makes of each branch instead of the branch; before the first turn."""
        self._branches = {name: wrap(name, branch) for name, branch in self._branches.items()}
        self._speculating = {name: self._branches[name] for name in self._speculating}

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Set the branches up too."""
        await super().setup(setup)
        await asyncio.gather(*(lane.setup(setup) for lane in self._lanes))

    async def cleanup(self) -> None:
        """Clean the branches up too."""
        self._take_guess("")
        await asyncio.gather(*(lane.cleanup() for lane in self._lanes))
        await super().cleanup()

    @consumes(StartFrame, EndFrame, StopFrame, CancelFrame)
    async def _on_lifecycle(self, frame: Frame, direction: FrameDirection) -> None:
        for lane in self._lanes:
            await lane.push(frame)
        await self.push_frame(frame, direction)

    @consumes(SpeculativeTurnFrame)
    async def _on_guess(self, frame: SpeculativeTurnFrame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)
        if self._speculating and (self._guess is None or self._guess.key != key_of(frame.text)):
            self._take_guess("")
            on_answer = self._offer if self.conductor.prepares else None
            self._guess = Guess(frame, self._speculating, asyncio.get_running_loop().time(), on_answer=on_answer)

    def _offer(self, guess: Guess) -> None:
        answers = guess.answers(self._fallback) if guess is self._guess else None
        if answers is not None:
            context = SpeculativeContextFrame(turn_id=guess.frame.turn_id, text=guess.frame.text, answers=answers)
            self.create_task(self.push_frame(context), "guess answered")

    def _take_guess(self, text: str) -> Guess | None:
        """End the guess; returns it if it was right."""
        guess, self._guess = self._guess, None
        if guess is None or (text and guess.key == key_of(text)):
            return guess
        guess.drop()
        return None

    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: UserTurnFrame, direction: FrameDirection) -> None:
        if frame.turn_id < self._newest:  # overtaken on its way here
            await self.push_frame(frame, direction)
            return
        self._newest = frame.turn_id
        if self._join is not None:
            self._join.cancel()
        had_guess, guess = self._guess is not None, self._take_guess(frame.text)
        if had_guess:
            self.counts["hits" if guess else "misses"] += 1
            GUESSES.labels("hit" if guess else "miss").inc()
        self._join = self.turn_task(self._ask(frame, guess), turn_id=frame.turn_id, name=f"join {frame.turn_id}")
        if guess is not None:
            self._join.add_done_callback(lambda _: guess.drop())
        await self.push_frame(frame, direction)

    @consumes(InterruptionFrame)
    async def _on_interruption(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        cut = frame.turn_id if isinstance(frame, ReplyInterruptedFrame) else self._newest
        is_twin = self._last_interruption in (frame.id, frame.broadcast_sibling_id)
        if cut >= self._newest and not is_twin:
            self._last_interruption = frame.id
            self._cut_upto = max(self._cut_upto, cut)
            if self._join is not None and not self._join.done():
                self._join.cancel()
                self.counts["cut"] += 1
            for lane in self._lanes:
                await lane.push(frame)
        await self.push_frame(frame, direction)

    async def _ask(self, turn: UserTurnFrame, guess: Guess | None = None) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        turn.session_id = turn.session_id or self.conductor.session_id
        answered_ms: dict[str, float] = {}

        def note(task: asyncio.Task[Any]) -> None:
            if _is_answered(task):
                answered_ms[task.get_name().removeprefix("branch ")] = (loop.time() - started) * 1000

        asked: dict[asyncio.Task[Any], str] = {}
        for name, branch in self._branches.items():
            begun = guess.take(name, self._fallback[name]) if guess is not None else None
            asked[begun or loop.create_task(_answer(branch, turn), name=f"branch {name}")] = name
        for task in asked:
            task.add_done_callback(note)
        try:
            await asyncio.wait(asked, timeout=self._deadline_s)
        finally:
            for task in asked:
                task.cancel()  # of those that are done it asks nothing
        answers = {name: self._settle(name, task) for task, name in asked.items()}
        late = tuple(name for task, name in asked.items() if not _is_answered(task))
        if turn.turn_id != self._newest or turn.turn_id <= self._cut_upto:
            self.counts["stale"] += 1
            return
        self.counts["joined"] += 1
        join_ms = (loop.time() - started) * 1000
        if guess is not None:
            saved_s = guess.saved_s(loop.time(), started)
            self.counts["saved_ms"] += round(saved_s * 1000)
            SAVED.inc(saved_s)
        context = TurnContextFrame(turn_id=turn.turn_id, text=turn.text, answers=answers, late=late, join_ms=join_ms)
        context.answered_ms = answered_ms
        await self.push_frame(context)

    def _settle(self, name: str, task: asyncio.Task[Any]) -> Any:
        if _is_answered(task):
            return task.result()
        if task.done() and not task.cancelled():
            self.counts["failed"] += 1
            logger.warning("branch {} failed, its fallback answers: {!r}", name, task.exception())
        else:
            self.counts["late"] += 1
            logger.warning("branch {} is late, its fallback answers", name)
        return self._fallback[name]


class Lane:
    """A branch that is a list of processors, run beside the main chain: frames in, one answer per turn out.

    The first `BranchAnswerFrame` of a turn that reaches its end is the answer.
    """

    def __init__(self, name: str, processors: Sequence[FrameProcessor], *, upward: Upward) -> None:
        self._upward = upward  # takes what the lane pushes upstream, errors above all
        self._waiting: dict[int, asyncio.Future[Any]] = {}  # turn id -> who waits for its answer; at most a few
        self.pipeline = PipecatPipeline(
            list(processors),
            source=PipelineSource(self._upward, name=f"{name}::Source"),
            sink=PipelineSink(self._on_end, name=f"{name}::Sink"),
        )

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Set the lane's processors up."""
        await self.pipeline.setup(setup)

    async def cleanup(self) -> None:
        """Clean the lane's processors up."""
        await self.pipeline.cleanup()

    async def push(self, frame: Frame) -> None:
        """Send a frame down the lane."""
        await self.pipeline.queue_frame(frame)

    async def __call__(self, turn: UserTurnFrame) -> Any:
        """Ask the lane about a turn and wait for its answer."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[turn.turn_id] = answer
        try:
            await self.push(turn)
            return await answer
        finally:
            if self._waiting.get(turn.turn_id) is answer:
                del self._waiting[turn.turn_id]

    async def _on_end(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, BranchAnswerFrame):
            answer = self._waiting.get(frame.turn_id)
            if answer is not None and not answer.done():
                answer.set_result(frame.answer)


async def _answer(branch: Branch, turn: UserTurnFrame) -> Any:
    return await branch(turn)


def _is_answered(task: asyncio.Task[Any]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
