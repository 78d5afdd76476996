"""The fence holds in random schedules, and each way to break it is caught."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from loguru import logger
from pipecat.frames.frames import Frame, InterruptionFrame, TextFrame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from leibniz_voice.pipeline import Processor
from leibniz_voice.pipeline.engine.consumes import consumes
from leibniz_voice.pipeline.frames import (
    BargeInFrame,
    ReplyEndedFrame,
    ReplyInterruptedFrame,
    ReplyStartedFrame,
    TurnContextFrame,
    UserTurnFrame,
)
from leibniz_voice.pipeline.interruption.policy import Decision
from leibniz_voice.pipeline.testing import run_virtual
from leibniz_voice.processors import InterruptionGate, Responder, TurnAggregator
from tests.support.chains import Recorder, started
from tests.support.proof import Parts, Verdict, prove
from tests.support.proof_sockets import prove_over_sockets

pytestmark = pytest.mark.slow
SEARCH = 400  # schedules within which a broken variant must be caught


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    logger.disable("leibniz_voice")
    logger.disable("pipecat")
    yield
    logger.enable("leibniz_voice")
    logger.enable("pipecat")


def failures(count: int, parts: Parts | None = None, *, enough: int = 10**9, has_llm: bool = False) -> list[Verdict]:
    """The schedules that did not hold, of `count`; stops at `enough` of them."""
    bad: list[Verdict] = []
    for seed in range(count):
        verdict = prove(seed, parts, has_llm=has_llm)
        if not verdict.is_good:
            bad.append(verdict)
            if len(bad) >= enough:
                break
    return bad


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=pytest.mark.full)])
def test_nothing_stale_is_heard_and_nothing_good_is_lost(count: int) -> None:
    bad = failures(count)
    assert not bad, f"{len(bad)} of {count}, first: {bad[0]}\n{bad[0].trace}"


@pytest.mark.parametrize("count", [5, pytest.param(500, marks=pytest.mark.full)])
def test_nor_with_pipecats_own_llm_service_over_http(count: int) -> None:
    bad = failures(count, has_llm=True)
    assert not bad, f"{len(bad)} of {count}, first: {bad[0]}\n{bad[0].trace}"


@pytest.mark.parametrize("count", [24, pytest.param(1000, marks=pytest.mark.full)])
def test_nor_over_real_sockets(count: int) -> None:
    bad = [verdict for verdict in asyncio.run(prove_over_sockets(range(count))) if not verdict.is_good]
    assert not bad, f"{len(bad)} of {count}, first: {bad[0]}\n{bad[0].trace}"


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=pytest.mark.full)])
def test_nor_with_replies_that_are_prepared(count: int) -> None:
    verdicts = [prove(seed, Parts(prepares=True)) for seed in range(count)]
    bad = [verdict for verdict in verdicts if not verdict.is_good]
    assert not bad, f"{len(bad)} of {count}, first: {bad[0]}\n{bad[0].trace}"
    outcomes = [sum(verdict.counts[f"prepared_{name}"] for verdict in verdicts) for name in ("hits", "misses")]
    assert min(outcomes) > count / 5, f"hits and misses: {outcomes}"


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
            await self._on_reply_over(frame, direction)


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


class PausesForEver(InterruptionGate):
    """Holds the bot, and lets it go on only after a cut."""

    async def _do(self, decision: Decision) -> None:
        if decision is not Decision.RESUME:
            await super()._do(decision)


class FlushesTheWords(TurnAggregator):
    """Drops with the interruption what interrupted."""

    @consumes(InterruptionFrame)
    async def _on_flush(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        self._core.finals.clear()
        self._core.pending = ""
        await self._on_interruption(frame, direction)


class LosableMarkers(Responder):
    """Brackets its replies with frames that an interruption drops."""

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        if isinstance(frame, ReplyStartedFrame | ReplyEndedFrame):
            frame.interruptible = True
        await super().push_frame(frame, direction)


class IgnoresTheSecond(Responder):
    """Takes no request to cut while an interruption is on its way."""

    @consumes(BargeInFrame)
    async def _on_barge(self, frame: BargeInFrame, direction: FrameDirection) -> None:
        if not self._cuts.waiting:
            await self._on_barge_in(frame, direction)


class InterruptsFromThePusher(Responder):
    """Sends the interruption in the task that it was called in."""

    @consumes(BargeInFrame)
    async def _on_barge(self, frame: BargeInFrame, direction: FrameDirection) -> None:
        if self._open == frame.turn_id:
            self._open = None
            self._cuts.upto = frame.turn_id
            await self.conductor.cancel_turn_tasks(frame.turn_id)
            await self.broadcast_frame(ReplyInterruptedFrame, turn_id=frame.turn_id)


@pytest.mark.parametrize(
    "gate", [OpensOnAnyMarker, GoesByMarkers, MovesWithTheInterruption, BroadcastsItself, NeverOpensAgain]
)
def test_a_broken_gate_is_caught(gate: type[InterruptionGate]) -> None:
    assert failures(SEARCH, Parts(gate=gate), enough=1)


def test_a_pause_without_a_resume_is_caught() -> None:
    assert any(verdict.wedged for verdict in failures(SEARCH, Parts(gate=PausesForEver), enough=1))


def test_flushed_words_are_caught() -> None:
    assert any(verdict.lost for verdict in failures(SEARCH, Parts(turns=FlushesTheWords), enough=1))


# -- three properties that take a moment of their own ------------------------------------------------------------


class Busy(FrameProcessor):
    """A queued guest that takes 50 ms for a text."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, TextFrame):
            await asyncio.sleep(0.05)


