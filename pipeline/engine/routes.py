"""`RouteTable`: where the frames of one processor go, and what is told of a hop.

A frame is handled inline, in the task of whoever pushed it, by the next processor that consumes its type:

    push_frame -> table[type(frame)] -> handler of the next interested processor -> push_frame -> ...

The table is filled once per frame type by walking along the chain, and forgotten when something on the way changes: a
link, a pause, an event handler. A route ends at the first processor that is not ours, because a frame that skipped a
queued processor would overtake what that one holds. What every processor must see (start, end, cancel, interruption,
pause, resume, error) goes hop by hop through Pipecat's own code.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pipecat.frames.frames import Frame
from pipecat.observers.base_observer import FrameProcessed, FramePushed
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.utils.errors import ErrorCategory

from .consumes import LIFECYCLE
from .holding import Holding

Handler = Callable[[Frame, FrameDirection], Awaitable[None]]

_DOWN = FrameDirection.DOWNSTREAM


class RouteTable:
    """The routes that begin at one processor, its `node`; the tables of its neighbours are found through the chain.

    `handler_of` tells what the node consumes: frame type -> handler, None for a type that passes by.
    """

    def __init__(
        self, node: FrameProcessor, *, handler_of: Callable[[type[Frame]], Handler | None], holding: Holding
    ) -> None:
        self.down: dict[type[Frame], Handler] = {}  # frame type -> where a downstream push goes
        self.up: dict[type[Frame], Handler] = {}  # the same upstream
        self.own: dict[type[Frame], Handler] = {}  # frame type -> what the node does with it
        self.sees_all = False  # every frame takes Pipecat's way into the node, and none passes it by
        self._node = node
        self._handler_of = handler_of
        self._holding = holding  # whether frames can go through the node, see `Holding.is_settled`

    def find(self, frame_type: type[Frame], direction: FrameDirection) -> Handler | None:
        """Walk to where a push of the node goes, and remember it if it stays so; None: the chain ends before."""
        node: FrameProcessor | None = self._node
        while True:
            node = node.next if direction is _DOWN else node.previous
            table = _table_of(node)
            if table is None:
                deliver = None if node is None else node.queue_frame
                break
            deliver = table._entry(frame_type)
            if deliver is not None:
                break
        if deliver is not None and (table is None or table._holding.is_settled):
            (self.down if direction is _DOWN else self.up)[frame_type] = deliver
        return deliver

    def find_own(self, frame_type: type[Frame]) -> Handler | None:
        """What a frame from a neighbour meets in the node; None if it has to take Pipecat's way."""
        if self._is_pipecats_way(frame_type):
            return None
        handle = self.own[frame_type] = self._handler_of(frame_type) or self._node.push_frame
        return handle

    def forget(self) -> None:
        """Empty the tables of every processor whose route may pass or end at the node."""
        if not self._holding.is_open:  # nothing is remembered about a processor before its StartFrame
            return
        self.own.clear()
        for side in ("previous", "next"):
            table: RouteTable | None = self
            while table is not None:
                table.down.clear()
                table.up.clear()
                table = _table_of(getattr(table._node, side))

    def _entry(self, frame_type: type[Frame]) -> Handler | None:
        """Where a frame of this type enters the node; None if it passes by."""
        return self._node.queue_frame if self._is_pipecats_way(frame_type) else self._handler_of(frame_type)

    def _is_pipecats_way(self, frame_type: type[Frame]) -> bool:
        return self.sees_all or not self._holding.is_settled or issubclass(frame_type, LIFECYCLE)


def _table_of(node: FrameProcessor | None) -> RouteTable | None:
    """Return the table of a processor of ours; None for a guest, and for the end of the chain."""
    table = getattr(node, "_engine_routes", None)
    return table if isinstance(table, RouteTable) else None


async def observe_hop(
    source: FrameProcessor,
    target: FrameProcessor,
    frame: Frame,
    direction: FrameDirection,
    *,
    is_entry: bool = False,
) -> None:
    """Tell `source`'s observers of a hop to `target` and, unless the target's own entry does, that it is handled."""
    setup = source.processor_setup
    if setup.observer is None:
        return
    now = setup.clock.get_time()
    if target is not source:
        await setup.observer.on_push_frame(FramePushed(source, target, frame, direction, now))
    if not is_entry:
        await setup.observer.on_process_frame(FrameProcessed(target, frame, direction, now))


async def blame(deliver: Handler, pusher: FrameProcessor, frame: Frame, error: Exception) -> None:
    """Report a failed delivery as an `ErrorFrame` of whoever's method `deliver` is, else of the pusher."""
    culprit: Any = getattr(deliver, "__self__", None)
    if not isinstance(culprit, FrameProcessor):
        culprit = pusher
    await culprit.push_error(
        f"{getattr(deliver, '__name__', deliver)} failed on {frame.name}: {error}",
        exception=error,
        category=ErrorCategory.UNKNOWN,
    )
