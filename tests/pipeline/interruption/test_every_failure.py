"""Every failure of intent, retrieval, LLM and voice, at every instant: the user hears or reads something, then idle.

In virtual time, with the contract's own bounds: a turn may take as long as the bound on what failed and what a good
turn takes, and no longer; the next turn, with the service mended, is answered as ever.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from pipecat.frames.frames import Frame, TTSAudioRawFrame

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session
from leibniz_voice.pipeline.conversation.snapshot import ConversationFields, parse
from leibniz_voice.pipeline.errors import ServiceError
from leibniz_voice.pipeline.testing import AsyncCall, run_offline
from leibniz_voice.processors import EmbeddedTTS, InterruptionGate, Responder, StateTracker, TurnAggregator
from leibniz_voice.processors.embedded.voice.espeak import EspeakVoice
from leibniz_voice.transports.dialects.protocol import UserSpeaking
from tests.support.faults import DEAD_S, INSTANTS, KINDS, Fault, FaultyBranch, FaultyLLM, FaultyVoice

SERVICES = ["intent", "retrieval", "llm", "voice"]
APOLOGY = "Sorry, please ask again."
WORDS = ["This", " is", " one.", " And", " here", " is", " another", " one."]
ANSWER = "".join(WORDS)
CUT_S = {"intent": 0.1, "retrieval": 0.1, "llm": 1.2, "voice": 1.2}  # Pipecat waits 1 s for who swallows a cancellation
GOOD_S = 3.0  # what a turn takes without failures, with an apology in it
BOUNDS_S = {  # service -> (until its first answer, between two, in all) of the contract
    "intent": (5.0, 5.0, 5.0),
    "retrieval": (5.0, 5.0, 5.0),
    "llm": (4.0, 3.0, 60.0),
    "voice": (3.0, 6.0, 30.0 + 0.5 * len(ANSWER)),
}


def bound_s(service: str, kind: str, instant: str) -> float:
    """How long a failure may hold a turn up: 0 if the service tells of it."""
    first, between, whole = BOUNDS_S[service]
    if kind == "drips":
        return whole
    if kind == "hangs":
        return between if instant in ("middle", "last") else first
    return 0.0


def build_with(service: str, fault: Fault) -> Any:
    faults = {name: fault if name == service else Fault("none", "never") for name in SERVICES}

    def build(session: Session) -> Pipeline:
        branches = {
            "intent": FaultyBranch(IntentResult("complex_query", 0.9), faults["intent"]),
            "retrieval": FaultyBranch(RetrievalResult([{"text": "A passage."}], "A passage."), faults["retrieval"]),
        }
        return Pipeline(
            [
                session.input,
                TurnAggregator(),
                Parallel(branches, fallback={"intent": IntentResult(), "retrieval": RetrievalResult()}),
                Responder(apology=APOLOGY),
                FaultyLLM(WORDS, faults["llm"]),
                FaultyVoice(faults["voice"]),
                InterruptionGate(),
                StateTracker(record=session.record),
                session.output,
            ]
        )

    return build


async def asked(call: AsyncCall) -> float:
    """Ask; returns how long it took until the conversation was idle again."""
    began, asked = asyncio.get_running_loop().time(), call.states.count("thinking")
    await call.types("why is that")
    await call.until(lambda: call.states.count("thinking") > asked, "question")
    await call.until_state("idle", timeout_s=90)
    return asyncio.get_running_loop().time() - began


def shown(call: AsyncCall) -> list[str]:
    """All that the user was told, in text."""
    kinds = ("response_ready", "response_text", "error")
    said = [m.get("text", m.get("code")) for _, m in call.wire.messages if m["type"] in kinds]
    return [text for text in said if text]


async def barge_in(call: AsyncCall, fault: Fault, within_s: float) -> None:
    """Cut a turn while the service works on it, and breaks because it is cut."""
    fault.working.clear()
    await call.types("why is that")
    await fault.working.wait()
    await asyncio.sleep(0.05)
    await call.sends(UserSpeaking(confidence=1.0))
    await asyncio.sleep(0.02)
    heard_ms = call.wire.audio_ms
    await asyncio.sleep(within_s)
    assert call.states[-2:] == ["interrupt", "listening"]
    assert call.wire.audio_ms == heard_ms


def fails(service: str, kind: str, instant: str) -> None:
    """A good turn unless it begins with the failure, the failure, and a good turn again."""
    fault = Fault(kind, instant, is_on=instant in ("before", "resume"))
    took: list[float] = []

    async def script(call: AsyncCall) -> None:
        if not fault.is_on:
            await asked(call)
            fault.is_on = True
        if instant == "barge-in":
            await barge_in(call, fault, CUT_S[service])
        told = len(shown(call))
        if instant == "resume":
            began = asyncio.get_running_loop().time()
            await call.until_state("idle", timeout_s=90)
            took.append(asyncio.get_running_loop().time() - began)
        else:
            took.append(await asked(call))
        assert len(shown(call)) > told, "the user got no answer"
        fault.is_on = False
        if kind == "dies":
            await asyncio.sleep(DEAD_S)
        told = len(shown(call))
        assert await asked(call) < GOOD_S
        assert " ".join(shown(call)[told:]) == ANSWER

    fields = ConversationFields(state="thinking", turn_id=7, text_buffer=["why is that"])
    resumed = {"fields": parse(fields.to_fields())} if instant == "resume" else {}
    call = run_offline(build_with(service, fault), script, **resumed)
    assert took[0] <= bound_s(service, kind, instant) + GOOD_S
    assert call.states[-1] == "idle"


def test_a_voice_is_not_blamed_for_an_llm_that_takes_long_over_its_last_sentence() -> None:
    async def script(call: AsyncCall) -> None:
        assert await asked(call) > 6.0  # the first sentence was spoken long before the last one was known

    call = run_offline(build_with("llm", Fault("drips", "middle", is_on=True, drops=4)), script)
    assert " ".join(shown(call)) == ANSWER


class EmptyVoice(FaultyVoice):
    """Sends frames of audio without a sample, and says that it failed."""

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        yield TTSAudioRawFrame(b"", 16000, 1, context_id=context_id)
        await asyncio.sleep(0.1)
        await self.push_error("no voice today")


def test_audio_without_a_sample_is_no_sound() -> None:
    def build(session: Session) -> Pipeline:
        pipeline = build_with("llm", Fault("none", "never"))(session)
        chain = [EmptyVoice(p.fault) if isinstance(p, FaultyVoice) else p for p in pipeline.processors]
        return Pipeline(chain)

    async def script(call: AsyncCall) -> None:
        assert await asked(call) < 1.0

    call = run_offline(build, script)
    assert "speaking" not in call.states
    assert shown(call)[-2:] == [ANSWER, "voice_failed"]


def test_a_voice_that_fails_before_it_has_anything_to_say_may_still_say_it() -> None:
    async def script(call: AsyncCall) -> None:
        assert call.session.pipeline is not None
        voice = next(p for p in call.session.pipeline.processors if isinstance(p, FaultyVoice))
        await call.types("why is that")
        await asyncio.sleep(0.21)  # the LLM is at its first words
        await voice.push_error("the connection is lost; connecting again")
        await call.until_state("speaking")
        await call.until_state("idle")

    call = run_offline(build_with("llm", Fault("none", "never")), script)
    assert " ".join(shown(call)) == ANSWER


def test_a_voice_that_fails_while_the_llm_goes_on_speaks_the_next_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    speak, broken = EspeakVoice.speak, [True]

    def fails_once(self: EspeakVoice, text: str) -> Any:
        if broken and text in ANSWER and len(text) > 1:  # one letter warms the voice up
            broken.clear()
            raise ServiceError("no voice today")
        return speak(self, text)

    monkeypatch.setattr(EspeakVoice, "speak", fails_once)

    def build(session: Session) -> Pipeline:
        chain = build_with("llm", Fault("none", "never"))(session).processors
        return Pipeline([EmbeddedTTS() if isinstance(p, FaultyVoice) else p for p in chain])

    async def script(call: AsyncCall) -> None:
        await asked(call)
        assert shown(call)[-1] == "voice_failed"
        heard_ms, told = call.wire.audio_ms, len(shown(call))
        await asked(call)
        assert call.wire.audio_ms > heard_ms + 1000
        assert " ".join(shown(call)[told:]) == ANSWER

    run_offline(build, script)


@pytest.mark.parametrize(("service", "kind"), list(itertools.product(SERVICES, ["hangs", "dies"])))
def test_a_failure_before_the_first_answer_ends_within_its_bound(service: str, kind: str) -> None:
    fails(service, kind, "first")


@pytest.mark.slow
@pytest.mark.parametrize(("service", "kind", "instant"), list(itertools.product(SERVICES, KINDS, INSTANTS)))
def test_every_failure_at_every_instant_ends_within_its_bound(service: str, kind: str, instant: str) -> None:
    fails(service, kind, instant)


@pytest.mark.parametrize("kind", ["hangs", "drips"])
def test_a_reply_whose_voice_fails_in_the_middle_is_abandoned_and_not_counted(kind: str) -> None:
    async def script(call: AsyncCall) -> None:
        await asked(call)

    call = run_offline(build_with("voice", Fault(kind, "middle", is_on=True)), script)
    assert [m["trigger"] for m in call.wire.of_type("state_update")][-2:] == ["response_ready", "reply_abandoned"]
    assert [m["code"] for m in call.wire.of_type("error")] == ["voice_failed"]
    assert call.wire.audio_ms > 0
    assert call.session.record.fields.turn_number == 0


@pytest.mark.slow
@pytest.mark.parametrize(("service", "kind", "instant"), list(itertools.product(SERVICES, KINDS, INSTANTS[:5])))
def test_a_barge_in_into_a_failure_is_heard(service: str, kind: str, instant: str) -> None:
    fault = Fault(kind, instant, is_on=True)

    async def script(call: AsyncCall) -> None:
        await call.types("why is that")
        await asyncio.sleep(0.4)
        await call.sends(UserSpeaking(confidence=1.0))
        await asyncio.sleep(0.1)
        assert call.states[-1] in ("listening", "idle")
        fault.is_on = False
        await asyncio.sleep(DEAD_S if kind == "dies" else 0.0)
        told = len(shown(call))
        assert await asked(call) < GOOD_S
        assert " ".join(shown(call)[told:]) == ANSWER

    run_offline(build_with(service, fault), script)
