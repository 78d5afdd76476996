"""Replies prepared before the commit: heard at once when right, never when wrong, and without a trace then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.frames.frames import (
    Frame,
    OutputAudioRawFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, Processor, RetrievalResult, Session, consumes
from leibniz_voice.pipeline.conversation.prepared import HOLD_AUDIO_S
from leibniz_voice.pipeline.frames import (
    EarlyWordsFrame,
    ProtectedSpeechFrame,
    ReplyEndedFrame,
    ReplyPreparingFrame,
    ReplyStartedFrame,
    ReplyTextFrame,
    SpeechChunkFrame,
    TurnContextFrame,
    UserTurnFrame,
)
from leibniz_voice.pipeline.reply.preparation import HOLD_S
from leibniz_voice.pipeline.testing import AsyncCall, Script, Step, run_offline, run_virtual
from leibniz_voice.pipeline.testing.fuzz.stamps import spoken
from leibniz_voice.pipeline.testing.scripted.scripted_services import ScriptedIntent, ScriptedLLM, ScriptedRetriever
from leibniz_voice.pipeline.testing.scripted.scripted_tts import Manner, ScriptedTTS
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator
from leibniz_voice.transports.dialects.protocol import SttFragment, UserSpeaking, VadEnd

from ...support.fake_openai import FakeOpenAI, says

LLM_S, VOICE_S, BRANCHES_S = 0.2, 0.1, 0.05
FALLBACK = {"intent": IntentResult(), "retrieval": RetrievalResult()}


class Bot:
    """50 ms of branches, 200 ms of language model, 100 ms of voice."""

    def __init__(
        self,
        *,
        prepare: bool = True,
        llm: Sequence[Step] = (Step(delay_s=LLM_S),),
        label: str = "complex_query",
        gate: type[InterruptionGate] | None = InterruptionGate,
        service: FrameProcessor | None = None,
        **options: Any,
    ) -> None:
        script = Script(Step(delay_s=BRANCHES_S))
        self.llm = service or ScriptedLLM(script=Script(*llm))
        self.voice = ScriptedTTS(Manner.OWN_TASK, script=Script(Step(delay_s=VOICE_S, each_s=0.001)))
        self.responder = Responder(prepare=prepare, templates={"say": "{context}"}, **options)
        self.gate = gate() if gate is not None else None
        ask, find = ScriptedIntent(label, script=script), ScriptedRetriever("Found.", script=script)
        self.join = Parallel({"intent": ask, "retrieval": find}, fallback=FALLBACK, speculate=("intent", "retrieval"))

    def build(self, session: Session) -> Pipeline:
        gate = [self.gate] if self.gate is not None else []
        parts = [session.input, TurnAggregator(), self.join, self.responder, self.llm, self.voice, *gate]
        return Pipeline([*parts, StateTracker(record=session.record), session.output])

    def talk(self, script: Callable[[AsyncCall], Awaitable[None]]) -> AsyncCall:
        return run_offline(self.build, script)

    @property
    def outcome(self) -> tuple[int, int]:
        return self.responder.counts["prepared_hits"], self.responder.counts["prepared_misses"]

    @property
    def memory(self) -> list[tuple[str, Any]]:
        return [(m["role"], m["content"]) for m in self.responder.memory.context.get_messages()]


async def speaks(call: AsyncCall, *guesses: str, final: str, hold_s: float = 0.5) -> float:
    """Speech with silences at which the recogniser offers words; returns when the turn was committed."""
    await call.pushes(VADUserStartedSpeakingFrame(start_secs=0.064))
    for words in guesses:
        await call.pushes(SpeechChunkFrame(confidence=0.9, speech_ms=500))
        await call.pushes(SpeechChunkFrame(confidence=0.1, speech_ms=500), EarlyWordsFrame(text=words))
        await asyncio.sleep(hold_s)
        assert not call.wire.audio
        assert call.states[-1] == "listening"
        assert call.record.fields.llm_response == ""
    await call.pushes(TranscriptionFrame(final, "", ""), SpeechChunkFrame(), VADUserStoppedSpeakingFrame(stop_secs=0.3))
    return asyncio.get_running_loop().time()


def wait_ms(bot: Bot, **how: Any) -> float:
    """From the commit to the first audio."""
    waited: list[float] = []

    async def script(call: AsyncCall) -> None:
        committed_at = await speaks(call, "where is it", **{"final": "Where is it?", **how})
        await call.until(lambda: bool(call.wire.audio), "audio")
        waited.append(asyncio.get_running_loop().time() - committed_at)
        await call.until_state("idle")

    bot.talk(script)
    return waited[0] * 1000


@pytest.mark.parametrize("label", ["complex_query", "say"])
def test_a_right_guess_is_heard_at_the_commit(label: str) -> None:
    bot, plain = Bot(label=label), Bot(label=label, prepare=False)
    usual_ms = wait_ms(plain)
    assert usual_ms >= (VOICE_S + (LLM_S if label == "complex_query" else 0)) * 1000
    assert wait_ms(bot) <= 25  # the output's own 20 ms
    assert (bot.outcome, plain.outcome) == ((1, 0), (0, 0))
    assert bot.responder.counts["prepared_saved_ms"] == pytest.approx(usual_ms, abs=30)
    assert bot.memory == plain.memory
    assert bot.responder.counts["replies"] == 1


def test_a_commit_before_the_first_token_saves_what_has_passed() -> None:
    bot = Bot()
    assert wait_ms(bot, hold_s=0.15) == pytest.approx((BRANCHES_S + LLM_S + VOICE_S) * 1000 - 150, abs=30)
    assert (bot.outcome, bot.responder.counts["prepared_saved_ms"]) == ((1, 0), 100)


def test_a_wrong_guess_leaves_no_trace() -> None:
    bot, plain = Bot(), Bot(prepare=False)
    words = "Where is it and when?"
    assert wait_ms(bot, final=words) == pytest.approx(wait_ms(plain, final=words), abs=25)
    assert bot.outcome == (0, 1)
    assert bot.memory == [("user", "Where is it and when?"), ("assistant", spoken(2, 2))]
    assert bot.responder.counts["replies"] == 1


class BehindTheGate(Processor):
    """Notes the turns of what passes of replies, in order and each once."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: dict[str, list[int]] = {}

    @consumes(ReplyStartedFrame, ProtectedSpeechFrame, ReplyTextFrame, OutputAudioRawFrame, ReplyEndedFrame)
    async def _on_reply(self, frame: Any, direction: FrameDirection) -> None:
        turns = self.passed.setdefault(type(frame).__name__, [])
        if frame.turn_id not in turns:
            turns.append(frame.turn_id)
        await self.push_frame(frame, direction)


