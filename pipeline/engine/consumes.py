"""The mark that makes a method the consumer of frame types, and the frames that no mark can keep to itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameProcessorPauseFrame,
    FrameProcessorPauseUrgentFrame,
    FrameProcessorResumeFrame,
    FrameProcessorResumeUrgentFrame,
    InterruptionFrame,
    StartFrame,
    StopFrame,
)

from ..errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])

# These visit every processor, hop by hop, with Pipecat's own bookkeeping.
LIFECYCLE = (
    StartFrame,
    EndFrame,
    StopFrame,
    CancelFrame,
    InterruptionFrame,
    ErrorFrame,
    FrameProcessorPauseFrame,
    FrameProcessorPauseUrgentFrame,
    FrameProcessorResumeFrame,
    FrameProcessorResumeUrgentFrame,
)


def consumes(*frame_types: type[Frame]) -> Callable[[F], F]:
    """Mark `async def handler(self, frame, direction)` as the consumer of these frame types and their subclasses.

    A consumed frame goes on only if the handler pushes it. Raises `ConfigurationError` for anything but a coroutine
    function or without a frame type.
    """
    if not frame_types or not all(isinstance(t, type) and issubclass(t, Frame) for t in frame_types):
        raise ConfigurationError("@consumes takes one or more frame classes, as in @consumes(InputAudioRawFrame)")

    def mark(handler: F) -> F:
        if not inspect.iscoroutinefunction(handler):
            raise ConfigurationError(f"{handler.__qualname__} consumes frames, so it must be an `async def`")
        handler.__consumes__ = frame_types  # type: ignore[attr-defined]
        return handler

    return mark


def handlers_of(cls: type, *, engine: type) -> dict[type[Frame], str]:
    """Return frame type -> name of the method that consumes it, for a new subclass of `engine`.

    Raises `ConfigurationError` if the class defines a private name that the engine itself lives by, which would break
    it in ways that are hard to see.
    """
    names = vars(cls)
    taken = [
        n for n, member in vars(engine).items() if n in names and n[0] == "_" and n[:2] != "__" and callable(member)
    ]
    if taken:
        raise ConfigurationError(f"{cls.__name__} defines {taken[0]}, a name of the engine; choose another")
    return {t: name for name, member in names.items() for t in getattr(member, "__consumes__", ())}
