"""Replies by a language model: Pipecat's real OpenAI service against a local server that speaks its protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.frames.frames import Frame, FunctionCallResultProperties, TTSAudioRawFrame, TTSSpeakFrame
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session, UserTurnFrame
from leibniz_voice.pipeline.reply.reply_watch import ReplyBounds
from leibniz_voice.pipeline.testing import AsyncCall
from leibniz_voice.processors import EmbeddedTTS, InterruptionGate, Responder, StateTracker, TurnAggregator
from leibniz_voice.transports.dialects.protocol import UserSpeaking
from tests.support.fake_openai import Answer, FakeOpenAI, calls, says

QUICK = ReplyBounds(first_token_s=0.3, between_tokens_s=0.3, reply_s=1.0, first_audio_s=0.5, voice_stall_s=1.0)
APOLOGY = "Sorry."


class StockVoice(TTSService):
    """One of Pipecat's TTS services, without word times: 60 ms of sound per letter, as fast as it can."""

    def __init__(self, *, hangs: bool = False, fails: int = 0) -> None:
        super().__init__(
            sample_rate=16000,
            push_start_frame=True,
            push_stop_frames=True,
            stop_frame_timeout_s=0.3,
            settings=TTSSettings(model=None, voice=None, language=None),
        )
        self.hangs, self.fails = hangs, fails
        self.texts: list[str] = []

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        self.texts.append(text)
        if self.hangs:
            await asyncio.Event().wait()
        for _ in range(self.fails):
            await self.push_error("no such voice")
        if self.fails:
            yield None
            return
        for _ in text * 3:
            yield TTSAudioRawFrame(bytes(640), 16000, 1, context_id=context_id)


async def complex_query(turn: UserTurnFrame) -> IntentResult:
    return IntentResult("complex_query", 0.9)


async def passages(turn: UserTurnFrame) -> RetrievalResult:
    return RetrievalResult([], "Bikes cost 900 euros.")


def builder(llm: FrameProcessor, *voices: FrameProcessor, **options: Any) -> Callable[[Session], Pipeline]:
    options = {"context": "Be brief.", "apology": APOLOGY, "bounds": QUICK, **options}
    fallback = {"intent": IntentResult(), "retrieval": RetrievalResult()}

    def build(session: Session) -> Pipeline:
        return Pipeline(
            [
                session.input,
                TurnAggregator(),
                Parallel({"intent": complex_query, "retrieval": passages}, fallback=fallback),
                Responder(**options),
                llm,
                *(voices or (EmbeddedTTS(),)),
                InterruptionGate(),
                StateTracker(record=session.record),
                session.output,
            ]
        )

    return build


def responder_of(call: AsyncCall) -> Responder:
    assert call.session.pipeline is not None
    return next(p for p in call.session.pipeline.processors if isinstance(p, Responder))


def memory(call: AsyncCall) -> list[Any]:
    return [(m["role"], m.get("content")) for m in responder_of(call).memory.context.get_messages()]


def texts(call: AsyncCall) -> list[str]:
    return [m["text"] for m in call.wire.of_type("response_ready") + call.wire.of_type("response_text") if m["text"]]


def talk(*answers: Answer, script: Any, voices: Any = (), **options: Any) -> tuple[AsyncCall, FakeOpenAI]:
    async def main() -> tuple[AsyncCall, FakeOpenAI]:
        async with FakeOpenAI(*answers) as server:
            made = [make() for make in voices]
            async with AsyncCall(builder(server.service(), *made, **options)) as call:
                await script(call, server)
            return call, server

    return asyncio.run(main())


async def asks(call: AsyncCall, text: str) -> None:
    """Ask, and wait for the end of the answer."""
    asked = call.states.count("thinking")
    await call.types(text)
    await call.until(lambda: call.states.count("thinking") > asked, "question")  # it stands behind the LLM's queue
    await call.until_state("idle", timeout_s=20)
    await asyncio.sleep(0.02)  # until the responder knows it too


async def one_question(call: AsyncCall, server: FakeOpenAI) -> None:
    await asks(call, "what do bikes cost")


VOICES = [[EmbeddedTTS], [StockVoice]]


