"""`Holding`: what a processor keeps back, before its StartFrame and while it is paused, and when that may go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pipecat.frames.frames import AudioRawFrame, Frame, StartFrame, SystemFrame
from pipecat.processors.frame_processor import FrameCallback, FrameDirection

from .consumes import LIFECYCLE

MAX_HELD = 2048  # frames held before StartFrame or while paused (40 s of 20 ms audio); full: see `_droppable`
UNWIND_S = 0.1  # what a condition gets to end in, when nobody waits for it any more

Held = tuple[Frame, FrameDirection, FrameCallback | None]


class Holding:
    """The frames of one processor that wait, oldest first, and what they wait for."""

    def __init__(self) -> None:
        self.is_open = False  # StartFrame has been here
        self.is_paused = False  # data and control frames are held
        self.is_system_paused = False  # all frames are held
        self.is_cancelled = False  # CancelFrame has been here; Pipecat drops whatever still comes
        self.is_releasing = False  # what was held is being handed on
        self._frames: list[Held] = []  # see MAX_HELD
        self._in_hand: list[Frame] = []  # those of them whose handlers are running

    @property
    def is_settled(self) -> bool:
        """Whether frames go through without a look at anything here."""
        return self.is_open and not (
            self._frames or self.is_releasing or self.is_paused or self.is_system_paused or self.is_cancelled
        )

    @property
    def is_all_paused(self) -> bool:
        """Whether system frames wait too, in a pause and not for the start."""
        return self.is_open and self.is_system_paused

    @property
    def is_empty(self) -> bool:
        """Whether no frame is held."""
        return not self._frames

    @property
    def is_over_full(self) -> bool:
        """Whether more frames are held than ought to be, as none of them may be dropped."""
        return len(self._frames) > MAX_HELD

    def must_hold(self, frame: Frame) -> bool:
        """Whether a frame that comes now has to wait: for the start, for a pause, or for those that wait before it."""
        if self.is_cancelled:
            return False
        if isinstance(frame, StartFrame):
            return self.is_system_paused
        if not self.is_open or self.is_system_paused:
            return True
        if isinstance(frame, SystemFrame) and (self.is_paused or self.is_releasing):  # it passes data
            return any(isinstance(held[0], SystemFrame) for held in self._frames)
        return self.is_paused or self.is_releasing or bool(self._frames)

    def hasten(self) -> None:
        """Put the system frames before the data, as one more has come that passes data, but none of its own kind."""
        self._frames.sort(key=lambda held: not isinstance(held[0], SystemFrame))

    def add(self, frame: Frame, direction: FrameDirection, callback: FrameCallback | None) -> Frame | None:
        """Hold a frame. Returns the one that is dropped, if there is no room; None all the same if none may be."""
        place = 0 if isinstance(frame, StartFrame) else len(self._frames)
        self._frames.insert(place, (frame, direction, callback))
        if len(self._frames) <= MAX_HELD:
            return None
        dropped = self._oldest(lambda one: isinstance(one, AudioRawFrame) and one.interruptible)
        dropped = dropped or self._oldest(_droppable)
        if dropped is not None:
            self.remove(dropped)
        return dropped

    def next(self, wanted: type[Frame] = Frame) -> Held | None:
        """Return the frame that may go on now; it counts as held until `remove`. None: none is there, or none may."""
        if self.is_system_paused or self.is_cancelled:
            return None
        may_go: type[Frame] = Frame
        if not self.is_open:
            may_go = StartFrame
        elif self.is_paused:
            may_go = SystemFrame
        has_system = any(isinstance(frame, SystemFrame) for frame in self._in_hand)  # the next one waits for it
        for held in self._frames:
            frame = held[0]
            if not isinstance(frame, may_go) or not isinstance(frame, wanted) or self._is_in_hand(frame):
                continue
            if not (has_system and isinstance(frame, SystemFrame)):
                return held
        return None

    def begin(self, frame: Frame) -> None:
        """The frame that was `next` is being handled."""
        self._in_hand.append(frame)

    def remove(self, frame: Frame) -> None:
        """The frame that was `next` has gone on."""
        self._in_hand = [one for one in self._in_hand if one is not frame]
        place = next((i for i, held in enumerate(self._frames) if held[0] is frame), None)
        if place is not None:
            del self._frames[place]

    def _oldest(self, suits: Callable[[Frame], bool]) -> Frame | None:
        return next((held[0] for held in self._frames if suits(held[0]) and not self._is_in_hand(held[0])), None)

    def _is_in_hand(self, frame: Frame) -> bool:
        return any(one is frame for one in self._in_hand)

    def has(self, frame_type: type[Frame]) -> bool:
        """Whether a data or control frame of this type is held."""
        return any(isinstance(held[0], frame_type) and not isinstance(held[0], SystemFrame) for held in self._frames)

    def drop(self, is_dropped: Callable[[Frame], bool]) -> None:
        """Drop some of the data and control frames that are held."""
        self._frames = [
            held
            for held in self._frames
            if isinstance(held[0], SystemFrame) or self._is_in_hand(held[0]) or not is_dropped(held[0])
        ]

    def clear(self) -> None:
        """Drop all of it."""
        self._frames.clear()


def _droppable(frame: Frame) -> bool:
    """Whether a frame may be lost where too many are held; audio goes before all others."""
    return frame.interruptible and not isinstance(frame, (SystemFrame, *LIFECYCLE))


async def not_ready(ready: Callable[[], Awaitable[Any]], timeout_s: float | None) -> str:
    """Wait for `ready()`, at most `timeout_s`, and raise what it raises. Returns why it is not ready; empty if it is.

    A `ready` that swallows its cancellation, which `asyncio.wait_for` would wait for, is left to itself.
    """
    waiting = asyncio.ensure_future(ready())
    try:
        await asyncio.wait({waiting}, timeout=timeout_s)
    except asyncio.CancelledError:
        waiting.cancel()
        await asyncio.wait({waiting}, timeout=UNWIND_S)
        raise
    if not waiting.done():
        waiting.cancel()
        waiting.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody asks for it any more
        return f"is still not ready after {timeout_s:g} s"
    if waiting.cancelled():
        return "will not be ready, what it waits for was cancelled"
    waiting.result()
    return ""
