"""Any conversation on any pipeline: good ones pass, each kind of broken one is caught, its script shows it again."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from pipecat.frames.frames import Frame, OutputAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection

from leibniz_voice.pipeline import Parallel, Pipeline, Processor, Session, consumes
from leibniz_voice.pipeline.frames import (
    ReplyAudioFrame,
    ReplyPlayedFrame,
    ReplyStartedFrame,
    StateChangedFrame,
    UserTurnFrame,
)
from leibniz_voice.pipeline.testing import (
    ConversationFailed,
    Schedule,
    ScriptedVoice,
    check_conversation,
    generate,
    schedules,
)
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator

from ..test_call import FALLBACK, echo_words, parrot, say

FEW = settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@FEW
@given(schedules())
def test_any_conversation_is_safe(schedule: Schedule) -> None:
    check_conversation(parrot(), schedule)


class Echo(Processor):
    """A user's own effect behind the gate: the end of a reply, cut or not, is heard again in the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.last: ReplyAudioFrame | None = None

    @consumes(ReplyAudioFrame)
    async def _on_audio(self, frame: ReplyAudioFrame, direction: FrameDirection) -> None:
        self.last = frame
        await self.push_frame(frame, direction)

    @consumes(ReplyStartedFrame)
    async def _on_start(self, frame: ReplyStartedFrame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)
        if self.last:
            await self.push_frame(OutputAudioRawFrame(self.last.audio, self.last.sample_rate, 1))


class HighVoice(ScriptedVoice):
    """Speaks at 24 kHz, as most voices of a cloud do, which is resampled behind the gate."""

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        if isinstance(frame, ReplyAudioFrame):
            frame.sample_rate = 24_000
        await super().push_frame(frame, direction)


class Forgetful(Processor):
    """Loses every turn that says "coke"."""

    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: UserTurnFrame, direction: FrameDirection) -> None:
        frame.text = frame.text.replace("and a coke", "")
        await self.push_frame(frame, direction)


class NeverPlayed(Processor):
    """Swallows the output's word that the reply was played."""

    @consumes(ReplyPlayedFrame)
    async def _on_played(self, frame: Frame, direction: FrameDirection) -> None:
        pass


class Jumper(Processor):
    """Tells the client of a state that cannot follow."""

    @consumes(StateChangedFrame)
    async def _on_state(self, frame: StateChangedFrame, direction: FrameDirection) -> None:
        if frame.state == "thinking" and direction is FrameDirection.DOWNSTREAM:
            return
        await self.push_frame(frame, direction)


class Endless(Processor):
    """Never lets go of its end."""

    async def cleanup(self) -> None:
        await super().cleanup()
        await asyncio.sleep(60)


BROKEN = {
    "stale": {"after": [Echo]},
    "stale at 24 kHz": {"after": [Echo], "voice": HighVoice},
    "lost": {"before": [Forgetful]},
    "wedged": {"after": [NeverPlayed]},
    "illegal": {"after": [Jumper]},
    "unbounded": {"after": [Endless]},
}


def broken(before: Any = (), after: Any = (), voice: type[ScriptedVoice] = ScriptedVoice) -> Any:
    """The parrot with a user's own processors in front of its answers, or behind its gate."""

    def build(session: Session) -> Pipeline:
        return Pipeline(
            [
                session.input,
                TurnAggregator(),
                *(kind() for kind in before),
                Parallel({"intent": say, "retrieval": echo_words}, fallback=FALLBACK),
                Responder(templates={"say": "{context}"}),
                voice(chunks_per_sentence=50),
                InterruptionGate(),
                StateTracker(record=session.record),
                *(kind() for kind in after),
                session.output,
            ]
        )

    return build


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_pipeline_is_caught_and_its_script_shows_it_again(kind: str) -> None:
    build = broken(**BROKEN[kind])
    for seed in range(100):
        try:
            check_conversation(build, generate(random.Random(seed)))
        except ConversationFailed as error:
            failed = error
            break
    else:
        pytest.fail("100 conversations did not show it")
    assert any(violation.startswith(kind.split()[0]) for violation in failed.violations)
    with pytest.raises(ConversationFailed) as again:
        exec(failed.script, {"build": build})
    assert again.value.violations == failed.violations


@pytest.mark.slow
def test_hypothesis_shrinks_a_failure_to_a_few_acts() -> None:
    @settings(FEW, max_examples=100, database=None)
    @given(schedules(turns=(1, 2)))
    def three_lines(schedule: Schedule) -> None:
        check_conversation(broken(**BROKEN["lost"]), schedule)

    with pytest.raises(ConversationFailed) as failed:
        three_lines()
    assert "and a coke" in failed.value.script
    assert failed.value.script.count("call.") <= 20
