"""`LlmStream`: what leaves the LLM, told to the watch of the reply that it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from pipecat.frames.frames import (
    Frame,
    FunctionCallCancelFrame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    FunctionCallsStartedFrame,
    LLMFullResponseEndFrame,
    LLMTextFrame,
    TTSSpeakFrame,
)

from ..engine.processor import Processor
from ..frames import ReplySpeechFrame, ReplyStartedFrame
from ..text.sentences import has_sentence
from .chat_memory import Memory
from .reply_timer import ReplyTimer
from .reply_watch import ReplyWatch


class LlmStream:
    """Fed with every frame that an LLM pushes, in that LLM's own task; `on_over` is run behind each response."""

    def __init__(
        self,
        owner: Processor,
        timer: ReplyTimer,
        memory: Memory,
        on_over: Callable[[ReplyWatch], Coroutine[Any, Any, None]],
    ) -> None:
        self.turn_id = 0  # of the reply whose marker left the LLM last: what leaves it now is that reply's
        self.has_error = False  # the response going on has failed
        self._owner = owner  # whose turn tasks they are
        self._timer = timer  # knows the open reply
        self._memory = memory  # is told of tools
        self._on_over = on_over

    @property
    def watch(self) -> ReplyWatch | None:
        """The open reply, if what leaves the LLM now belongs to it."""
        watch = self._timer.watch
        return None if watch is None or watch.is_failing or watch.turn_id != self.turn_id else watch

    def on_push(self, frame: Frame) -> None:
        """See a frame before it leaves."""
        if isinstance(frame, ReplyStartedFrame):
            self.turn_id = frame.turn_id
        watch, now = self.watch, asyncio.get_running_loop().time()
        if watch is None:
            return
        if isinstance(frame, LLMTextFrame):
            watch.token(frame.text, now)
            if not watch.is_handed and has_sentence(watch.text):
                watch.handed(now)
        elif isinstance(frame, TTSSpeakFrame) and not isinstance(frame, ReplySpeechFrame):
            watch.tool_said(frame.text, now)
        elif isinstance(frame, LLMFullResponseEndFrame):
            watch.ended(now)
            self._owner.turn_task(self._on_over(watch), turn_id=watch.turn_id)

    def on_call(self, frame: FunctionCallsStartedFrame | FunctionCallInProgressFrame) -> None:
        """The LLM calls a tool."""
        if isinstance(frame, FunctionCallInProgressFrame):
            self._memory.tool_called(self.turn_id, frame.tool_call_id, frame.function_name, frame.arguments)
        elif (watch := self.watch) is not None:
            watch.called({call.tool_call_id for call in frame.function_calls})

    def on_call_over(self, frame: FunctionCallResultFrame | FunctionCallCancelFrame) -> tuple[ReplyWatch, bool] | None:
        """A tool has answered, or will not. Returns the reply that waited only for it, and whether to ask again."""
        must_ask, result = True, "CANCELLED"
        if isinstance(frame, FunctionCallResultFrame):
            properties, result = frame.properties, frame.result or "COMPLETED"
            if properties is not None and not properties.is_final:
                return None
            said = frame.run_llm if properties is None or properties.run_llm is None else properties.run_llm
            must_ask = said is not False
        self._memory.tool_answered(frame.tool_call_id, result)
        watch = self._timer.watch
        if watch is None or not watch.settled(frame.tool_call_id, asyncio.get_running_loop().time()):
            return None
        watch.may_be_silent |= not must_ask
        return watch, must_ask