MARKERS = (ReplyStartedFrame, ReplyEndedFrame, ReplyInterruptedFrame)


class Cutter(Processor):
    """Cuts turn 1 when a text comes by, in whoever's task that is."""

    @consumes(TextFrame)
    async def _on_text(self, frame: Frame, direction: FrameDirection) -> None:
        await self.push_frame(BargeInFrame(turn_id=1), FrameDirection.UPSTREAM)


def markers_survive(responder: Responder) -> bool:
    """Whether a reply's markers come through a busy guest that an interruption from elsewhere flushes."""

    async def main() -> list[type[Frame]]:
        guest, ears = Busy(), Recorder(*MARKERS)
        async with started(responder, guest, ears):
            await guest.queue_frame(TextFrame(text="busy"))
            await asyncio.sleep(0.01)
            await responder.queue_frame(UserTurnFrame(turn_id=1, text="hello"))
            await responder.queue_frame(TurnContextFrame(turn_id=1, text="hello"))
            await asyncio.sleep(0.01)
            await guest.queue_frame(InterruptionFrame())
            await asyncio.sleep(0.2)
        return [type(frame) for frame in ears.frames]

    return run_virtual(main()) == [ReplyStartedFrame, ReplyEndedFrame]


def interruption_is_whole(responder: Responder) -> bool:
    """Whether an interruption reaches both ends although the task that asked for it is cancelled meanwhile."""

    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1)
        await asyncio.sleep(0.2)

    async def main() -> tuple[int, int]:
        before, guest, after = Recorder(*MARKERS), Busy(), Recorder(*MARKERS)
        async with started(before, guest, responder, Cutter(), after):
            await responder.queue_frame(UserTurnFrame(turn_id=1, text="hello"))
            responder.turn_task(stubborn(), turn_id=1)
            await asyncio.sleep(0)
            await guest.queue_frame(TextFrame(text="cut it"))
            await asyncio.sleep(0.05)
            await guest.queue_frame(InterruptionFrame())
            await asyncio.sleep(1)
        return len(before.heard), len(after.heard)

    return run_virtual(main()) == (1, 1)


def cuts_both(responder: Responder) -> bool:
    """Whether the reply that comes while the one before is being cut can be cut itself."""

    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1)
        await asyncio.sleep(0.05)

    async def main() -> list[int]:
        ears = Recorder(*MARKERS)
        async with started(ears, responder, Recorder()):
            await responder.queue_frame(UserTurnFrame(turn_id=1, text="hello"))
            responder.turn_task(stubborn(), turn_id=1)
            await asyncio.sleep(0)
            await responder.queue_frame(BargeInFrame(turn_id=1))
            await asyncio.sleep(0.01)  # the first interruption waits for the stubborn task
            await responder.queue_frame(UserTurnFrame(turn_id=2, text="no, that one"))
            await responder.queue_frame(BargeInFrame(turn_id=2))
            await asyncio.sleep(1)
        return [frame.turn_id for frame in ears.frames if isinstance(frame, ReplyInterruptedFrame)]

    return run_virtual(main()) == [1, 2]


def test_a_second_barge_in_during_the_first_counts() -> None:
    assert cuts_both(Responder())
    assert not cuts_both(IgnoresTheSecond())


def test_a_replys_markers_survive_the_flush_of_a_queue() -> None:
    assert markers_survive(Responder())
    assert not markers_survive(LosableMarkers())


def test_an_interruption_is_whole_whoever_is_cancelled() -> None:
    assert interruption_is_whole(Responder())
    assert not interruption_is_whole(InterruptsFromThePusher())
