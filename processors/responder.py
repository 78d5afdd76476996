"""`Responder`: answers a turn, and owns the reply: it alone opens, closes and interrupts it.

direct, unasked  ReplyStarted, ReplyText, ReplySpeech, ReplyEnded
by an LLM        ReplyStarted, LLMContext ... the LLM streams ... its response is over, no tool at work: ReplyEnded
failures         ... [SecondVoice, or else ReplyUnspoken] GenerationStop, [the apology] ReplyEnded
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from loguru import logger
from pipecat.frames.frames import (
    ErrorFrame,
    FunctionCallCancelFrame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    FunctionCallsStartedFrame,
    InterruptionFrame,
    LLMContextFrame,
    StartFrame,
    TTSSpeakFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection

from ..pipeline import Processor, Stage, consumes
from ..pipeline.frames import (
    BargeInFrame,
    GenerationStopFrame,
    ReplyEndedFrame,
    ReplyInterruptedFrame,
    ReplyPlayedFrame,
    ReplyPreparingFrame,
    ReplyStartedFrame,
    SpeculativeContextFrame,
    SpeculativeTurnFrame,
    StateChangedFrame,
    TurnActedFrame,
    TurnContextFrame,
    UserTurnFrame,
    UtteranceDiscardedFrame,
)
from ..pipeline.interruption.protection import check_marks, speech_of, without_marks
from ..pipeline.reply.answers import NOT_UNDERSTOOD, Answers, Prompts, as_said, intent_in, passages_in
from ..pipeline.reply.chat_memory import ChatMemory
from ..pipeline.reply.cuts import Cuts
from ..pipeline.reply.downstream import Downstream
from ..pipeline.reply.llm_stream import LlmStream
from ..pipeline.reply.preparation import Preparation
from ..pipeline.reply.reply_timer import ReplyTimer, is_voiced
from ..pipeline.reply.reply_watch import Overdue, ReplyBounds, ReplyWatch, instead_of
from ..pipeline.states import State
from ..pipeline.text.cleaning import CLEAN, Cleaning

APOLOGY = "I'm sorry, I can't answer that right now. Please ask me again."
COMPLEX = "complex_query"  # the contract's intent for the LLM


class Responder(Processor):
    """Answers each `TurnContextFrame` from its branches `intent` and `retrieval`: by template, or by an LLM.

    Nobody interrupts what stands in `<protected>...</protected>` of a template or the greeting. An LLM (any of
    Pipecat's, between here and the voice) is asked for `llm_intents`; without one they are answered directly. `context`
    is its system prompt, or an `LLMContext` in which the conversation is kept with what was heard of each answer. Past
    one of `bounds` the user hears `apology`; if the voice failed, the second voice (with `is_standby`), or the client
    gets the text. With `prepare`, a reply (without tools) is made for a guess, and held at the gate until the commit.

    A reply stays open until its last sample was played; a new turn that finds one open interrupts it first, once. A
    `TTSSpeakFrame`, from wherever, is a reply to nobody: said as soon as neither side has the floor.

    Consumes: `UserTurnFrame`, `TurnContextFrame` and guesses (go on), `SpeculativeContextFrame`, `BargeInFrame`,
        `ReplyPlayedFrame`, `TTSSpeakFrame`, `StateChangedFrame`, errors, frames of tool calls (go on), interruptions.
    Emits: `ReplyPreparingFrame`, `ReplyStartedFrame`, `ReplyTextFrame`, `ReplySpeechFrame`, `LLMContextFrame`,
        `ReplyEndedFrame`, `GenerationStopFrame`, `SecondVoiceFrame`, `ReplyUnspokenFrame`; `ReplyInterruptedFrame`.
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
        prepare: bool = False,
        cleaning: Cleaning = CLEAN,
    ) -> None:
        super().__init__()
        check_marks(greeting, *(templates or {}).values())
        self._answers = Answers(templates or {}, not_understood, unknown_is_not_understood, cleaning)  # need no LLM
        self._cleaning = cleaning  # what is left out of a text
        self._prompts = Prompts()  # what else is to be said unasked
        self._greeting = greeting  # said when the conversation starts; "" for none
        self._llm_intents = frozenset(llm_intents)  # intents that are the LLM's
        self._apology = apology  # said when the LLM fails
        self._bounds = bounds or ReplyBounds()  # how long is waited
        self._prompt = context if isinstance(context, str) else ""  # system prompt, told to the LLM at the start
        held = LLMContext() if isinstance(context, str) else context
        self.memory = ChatMemory(held, max_messages=memory_messages)  # the conversation, for the LLM
        self._downstream: Downstream | None = None  # who follows; None before StartFrame
        self._open: int | None = None  # the turn whose reply may be cut: being answered, generated or played
        self._is_replying = False  # its reply has begun, so its question is settled
        # Its `watch` is what is awaited of the open reply, once that has begun.
        self._timer = ReplyTimer(lambda watch, due: self.turn_task(self._on_overdue(watch, due), turn_id=watch.turn_id))
        self._stream = LlmStream(self, self._timer, self.memory, self._on_response_over, cleaning)
        self._renewal: UserTurnFrame | None = None  # late words on their way to a turn of their own; None: no such
        self._cuts = Cuts(self)  # interruptions on their way; later frames wait behind them
        self.counts: Counter[str] = Counter()  # replies generated failed cuts stale; prepared_hits _misses _saved_ms
        self._prepared = Preparation(self.counts, is_wanted=prepare)  # the reply to a guess

    async def cleanup(self) -> None:
        self._prepared.drop("the conversation is over")
        self._timer.forget()
        await super().cleanup()

    @consumes(StartFrame)
    async def _on_start(self, frame: StartFrame, direction: FrameDirection) -> None:
        self._downstream = Downstream(self)
        self._downstream.watch_llms(self._stream.on_push)
        if self._prompt and not self._downstream.instruct(self._prompt):
            self.memory.instruct(self._prompt)
        self.conductor.say_prepares(self._prepared.can_work(self._downstream))
        await self.push_frame(frame, direction)
        resumption = self.conductor.resumption  # a turn to ask again comes from the turn aggregator
        self.memory.recall(resumption)
        if resumption is not None and resumption.rest is not None:  # of what another process was saying
            self._open, self._is_replying = resumption.turn_id, True
            await self._reply(resumption.turn_id, resumption.rest, is_rest=True)
        elif resumption is None:
            self._prompts.ask(self._greeting)
            await self._prompt_next()

    # -- speaking unasked --------------------------------------------------------------------------------------

    @consumes(TTSSpeakFrame)
    async def _on_asked_to_speak(self, frame: TTSSpeakFrame, direction: FrameDirection) -> None:
        self._prompts.ask(frame.text)
        await self._prompt_next()

    @consumes(StateChangedFrame)
    async def _on_state(self, frame: StateChangedFrame, direction: FrameDirection) -> None:
        self._prompts.state = State(frame.state)
        await self.push_frame(frame, direction)
        await self._cuts.after(self._prompt_next)

    async def _prompt_next(self) -> None:
        """Open a reply to nobody, if one is wanted and nobody has the floor."""
        if text := self._prompts.take(is_reply_open=self._open is not None):
            self._drop_prepared("the bot speaks")
            self._open, self._is_replying = self.conductor.mint_turn_id(), True
            await self._reply(self._open, as_said(text, self._cleaning))

    # -- turns -------------------------------------------------------------------------------------------------

    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: UserTurnFrame, direction: FrameDirection) -> None:
        is_late = frame.joined and (frame.turn_id != self._open or self._is_replying)
        if is_late or frame.turn_id <= self._prepared.burnt_upto:
            await self._renew(frame)
            return
        replaced, self._open = self._open, frame.turn_id
        self._is_replying = self._prepared.is_of(frame.turn_id)
        if not self._is_replying:
            self._drop_prepared("other words")
        if replaced is not None and replaced != frame.turn_id:
            self._cut(replaced)
        await self._cuts.after(lambda: self.push_frame(frame, direction))

    async def _renew(self, frame: UserTurnFrame) -> None:
        """Late words came after the answer had begun, so they are a turn of their own, asked from the branches on."""
        if self._renewal is not None and self._renewal.turn_id == frame.turn_id:
            self._renewal = frame  # still on its way: it goes with these words too
            return
        if frame.turn_id <= self._cuts.upto:  # the turn aggregator, told of the cut, puts them back into the buffer
            return
        if self._open is not None:
            self._cut(self._open)
        self._open = turn_id = self.conductor.mint_turn_id()
        self._is_replying, self._renewal = False, frame

        async def ask_again() -> None:
            renewal, self._renewal = self._renewal, None
            if self._open == turn_id and renewal is not None:  # else a newer turn has replaced it already
                await self.broadcast_frame(UserTurnFrame, turn_id=turn_id, text=renewal.text)

        await self._cuts.after(ask_again)

    @consumes(TurnContextFrame)
    async def _on_context(self, frame: TurnContextFrame, direction: FrameDirection) -> None:
        async def answer() -> None:
            if frame.turn_id != self._open:
                self.counts["stale"] += 1
                return
            self._is_replying = True
            is_prepared = self._prepared.is_of(frame.turn_id)
            if is_prepared and not self._prepared.adopt(frame, self._timer.watch, self.memory, self._now()):
                await self._renew(UserTurnFrame(turn_id=frame.turn_id, text=frame.text))
                return
            await self.push_frame(frame, direction)
            if is_prepared:
                self._arm()
            else:
                await self._respond(frame)

        await self._cuts.after(answer)

    async def _respond(self, frame: TurnContextFrame | SpeculativeContextFrame) -> None:
        passages, label = passages_in(frame.answers), intent_in(frame.answers).label
        is_for_llm = self._downstream is not None and bool(self._downstream.llms) and label in self._llm_intents
        if self._prepared.current:
            context = self.memory.preview(frame.text, passages)
        else:
            context = self.memory.context
            self.memory.ask(frame.turn_id, frame.text, passages if is_for_llm else "")
        if not is_for_llm:
            await self._reply(frame.turn_id, self._answers.to(frame.answers))
            return
        self.counts["generated"] += 1
        await self._ask_llm(await self._begin(frame.turn_id), context)

    # -- before the commit -------------------------------------------------------------------------------------

    @consumes(SpeculativeContextFrame)
    async def _on_guess_answered(self, frame: SpeculativeContextFrame, direction: FrameDirection) -> None:
        async def prepare() -> None:
            is_free = self._open is None and not self.memory.has_tools  # a tool call may have effects
            if is_free and self._prepared.begin(frame, self.conductor, self._now(), self._drop_prepared):
                await self.push_frame(ReplyPreparingFrame(turn_id=frame.turn_id))
                await self._respond(frame)

        await self._cuts.after(prepare)

    @consumes(SpeculativeTurnFrame, UtteranceDiscardedFrame)
    async def _on_guess(self, frame: Any, direction: FrameDirection) -> None:
        if isinstance(frame, UtteranceDiscardedFrame) or not self._prepared.is_for(frame.text):
            self._drop_prepared("other words")
        await self.push_frame(frame, direction)

    def _drop_prepared(self, reason: str) -> None:
        if self._prepared.current and not self._prepared.is_of(self._open or 0):  # else it is the turn's already
            turn_id = self._prepared.drop(reason)
            self._cuts.withdraw(turn_id, left_open=self._forget())

    async def _reply(self, turn_id: int, text: str, *, is_rest: bool = False) -> None:
        logger.debug(f"turn {turn_id} is {'prepared' if self._prepared.current else 'answered'}: {text}")
        watch = await self._begin(turn_id, without_marks(text))
        await self._say(watch, text, is_rest=is_rest)

    async def _begin(self, turn_id: int, text: str = "") -> ReplyWatch:
        self.counts["replies"] += self._prepared.current is None
        has_gate = self._downstream is not None and self._downstream.has_gate
        watch = self._timer.begin(turn_id, self._now(), self._bounds, has_gate=has_gate, text=text)
        await self.push_frame(ReplyStartedFrame(turn_id=turn_id))
        return watch

    async def _say(self, watch: ReplyWatch, text: str, *, is_rest: bool = False) -> None:
        """Say the last words of a reply, if there are more, and end it."""
        watch.handed(self._now())
        watch.closed(self._now())
        self._arm()
        for frame in speech_of(watch.turn_id, text, is_rest=is_rest) if text else ():
            await self.push_frame(frame)
        await self.push_frame(ReplyEndedFrame(turn_id=watch.turn_id))

    async def _ask_llm(self, watch: ReplyWatch, context: LLMContext) -> None:
        self._stream.has_error = False
        watch.asked(self._now())
        self._arm()
        await self.push_frame(LLMContextFrame(context))

    async def _on_response_over(self, watch: ReplyWatch) -> None:
        if watch is not self._timer.watch or watch.is_generating or watch.is_closed or watch.is_failing:
            return
        if self._stream.has_error or not (watch.text.strip() or watch.may_be_silent):
            await self._apologise(watch, "the LLM failed", is_stopped=True)
            return
        await self._say(watch, "")

    @consumes(FunctionCallsStartedFrame, FunctionCallInProgressFrame)
    async def _on_call(self, frame: Any, direction: FrameDirection) -> None:
        if direction is FrameDirection.UPSTREAM:
            self._stream.on_call(frame)
            await self.push_frame(TurnActedFrame(turn_id=self._stream.turn_id), direction)
        await self.push_frame(frame, direction)

    @consumes(FunctionCallResultFrame, FunctionCallCancelFrame)
    async def _on_call_over(self, frame: Any, direction: FrameDirection) -> None:
        settled = self._stream.on_call_over(frame) if direction is FrameDirection.UPSTREAM else None
        if settled is not None:
            watch, must_ask = settled
            await (self._ask_llm(watch, self.memory.context) if must_ask else self._on_response_over(watch))
        await self.push_frame(frame, direction)

    # -- failures ----------------------------------------------------------------------------------------------

    @consumes(ErrorFrame)
    async def _on_error(self, frame: ErrorFrame, direction: FrameDirection) -> None:
        if (watch := self._timer.watch) is not None and (downstream := self._downstream) is not None:
            if frame.processor in downstream.llms and self._stream.watch is watch:
                self._stream.has_error = True
            is_voice = downstream.speaks(frame.processor, is_second=watch.has_second_voice)
            if is_voice and watch.is_handed and not is_voiced(watch, self.conductor):
                await self._voice_failed(watch, "the voice failed")
        await self.push_frame(frame, direction)

    async def _on_overdue(self, watch: ReplyWatch, what: Overdue) -> None:
        if watch is not self._timer.watch:
            return
        logger.warning(f"turn {watch.turn_id}: {what.value} in time")
        await (self._voice_failed if what.is_voice else self._apologise)(watch, what.value)

    def _failed_early(self, watch: ReplyWatch, reason: str) -> bool:
        """Whether the reply is held; it is forgotten then, and its turn, when committed, is asked anew."""
        is_held = watch.is_failing = self._prepared.is_of(watch.turn_id)
        if is_held:
            self._drop_prepared(reason)
        return is_held

    async def _apologise(self, watch: ReplyWatch, reason: str, *, is_stopped: bool = False) -> None:
        if self._failed_early(watch, reason):
            return
        logger.info(f"turn {watch.turn_id} is answered by an apology: {reason}")
        self.counts["failed"] += 1
        watch.text = f"{watch.text} {self._apology}" if is_voiced(watch, self.conductor) else self._apology
        watch.stopped(self._now())
        if not is_stopped:
            await self.push_frame(GenerationStopFrame())
        await self._say(watch, self._apology)

    async def _voice_failed(self, watch: ReplyWatch, reason: str) -> None:
        if self._failed_early(watch, reason):
            return
        self.counts["unspoken"] += 1
        has_second = self._downstream is not None and self._downstream.has_second_voice
        was_closed, was_audible = watch.is_closed, is_voiced(watch, self.conductor)
        watch.voice_failed(self._now(), has_second=has_second and not was_audible)
        await self.push_frame(instead_of(watch, watch.text.strip() or self._apology, reason))
        await self.push_frame(GenerationStopFrame())
        watch.closed(self._now())
        self._arm()
        if not was_closed:
            await self.push_frame(ReplyEndedFrame(turn_id=watch.turn_id))

    def _arm(self) -> None:
        if not self._prepared.current:
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
        await self._prompt_next()  # without a tracker nobody tells that it is silent

    @consumes(InterruptionFrame)
    async def _on_interruption(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        is_older = isinstance(frame, ReplyInterruptedFrame) and frame.turn_id != self._open
        if self._open is None and not is_older:
            self._drop_prepared("an interruption")
        left_open = 0 if is_older else self._forget()
        self._open = self._open if is_older else None
        await self.push_frame(frame, direction)
        if left_open:
            await self.push_frame(ReplyEndedFrame(turn_id=left_open))

    def _forget(self) -> int:
        """Await nothing more of the open reply. Returns its turn if its end marker has not been sent, else 0."""
        self._prepared.drop("it is cut")
        return 0 if (watch := self._timer.forget()) is None or watch.is_closed else watch.turn_id

    def _cut(self, turn_id: int) -> None:
        self.counts["cuts"] += 1
        self._cuts.cut(turn_id, left_open=self._forget())

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
