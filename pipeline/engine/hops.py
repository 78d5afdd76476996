"""What happens beside a hop: observers are told of it, and a failure is reported as that of whoever failed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pipecat.frames.frames import Frame
from pipecat.observers.base_observer import FrameProcessed, FramePushed
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.utils.errors import ErrorCategory


async def observe_hop(
    source: FrameProcessor,
    target: FrameProcessor,
    frame: Frame,
    direction: FrameDirection,
    *,
    is_entry: bool = False,
) -> None:
    """Tell `source`'s observers of a hop to `target` and, unless the target's own entry does, that it is handled."""
    setup = source._setup
    if setup is None or setup.observer is None:
        return
    now = setup.clock.get_time()
    if target is not source:
        await setup.observer.on_push_frame(FramePushed(source, target, frame, direction, now))
    if not is_entry:
        await setup.observer.on_process_frame(FrameProcessed(target, frame, direction, now))


async def blame(
    deliver: Callable[[Frame, FrameDirection], Awaitable[None]],
    pusher: FrameProcessor,
    frame: Frame,
    error: Exception,
) -> None:
    """Report a failed delivery as an `ErrorFrame` of whoever's method `deliver` is, else of the pusher."""
    culprit = getattr(deliver, "__self__", None)
    if not isinstance(culprit, FrameProcessor):
        culprit = pusher
    await culprit.push_error(
        f"{getattr(deliver, '__name__', deliver)} failed on {frame.name}: {error}",
        exception=error,
        category=ErrorCategory.UNKNOWN,
    )
