"""`Parallel`: asks several branches about one user turn at once, and joins their answers by a deadline.

    UserTurnFrame --+--> intent    --50 ms--+
                    +--> retrieval --80 ms--+--> TurnContextFrame after 80 ms

Pipecat's ParallelPipeline is no join: it passes on whatever comes first, and keeps every frame id for ever.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from loguru import logger
from pipecat.frames.frames import Frame, InterruptionFrame
from pipecat.processors.frame_processor import FrameDirection

from .consumes import consumes
from .errors import ConfigurationError
from .frames import ReplyInterruptedFrame, TurnContextFrame, UserTurnFrame
from .processor import Processor
from .stages import Stage

Branch = Callable[[UserTurnFrame], Awaitable[Any]]


class Parallel(Processor):
    """Named branches, each an async callable `(UserTurnFrame) -> answer`, asked at the same moment.

    Emits at once when all have answered, else at `deadline_s` with what is there; `fallback[name]` stands in for a
    branch that is late or raised. A branch object's own `setup(task_manager)`-like needs are its own business.

    Consumes: `UserTurnFrame` (goes on first), interruptions.
    Emits: one `TurnContextFrame` per turn.
    On barge-in: the cut turn's branches are cancelled; an answer that comes anyway is dropped and counted in `counts`.

    Raises `ConfigurationError` for no branches, a deadline <= 0, or a branch without a fallback.
    """

    stage = Stage.BRANCHES

    def __init__(
        self, branches: Mapping[str, Branch], *, deadline_s: float = 5.0, fallback: Mapping[str, Any] | None = None
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
        self._branches = dict(branches)  # name -> what answers
        self._fallback = dict(fallback)  # name -> what stands in
        self._deadline_s = deadline_s
        self._newest = 0  # the newest turn asked about; an older one's answer is stale
        self._join: asyncio.Task[None] | None = None  # the join of that turn while it runs
        self.counts: Counter[str] = Counter()  # joined, late, failed, stale

    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: UserTurnFrame, direction: FrameDirection) -> None:
        self._newest = frame.turn_id
        if self._join is not None:
            self._join.cancel()
        self._join = self.turn_task(self._ask(frame), turn_id=frame.turn_id, name=f"join {frame.turn_id}")
        await self.push_frame(frame, direction)

    @consumes(InterruptionFrame)
    async def _on_interruption(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        if isinstance(frame, ReplyInterruptedFrame):
            is_ours = frame.turn_id >= self._newest
        else:
            is_ours = True
        if is_ours and self._join is not None:
            self._join.cancel()
            self._join = None
        await self.push_frame(frame, direction)

    async def _ask(self, turn: UserTurnFrame) -> None:
        started = asyncio.get_running_loop().time()
        asked = {asyncio.ensure_future(branch(turn)): name for name, branch in self._branches.items()}
        try:
            done, late = await asyncio.wait(asked, timeout=self._deadline_s)
        except asyncio.CancelledError:
            for task in asked:
                task.cancel()
            raise
        answers, failed = {}, []
        for task, name in asked.items():
            if task in done and task.exception() is None:
                answers[name] = task.result()
            else:
                answers[name] = self._fallback[name]
                failed.append(name)
            if task in late:
                task.cancel()
                self.counts["late"] += 1
            elif task.exception() is not None:
                self.counts["failed"] += 1
                logger.warning(f"branch {name} failed, its fallback answers: {task.exception()!r}")
        if turn.turn_id != self._newest:
            self.counts["stale"] += 1
            return
        self.counts["joined"] += 1
        join_ms = (asyncio.get_running_loop().time() - started) * 1000
        await self.push_frame(
            TurnContextFrame(
                turn_id=turn.turn_id, text=turn.text, answers=answers, late=tuple(failed), join_ms=join_ms
            )
        )
