"""A recogniser's words that come after the turn was committed belong to it, however far its answer is."""

from __future__ import annotations

import asyncio

import pytest
from pipecat.frames.frames import TranscriptionFrame

from leibniz_voice.pipeline import Pipeline, Session, UserTurnFrame
from leibniz_voice.pipeline.frames import TextBufferFrame
from leibniz_voice.pipeline.testing import AsyncCall, run_offline
from leibniz_voice.pipeline.testing.fuzz.stamps import spoken

from ..reply.test_preparation import BRANCHES_S, LLM_S, Bot, Slow, speaks

ALL = "where is it and when"


@pytest.mark.parametrize("is_queued", [False, True])
@pytest.mark.parametrize("is_prepared", [False, True])
@pytest.mark.parametrize(
    ("late_s", "turn_id"), [(BRANCHES_S / 2, 1), (BRANCHES_S + LLM_S / 2, 2)], ids=["before the answer", "into it"]
)
def test_late_words_are_answered_with_those_before_them_once(
    late_s: float, turn_id: int, is_prepared: bool, is_queued: bool
) -> None:
    bot, turns = Bot(prepare=is_prepared), []

    def build(session: Session) -> Pipeline:
        async def note(_: object, frame: object) -> None:
            if isinstance(frame, UserTurnFrame) and (frame.turn_id, frame.text) not in turns:
                turns.append((frame.turn_id, frame.text))

        bot.llm.add_event_handler("on_before_process_frame", note)
        head, turn_taking, *others = bot.build(session).processors
        guest = [Slow(TextBufferFrame)] if is_queued else []  # in which the words of the cut are overtaken
        return Pipeline([head, turn_taking, *guest, *others])

    async def script(call: AsyncCall) -> None:
        await speaks(call, final="where is it")
        await asyncio.sleep(late_s)
        assert call.states[-1] == "thinking"
        await call.pushes(TranscriptionFrame("and when", "", ""))
        await call.until_state("speaking")
        await call.until_state("idle")
        await asyncio.sleep(2.0)

    call = run_offline(build, script)
    assert turns == [(1, "where is it"), (turn_id, ALL)]
    assert call.replies == [spoken(turn_id, 2)]
    assert call.states.count("speaking") == 1
    assert bot.memory == [("user", ALL), ("assistant", spoken(turn_id, 2))]
