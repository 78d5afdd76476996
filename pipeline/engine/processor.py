"""`Processor`: a Pipecat `FrameProcessor` without queue or task, and the routes between such processors.

A frame is handled inline, in the task of whoever pushed it, by the next processor that consumes its type:

    push_frame -> table[type(frame)] -> handler of the next interested processor -> push_frame -> ...

The table is filled once per frame type by walking along the chain, and forgotten when something on the way changes: a
link, a pause, an event handler. A route ends at the first processor that is not ours, because a frame that skipped a
queued processor would overtake what that one holds. What every processor must see (start, end, cancel, interruption,
pause, resume, error) goes hop by hop through Pipecat's own code.

Handlers never suspend except in `push_frame`: they decide, change their state, then push. An inline run is then
atomic whoever's task it is in, and needs no lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar

from loguru import logger
from pipecat.frames.frames import CancelFrame, Frame, InterruptionFrame, StartFrame, SystemFrame
from pipecat.processors.frame_processor import FrameCallback, FrameDirection, FrameProcessor, FrameProcessorSetup
from pipecat.utils.errors import ErrorCategory

from ..errors import ConfigurationError, ServiceError
from ..frames import ReplyInterruptedFrame
from ..reconfigurable import Reconfigurable
from .conductor import MAX_TURN_TASKS, Conductor
from .consumes import LIFECYCLE, handlers_of
from .hops import blame, observe_hop
from .stages import Stage

Handler = Callable[[Frame, FrameDirection], Awaitable[None]]

MAX_HELD = 2048  # frames held before StartFrame or while paused (40 s of 20 ms audio); full: the oldest is dropped
_DOWN = FrameDirection.DOWNSTREAM


class Processor(Reconfigurable, FrameProcessor):
    """Base of all processors here; drops into any Pipecat pipeline.

    Say what you consume with `@consumes`, or override `process_frame` and get every frame, as in Pipecat. Slow work
    goes into `turn_task`. Errors that a handler raises become an `ErrorFrame` upstream, and the next frame flows.
    """

    stage: ClassVar[Stage | None] = None  # place in the flow; `Pipeline` refuses an order that goes backwards
    _consumed: ClassVar[dict[type[Frame], str]] = {}  # frame type -> name of the handler
    _resolved: ClassVar[dict[type[Frame], str | None]] = {}  # the same, subclasses looked up; filled on the way
    _takes_all: ClassVar[bool] = False  # process_frame is overridden: every frame comes by

    def __init__(self, *, name: str | None = None) -> None:
        self._engine_taps: Any = None  # truthy while somebody watches: the observers' live dict, or True
        self._engine_before: FrameProcessor | None = None  # what `_prev` stores, see there
        self._engine_down: dict[type[Frame], Handler] = {}  # frame type -> where a downstream push goes
        self._engine_up: dict[type[Frame], Handler] = {}  # the same upstream
        self._engine_own: dict[type[Frame], Handler] = {}  # frame type -> what this processor does with it
        self._engine_held: list[tuple[Frame, FrameDirection, FrameCallback | None]] = []  # see MAX_HELD
        self._engine_open = False  # StartFrame has been here
        self._engine_paused = False  # data and control frames are held
        self._engine_system_paused = False  # all frames are held
        self._engine_hooked = False  # somebody registered one of Pipecat's frame event handlers
        self._engine_tasks: set[asyncio.Task[Any]] = set()  # this processor's turn tasks alive
        self._engine_conductor: Conductor | None = None  # None until setup
        super().__init__(name=name, enable_direct_mode=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = handlers_of(cls, engine=Processor)
        cls._consumed, cls._resolved = {**cls._consumed, **own}, {}
        cls._takes_all = cls.process_frame is not Processor.process_frame
        if cls._takes_all and cls._consumed:
            raise ConfigurationError(f"{cls.__name__} overrides process_frame and uses @consumes; use one of them")

    # -- what a processor uses ---------------------------------------------------------------------------------

    @property
    def conductor(self) -> Conductor:
        """What the processors of this conversation share. Raises `ConfigurationError` before `setup`."""
        if self._engine_conductor is None:
            raise ConfigurationError(f"{self} is not set up yet; run it in a pipeline first")
        return self._engine_conductor

    async def push_frame(self, frame: Frame, direction: FrameDirection = _DOWN) -> None:
        """Hand `frame` to the next processor that consumes it. Returns when the inline run is over."""
        table = self._engine_down if direction is _DOWN else self._engine_up
        deliver = table.get(frame.__class__) or self._route(frame.__class__, direction)
        if self._engine_taps or self._engine_hooked:
            await self._push_watched(deliver, frame, direction)
            return
        if deliver is None:
            return
        try:
            await deliver(frame, direction)
        except RecursionError:  # the stack is the problem, so no further frame may be pushed from here
            raise
        except Exception as error:
            await blame(deliver, self, frame, error)

    def turn_task(
        self, work: Coroutine[Any, Any, None], *, turn_id: int | None = None, name: str | None = None
    ) -> asyncio.Task[None]:
        """Start slow work that an interruption of `turn_id`, or of a newer turn, cancels (None: any interruption).

        An exception becomes an `ErrorFrame`. Raises `ServiceError` when 256 turn tasks are alive.
        """
        conductor = self.conductor
        if conductor.is_full:
            work.close()
            raise ServiceError(f"{MAX_TURN_TASKS} turn tasks are running in this conversation; one more is refused")
        task = self.create_task(self._guarded(work), name or getattr(work, "__name__", "turn_task"))
        self._engine_tasks.add(task)
        task.add_done_callback(self._engine_tasks.discard)
        task.add_done_callback(lambda _: work.close())  # cancelled before it began: else Python warns of it
        conductor.add(task, turn_id)
        return task

    def interrupt_reply(self, turn_id: int, *, heard_ms: float = 0.0, then: Callable[[], Any] | None = None) -> None:
        """Send the interruption of a reply, once, downstream and upstream, from the conversation's own task.

        Turn tasks of that turn and older are cancelled first. `then`, if given, is awaited afterwards in that task.
        """

        async def interrupt() -> None:
            await self.conductor.cancel_turn_tasks(turn_id)
            await self.broadcast_frame(ReplyInterruptedFrame, turn_id=turn_id, heard_ms=heard_ms)
            if then is not None:
                await then()

        self.conductor.post(interrupt, self.create_task)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # top of a task
            await self.push_error(f"turn task failed: {error}", exception=error, category=ErrorCategory.UNKNOWN)

    # -- frames coming in --------------------------------------------------------------------------------------

    async def queue_frame(
        self, frame: Frame, direction: FrameDirection = _DOWN, callback: FrameCallback | None = None
    ) -> None:
        """Take a frame from a neighbour, and handle it inline. Pipecat's name; nothing is queued unless paused."""
        handle = None
        if callback is None:
            handle = self._engine_own.get(frame.__class__) or self._find_own(frame.__class__)
        if handle is None:
            await self._queue_slow(frame, direction, callback)
            return
        try:
            if self._engine_taps:
                await observe_hop(self, self, frame, direction)
            await handle(frame, direction)
        except RecursionError:
            raise
        except Exception as error:
            await blame(handle, self, frame, error)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Pipecat's entry for one frame: bookkeeping, then the handler, else on to the next."""
        if isinstance(frame, InterruptionFrame):
            await self._interrupted(frame)
        await super().process_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self._engine_open = True
        elif isinstance(frame, CancelFrame):
            self._engine_held.clear()
            self._forget_routes()
        if not self._takes_all:
            await (self._handler(frame.__class__) or self.push_frame)(frame, direction)

    async def _queue_slow(self, frame: Frame, direction: FrameDirection, callback: FrameCallback | None) -> None:
        is_start = isinstance(frame, StartFrame)
        if not is_start and self._must_hold(frame):
            self._hold(frame, direction, callback)
            return
        await super().queue_frame(frame, direction, callback)
        if is_start:
            await self._release()

    def _must_hold(self, frame: Frame) -> bool:
        if self._cancelling:
            return False  # Pipecat drops it
        if not self._engine_open or self._engine_system_paused:
            return True
        if isinstance(frame, SystemFrame):
            return bool(self._engine_held) and not self._engine_paused  # while being released, in order
        return self._engine_paused or bool(self._engine_held)

    def _hold(self, frame: Frame, direction: FrameDirection, callback: FrameCallback | None) -> None:
        if not self._engine_held:
            self._forget_routes()
        elif len(self._engine_held) >= MAX_HELD:
            dropped = self._engine_held.pop(0)[0]
            logger.warning(f"{self} holds {MAX_HELD} frames; {dropped.name} is dropped")
        self._engine_held.append((frame, direction, callback))
        self.on_held(frame)

    async def _release(self) -> None:
        while (
            self._engine_held
            and self._engine_open
            and not (self._engine_paused or self._engine_system_paused or self._cancelling)
        ):
            frame, direction, callback = self._engine_held[0]
            try:
                await super().queue_frame(frame, direction, callback)
            finally:
                if self._engine_held and self._engine_held[0][0] is frame:
                    self._engine_held.pop(0)

    async def _interrupted(self, frame: InterruptionFrame) -> None:
        if self._engine_conductor is not None:
            await self._engine_conductor.on_interruption(frame)
        if self._engine_paused:
            self._engine_held = [item for item in self._engine_held if not self.drops_held(item[0])]
            await self.resume_processing_frames()

    def drops_held(self, frame: Frame) -> bool:
        """Whether an interruption drops a frame that a pause holds here. May be overridden."""
        return frame.interruptible

    def on_held(self, frame: Frame) -> None:
        """A frame is held here, by a pause or before StartFrame. May be overridden."""

    # -- pause -------------------------------------------------------------------------------------------------

    async def pause_processing_frames(self) -> None:
        """Hold data and control frames until resumed; an interruption drops them and resumes."""
        self._engine_paused = True
        self._forget_routes()

    async def resume_processing_frames(self) -> None:
        """Hand on what was held, in order."""
        self._engine_paused = False
        await self._release()

    async def pause_processing_system_frames(self) -> None:
        """Hold every frame until `resume_processing_system_frames`."""
        self._engine_system_paused = True
        self._forget_routes()

    async def resume_processing_system_frames(self) -> None:
        """Hand on what was held, in order."""
        self._engine_system_paused = False
        await self._release()

    # -- set-up ------------------------------------------------------------------------------------------------

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Join the conversation. Overrides call `super().setup(setup)` first."""
        await super().setup(setup)
        observer = setup.observer
        if observer is not None:  # a WorkerObserver keeps its observers in a dict; anything else always watches
            proxies = getattr(observer, "_proxies", None)
            self._engine_taps = True if proxies is None else proxies
        if self._engine_conductor is None:
            self._engine_conductor = Conductor.of(setup.pipeline_worker)
            self._engine_conductor.join()

    async def cleanup(self) -> None:
        """Leave the conversation and end own turn tasks. Overrides call `super().cleanup()`."""
        if self._engine_conductor is not None:
            conductor, self._engine_conductor = self._engine_conductor, None
            await conductor.leave(set(self._engine_tasks))
        self._engine_held.clear()
        self._forget_routes()
        await super().cleanup()

    async def push_error(
        self,
        error_msg: str,
        exception: Exception | None = None,
        fatal: bool = False,
        category: ErrorCategory | None = None,
        force_treat_as_permanent: bool = False,
    ) -> None:
        """Push an `ErrorFrame` upstream. A RecursionError is raised instead: pushing more would deepen the stack."""
        if isinstance(exception, RecursionError):
            raise exception
        await super().push_error(error_msg, exception, fatal, category, force_treat_as_permanent)

    def add_event_handler(self, event_name: str, handler: Any) -> None:
        """Register one of Pipecat's event handlers; a frame hook makes this processor see every frame."""
        super().add_event_handler(event_name, handler)
        self._hooks_changed()

    def remove_event_handler(self, event_name: str, handler: Any) -> None:
        """Remove an event handler."""
        super().remove_event_handler(event_name, handler)
        self._hooks_changed()

    def _hooks_changed(self) -> None:
        self._engine_hooked = any(
            event.handlers for name, event in self._event_handlers.items() if name.endswith("_frame")
        )
        self._forget_routes()

    # -- routes ------------------------------------------------------------------------------------------------

    @property
    def _prev(self) -> FrameProcessor | None:
        return self._engine_before

    @_prev.setter
    def _prev(self, processor: FrameProcessor | None) -> None:
        # Pipecat tells only the left processor of a link (by `link`); the right one learns of it by this assignment.
        self._engine_before = processor
        self._forget_routes()

    def link(self, processor: FrameProcessor) -> None:
        """Make `processor` the next one; routes through here are found anew."""
        self._forget_routes()
        super().link(processor)

    def _forget_routes(self) -> None:
        """Empty the tables of every processor whose route may pass or end here."""
        if not self._engine_open:  # nothing is remembered about a processor before its StartFrame
            return
        self._engine_own.clear()
        for side in ("_prev", "_next"):
            node: FrameProcessor | None = self
            while isinstance(node, Processor):
                node._engine_down.clear()
                node._engine_up.clear()
                node = getattr(node, side, None)

    def _handler(self, frame_type: type[Frame]) -> Handler | None:
        try:
            name = self._resolved[frame_type]
        except KeyError:
            name = next((self._consumed[base] for base in frame_type.__mro__ if base in self._consumed), None)
            self._resolved[frame_type] = name
        return None if name is None else getattr(self, name)

    @property
    def _is_settled(self) -> bool:
        return self._engine_open and not (
            self._engine_held or self._engine_paused or self._engine_system_paused or self._cancelling
        )

    def _entry(self, frame_type: type[Frame]) -> Handler | None:
        """Where a frame of this type enters this processor; None if it passes by."""
        if self._takes_all or self._engine_hooked or not self._is_settled or issubclass(frame_type, LIFECYCLE):
            return self.queue_frame
        return self._handler(frame_type)

    def _find_own(self, frame_type: type[Frame]) -> Handler | None:
        """What a frame from a neighbour meets here; None if it has to take Pipecat's way."""
        if self._takes_all or self._engine_hooked or not self._is_settled or issubclass(frame_type, LIFECYCLE):
            return None
        handle = self._engine_own[frame_type] = self._handler(frame_type) or self.push_frame
        return handle

    def _target(
        self, frame_type: type[Frame], direction: FrameDirection
    ) -> tuple[FrameProcessor | None, Handler | None]:
        node: FrameProcessor | None = self
        while True:
            node = node._next if direction is _DOWN else node._prev
            if not isinstance(node, Processor):
                return node, None if node is None else node.queue_frame
            entry = node._entry(frame_type)
            if entry is not None:
                return node, entry

    def _route(self, frame_type: type[Frame], direction: FrameDirection) -> Handler | None:
        target, deliver = self._target(frame_type, direction)
        if deliver is not None and (not isinstance(target, Processor) or target._is_settled):
            (self._engine_down if direction is _DOWN else self._engine_up)[frame_type] = deliver
        return deliver

    async def _push_watched(self, deliver: Handler | None, frame: Frame, direction: FrameDirection) -> None:
        if self._engine_hooked:
            await self._call_event_handler("on_before_push_frame", frame)
        try:
            if deliver is not None:
                target: FrameProcessor = deliver.__self__  # type: ignore[attr-defined]
                if self._engine_taps:
                    is_entry = deliver.__name__ == "queue_frame"  # type: ignore[attr-defined]
                    await observe_hop(self, target, frame, direction, is_entry=is_entry)
                await deliver(frame, direction)
        except RecursionError:
            raise
        except Exception as error:
            await blame(deliver or self.push_frame, self, frame, error)
        if self._engine_hooked:
            await self._call_event_handler("on_after_push_frame", frame)
