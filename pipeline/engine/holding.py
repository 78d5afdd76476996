"""`Holding`: what a processor keeps back, before its StartFrame and while it is paused, and when that may go on."""

from __future__ import annotations

from collections.abc import Callable

from pipecat.frames.frames import Frame, SystemFrame
from pipecat.processors.frame_processor import FrameCallback, FrameDirection

MAX_HELD = 2048  # frames held before StartFrame or while paused (40 s of 20 ms audio); full: the oldest is dropped

Held = tuple[Frame, FrameDirection, FrameCallback | None]


class Holding:
    """The frames of one processor that wait, oldest first, and what they wait for."""

    def __init__(self) -> None:
        self.is_open = False  # StartFrame has been here
        self.is_paused = False  # data and control frames are held
        self.is_system_paused = False  # all frames are held
        self.is_cancelled = False  # CancelFrame has been here; Pipecat drops whatever still comes
        self._frames: list[Held] = []  # see MAX_HELD

    @property
    def is_settled(self) -> bool:
        """Whether frames go through without a look at anything here."""
        return self.is_open and not (self._frames or self.is_paused or self.is_system_paused or self.is_cancelled)

    @property
    def is_empty(self) -> bool:
        """Whether no frame is held."""
        return not self._frames

    def must_hold(self, frame: Frame) -> bool:
        """Whether a frame that comes now has to wait."""
        if self.is_cancelled:
            return False
        if not self.is_open or self.is_system_paused:
            return True
        if isinstance(frame, SystemFrame):
            return bool(self._frames) and not self.is_paused  # while being released, in order
        return self.is_paused or bool(self._frames)

    def add(self, frame: Frame, direction: FrameDirection, callback: FrameCallback | None) -> Frame | None:
        """Hold a frame. Returns the one that is dropped for it, if there is no room."""
        dropped = self._frames.pop(0)[0] if len(self._frames) >= MAX_HELD else None
        self._frames.append((frame, direction, callback))
        return dropped

    def next(self) -> Held | None:
        """Return the frame that may go on now; it counts as held until `remove`. None: none is there, or none may."""
        if not self.is_open or self.is_paused or self.is_system_paused or self.is_cancelled:
            return None
        return self._frames[0] if self._frames else None

    def remove(self, frame: Frame) -> None:
        """The frame that was `next` has gone on."""
        if self._frames and self._frames[0][0] is frame:
            self._frames.pop(0)

    def drop(self, is_dropped: Callable[[Frame], bool]) -> None:
        """Drop some of what is held."""
        self._frames = [held for held in self._frames if not is_dropped(held[0])]

    def clear(self) -> None:
        """Drop all of it."""
        self._frames.clear()
