"""A turn that has called a tool is asked once: whatever the user says next, its words are not put to the LLM again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pipecat.frames.frames import TranscriptionFrame, VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame
from pipecat.processors.aggregators.llm_context import LLMContext

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, Session
from leibniz_voice.pipeline.testing import Call, ScriptedVoice
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator
from tests.support.virtual_llm import Response, VirtualLLM

ORDER, SECOND = "order a large pizza", "how long does it take"


class Shop:
    """A bot whose LLM orders when it is asked to; what was ordered, and what the LLM was asked."""

    def __init__(self, *, tool_s: float = 0.0, think_s: float = 2.0) -> None:
        self.orders: list[str] = []
        self.done: list[str] = []
        self.llm: VirtualLLM | None = None
        self._tool_s, self._think_s = tool_s, think_s

    def respond(self, messages: list[Any]) -> Response:
        if messages[-1]["role"] == "tool":
            return Response("Your pizza is ordered.", think_s=self._think_s)
        if "pizza" in messages[-1]["content"]:
            return Response("One moment.", {"order": {"size": "large"}})
        return Response("It takes an hour.")

    def build(self, session: Session) -> Pipeline:
        async def order(params: Any, size: str) -> None:
            """Order a pizza.

            Args:
                size: How large.
            """
            self.orders.append(size)
            await asyncio.sleep(self._tool_s)
            self.done.append(size)
            await params.result_callback({"ordered": size})

        async def intent(turn: Any) -> IntentResult:
            return IntentResult("complex_query", 1.0)

        self.llm = VirtualLLM(self.respond)
        return Pipeline(
            [
                session.input,
                TurnAggregator(),
                Parallel({"intent": intent}, fallback={"intent": IntentResult()}),
                Responder(context=LLMContext(tools=[order])),
                self.llm,
                ScriptedVoice(chunks_per_sentence=50),
                InterruptionGate(),
                StateTracker(record=session.record),
                session.output,
            ]
        )

    @property
    def questions(self) -> list[str]:
        """What the LLM was last told that the user said."""
        assert self.llm is not None
        return [m["content"] for m in self.llm.asked[-1] if m["role"] == "user"]


def types(call: Call, text: str) -> None:
    call.types(text)


def speaks(call: Call, text: str) -> None:
    for frame in (VADUserStartedSpeakingFrame(), TranscriptionFrame(text, "", ""), VADUserStoppedSpeakingFrame()):
        call.detects(frame)


def says_late(call: Call, text: str) -> None:
    call.detects(TranscriptionFrame(text, "", ""))  # no new voice: the rest of the utterance, as far as anybody knows


@pytest.mark.parametrize("how", [types, speaks, says_late])
@pytest.mark.parametrize("tool_s", [0.0, 1.0], ids=["the tool has run", "the tool runs"])
@pytest.mark.parametrize("after_s", [0.3, 0.7, 1.5])
def test_what_the_user_says_next_orders_nothing_again(
    how: Callable[[Call, str], None], tool_s: float, after_s: float
) -> None:
    shop = Shop(tool_s=tool_s)
    with Call(shop.build) as call:
        speaks(call, ORDER)
        call.wait(after_s)
        assert shop.orders == ["large"]
        how(call, SECOND)
        call.wait(12)
    assert shop.orders == ["large"]
    assert shop.questions == [ORDER, SECOND]


def test_a_turn_that_was_cut_before_it_acted_stays_in_front() -> None:
    shop = Shop()
    with Call(shop.build) as call:
        speaks(call, ORDER)
        call.wait(0.05)
        assert shop.orders == []
        speaks(call, "and a coke")
        call.wait(12)
    assert shop.orders == ["large"]
    assert shop.questions == [f"{ORDER} and a coke"]
