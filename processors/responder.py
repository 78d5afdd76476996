"""`Responder`: answers a turn, and owns the reply: it alone opens, closes and interrupts it.

direct     ReplyStarted, ReplyText, ReplySpeech, ReplyEnded
by an LLM  ReplyStarted, LLMContext ... the LLM streams ... its response is over, no tool at work: ReplyEnded
LLM fails  ... GenerationStop, ReplyText and ReplySpeech (the apology), ReplyEnded
voice fails ... SecondVoice, or else ReplyUnspoken; GenerationStop; ReplyEnded
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from loguru import logger
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    FunctionCallsStartedFrame,
    InterruptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMTextFrame,
    StartFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection

from ..pipeline.answers import NOT_UNDERSTOOD, answer_of, direct_answer
from ..pipeline.consumes import consumes
from ..pipeline.frames import (
    BargeInFrame,
    GenerationStopFrame,
    ReplyEndedFrame,
    ReplyInterruptedFrame,
    ReplyPlayedFrame,
    ReplyStartedFrame,
    ReplyUnspokenFrame,
    SecondVoiceFrame,
    TurnContextFrame,
    UserTurnFrame,
)
from ..pipeline.memory import Memory
from ..pipeline.passages import check_marks, speech_of, without_marks
from ..pipeline.processor import Processor
from ..pipeline.reply_timer import ReplyTimer, is_voiced
from ..pipeline.reply_watch import Overdue, ReplyBounds, ReplyWatch
from ..pipeline.resume import Resumption
from ..pipeline.services import UNKNOWN, IntentResult, RetrievalResult
from ..pipeline.stages import Stage
from ..pipeline.taps import Downstream
from .embedded.sentences import split_text

APOLOGY = "I'm sorry, I can't answer that right now. Please ask me again."
COMPLEX = "complex_query"  # the contract's intent for the LLM


class Responder(Processor):
    """Answers each `TurnContextFrame` from its branches `intent` and `retrieval`: by template, or by an LLM.
    Nobody interrupts what stands in `<protected>...</protected>` of a template or the greeting (`pipeline.passages`).

    An LLM (any of Pipecat's, between here and the voice) is asked for `llm_intents`; without one they are answered
    directly. `context` is its system prompt, or an `LLMContext` with messages and tools, in which the conversation is
    kept with what was heard of each answer. A reply includes its tool calls. Past one of `bounds` the user hears
    `apology`; if the voice failed, the second voice (behind it, with `is_standby`), or the client gets the text.

    A reply stays open until its last sample was played. A new turn that finds one open interrupts it first. An
    interruption is sent once, both ways, from the conversation's own task, and only for the open reply.

    Consumes: `UserTurnFrame` and `TurnContextFrame` (both go on), `BargeInFrame`, `ReplyPlayedFrame`, errors, frames of
        tool calls (go on), interruptions.
    Emits: `ReplyStartedFrame`, `ReplyTextFrame`, `ReplySpeechFrame`, `LLMContextFrame`, `ReplyEndedFrame`,
        `GenerationStopFrame`, `SecondVoiceFrame`, `ReplyUnspokenFrame`; `ReplyInterruptedFrame` both ways.
    On barge-in: the reply is closed for good; what its branches still bring is dropped and counted.
    """

    stage = Stage.RESPONDER

    def __init__(
        self,
        *,
        templates: Mapping[str, str] | None = None,
        greeting: str = "",
        not_understood: str = NOT_UNDERSTOOD,
        unknown_is_not_understood: bool = False,
        llm_intents: Collection[str] = (COMPLEX,),
        context: LLMContext | str = "",
        apology: str = APOLOGY,
        bounds: ReplyBounds | None = None,
        memory_messages: int = 40,
    ) -> None:
        super().__init__()
        self._templates = dict(templates or {})  # intent label -> answer, `{context}` stands for the best passage
        check_marks(greeting, *self._templates.values())
        self._greeting = greeting  # said when the conversation starts; "" for none
        self._not_understood = not_understood  # said when nothing is known
        self._unknown_is_not_understood = unknown_is_not_understood  # an unknown intent is enough for that
        self._llm_intents = frozenset(llm_intents)  # intents that are the LLM's
        self._apology = apology  # said when the LLM fails
        self._bounds = bounds or ReplyBounds()  # how long is waited
        self._prompt = context if isinstance(context, str) else ""  # system prompt, told to the LLM at the start
        held = LLMContext() if isinstance(context, str) else context
        self.memory = Memory(held, max_messages=memory_messages)  # the conversation, for the LLM
        self._downstream: Downstream | None = None  # who follows; None before StartFrame
        self._open: int | None = None  # the turn whose reply may be cut: being answered, generated or played
        self._is_replying = False  # its reply has begun, so its question is settled
        self._timer = ReplyTimer(self._on_due)  # its `watch` is what is awaited of the open reply, once that has begun
        self._stream_turn = 0  # turn of the reply whose marker left the LLM last: what leaves it now is that reply's
        self._has_llm_error = False  # the LLM's response going on has failed
        self._renewal: UserTurnFrame | None = None  # late words on their way to a turn of their own; None: no such
        self._cut_upto = 0  # turns up to this one were interrupted
        self._waiting_cuts = 0  # interruptions asked for and not yet sent; later frames wait behind them
        self.counts: Counter[str] = Counter()  # replies, generated, failed, cuts, stale (of turns no longer open)

    async def cleanup(self) -> None:
        """Wait for nothing any more."""
        self._timer.forget()
        await super().cleanup()

    @consumes(StartFrame)
    async def _on_start(self, frame: StartFrame, direction: FrameDirection) -> None:
        self._downstream = Downstream(self)
        self._downstream.watch_llms(self._on_llm_push)
        if self._prompt and not self._downstream.instruct(self._prompt):
            self.memory.instruct(self._prompt)
        await self.push_frame(frame, direction)
        resumption = self.conductor.resumption
        if resumption is not None:
            await self._resume(resumption)
        elif self._greeting:
            self._open = turn_id = self.conductor.mint_turn_id()
            await self._reply(turn_id, self._greeting)

    async def _resume(self, resumption: Resumption) -> None:
        """Say the rest of what another process was saying; a turn to ask again comes from the turn aggregator."""
        if resumption.rest is not None:
            self._open, self._is_replying = resumption.turn_id, True
            await self._reply(resumption.turn_id, resumption.rest, is_rest=True)

    # -- turns -------------------------------------------------------------------------------------------------

    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: UserTurnFrame, direction: FrameDirection) -> None:
        if frame.joined and (frame.turn_id != self._open or self._is_replying):
            await self._renew(frame)
            return
        replaced, self._open = self._open, frame.turn_id
        self._is_replying = False
        if replaced is not None and replaced != frame.turn_id:
            self._cut(replaced)
        await self._after_cuts(lambda: self.push_frame(frame, direction))

    async def _renew(self, frame: UserTurnFrame) -> None:
        """Late words came after the answer had begun, so they are a turn of their own, asked from the branches on.

        Those of a turn that was cut are put back into the buffer by the turn aggregator when it hears of the cut.
        """
        if self._renewal is not None and self._renewal.turn_id == frame.turn_id:
            self._renewal = frame  # still on its way: it goes with these words too
            return
        if frame.turn_id <= self._cut_upto:
            return
        if self._open is not None:
            self._cut(self._open)
        self._open = turn_id = self.conductor.mint_turn_id()
        self._is_replying, self._renewal = False, frame

        async def ask_again() -> None:
            renewal, self._renewal = self._renewal, None
            if self._open == turn_id and renewal is not None:  # else a newer turn has replaced it already
                await self.broadcast_frame(UserTurnFrame, turn_id=turn_id, text=renewal.text)

        await self._after_cuts(ask_again)

    @consumes(TurnContextFrame)
    async def _on_context(self, frame: TurnContextFrame, direction: FrameDirection) -> None:
        async def answer() -> None:
            if frame.turn_id != self._open:
                self.counts["stale"] += 1
                return
            self._is_replying = True
            await self.push_frame(frame, direction)
            intent = answer_of(frame.answers, "intent", IntentResult())
            retrieval = answer_of(frame.answers, "retrieval", RetrievalResult())
            if self._downstream and self._downstream.llms and intent.label in self._llm_intents:
                await self._generate(frame, retrieval)
            else:
                self.memory.ask(frame.turn_id, frame.text)
                await self._reply(frame.turn_id, self._answer(intent, retrieval))

        await self._after_cuts(answer)

    def _answer(self, intent: IntentResult, retrieval: RetrievalResult) -> str:
        if intent.label == UNKNOWN and self._unknown_is_not_understood:
            return self._not_understood
        return direct_answer(intent, retrieval, self._templates, self._not_understood)

    async def _reply(self, turn_id: int, text: str, *, is_rest: bool = False) -> None:
        logger.debug(f"turn {turn_id} is answered: {text}")
        watch = self._begin(turn_id)
        watch.text = without_marks(text)
        await self.push_frame(ReplyStartedFrame(turn_id=turn_id))
        await self._say(watch, text, is_rest=is_rest)

    def _begin(self, turn_id: int) -> ReplyWatch:
        self.counts["replies"] += 1
        has_gate = self._downstream is not None and self._downstream.has_gate
        self._timer.watch = watch = ReplyWatch(turn_id, self._now(), self._bounds, has_gate=has_gate)
        return watch

    async def _say(self, watch: ReplyWatch, text: str, *, is_rest: bool = False) -> None:
        """Say the last words of a reply."""
        watch.handed(self._now())
        watch.is_closed = True
        self._arm()
        for frame in speech_of(watch.turn_id, text, is_rest=is_rest):
            await self.push_frame(frame)
        await self.push_frame(ReplyEndedFrame(turn_id=watch.turn_id))

    # -- the LLM -----------------------------------------------------------------------------------------------

    async def _generate(self, frame: TurnContextFrame, retrieval: RetrievalResult) -> None:
        self.counts["generated"] += 1
        watch = self._begin(frame.turn_id)
        self.memory.ask(frame.turn_id, frame.text, retrieval.context.strip())
        await self.push_frame(ReplyStartedFrame(turn_id=frame.turn_id))
        await self._ask_llm(watch)

    async def _ask_llm(self, watch: ReplyWatch) -> None:
        self._has_llm_error = False
        watch.asked(self._now())
        self._arm()
        await self.push_frame(LLMContextFrame(self.memory.context))

    def _on_llm_push(self, frame: Frame) -> None:
        """See what leaves the LLM, in its own task."""
        if isinstance(frame, ReplyStartedFrame):
            self._stream_turn = frame.turn_id
        watch = self._streaming()
        if watch is None:
            return
        if isinstance(frame, LLMTextFrame):
            watch.token(frame.text, self._now())
            if not watch.is_handed and len(split_text(watch.text)) > 1:  # the voice has a whole sentence
                watch.handed(self._now())
        elif isinstance(frame, LLMFullResponseEndFrame):
            watch.ended(self._now())
            self.turn_task(self._on_response_over(watch), turn_id=watch.turn_id)

    def _streaming(self) -> ReplyWatch | None:
        """The open reply, if what leaves the LLM now belongs to it."""
        watch = self._timer.watch
        return None if watch is None or watch.is_failing or watch.turn_id != self._stream_turn else watch

    async def _on_response_over(self, watch: ReplyWatch) -> None:
        if watch is not self._timer.watch or watch.is_generating or watch.is_closed or watch.is_failing:
            return
        if self._has_llm_error or not watch.text.strip():
            await self._apologise(watch, "the LLM failed", is_stopped=True)
            return
        watch.handed(self._now())
        watch.is_closed = True
        self._arm()
        await self.push_frame(ReplyEndedFrame(turn_id=watch.turn_id))

    @consumes(FunctionCallsStartedFrame, FunctionCallInProgressFrame)
    async def _on_call(self, frame: Any, direction: FrameDirection) -> None:
        watch = self._streaming()
        if direction is FrameDirection.UPSTREAM and isinstance(frame, FunctionCallInProgressFrame):
            self.memory.tool_called(self._stream_turn, frame.tool_call_id, frame.function_name, frame.arguments)
        elif direction is FrameDirection.UPSTREAM and watch is not None:
            watch.called({call.tool_call_id for call in frame.function_calls})
        await self.push_frame(frame, direction)

    @consumes(FunctionCallResultFrame, FunctionCallCancelFrame)
    async def _on_call_over(self, frame: Any, direction: FrameDirection) -> None:
        properties = getattr(frame, "properties", None)
        is_final = properties is None or properties.is_final
        must_ask = frame.run_llm if properties is None or properties.run_llm is None else properties.run_llm
        if direction is FrameDirection.UPSTREAM and is_final:
            is_cancel = isinstance(frame, FunctionCallCancelFrame)
            self.memory.tool_answered(frame.tool_call_id, "CANCELLED" if is_cancel else frame.result or "COMPLETED")
            watch = self._timer.watch
            if watch is not None and watch.settled(frame.tool_call_id, self._now()):
                if must_ask is False and not is_cancel:
                    await self._on_response_over(watch)
                else:
                    await self._ask_llm(watch)
        await self.push_frame(frame, direction)

    # -- failures ----------------------------------------------------------------------------------------------

    @consumes(ErrorFrame)
    async def _on_error(self, frame: ErrorFrame, direction: FrameDirection) -> None:
        if (watch := self._timer.watch) is not None and (downstream := self._downstream) is not None:
            if frame.processor in downstream.llms and self._streaming() is watch:
                self._has_llm_error = True
            is_voice = downstream.speaks(frame.processor, is_second=watch.has_second_voice)
            if is_voice and watch.is_handed and not is_voiced(watch, self.conductor):
                await self._voice_failed(watch, "the voice failed")
        await self.push_frame(frame, direction)

    def _on_due(self, watch: ReplyWatch, what: Overdue) -> None:
        self.turn_task(self._on_overdue(watch, what), turn_id=watch.turn_id)

    async def _on_overdue(self, watch: ReplyWatch, what: Overdue) -> None:
        if watch is not self._timer.watch:
            return
        logger.warning(f"turn {watch.turn_id}: {what.value} in time")
        if what.is_voice:
            await self._voice_failed(watch, what.value)
        else:
            await self._apologise(watch, what.value)

    async def _apologise(self, watch: ReplyWatch, reason: str, *, is_stopped: bool = False) -> None:
        logger.info(f"turn {watch.turn_id} is answered by an apology: {reason}")
        self.counts["failed"] += 1
        watch.stopped(self._now())
        if not is_stopped:
            await self.push_frame(GenerationStopFrame())
        await self._say(watch, self._apology)

    async def _voice_failed(self, watch: ReplyWatch, reason: str) -> None:
        self.counts["unspoken"] += 1
        has_second = self._downstream is not None and self._downstream.has_second_voice and not watch.has_second_voice
        text = watch.text.strip() or self._apology
        was_closed, was_audible = watch.is_closed, is_voiced(watch, self.conductor)
        watch.stopped(self._now())
        if has_second and not was_audible:
            watch.has_second_voice = True
            watch.handed(self._now())
            await self.push_frame(SecondVoiceFrame(turn_id=watch.turn_id, text=text, is_told=not watch.is_generated))
        else:
            await self.push_frame(ReplyUnspokenFrame(turn_id=watch.turn_id, text=text, reason=reason))
        await self.push_frame(GenerationStopFrame())
        watch.is_closed = True
        self._arm()
        if not was_closed:
            await self.push_frame(ReplyEndedFrame(turn_id=watch.turn_id))

    def _arm(self) -> None:
        self._timer.arm(self.conductor)

    @consumes(BargeInFrame)
    async def _on_barge_in(self, frame: BargeInFrame, direction: FrameDirection) -> None:
        if self._open == frame.turn_id:
            self._open = None
            self._cut(frame.turn_id)

    @consumes(ReplyPlayedFrame)
    async def _on_played(self, frame: ReplyPlayedFrame, direction: FrameDirection) -> None:
        if not frame.complete:
            self.memory.cut(frame.turn_id, frame.heard, was_audible=frame.played_ms > 0)
        elif self._timer.watch is not None and self._timer.watch.turn_id == frame.turn_id:
            self.memory.played(frame.turn_id, self._timer.watch.text)
        if self._open == frame.turn_id:
            self._open = None
            self._forget()
        await self.push_frame(frame, direction)

    @consumes(InterruptionFrame)
    async def _on_interruption(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        is_older = isinstance(frame, ReplyInterruptedFrame) and frame.turn_id != self._open
        left_open = 0 if is_older else self._forget()
        self._open = self._open if is_older else None
        await self.push_frame(frame, direction)
        if left_open:
            await self.push_frame(ReplyEndedFrame(turn_id=left_open))

    def _forget(self) -> int:
        """Await nothing more of the open reply. Returns its turn if its end marker has not been sent, else 0."""
        return 0 if (watch := self._timer.forget()) is None or watch.is_closed else watch.turn_id

    def _cut(self, turn_id: int) -> None:
        left_open = self._forget()

        async def sent() -> None:
            self._waiting_cuts -= 1
            if left_open:
                await self.push_frame(ReplyEndedFrame(turn_id=left_open))

        self._cut_upto = max(self._cut_upto, turn_id)
        self.counts["cuts"] += 1
        self._waiting_cuts += 1
        self.interrupt_reply(turn_id, then=sent)

    async def _after_cuts(self, action: Callable[[], Awaitable[Any]]) -> None:
        """Run `action` now, or behind the interruptions that are on their way."""
        if self._waiting_cuts:
            self.conductor.post(action, self.create_task)
        else:
            await action()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
