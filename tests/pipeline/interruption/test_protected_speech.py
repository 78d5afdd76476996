"""Protected speech: how it is marked, what the user hears, and what becomes of words said over it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from pipecat.frames.frames import TranscriptionFrame, VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame

from leibniz_voice.pipeline import BargeInPolicy, Pipeline, Session, UserTurnFrame
from leibniz_voice.pipeline.engine.parallel import Parallel
from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.frames import ProtectedSpeechFrame, ReplySpeechFrame, ReplyTextFrame, SpeechChunkFrame
from leibniz_voice.pipeline.interruption.policy import Stance
from leibniz_voice.pipeline.interruption.protection import check_marks, speech_of, without_marks
from leibniz_voice.pipeline.services import IntentResult, RetrievalResult
from leibniz_voice.pipeline.testing import Call, ScriptedTTS, run_offline
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator
from leibniz_voice.transports.dialects.protocol import SttFragment, UserSpeaking, VadEnd

NOTICE = "this call is recorded for training"
GREETING = f"<protected>{NOTICE}</protected> how can I help you with your order today"


@pytest.mark.parametrize(
    "wrong", ["<protected>a", "a</protected>", "<protected>a<protected>b</protected></protected>", "</protected>a"]
)
def test_marks_without_a_partner_are_refused_when_the_bot_is_built(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="in pairs"):
        Responder(greeting=wrong)
    with pytest.raises(ConfigurationError, match="in pairs"):
        check_marks("fine", wrong)


def test_the_client_is_told_what_is_said_without_marks() -> None:
    assert without_marks("a <protected>b c.</protected> d") == "a b c. d"
    assert without_marks("two  blanks") == "two  blanks"


def test_protected_speech_stands_between_its_marks() -> None:
    frames = speech_of(3, f"hello <protected>{NOTICE}</protected> bye")
    assert isinstance(frames[0], ReplyTextFrame)
    assert frames[0].text == f"hello {NOTICE} bye"
    spoken = [f.text if isinstance(f, ReplySpeechFrame) else f.is_protected for f in frames[1:]]  # type: ignore[attr-defined]
    assert spoken == ["hello", True, NOTICE, False, "bye"]
    assert all(f.turn_id == 3 for f in frames)  # type: ignore[attr-defined]
    assert not any(isinstance(f, ProtectedSpeechFrame) for f in speech_of(3, "plain text"))


def talk(
    script: Callable[[Call], Awaitable[None]],
    greeting: str,
    policy: BargeInPolicy | None = None,
    *,
    thinks_s: float = 0.0,
) -> Call:
    """A bot that greets, then answers each turn with its own words."""

    async def intent(turn: UserTurnFrame) -> IntentResult:
        await asyncio.sleep(thinks_s)
        return IntentResult("say", 1.0)

    async def retrieval(turn: UserTurnFrame) -> RetrievalResult:
        return RetrievalResult(context=f"you said {turn.text}")

    def build(session: Session) -> Pipeline:
        return Pipeline(
            [
                session.input,
                TurnAggregator(policy=policy),
                Parallel({"intent": intent, "retrieval": retrieval}, fallback={"intent": None, "retrieval": None}),
                Responder(templates={"say": "{context}"}, greeting=greeting),
                ScriptedTTS(chunks_per_sentence=60),
                InterruptionGate(policy=policy),
                StateTracker(record=session.record),
                session.output,
            ]
        )

    return run_offline(build, script)


async def speaks_over(call: Call, text: str) -> None:
    """Speak for half a second, then the words are known."""
    await call.pushes(VADUserStartedSpeakingFrame(start_secs=0.064))
    for chunk in range(1, 17):
        await call.pushes(SpeechChunkFrame(confidence=0.95, speech_ms=32.0 * chunk))
        await asyncio.sleep(0.032)
    await call.pushes(VADUserStoppedSpeakingFrame(stop_secs=0.3), SpeechChunkFrame())
    await call.pushes(TranscriptionFrame(text, "", ""))


def types_of(call: Call) -> list[str]:
    """What the client was told about its playback."""
    kinds = [message["type"] for _, message in call.wire.messages]
    return [kind for kind in kinds if kind in ("pause", "resume", "interrupted")]


HOW = {
    "voice": lambda call: speaks_over(call, "where is my parcel"),
    "typing": lambda call: call.types("where is my parcel"),
    "client": lambda call: says_so(call),
}


async def says_so(call: Call) -> None:
    """The client is sure that its user speaks, and has the words."""
    await call.sends(UserSpeaking(confidence=1.0))
    await call.types("where is my parcel")


@pytest.mark.parametrize("how", HOW)
def test_words_over_protected_speech_wait_for_its_end_and_then_interrupt(how: str) -> None:
    heard: list[str] = []

    async def script(call: Call) -> None:
        await call.until_heard(200)
        await HOW[how](call)
        assert types_of(call) == []  # it neither paused nor was cut
        assert call.states[-1] == "speaking"
        await call.until(lambda: call.wire.of_type("interrupted"), "interruption")
        heard.append(call.record.fields.history[-1]["heard"])
        await call.until_state("idle")

    call = talk(script, GREETING)
    assert heard[0].startswith(NOTICE)
    assert len(heard[0].split()) <= len(NOTICE.split()) + 1  # the rest of the greeting was not
    assert call.replies[-1] == "you said where is my parcel"


def test_words_over_a_reply_that_is_protected_to_its_end_are_the_next_turn() -> None:
    async def script(call: Call) -> None:
        await call.until_heard(200)
        await speaks_over(call, "where is my parcel")
        await call.until(lambda: len(call.replies) == 2, "answer")
        await call.until_state("idle")

    call = talk(script, f"<protected>{NOTICE}</protected>")
    assert types_of(call) == []
    assert call.states == ["idle", "speaking", "idle", "listening", "thinking", "speaking", "idle"]
    assert call.replies == [NOTICE, "you said where is my parcel"]


def test_a_backchannel_over_protected_speech_is_none_of_it() -> None:
    async def script(call: Call) -> None:
        await call.until_heard(200)
        await speaks_over(call, "okay")
        await call.until_state("idle")

    call = talk(script, GREETING)
    assert types_of(call) == []
    assert len(call.replies) == 1


def test_what_is_not_protected_any_more_can_be_interrupted() -> None:
    async def script(call: Call) -> None:
        await call.until(lambda: NOTICE in call.record.fields.heard, "end of the notice")
        await asyncio.sleep(0.5)
        await speaks_over(call, "stop")
        await call.until_state("idle")

    assert "interrupted" in types_of(talk(script, GREETING))


def test_a_bot_that_is_never_interrupted_answers_when_it_has_finished() -> None:
    async def script(call: Call) -> None:
        await call.until_heard(200)
        await speaks_over(call, "where is my parcel")
        await call.until(lambda: len(call.replies) == 2, "answer")
        await call.until_state("idle")

    call = talk(script, "how can I help you with your order today", BargeInPolicy(stance=Stance.NEVER))
    assert types_of(call) == []
    assert call.replies[-1] == "you said where is my parcel"


def test_a_bot_that_is_never_interrupted_while_it_thinks_is_when_it_speaks() -> None:
    async def script(call: Call) -> None:
        await call.types("one")
        await speaks_over(call, "two")
        await call.until_state("idle")

    call = talk(script, "", BargeInPolicy(thinking=BargeInPolicy(stance=Stance.NEVER)))
    assert call.replies[-1] == "you said two"


@pytest.mark.parametrize(
    ("policy", "is_cut"),
    [
        (BargeInPolicy(confidence=0.9, thinking=BargeInPolicy(confidence=0.5)), True),
        (BargeInPolicy(confidence=0.5, thinking=BargeInPolicy(confidence=0.9)), False),
        (BargeInPolicy(confidence=0.5, thinking=BargeInPolicy(stance=Stance.NEVER)), False),
    ],
)
def test_a_clients_own_word_means_the_same_to_the_words_as_to_the_gate(policy: BargeInPolicy, is_cut: bool) -> None:
    """Words after one that cut are a turn of their own behind the old one; after one that did not, they join it."""

    async def script(call: Call) -> None:
        await call.types("where is")
        await call.until_state("thinking")
        await call.sends(UserSpeaking(confidence=0.7))
        await call.sends(SttFragment(text="my parcel", is_final=True))
        await asyncio.sleep(0.1)
        assert call.states[-1] == ("listening" if is_cut else "thinking")
        await call.sends(VadEnd())
        await call.until_state("idle")

    call = talk(script, "", policy, thinks_s=0.5)
    assert call.replies == ["you said where is my parcel"]
    assert ("interrupted" in types_of(call)) is is_cut
