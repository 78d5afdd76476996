"""Every failure of intent, retrieval, LLM and voice, at every instant: the user hears or reads something, then idle.

In virtual time, with the contract's own bounds.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session
from leibniz_voice.pipeline.testing import AsyncCall, run_offline
from leibniz_voice.pipeline.testing.scripted import (
    Script,
    ScriptedIntent,
    ScriptedLLM,
    ScriptedRetriever,
    ScriptedVoice,
    Step,
)
from leibniz_voice.pipeline.testing.scripted_tts import Manner, ScriptedTTS
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator
from leibniz_voice.transports.protocol import UserSpeaking

APOLOGY = "Sorry, please ask again."
BOUND_S = {"intent": 5.0, "retrieval": 5.0, "llm": 60.0, "voice": 10.0}  # from the question to the answer's begin


def step(fault: str, instant: int) -> Step:
    """The service fails, or hangs, instead of its piece number `instant`."""
    return Step(delay_s=0.05, each_s=0.02, **{f"{fault}_at": instant})


def build_with(where: str, broken: Step, *, stock_voice: bool) -> Any:
    scripts = {name: Script(broken if name == where else Step(delay_s=0.05, each_s=0.02)) for name in BOUND_S}
    voice_script = Script(broken if where == "voice" else Step(delay_s=0.02))

    def build(session: Session) -> Pipeline:
        intent = ScriptedIntent("complex_query", script=scripts["intent"])
        retrieval = ScriptedRetriever("A passage.", script=scripts["retrieval"])
        voice = ScriptedTTS(Manner.IN_ORDER, script=voice_script) if stock_voice else ScriptedVoice(script=voice_script)
        return Pipeline(
            [
                session.input,
                TurnAggregator(),
                Parallel(
                    {"intent": intent, "retrieval": retrieval},
                    fallback={"intent": IntentResult(), "retrieval": RetrievalResult()},
                ),
                Responder(apology=APOLOGY),
                ScriptedLLM(script=scripts["llm"]),
                voice,
                InterruptionGate(),
                StateTracker(record=session.record),
                session.output,
            ]
        )

    return build


CASES = [
    *itertools.product(["intent", "retrieval"], ["fails", "hangs"], [0], [True]),
    *itertools.product(["llm"], ["fails", "hangs"], range(10), [True]),
    *itertools.product(["voice"], ["fails", "hangs"], [0, 1, 5, 9], [True]),
]


async def until_answered(call: AsyncCall) -> float:
    """Ask; returns how long it took until the conversation was idle again."""
    began, asked = asyncio.get_running_loop().time(), call.states.count("thinking")
    await call.types("why is that")
    await call.until(lambda: call.states.count("thinking") > asked, "question")
    await call.until_state("idle", timeout_s=90)
    return asyncio.get_running_loop().time() - began


@pytest.mark.parametrize(("where", "fault", "instant", "stock_voice"), CASES)
def test_a_failure_ends_within_its_bound_and_the_next_turn_is_open(
    where: str, fault: str, instant: int, stock_voice: bool
) -> None:
    took: list[float] = []

    async def script(call: AsyncCall) -> None:
        took.append(await until_answered(call))

    call = run_offline(build_with(where, step(fault, instant), stock_voice=stock_voice), script)
    said = call.wire.of_type("response_ready") + call.wire.of_type("response_text")
    assert any(message["text"] for message in said), "the user got no answer"
    assert took[0] < BOUND_S[where] + 10  # and what was said before and after took its time
    assert call.states[-1] == "idle"


@pytest.mark.parametrize(("where", "fault", "instant", "stock_voice"), CASES)
def test_a_barge_in_into_a_failure_is_heard(where: str, fault: str, instant: int, stock_voice: bool) -> None:
    async def script(call: AsyncCall) -> None:
        await call.types("why is that")
        await asyncio.sleep(0.4)
        await call.sends(UserSpeaking(confidence=1.0))
        await asyncio.sleep(0.2)
        assert call.states[-1] in ("listening", "idle")
        await until_answered(call)

    call = run_offline(build_with(where, step(fault, instant), stock_voice=stock_voice), script)
    assert call.states[-1] == "idle"
