"""Who stands between a responder and the gate, and what leaves an LLM there.

An LLM is one of Pipecat's `LLMService`s between the responder and the voice, else any processor there that is not ours;
which one does not matter, only what it pushes. It is watched through Pipecat's public hook `on_before_push_frame`, in
the task of whoever pushes, so nothing is delayed.
"""

from __future__ import annotations

from collections.abc import Callable

from pipecat.frames.frames import Frame
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.llm_service import LLMService
from pipecat.services.tts_service import TTSService

from ..engine.processor import Processor
from ..engine.stages import Stage


class Downstream:
    """What follows a processor in its chain, as far as it is linked."""

    def __init__(self, processor: FrameProcessor) -> None:
        self.llms: list[FrameProcessor] = []  # between here and the first voice or gate
        self.voices: list[FrameProcessor] = []  # the voices before the gate, first one first
        self.has_gate = False  # somebody reports what the voice brings
        between: list[FrameProcessor] = []
        node = processor.next
        while node is not None and not self.has_gate:
            stage = getattr(node, "stage", None)
            self.has_gate = stage is Stage.GATE
            if stage is Stage.VOICE or isinstance(node, TTSService):
                self.voices.append(node)
            elif stage is not None and stage > Stage.VOICE:
                break
            elif not self.voices:
                between.append(node)
            node = node.next
        self.llms = [node for node in between if isinstance(node, LLMService)]
        if not self.llms and (self.voices or self.has_gate):
            self.llms = [node for node in between if not isinstance(node, Processor)]

    @property
    def has_second_voice(self) -> bool:
        """Whether a voice stands by for when the first one fails."""
        return any(getattr(voice, "is_standby", False) for voice in self.voices)

    def speaks(self, processor: FrameProcessor | None, *, is_second: bool) -> bool:
        """Whether it is the voice that stands by (`is_second`), or else one of those before it."""
        return processor in self.voices and getattr(processor, "is_standby", False) == is_second

    def instruct(self, prompt: str) -> bool:
        """Tell a system prompt to the LLM services; False if there is none, or one that cannot be told."""
        services = [llm for llm in self.llms if isinstance(llm, LLMService)]
        for service in services:
            service.append_system_instruction(prompt)
        return bool(services) and len(services) == len(self.llms)

    def watch_llms(self, on_push: Callable[[Frame], Frame | None]) -> None:
        """Call `on_push` with every frame that leaves an LLM, up or down, before it leaves; what it returns first."""

        async def tell(llm: FrameProcessor, frame: Frame) -> None:
            first = on_push(frame)
            if first is not None:
                await llm.push_frame(first)

        for llm in self.llms:
            llm.add_event_handler("on_before_push_frame", tell)
