"""What an LLM writes for a screen, and thinks aloud, is neither said nor remembered: with any voice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.frames.frames import FunctionCallResultProperties, TTSSpeakFrame
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.llm_service import FunctionCallParams

from leibniz_voice.pipeline.reply.reply_watch import ReplyBounds
from leibniz_voice.pipeline.testing import AsyncCall
from leibniz_voice.pipeline.text.cleaning import AS_WRITTEN
from leibniz_voice.processors import EmbeddedTTS
from leibniz_voice.transports.dialects.protocol import UserSpeaking
from tests.pipeline.reply.test_llm_reply import StockVoice, asks, memory, one_question, talk, texts
from tests.support.fake_openai import FakeOpenAI, calls, says

TOKENS = (
    "<thi", "nk>He wants ", "a price. </th", "ink>\n\n", "## Pri", "ces\n", "**Bike", ":** 900 euros 😀", ". See [our ",
    "page](https://shop.exam", "ple/p?id=1)", ".",
)  # fmt: skip
SAID = ["Prices", "Bike: 900 euros.", "See our page."]


@pytest.mark.slow
@pytest.mark.parametrize("voice", [EmbeddedTTS, StockVoice], ids=["embedded", "stock"])
def test_thoughts_and_markup_reach_neither_voice_nor_client_nor_memory(voice: Any) -> None:
    made: list[Any] = []

    def make() -> Any:
        made.append(voice())
        return made[-1]

    call, _ = talk(says(*TOKENS), script=one_question, voices=[make], bounds=ReplyBounds())
    assert " ".join(" ".join(texts(call)).split()) == " ".join(SAID)
    assert memory(call)[-1] == ("assistant", "Prices\n\nBike: 900 euros. See our page.")
    assert " ".join(call.record.fields.llm_response.split()) == " ".join(SAID)
    if voice is StockVoice:
        assert " ".join(" ".join(made[0].texts).split()) == " ".join(SAID)


@pytest.mark.slow
def test_what_was_heard_of_a_cleaned_reply_is_part_of_what_is_remembered_of_it() -> None:
    async def script(call: AsyncCall, server: FakeOpenAI) -> None:
        await call.types("what do bikes cost")
        await call.until_heard(900, timeout_s=4)
        await call.sends(UserSpeaking(confidence=1.0))
        await call.until_state("listening")
        await asyncio.sleep(0.05)

    reply = says("<think>no</think>**They cost** [900](https://a.example) euros, ", "and *more* for race bikes. " * 3)
    call, _ = talk(reply, script=script, bounds=ReplyBounds())
    heard = memory(call)[-1][1].removesuffix(" [interrupted]")
    assert heard.startswith("They cost")
    said = f"They cost 900 euros, {'and more for race bikes. ' * 3}"
    assert said.replace(",", "").startswith(heard.replace(",", ""))


@pytest.mark.slow
def test_thoughts_keep_a_reply_alive_but_are_no_answer() -> None:
    steps = ("<think>", *["hm. ", 0.2] * 4, "</think>", "They cost 900.")
    call, _ = talk(says(*steps), script=one_question)  # tokens are awaited for 0.3 s
    assert texts(call) == ["They cost 900."]
    call, _ = talk(says("<think>They cost 900.</think>"), script=one_question)
    assert texts(call) == ["Sorry."]


@pytest.mark.slow
def test_an_end_that_was_held_is_said() -> None:
    call, _ = talk(says("They cost 900 <thi"), script=one_question)
    assert texts(call) == ["They cost 900 <thi"]
    assert memory(call)[-1] == ("assistant", "They cost 900 <thi")


@pytest.mark.slow
def test_what_a_tool_has_said_is_cleaned_too() -> None:
    async def hang_up(params: FunctionCallParams) -> None:
        await params.llm.push_frame(TTSSpeakFrame("**Goodbye** 👋!"))
        await params.result_callback("done", properties=FunctionCallResultProperties(run_llm=False))

    schema = FunctionSchema(name="hang_up", description="h", properties={}, required=[], handler=hang_up)
    call, _ = talk(calls("hang_up", {}), script=one_question, context=LLMContext(tools=[schema]))
    assert texts(call) == ["Goodbye!"]


@pytest.mark.slow
def test_a_direct_answer_is_cleaned_and_the_text_may_be_left_as_it_is() -> None:
    async def twice(call: AsyncCall, server: FakeOpenAI) -> None:
        await call.until_state("speaking", timeout_s=20)  # else the question cuts the greeting before it is heard
        await asks(call, "x")

    options: dict[str, Any] = {"llm_intents": (), "greeting": "**Hello** 😀"}
    templates = {"complex_query": "See <protected>[our page](https://a.example).</protected> {context}"}
    call, _ = talk(script=twice, templates=templates, **options)
    assert sorted(texts(call)) == ["Hello", "See our page. Bikes cost 900 euros."]
    call, _ = talk(says("**900** <think>"), script=one_question, cleaning=AS_WRITTEN)
    assert memory(call)[-1] == ("assistant", "**900** <think>")
