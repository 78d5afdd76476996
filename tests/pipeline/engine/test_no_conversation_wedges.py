"""Nothing wedges: from every state, with every fault, after every event a conversation comes to rest in bounded time.

At rest is idle or listening, as the client was told, or closed. In virtual time over a whole product, with a queued
TTS service of Pipecat's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from pipecat.frames.frames import (
    InterruptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session, UserTurnFrame
from leibniz_voice.pipeline.frames import SpeechChunkFrame
from leibniz_voice.pipeline.session import SessionFailed
from leibniz_voice.pipeline.testing import AsyncCall, Manner, Script, ScriptedLLM, ScriptedTTS, Step, run_virtual
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator
from leibniz_voice.transports.dialects.protocol import SttFragment, UserSpeaking, VadEnd
from leibniz_voice.transports.playout.input import ClientInput

pytestmark = pytest.mark.slow
REST_S = 75.0  # a reply has 60 s; what the user said meanwhile is answered after it
CLOSED_S = 25.0  # `Session.end` waits for what is under way, then cancels, then abandons

Act = Callable[[AsyncCall], Awaitable[Any]]


async def stubborn(turn: UserTurnFrame) -> RetrievalResult:
    """A branch that swallows two cancellations."""
    for _ in range(2):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.4)
    return RetrievalResult(context="the shop is open. come in.")


async def quick(turn: UserTurnFrame) -> RetrievalResult:
    """A branch that answers."""
    await asyncio.sleep(0.3)
    return RetrievalResult(context="the shop is open. come in.")


def voice(manner: Manner = Manner.IN_ORDER, *, swallow: bool = False, **step: Any) -> ScriptedTTS:
    """A TTS service that says a second a sentence."""
    step = {"each_s": 0.005, **step}
    return ScriptedTTS(manner, script=Script(Step(**step)), chunks_per_sentence=50, swallow=swallow, slow_s=0.2)


FAULTS: dict[str, tuple[Callable[[], ScriptedTTS], Any]] = {
    "none": (voice, quick),
    "branch swallows cancellations": (voice, stubborn),
    "voice swallows cancellation": (lambda: voice(Manner.LATE_CANCEL, swallow=True), quick),
    "voice never ends": (lambda: voice(hangs_at=12), quick),
    "voice never begins": (lambda: voice(hangs_at=0), quick),
    "voice is slow with system frames": (lambda: voice(Manner.SLOW_SYSTEM), quick),
    "voice goes on from its own task": (lambda: voice(Manner.OWN_TASK), quick),
}


async def asks(call: AsyncCall) -> None:
    """The client's own recogniser: a whole turn."""
    await call.sends(SttFragment(text="where is it", is_final=True))
    await call.sends(VadEnd())


async def is_heard(call: AsyncCall, chunks: int = 2, text: str = "") -> None:
    """Voice for some chunks, then perhaps words."""
    await call.pushes(VADUserStartedSpeakingFrame(start_secs=0.064))
    for chunk in range(1, chunks + 1):
        await call.pushes(SpeechChunkFrame(confidence=0.95, speech_ms=32.0 * chunk))
        await asyncio.sleep(0.032)
    if text:
        await call.pushes(TranscriptionFrame(text, "", ""))
    await call.pushes(VADUserStoppedSpeakingFrame(stop_secs=0.3), SpeechChunkFrame())


async def resumes_and_is_cut(call: AsyncCall) -> None:
    """An interruption in the step of the resume."""
    await is_heard(call)
    await call.sends(UserSpeaking(confidence=1.0))


async def cuts(call: AsyncCall) -> None:
    """The client is sure."""
    await call.sends(UserSpeaking(confidence=1.0))


async def cuts_and_asks_twice(call: AsyncCall) -> None:
    """A second barge-in during the first."""
    for _ in range(2):
        await cuts(call)
        await asks(call)


async def ends_while_cut(call: AsyncCall) -> None:
    """An interruption during the end."""
    end = asyncio.create_task(call.session.end(timeout_s=3.0))
    await asyncio.sleep(0)
    await cuts(call)
    await end


async def vanishes(call: AsyncCall) -> None:
    """The connection is gone in the middle of a word."""
    await call.pushes(VADUserStartedSpeakingFrame(start_secs=0.064), SpeechChunkFrame(confidence=0.9, speech_ms=64))
    await call.session.cancel("client gone")


EVENTS: dict[str, tuple[Act, bool]] = {  # the act, and whether the conversation is closed after it
    "asks": (asks, False),
    "cut": (cuts, False),
    "cut, asks, twice": (cuts_and_asks_twice, False),
    "noise": (is_heard, False),
    "voice without words": (lambda call: is_heard(call, 12), False),
    "words": (lambda call: is_heard(call, 5, "stop that"), False),
    "cut during the resume": (resumes_and_is_cut, False),
    "end of turn without words": (lambda call: call.sends(VadEnd()), False),
    "somebody else's interruption": (lambda call: call.pushes(InterruptionFrame()), False),
    "end": (lambda call: call.session.end(timeout_s=3.0), True),
    "cut during the end": (ends_while_cut, True),
    "client vanishes": (vanishes, True),
}


