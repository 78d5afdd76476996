"""The fence holds in random schedules, and each way to break it is caught."""

from __future__ import annotations

from typing import Any

import pytest
from loguru import logger
from pipecat.frames.frames import Frame, InterruptionFrame
from pipecat.processors.frame_processor import FrameDirection

from leibniz_voice.pipeline.bargein import Decision
from leibniz_voice.pipeline.consumes import consumes
from leibniz_voice.pipeline.frames import (
    BargeInFrame,
    ReplyEndedFrame,
    ReplyInterruptedFrame,
    ReplyStartedFrame,
    UserTurnFrame,
)
from leibniz_voice.processors import InterruptionGate, Responder

from .proof import Parts, Verdict, prove

pytestmark = pytest.mark.slow
SEARCH = 400  # schedules within which a broken variant must be caught


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    logger.disable("leibniz_voice")
    logger.disable("pipecat")
    yield
    logger.enable("leibniz_voice")
    logger.enable("pipecat")


def failures(count: int, parts: Parts | None = None, *, first: int = 0, enough: int = 10**9) -> list[Verdict]:
    """The schedules that did not hold, of `count`; stops at `enough` of them."""
    bad: list[Verdict] = []
    for seed in range(first, first + count):
        verdict = prove(seed, parts)
        if not verdict.is_good:
            bad.append(verdict)
            if len(bad) >= enough:
                break
    return bad


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=pytest.mark.full)])
def test_nothing_stale_is_heard_and_nothing_good_is_lost(count: int) -> None:
    bad = failures(count)
    assert not bad, f"{len(bad)} of {count}, first: {bad[0]}\n{bad[0].trace}"


def test_the_schedules_are_worth_proving_with() -> None:
    verdicts = [prove(seed) for seed in range(60)]
    assert sum(v.cuts for v in verdicts) > 30
    assert sum(v.replies for v in verdicts) > 60
    assert len({v.plan.voice for v in verdicts}) == 4


def test_a_schedule_is_the_same_every_time() -> None:
    first, second = prove(17), prove(17)
    assert (first.cuts, first.replies, first.trace) == (second.cuts, second.replies, second.trace)


# -- deliberately broken variants ------------------------------------------------------------------------------


class OpensOnAnyMarker(InterruptionGate):
    """Opens again with the next marker, whoever's it is."""

    @consumes(ReplyStartedFrame, ReplyEndedFrame)
    async def _on_marker(self, frame: Any, direction: FrameDirection) -> None:
        self.fence.stale_upto = 0
        if isinstance(frame, ReplyStartedFrame):
            await self._on_reply_started(frame, direction)
        else:
            await self._on_reply_part(frame, direction)


class GoesByMarkers(InterruptionGate):
    """Takes all audio for that of the last marker."""

    def _admit(self, frame: Any) -> int | None:
        turn_id = self.fence.marker
        if not self.fence.passes(turn_id):
            return None
        frame.turn_id = turn_id
        return turn_id


class MovesWithTheInterruption(InterruptionGate):
    """Moves its fence when the interruption comes by, behind the guests, not when it decides."""

    async def _do(self, decision: Decision) -> None:
        if decision is Decision.INTERRUPT:
            await self.push_frame(BargeInFrame(turn_id=self._turn_id), FrameDirection.UPSTREAM)
        else:
            await super()._do(decision)


class BroadcastsItself(InterruptionGate):
    """Sends the interruption from where it stands, without asking the reply's owner."""

    async def _do(self, decision: Decision) -> None:
        if decision is Decision.INTERRUPT:
            self.fence.cut(self._turn_id)
            await self.broadcast_frame(InterruptionFrame)
        else:
            await super()._do(decision)


class NeverOpensAgain(InterruptionGate):
    """Stays shut after the first cut."""

    async def _do(self, decision: Decision) -> None:
        await super()._do(decision)
        if decision is Decision.INTERRUPT:
            self.fence.stale_upto = 10**9


class LosableMarkers(Responder):
    """Brackets its replies with frames that an interruption drops."""

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        if isinstance(frame, ReplyStartedFrame | ReplyEndedFrame):
            frame.interruptible = True
        await super().push_frame(frame, direction)


class InterruptsFromThePusher(Responder):
    """Sends the interruption in the task that it was called in."""

    @consumes(BargeInFrame)
    async def _on_barge(self, frame: BargeInFrame, direction: FrameDirection) -> None:
        if self._open == frame.turn_id:
            self._open = None
            self._cut_upto = frame.turn_id
            await self.conductor.cancel_turn_tasks(frame.turn_id)
            await self.broadcast_frame(ReplyInterruptedFrame, turn_id=frame.turn_id)

    @consumes(UserTurnFrame)
    async def _on_next(self, frame: UserTurnFrame, direction: FrameDirection) -> None:
        if self._open is not None and self._open != frame.turn_id:
            old, self._open = self._open, None
            self._cut_upto = old
            await self.conductor.cancel_turn_tasks(old)
            await self.broadcast_frame(ReplyInterruptedFrame, turn_id=old)
        await self._on_turn(frame, direction)


@pytest.mark.parametrize(
    "parts",
    [
        Parts(gate=OpensOnAnyMarker),
        Parts(gate=GoesByMarkers),
        Parts(gate=MovesWithTheInterruption),
        Parts(gate=BroadcastsItself),
        Parts(gate=NeverOpensAgain),
        Parts(responder=LosableMarkers),
        Parts(responder=InterruptsFromThePusher),
    ],
    ids=lambda parts: (parts.gate if parts.gate is not InterruptionGate else parts.responder).__name__,
)
def test_a_broken_variant_is_caught(parts: Parts) -> None:
    assert failures(SEARCH, parts, enough=1)