@pytest.mark.slow
@pytest.mark.parametrize("voices", VOICES, ids=["embedded", "stock"])
def test_a_streamed_answer_is_spoken_sentence_by_sentence_while_the_rest_is_generated(voices: Any) -> None:
    async def script(call: AsyncCall, server: FakeOpenAI) -> None:
        await call.types("what do bikes cost")
        await call.until_heard(100, timeout_s=4)
        assert not texts(call)[1:]  # the LLM is still at it
        await call.until_state("idle", timeout_s=20)
        await asyncio.sleep(0.02)

    steps = ("They ", "cost 900. ", "Cheap ", 2.0, "ones ", "cost less.")
    call, server = talk(says(*steps), script=script, voices=voices, bounds=ReplyBounds())
    assert call.states == ["idle", "listening", "thinking", "speaking", "idle"]
    assert texts(call) == ["They cost 900.", "Cheap ones cost less."]
    assert call.record.fields.llm_response == "They cost 900. Cheap ones cost less."
    assert call.record.fields.is_complete
    assert server.asked[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "900 euros" in server.asked[0]["messages"][1]["content"]
    assert memory(call) == [
        ("user", "what do bikes cost"),
        ("assistant", "They cost 900. Cheap ones cost less."),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("voices", VOICES, ids=["embedded", "stock"])
def test_after_a_barge_in_the_memory_holds_what_was_heard_and_the_stream_is_closed(voices: Any) -> None:
    async def script(call: AsyncCall, server: FakeOpenAI) -> None:
        await call.types("what do bikes cost")
        await call.until_heard(700, timeout_s=4)
        await call.sends(UserSpeaking(confidence=1.0))
        await call.until_state("listening")
        await asyncio.sleep(0.05)
        assert len(server.closed_at) == 1
        await asks(call, "and tents")

    first = says("They cost 900. ", "Cheap ones cost less, and ", "old ones nothing. ", "<hang>")
    call, server = talk(first, says("Ten."), script=script, voices=voices, bounds=ReplyBounds())
    cut = memory(call)[1]
    assert cut[0] == "assistant"
    heard = cut[1].removesuffix(" [interrupted]")
    assert heard == call.record.fields.history[0]["heard"] != cut[1]
    assert "They cost 900. Cheap ones cost less".startswith(heard)
    assert heard.startswith("They cost")
    assert memory(call)[2:] == [("user", "and tents"), ("assistant", "Ten.")]
    assert server.asked[1]["messages"][1]["content"] == "what do bikes cost"
    assert call.replies[1] == "Ten."


@pytest.mark.slow
def test_a_tool_call_is_part_of_its_reply() -> None:
    async def price(params: FunctionCallParams) -> None:
        await params.result_callback({"euros": 900 if params.arguments["what"] == "bike" else 0})

    schema = FunctionSchema(
        name="price", description="p", properties={"what": {"type": "string"}}, required=["what"], handler=price
    )
    context = LLMContext(tools=[schema])
    answers = (calls("price", {"what": "bike"}, "Let me see. "), says("It costs 900."), says("Bye."))

    async def script(call: AsyncCall, server: FakeOpenAI) -> None:
        await one_question(call, server)
        await asks(call, "thanks")

    call, server = talk(*answers, script=script, context=context, bounds=ReplyBounds())
    assert call.states[:5] == ["idle", "listening", "thinking", "speaking", "idle"]
    assert texts(call)[0] == "Let me see."
    assert call.record.fields.turn_number == 2
    tool = server.asked[1]["messages"][-1]
    assert (tool["role"], tool["content"]) == ("tool", '{"euros": 900}')
    roles = [m["role"] for m in server.asked[2]["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]


FAILURES = {
    "no token": says("<hang>"),
    "refuses": Answer(status=500),
    "no such model": Answer(status=404),
    "stalls after a word": says("They ", "<hang>"),
    "stalls after a sentence": says("They cost 900. ", "Cheap ", "<hang>"),
    "closes at once": says("<close>"),
    "closes in the middle": says("They cost ", "<close>"),
    "garbage": says("They cost ", "<garbage>", "900."),
    "error in the stream": says("They cost ", "<error>"),
    "says nothing": says(),
    "no end": says(*["and ", 0.05] * 200),
    "no stream": Answer(body="<html>"),
}


@pytest.mark.slow
@pytest.mark.parametrize("voices", VOICES, ids=["embedded", "stock"])
@pytest.mark.parametrize("failure", FAILURES)
def test_every_failure_of_the_llm_ends_in_an_apology_and_idle(failure: str, voices: Any) -> None:
    call, _ = talk(FAILURES[failure], script=one_question, voices=voices)
    assert call.states == ["idle", "listening", "thinking", "speaking", "idle"]
    assert texts(call)[-1].endswith(APOLOGY)
    assert call.wire.audio_ms > 100


@pytest.mark.slow
@pytest.mark.parametrize("fault", [{"hangs": True}, {"fails": 1}], ids=["hangs", "fails"])
@pytest.mark.parametrize("has_second", [False, True], ids=["alone", "with a second voice"])
def test_a_voice_that_fails_is_replaced_or_its_text_is_sent(fault: dict[str, Any], has_second: bool) -> None:
    voices: list[Any] = [lambda: StockVoice(**fault)]
    if has_second:
        voices.append(lambda: EmbeddedTTS(is_standby=True))
    call, _ = talk(says("They cost 900."), script=one_question, voices=voices)
    if has_second:
        assert call.states == ["idle", "listening", "thinking", "speaking", "idle"]
        assert call.wire.audio_ms > 500
    else:
        assert call.states == ["idle", "listening", "thinking", "idle"]
        assert [m["code"] for m in call.wire.of_type("error")] == ["voice_failed"]
        last = call.wire.of_type("state_update")[-1]
        assert last["trigger"] == "reply_abandoned"
    assert "They cost 900." in " ".join(texts(call))


@pytest.mark.slow
def test_a_first_voice_that_goes_on_failing_does_not_end_the_second() -> None:
    voices = [lambda: StockVoice(fails=3), lambda: EmbeddedTTS(is_standby=True)]  # as one that connects again and again
    call, _ = talk(script=one_question, voices=voices, llm_intents=())
    assert call.states == ["idle", "listening", "thinking", "speaking", "idle"]
    assert call.wire.audio_ms > 500
    assert call.wire.of_type("error") == []


@pytest.mark.slow
@pytest.mark.parametrize("said", ["", "Goodbye."])
def test_a_tool_that_wants_no_further_words_ends_the_reply_without_an_apology(said: str) -> None:
    async def hang_up(params: FunctionCallParams) -> None:
        if said:
            await params.llm.push_frame(TTSSpeakFrame(said))
        await params.result_callback("done", properties=FunctionCallResultProperties(run_llm=False))

    schema = FunctionSchema(name="hang_up", description="h", properties={}, required=[], handler=hang_up)
    answers = (calls("hang_up", {}), says("Hello again."))
    call, _ = talk(*answers, script=one_question, context=LLMContext(tools=[schema]))
    assert call.states == ["idle", "listening", "thinking", *["speaking"] * bool(said), "idle"]
    assert texts(call) == [said] * bool(said)
    assert responder_of(call).counts["failed"] == 0
    assert [told for role, told in memory(call) if role == "assistant" and told] == [said] * bool(said)