async def listening(call: AsyncCall) -> None:
    """A word, and no end of turn."""
    await call.sends(SttFragment(text="well", is_final=False))


async def thinking(call: AsyncCall) -> None:
    """A turn whose branches are at work."""
    await asks(call)
    await asyncio.sleep(0.1)


async def speaking(call: AsyncCall) -> None:
    """An answer that sounds, if the voice can."""
    await asks(call)
    await asyncio.sleep(1.2)


async def paused(call: AsyncCall) -> None:
    """An answer that is held by a voice that goes on."""
    await speaking(call)
    await call.pushes(SpeechChunkFrame(confidence=0.9, speech_ms=64))


async def interrupting(call: AsyncCall) -> None:
    """An answer whose interruption is on its way."""
    await thinking(call)
    await cuts(call)


async def idle(call: AsyncCall) -> None:
    """Nothing yet."""


STATES: dict[str, Act] = {
    "idle": idle,
    "listening": listening,
    "thinking": thinking,
    "speaking": speaking,
    "paused": paused,
    "interrupting": interrupting,
}


def rests(state: str, event: str, fault: str) -> str:
    """Run one cell; where the conversation came to rest."""
    make_voice, look_up = FAULTS[fault]
    act, is_over = EVENTS[event]

    async def intent(turn: UserTurnFrame) -> IntentResult:
        return IntentResult("say", 1.0)

    def build(session: Session) -> Pipeline:
        fallback = {"intent": IntentResult(), "retrieval": RetrievalResult(context="sorry.")}
        return Pipeline(
            [
                session.input,
                TurnAggregator(),
                Parallel({"intent": intent, "retrieval": look_up}, fallback=fallback),
                Responder(templates={"say": "{context}"}),
                make_voice(),
                InterruptionGate(),
                StateTracker(record=session.record),
                session.output,
            ]
        )

    async def main() -> str:
        async with AsyncCall(build, session_id="cell") as call:
            await STATES[state](call)
            if is_over:
                async with asyncio.timeout(CLOSED_S):
                    await act(call)
                    await call.session.wait()
                return "closed"
            await act(call)
            await asyncio.sleep(REST_S / 2)
            if state == "listening" or call.states[-1] == "listening":  # only the client ends its own turns
                await call.sends(VadEnd())
            await asyncio.sleep(REST_S / 2)
            return call.states[-1]

    return run_virtual(main())


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("event", EVENTS)
def test_a_conversation_comes_to_rest(event: str, fault: str) -> None:
    wanted = {"closed"} if EVENTS[event][1] else {"idle", "listening"}
    came_to = {state: rests(state, event, fault) for state in STATES}
    assert {state: where for state, where in came_to.items() if where not in wanted} == {}


@pytest.mark.parametrize("hangs_at", [0, 12])
def test_a_voice_that_holds_up_the_interruption_for_good_costs_the_conversation(hangs_at: int) -> None:
    """It hangs, swallows the cancellation, and hangs again at what it had still to say."""

    async def complex_query(turn: UserTurnFrame) -> IntentResult:
        return IntentResult("complex_query", 1.0)

    def build(session: Session) -> Pipeline:
        branches = {"intent": complex_query, "retrieval": quick}
        tail = [InterruptionGate(), StateTracker(record=session.record), session.output]
        stuck = voice(Manner.LATE_CANCEL, swallow=True, hangs_at=hangs_at)
        head = [session.input, TurnAggregator(), Parallel(branches, fallback={"intent": None, "retrieval": None})]
        return Pipeline([*head, Responder(), ScriptedLLM(), stuck, *tail])

    async def main() -> tuple[float, list[str]]:
        async with AsyncCall(build, session_id="cell") as call:
            over: list[str] = []
            call.session.on_over = over.append
            await asks(call)
            await asyncio.sleep(1.0)
            began = asyncio.get_running_loop().time()
            await cuts(call)
            async with asyncio.timeout(60):
                await call.session.wait()
            return asyncio.get_running_loop().time() - began, over

    took_s, over = run_virtual(main())
    assert 5 <= took_s <= 10
    assert over == ["a processor has held up the interruption of turn 1 for 5 s"]


def test_a_build_that_never_returns_fails_its_session_in_ten_seconds() -> None:
    """Else its client kept a place for ever, and the session: its next connection waits for the end of this one."""

    async def for_ever(session: Session) -> Pipeline:
        await asyncio.Event().wait()
        raise AssertionError

    async def own_timeout(session: Session) -> Pipeline:
        raise TimeoutError("the database")

    async def main() -> None:
        began = asyncio.get_running_loop().time()
        with pytest.raises(SessionFailed, match="within 10 s"):
            await Session("s", input=ClientInput(), output=ClientInput()).start(for_ever)
        assert asyncio.get_running_loop().time() - began == pytest.approx(10, abs=0.1)
        with pytest.raises(TimeoutError, match="the database"):
            await Session("s", input=ClientInput(), output=ClientInput()).start(own_timeout)

    run_virtual(main())
