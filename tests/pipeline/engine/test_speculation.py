"""Guesses at the coming turn: taken over when right, thrown away when wrong, never heard before the commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pipecat.frames.frames import (
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session, UserTurnFrame
from leibniz_voice.pipeline.frames import EarlyWordsFrame, SpeechChunkFrame
from leibniz_voice.pipeline.testing import AsyncCall, run_offline
from leibniz_voice.pipeline.testing.scripted.scripted_services import ScriptedVoice
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator
from leibniz_voice.transports.dialects.protocol import SttFragment, VadEnd


class Branch:
    """Answers after a while; notes what it was asked."""

    def __init__(self, answer: Callable[[str], Any], seconds: float, *, has_side_effects: bool = False) -> None:
        self.answer, self.seconds, self.has_side_effects = answer, seconds, has_side_effects
        self.asked: list[tuple[str, bool]] = []  # (text, whether it was a real turn)
        self.cancelled = 0
        self.fail_next = False

    async def __call__(self, turn: Any) -> Any:
        self.asked.append((turn.text, isinstance(turn, UserTurnFrame)))
        fails, self.fail_next = self.fail_next, False
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if fails:
            raise ValueError("no")
        return self.answer(turn.text)


class Shop:
    """A bot whose branches take 50 and 80 ms."""

    def __init__(self, *, with_effects: bool = False) -> None:
        self.intent = Branch(lambda text: IntentResult("say", 1.0), 0.05)
        self.retrieval = Branch(lambda text: RetrievalResult([], text), 0.08, has_side_effects=with_effects)
        fallback = {"intent": IntentResult(), "retrieval": RetrievalResult()}
        self.join = Parallel({"intent": self.intent, "retrieval": self.retrieval}, fallback=fallback)

    def build(self, session: Session) -> Pipeline:
        return Pipeline(
            [
                session.input,
                TurnAggregator(),
                self.join,
                Responder(templates={"say": "{context}"}),
                ScriptedVoice(),
                InterruptionGate(),
                StateTracker(record=session.record),
                session.output,
            ]
        )


def talk(shop: Shop, script: Callable[[AsyncCall], Awaitable[None]]) -> AsyncCall:
    return run_offline(shop.build, script)


def join_ms(call: AsyncCall) -> list[float]:
    return [m["latency_ms"]["Join"] for m in call.wire.of_type("turn")]


async def speaks(call: AsyncCall, *, early: str, final: str, hangover_s: float = 0.3) -> None:
    """Speech whose recogniser knows the words at the first silence, and says them after the hangover."""
    await call.pushes(VADUserStartedSpeakingFrame(start_secs=0.064))
    await asyncio.sleep(0.5)
    await call.pushes(SpeechChunkFrame(confidence=0.1, speech_ms=500), EarlyWordsFrame(text=early))
    assert call.states[-1] == "listening"
    await asyncio.sleep(hangover_s)
    await call.pushes(TranscriptionFrame(final, "", ""), SpeechChunkFrame(), VADUserStoppedSpeakingFrame(stop_secs=0.3))
    await call.until_state("idle")


def test_without_a_guess_the_wait_is_the_slower_branch():
    shop = Shop()
    call = talk(shop, lambda call: _ask(call, "where is my order"))
    assert join_ms(call) == [80.0]
    assert shop.join.counts["saved_ms"] == 0  # the final fragment is a guess, but the turn ends with it


async def _ask(call: AsyncCall, text: str) -> None:
    await call.types(text)
    await call.until_state("idle")


def test_a_right_guess_saves_the_wait():
    shop = Shop()
    call = talk(shop, lambda call: speaks(call, early="where is my order", final="Where is my order?"))
    assert join_ms(call)[0] <= 1.0
    assert (shop.join.counts["hits"], shop.join.counts["saved_ms"]) == (1, 80)
    assert shop.intent.asked == [("where is my order", False)]
    assert call.replies == ["where is my order"]


def test_a_guess_still_on_its_way_is_waited_for():
    shop = Shop()
    call = talk(shop, lambda call: speaks(call, early="hello", final="hello", hangover_s=0.03))
    assert join_ms(call)[0] == pytest.approx(50, abs=1)
    assert shop.join.counts["saved_ms"] == 30


def test_a_wrong_guess_costs_nothing_and_is_thrown_away():
    shop = Shop()
    call = talk(shop, lambda call: speaks(call, early="where is", final="where is my order", hangover_s=0.02))
    assert join_ms(call) == [80.0]
    assert call.replies == ["where is my order"]
    assert shop.join.counts["misses"] == 1
    assert shop.retrieval.cancelled == 1


def test_a_branch_with_side_effects_waits_for_the_commit():
    shop = Shop(with_effects=True)
    call = talk(shop, lambda call: speaks(call, early="buy it", final="buy it"))
    assert shop.retrieval.asked == [("buy it", True)]
    assert shop.intent.asked == [("buy it", False)]
    assert join_ms(call) == [80.0]


def test_a_guess_that_failed_is_asked_again():
    shop = Shop()
    shop.retrieval.fail_next = True
    call = talk(shop, lambda call: speaks(call, early="hello", final="hello"))
    assert [is_real for _, is_real in shop.retrieval.asked] == [False, True]
    assert call.replies == ["hello"]


def test_a_guess_answered_by_the_fallback_is_asked_again() -> None:
    shop = Shop()
    answers = [IntentResult(), IntentResult("say", 1.0)]  # a service that answers so when it could not be reached
    shop.intent.answer = lambda text: answers.pop(0)
    call = talk(shop, lambda call: speaks(call, early="hello", final="hello"))
    assert [is_real for _, is_real in shop.intent.asked] == [False, True]
    assert [is_real for _, is_real in shop.retrieval.asked] == [False]
    assert call.record.fields.intent["intent"] == "say"


def test_a_stable_interim_and_a_final_fragment_are_guesses():
    shop = Shop()

    async def script(call: AsyncCall) -> None:
        for text in ("where", "where is", "where is it", "where is it"):
            await call.pushes(InterimTranscriptionFrame(text, "", ""))
            await asyncio.sleep(0.01)
        assert [text for text, _ in shop.intent.asked] == ["where is it"]
        await call.pushes(TranscriptionFrame("where is it", "", ""))
        await call.until_state("idle")
        await call.sends(SttFragment(text="thanks", is_final=True))
        await asyncio.sleep(0.2)
        assert call.states[-1] == "listening"
        await call.sends(VadEnd())
        await call.until_state("idle")

    call = talk(shop, script)
    assert shop.join.counts["hits"] == 2
    assert max(join_ms(call)) <= 1.0


def test_nothing_is_guessed_while_the_bot_speaks_and_a_guess_alone_is_never_heard():
    shop = Shop()

    async def script(call: AsyncCall) -> None:
        await call.types("tell me everything")
        await call.until_state("speaking")
        await call.pushes(EarlyWordsFrame(text="mhm"))
        await call.until_state("idle")
        await call.pushes(VADUserStartedSpeakingFrame(start_secs=0.064), EarlyWordsFrame(text="hello"))
        await asyncio.sleep(1)

    call = talk(shop, script)
    assert [text for text, _ in shop.intent.asked] == ["tell me everything", "hello"]
    assert call.replies == ["tell me everything"]
    assert call.record.fields.text_buffer == []
    assert call.record.fields.intent["intent"] == "say"
