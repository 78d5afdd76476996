"""An LLM service of Pipecat's kind without a network, for virtual time: its tools run as Pipecat runs them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipecat.frames.frames import (
    Frame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.llm_service import FunctionCallFromLLM, LLMService
from pipecat.services.settings import LLMSettings


@dataclass(frozen=True)
class Response:
    """What the model comes up with: words, after `think_s` seconds, then tool calls (name -> arguments)."""

    text: str = ""
    calls: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    think_s: float = 0.1


class VirtualLLM(LLMService):
    """Answers each context by `respond(messages)`, and keeps what it was asked in `asked`."""

    def __init__(self, respond: Callable[[list[Any]], Response]) -> None:
        super().__init__(settings=LLMSettings(model="virtual"))
        self.asked: list[list[Any]] = []
        self._respond = respond
        self._ids = itertools.count(1)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        await self.push_frame(LLMFullResponseStartFrame())
        try:
            await self._stream(frame.context)
        finally:
            await self.push_frame(LLMFullResponseEndFrame())

    async def _stream(self, context: LLMContext) -> None:
        messages = [dict(message) for message in context.get_messages()]
        self.asked.append(messages)
        response = self._respond(messages)
        await asyncio.sleep(response.think_s)
        for token in response.text.split(" "):
            if token:
                await self.push_frame(LLMTextFrame(f"{token} "))
        if response.calls:
            made = [
                FunctionCallFromLLM(
                    function_name=name, tool_call_id=f"call_{next(self._ids)}", arguments=arguments, context=context
                )
                for name, arguments in response.calls.items()
            ]
            await self.run_function_calls(made)