def test_not_even_the_marks_of_a_wrong_guess_pass_the_gate() -> None:
    bot, notes = Bot(label="say"), BehindTheGate()
    bot.responder = Responder(prepare=True, templates={"say": "<protected>{context}</protected>"})

    def build(session: Session) -> Pipeline:
        *before, tracker, output = bot.build(session).processors
        return Pipeline([*before, notes, tracker, output])

    async def script(call: AsyncCall) -> None:
        await speaks(call, "where is it", final="Where is it and when?")
        await call.until_state("speaking")
        await call.until_state("idle")

    run_offline(build, script)
    assert bot.outcome == (0, 1)
    assert len(notes.passed) == 5
    assert all(turns == [2] for turns in notes.passed.values()), notes.passed


def test_of_several_guesses_only_the_last_is_heard() -> None:
    bot = Bot()

    async def script(call: AsyncCall) -> None:
        await speaks(call, "where", "where is", "where is it", final="where is it")
        await call.until_state("idle")
        assert len(call.wire.of_type("response_ready")) == 1
        assert not call.wire.of_type("interrupted")

    bot.talk(script)
    assert bot.outcome == (1, 2)
    assert [content for role, content in bot.memory if role == "user"] == ["where is it"]


def test_the_same_guess_again_starts_nothing() -> None:
    bot = Bot()

    async def script(call: AsyncCall) -> None:
        await speaks(call, "where is it", "Where is it", "where is it", final="where is it")
        await call.until_state("idle")

    bot.talk(script)
    assert (bot.outcome, bot.responder.counts["generated"]) == ((1, 0), 1)


def test_what_nobody_commits_is_held_for_some_seconds_only() -> None:
    bot = Bot()

    async def script(call: AsyncCall) -> None:
        await call.sends(SttFragment(text="where is it", is_final=True))
        await asyncio.sleep(0.5)
        await call.sends(SttFragment(text="where is it not", is_final=True))
        await asyncio.sleep(7)  # nobody ends the turn: nothing is held for so long
        assert not call.wire.audio
        await call.sends(VadEnd())
        await call.until_state("idle")
        assert len(call.wire.of_type("response_ready")) == 1

    bot.talk(script)
    assert bot.outcome == (0, 2)


def test_a_long_reply_is_not_held_whole() -> None:
    bot = Bot()
    chunks = round(HOLD_AUDIO_S / 2 / 0.02) + 10  # 20 ms each, of each of two sentences
    bot.voice = ScriptedTTS(script=Script(Step(each_s=0.001)), chunks_per_sentence=chunks)
    assert wait_ms(bot, hold_s=2.0) >= LLM_S * 1000
    assert bot.outcome == (0, 1)


class Slow(FrameProcessor):
    """A queued guest that takes its time with frames of one type."""

    def __init__(self, slow_type: type[Frame]) -> None:
        super().__init__()
        self.slow_type = slow_type

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, self.slow_type):
            await asyncio.sleep(0.02)
        await self.push_frame(frame, direction)


def test_a_prepared_reply_that_fails_between_commit_and_answers_is_asked_again() -> None:
    bot = Bot(llm=(Step(fails_at=0, delay_s=LLM_S), Step(delay_s=LLM_S)))

    def build(session: Session) -> Pipeline:
        head, turns, join, *others = bot.build(session).processors
        return Pipeline([head, turns, join, Slow(TurnContextFrame), *others])

    async def script(call: AsyncCall) -> None:
        await speaks(call, "where is it", final="where is it", hold_s=BRANCHES_S + LLM_S - 0.01)
        await call.until_state("speaking")
        await call.until_state("idle")

    call = run_offline(build, script)
    assert call.replies == [spoken(2, 2)]
    assert bot.responder.counts["failed"] == 0


