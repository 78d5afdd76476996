"""`Responder`: answers a turn, and owns the reply: it alone opens, closes and interrupts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from loguru import logger
from pipecat.frames.frames import Frame, InterruptionFrame, StartFrame
from pipecat.processors.frame_processor import FrameDirection

from ..pipeline.consumes import consumes
from ..pipeline.frames import (
    BargeInFrame,
    ReplyEndedFrame,
    ReplyInterruptedFrame,
    ReplyPlayedFrame,
    ReplySpeechFrame,
    ReplyStartedFrame,
    ReplyTextFrame,
    TurnContextFrame,
    UserTurnFrame,
)
from ..pipeline.processor import Processor
from ..pipeline.resume import Resumption
from ..pipeline.services import UNKNOWN, IntentResult, RetrievalResult
from ..pipeline.stages import Stage

NOT_UNDERSTOOD = "I didn't get that. Could you say it differently?"


def direct_answer(
    intent: IntentResult, retrieval: RetrievalResult, templates: Mapping[str, str], not_understood: str = NOT_UNDERSTOOD
) -> str:
    """Return the answer that needs no LLM: the intent's template, else `<Intent In Title Case>: <context>`.

    `{context}` in a template is the best passage. Unknown intent and no context: `not_understood`. A template that
    needs a context which was not found is not understood either.
    """
    context = retrieval.context.strip()
    template = templates.get(intent.label)
    if template is not None and (context or "{context}" not in template):
        return template.replace("{context}", context)
    if not context:
        return not_understood
    if intent.label == UNKNOWN:
        return context
    return f"{intent.label.replace('_', ' ').title()}: {context}"


class Responder(Processor):
    """Answers each `TurnContextFrame` from its branches `intent` and `retrieval`, by template and best passage.

    A reply stays open until its last sample was played. A new turn that finds one open interrupts it first. An
    interruption is sent once, downstream and upstream, from the conversation's own task, and only for the open reply.

    Consumes: `UserTurnFrame` and `TurnContextFrame` (both go on), `BargeInFrame`, `ReplyPlayedFrame`, interruptions.
    Emits: `ReplyStartedFrame`, `ReplyTextFrame`, `ReplySpeechFrame`, `ReplyEndedFrame`; `ReplyInterruptedFrame` both ways.
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
    ) -> None:
        super().__init__()
        self._templates = dict(templates or {})  # intent label -> answer, `{context}` stands for the best passage
        self._greeting = greeting  # said when the conversation starts; "" for none
        self._not_understood = not_understood  # said when nothing is known
        self._unknown_is_not_understood = unknown_is_not_understood  # an unknown intent is enough for that
        self._open: int | None = None  # the turn whose reply may be cut: being answered, generated or played
        self._is_replying = False  # its reply has begun, so its question is settled
        self._cut_upto = 0  # turns up to this one were interrupted
        self._waiting_cuts = 0  # interruptions asked for and not yet sent; later frames wait behind them
        self.counts: Counter[str] = Counter()  # replies, cuts, stale (answers to turns no longer open)

    @consumes(StartFrame)
    async def _on_start(self, frame: StartFrame, direction: FrameDirection) -> None:
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
        if frame.turn_id <= self._cut_upto:
            return
        if self._open is not None:
            self._cut(self._open)
        self._open = turn_id = self.conductor.mint_turn_id()
        self._is_replying = False

        async def ask_again() -> None:
            if self._open == turn_id:  # else a newer turn has replaced it already
                await self.broadcast_frame(UserTurnFrame, turn_id=turn_id, text=frame.text)

        await self._after_cuts(ask_again)

    @consumes(TurnContextFrame)
    async def _on_context(self, frame: TurnContextFrame, direction: FrameDirection) -> None:
        async def answer() -> None:
            if frame.turn_id != self._open:
                self.counts["stale"] += 1
                return
            self._is_replying = True
            await self.push_frame(frame, direction)
            await self._reply(frame.turn_id, self._answer(frame))

        await self._after_cuts(answer)

    @consumes(BargeInFrame)
    async def _on_barge_in(self, frame: BargeInFrame, direction: FrameDirection) -> None:
        if self._open == frame.turn_id:
            self._open = None
            self._cut(frame.turn_id)

    @consumes(ReplyPlayedFrame)
    async def _on_played(self, frame: ReplyPlayedFrame, direction: FrameDirection) -> None:
        if self._open == frame.turn_id:
            self._open = None
        await self.push_frame(frame, direction)

    @consumes(InterruptionFrame)
    async def _on_interruption(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        if not isinstance(frame, ReplyInterruptedFrame) or frame.turn_id == self._open:
            self._open = None
        await self.push_frame(frame, direction)

    def _answer(self, frame: TurnContextFrame) -> str:
        intent = frame.answers.get("intent") or IntentResult()
        retrieval = frame.answers.get("retrieval") or RetrievalResult()
        if intent.label == UNKNOWN and self._unknown_is_not_understood:
            return self._not_understood
        return direct_answer(intent, retrieval, self._templates, self._not_understood)

    async def _reply(self, turn_id: int, text: str, *, is_rest: bool = False) -> None:
        self.counts["replies"] += 1
        logger.debug(f"turn {turn_id} is answered: {text}")
        await self.push_frame(ReplyStartedFrame(turn_id=turn_id))
        await self.push_frame(ReplyTextFrame(turn_id=turn_id, text=text, is_final=True, is_rest=is_rest))
        await self.push_frame(ReplySpeechFrame(turn_id=turn_id, text=text))
        await self.push_frame(ReplyEndedFrame(turn_id=turn_id))

    def _cut(self, turn_id: int) -> None:
        self._cut_upto = max(self._cut_upto, turn_id)
        self.counts["cuts"] += 1
        self._waiting_cuts += 1
        self.interrupt_reply(turn_id, then=self._cut_sent)

    async def _cut_sent(self) -> None:
        self._waiting_cuts -= 1

    async def _after_cuts(self, action: Callable[[], Awaitable[Any]]) -> None:
        """Run `action` now, or behind the interruptions that are on their way."""
        if self._waiting_cuts:
            self.conductor.post(action, self.create_task)
        else:
            await action()
