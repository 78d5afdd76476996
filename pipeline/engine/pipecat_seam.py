"""What is private of Pipecat's and used here even so: nothing else in the library touches such a name.

With a new release of Pipecat, run `tests/pipeline/engine/test_pipecat_seam.py`: it has a test for each name, which
fails when that name has moved, and one that finds private names anywhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numpy.typing import NDArray
from pipecat.frames.frames import Frame
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.tts_service import InterruptibleTTSService

P = TypeVar("P", bound=FrameProcessor)

# How Pipecat's TTS services call the methods that belong to a connection of their own, by their beginnings.
OF_A_CONNECTION = ("_connect", "_receive", "_process_messages", "_process_responses", "_handle_audio")


def noticing_links(changed: Callable[[Any], None]) -> Callable[[type[P]], type[P]]:
    """Class decorator: `changed(processor)` is called when another processor is linked before an instance.

    `FrameProcessor._prev`, as a property in its place. `link` is called on the left processor only; the right one has
    no public way to learn of it.
    """

    def previous(processor: Any) -> FrameProcessor | None:
        return processor.__dict__["_prev"]

    def link(processor: Any, before: FrameProcessor | None) -> None:
        processor.__dict__["_prev"] = before
        changed(processor)

    def mark(cls: type[P]) -> type[P]:
        cls._prev = property(previous, link)  # type: ignore[assignment]
        return cls

    return mark


async def call_push_hooks(processor: FrameProcessor, event_name: str, frame: Frame) -> None:
    """Call the handlers of `on_before_push_frame` or `on_after_push_frame`.

    `BaseObject._call_event_handler`. Of the public methods only Pipecat's `push_frame` calls handlers, and that one
    always goes to the next processor, where ours goes to the next that consumes the frame.
    """
    await processor._call_event_handler(event_name, frame)


def watchers_in(observer: Any) -> Any:
    """Return what is truthy while anybody watches the frames of a worker: live, so that it can be asked per frame.

    `WorkerObserver._proxies`, its dict of observers. A worker always has a `WorkerObserver`, which costs 8 us per frame
    when it has nobody to tell; no public attribute says so. Anything else that observes is taken to watch always.
    """
    if observer is None:
        return None
    proxies = getattr(observer, "_proxies", None)
    return True if proxies is None else proxies


def turn_probability(analyzer: Any, audio: NDArray[Any]) -> float:
    """Return the probability, 0 to 1, that a smart-turn analyzer gives `audio` (float32, 16 kHz mono) to end a turn.

    `BaseSmartTurn._predict_endpoint`. The public `analyze_end_of_turn` works on a buffer and a clock of its own, and
    answers yes or no.
    """
    return float(analyzer._predict_endpoint(audio)["probability"])


def reconnects_when_interrupted(service: type[InterruptibleTTSService]) -> bool:
    """Whether a service of this kind closes its connection at an interruption, so that nothing late comes over it.

    `InterruptibleTTSService._handle_interruption`, if no subclass replaces it. No public attribute says so.
    """
    return service._handle_interruption is InterruptibleTTSService._handle_interruption