def test_a_turn_whose_reply_was_given_up_on_its_way_is_answered_all_the_same() -> None:
    bot = Bot()

    def build(session: Session) -> Pipeline:
        head, turns, *others = bot.build(session).processors
        return Pipeline([head, turns, Slow(UserTurnFrame), *others])

    async def script(call: AsyncCall) -> None:
        await speaks(call, "where is it", final="where is it", hold_s=BRANCHES_S + HOLD_S - 0.01)
        await call.until_state("speaking")
        await call.until_state("idle")

    call = run_offline(build, script)
    assert bot.outcome == (0, 1)
    assert call.replies == [spoken(2, 2)]


def test_a_held_reply_does_not_hold_up_the_end() -> None:
    bot, took_s = Bot(), []

    async def script(call: AsyncCall) -> None:
        await call.pushes(VADUserStartedSpeakingFrame(start_secs=0.064), SpeechChunkFrame(confidence=0.9))
        await call.pushes(SpeechChunkFrame(confidence=0.1, speech_ms=500), EarlyWordsFrame(text="where is it"))
        await asyncio.sleep(0.5)
        began = asyncio.get_running_loop().time()
        await call.session.end(timeout_s=4.0)
        took_s.append(asyncio.get_running_loop().time() - began)

    bot.talk(script)
    assert bot.outcome == (0, 1)
    assert took_s[0] < 1.0


def test_a_prepared_reply_is_interrupted_like_any_other() -> None:
    bot = Bot()

    async def script(call: AsyncCall) -> None:
        await speaks(call, "where is it", final="where is it")
        await asyncio.sleep(0.05)
        await call.sends(UserSpeaking(confidence=0.9))
        await asyncio.sleep(0.1)
        heard = len(call.wire.audio)
        assert len(call.wire.of_type("interrupted")) == 1
        await asyncio.sleep(0.5)
        assert len(call.wire.audio) == heard
        await call.types("stop that")
        await call.until_state("idle")

    bot.talk(script)
    assert bot.outcome[0] == 1


@pytest.mark.parametrize("hold_s", [0.1, 0.5])
def test_a_failure_while_prepared_is_asked_again(hold_s: float) -> None:
    bot = Bot(llm=(Step(fails_at=0, delay_s=0.01), Step(delay_s=LLM_S)))
    assert wait_ms(bot, hold_s=hold_s) >= (LLM_S + VOICE_S) * 1000
    assert bot.outcome == (0, 1)
    assert bot.responder.counts["failed"] == 0


def test_with_tools_only_the_branches_begin() -> None:
    tool = FunctionSchema(name="buy", description="", properties={}, required=[])
    bot = Bot(context=LLMContext(tools=[tool]))
    assert wait_ms(bot) >= (LLM_S + VOICE_S) * 1000
    assert (bot.outcome, bot.join.counts["hits"]) == ((0, 0), 1)


def test_without_a_gate_nothing_is_prepared() -> None:
    bot = Bot(gate=None)

    async def script(call: AsyncCall) -> None:
        await speaks(call, "where is it", final="where is it")
        await asyncio.sleep(2)

    bot.talk(script)
    assert (bot.outcome, bot.join.counts["hits"]) == ((0, 0), 1)


@pytest.mark.slow
def test_pipecats_own_llm_service_is_asked_once() -> None:
    async def main() -> tuple[Bot, FakeOpenAI]:
        async with FakeOpenAI(says("It is ", 0.05, "here. ", "Look.")) as server:
            bot = Bot(service=server.service())
            async with AsyncCall(bot.build) as call:
                await speaks(call, "where", "where is it", final="Where is it?", hold_s=1.0)
                await call.until_state("idle")
            return bot, server

    bot, server = run_virtual(main(), grace_s=0.002)
    assert bot.outcome == (1, 1)
    assert [body["messages"][-1]["content"].split("\n")[0] for body in server.asked] == ["where", "where is it"]
    assert bot.memory == [("user", "Where is it?"), ("assistant", "It is here. Look.")]


class LetsItPass(InterruptionGate):
    """A broken gate: it does not hold what is only prepared."""

    @consumes(ReplyPreparingFrame)
    async def _on_prepared(self, frame: ReplyPreparingFrame, direction: FrameDirection) -> None:
        pass


def test_a_gate_that_does_not_hold_is_caught() -> None:
    async def script(call: AsyncCall) -> None:
        await call.pushes(VADUserStartedSpeakingFrame(start_secs=0.064))
        await call.pushes(SpeechChunkFrame(confidence=0.9, speech_ms=500))
        await call.pushes(SpeechChunkFrame(confidence=0.1, speech_ms=500), EarlyWordsFrame(text="where is it"))
        await asyncio.sleep(0.5)
        leaked.append(bool(call.wire.audio))

    leaked: list[bool] = []
    for gate in (InterruptionGate, LetsItPass):
        Bot(gate=gate).talk(script)
    assert leaked == [False, True]
