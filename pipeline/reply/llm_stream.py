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
    LLMFullResponseStartFrame,
    LLMTextFrame,
    LLMThoughtTextFrame,
    TTSSpeakFrame,
)

from ..engine.processor import Processor
from ..frames import ReplySpeechFrame, ReplyStartedFrame
from ..text.cleaning import CLEANED, Cleaning, TextCleaner, cleaned
from ..text.sentences import has_sentence
from .chat_memory import ChatMemory
from .reply_timer import ReplyTimer
from .reply_watch import ReplyWatch

_CLEANED_HERE = (LLMFullResponseStartFrame, LLMTextFrame, TTSSpeakFrame, LLMFullResponseEndFrame)


class LlmStream:
    """Fed with every frame that an LLM pushes, in that LLM's own task; `on_over` is run behind each response.

    It takes thoughts and markup out of the text before anybody else sees it, so that voice, client and memory have the
    same words.
    """

    def __init__(
        self,
        owner: Processor,
        timer: ReplyTimer,
        memory: ChatMemory,
        on_over: Callable[[ReplyWatch], Coroutine[Any, Any, None]],
        cleaning: Cleaning,
    ) -> None:
        self.turn_id = 0  # of the reply whose marker left the LLM last: what leaves it now is that reply's
        self.has_error = False  # the response going on has failed
        self._owner = owner  # whose turn tasks they are
        self._timer = timer  # knows the open reply
        self._memory = memory  # is told of tools
        self._on_over = on_over
        self._cleaning = cleaning  # what is left out of the text
        self._cleaner = TextCleaner(cleaning)  # of the response going on

    @property
    def watch(self) -> ReplyWatch | None:
        """The open reply, if what leaves the LLM now belongs to it."""
        watch = self._timer.watch
        return None if watch is None or watch.is_failing or watch.turn_id != self.turn_id else watch

    def on_push(self, frame: Frame) -> LLMTextFrame | None:
        """See a frame before it leaves, and clean its text. Returns what of the response has to leave before it."""
        if CLEANED in frame.metadata:
            return None  # seen when it left another LLM, or given out here
        if isinstance(frame, ReplyStartedFrame) and frame.turn_id != self.turn_id:
            self.turn_id, self._cleaner = frame.turn_id, TextCleaner(self._cleaning)
        rest = self._clean(frame)
        watch, now = self.watch, asyncio.get_running_loop().time()
        if watch is None:
            return rest
        if rest is not None:
            watch.token(rest.text, now)
        if isinstance(frame, LLMTextFrame | LLMThoughtTextFrame):
            watch.token(frame.text if isinstance(frame, LLMTextFrame) else "", now)
            if not watch.is_handed and has_sentence(watch.text):
                watch.handed(now)
        elif isinstance(frame, TTSSpeakFrame) and not isinstance(frame, ReplySpeechFrame):
            watch.tool_said(frame.text, now)
        elif isinstance(frame, LLMFullResponseEndFrame):
            watch.ended(now)
            self._owner.turn_task(self._on_over(watch), turn_id=watch.turn_id)
        return rest

    def _clean(self, frame: Frame) -> LLMTextFrame | None:
        """Take out of a frame's text what is not said; at the end of a response returns what was held of it."""
        if not isinstance(frame, _CLEANED_HERE) or isinstance(frame, ReplySpeechFrame):
            return None
        frame.metadata[CLEANED] = True
        if isinstance(frame, LLMFullResponseStartFrame):
            self._cleaner = TextCleaner(self._cleaning)
        elif isinstance(frame, TTSSpeakFrame):
            frame.text = cleaned(frame.text, self._cleaning)
        elif isinstance(frame, LLMTextFrame):
            frame.text = frame.text if frame.skip_tts else self._cleaner.feed(frame.text)  # what is only shown stays
        elif text := self._cleaner.flush():
            rest = LLMTextFrame(text)
            rest.metadata[CLEANED] = True
            return rest
        return None

    def on_call(self, frame: FunctionCallsStartedFrame | FunctionCallInProgressFrame) -> None:
        """The LLM calls a tool."""
        if isinstance(frame, FunctionCallInProgressFrame):
            self._memory.tool_called(self.turn_id, frame.tool_call_id, frame.function_name, frame.arguments)
        elif (watch := self.watch) is not None:
            self._memory.said(watch.turn_id, watch.text)
            watch.called({call.tool_call_id for call in frame.function_calls})

    def on_call_over(self, frame: FunctionCallResultFrame | FunctionCallCancelFrame) -> tuple[ReplyWatch, bool] | None:
        """A tool has answered, or will not. Returns the reply that waited only for it, and whether to ask again."""
        must_ask, result = True, "CANCELLED"
        if isinstance(frame, FunctionCallResultFrame):
            properties, result = frame.properties, frame.result
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
