"""Whose audio is it: binds the context ids of Pipecat's TTS services to the turns they were minted for.

A TTS service labels its audio with a context id. Two public hooks tell which turn an id belongs to: the frame hook
`on_before_process_frame` sees the reply's marker when the service handles it, in order, and a wrapper of the
instance's `create_context_id` sees every id when it is made. What the service pushes later, from whatever task, is
then known by its id alone.

A service whose wire carries no ids labels what it receives by what is playing *now*, so late audio of a cut reply gets
the next reply's id. Only closing the connection helps, which Pipecat's `InterruptibleTTSService` does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Any

from pipecat.frames.frames import Frame
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.tts_service import InterruptibleTTSService, TTSService
from pipecat.utils.utils import obj_id

from ..engine.pipecat_seam import receivers_of
from ..frames import ReplyStartedFrame

MAX_CONTEXTS = 1024  # ids remembered per conversation; the oldest are long played
_GUESS = "get_active_audio_context_id"  # how a receiver labels audio that came without an id


@dataclass(frozen=True, slots=True)
class Minted:
    """When and for what a context id was made. `birth` is on the scale of frame ids, which only grow."""

    turn_id: int  # 0: no reply marker had been seen, as in a pipeline without our Responder
    birth: int


class VoiceContexts:
    """The context ids of one conversation's TTS services."""

    def __init__(self) -> None:
        self._minted: OrderedDict[str, Minted] = OrderedDict()  # the oldest first
        self._bound: set[int] = set()  # ids of the service objects already bound

    def of(self, context_id: str) -> Minted | None:
        """Return what is known of an id; None for one that was never seen."""
        return self._minted.get(context_id)

    def mint(self, context_id: str, turn_id: int) -> None:
        """Remember a new id. One that is known keeps its turn."""
        if context_id not in self._minted:
            self._minted[context_id] = Minted(turn_id, obj_id())
            if len(self._minted) > MAX_CONTEXTS:
                self._minted.popitem(last=False)

    def bind(self, service: TTSService) -> None:
        """Follow a service from now on; a second time does nothing."""
        if id(service) in self._bound:
            return
        self._bound.add(id(service))
        turn_id = 0

        async def remember(_: Any, frame: Frame) -> None:
            nonlocal turn_id
            if isinstance(frame, ReplyStartedFrame):
                turn_id = frame.turn_id

        create = service.create_context_id

        def create_context_id() -> str:
            context_id = create()
            self.mint(context_id, turn_id)
            return context_id

        service.add_event_handler("on_before_process_frame", remember)
        service.create_context_id = create_context_id  # type: ignore[method-assign]


def voices_in(processors: list[FrameProcessor]) -> Iterator[TTSService]:
    """Yield the TTS services among processors, those inside compound ones too."""
    for processor in processors:
        if isinstance(processor, TTSService):
            yield processor
        yield from voices_in(processor.processors)


def voices_before(processor: FrameProcessor) -> Iterator[TTSService]:
    """Yield the TTS services upstream of `processor`, as far as its chain reaches."""
    node = processor.previous
    while node is not None:
        yield from voices_in([node])
        node = node.previous


def labels_by_guess(service: TTSService) -> bool:
    """Whether a service's receiver labels audio by what is playing, and it does not reconnect when interrupted."""
    return not isinstance(service, InterruptibleTTSService) and any(map(_guesses, receivers_of(service)))


def _guesses(code: CodeType) -> bool:
    """Whether a receiver's code asks what is playing and reads no id from the message."""
    parts = [code, *(const for const in code.co_consts if isinstance(const, CodeType))]
    reads_id = any(const == "context_id" for part in parts for const in part.co_consts)
    return not reads_id and any(_GUESS in part.co_names for part in parts)
