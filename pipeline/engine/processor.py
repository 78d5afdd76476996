"""`Processor`: a Pipecat `FrameProcessor` without queue or task, whose frames find their own way (see `routes`).

Handlers never suspend except in `push_frame`: they decide, change their state, then push. An inline run is then
atomic whoever's task it is in, and needs no lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar

from loguru import logger
from pipecat.frames.frames import CancelFrame, Frame, InterruptionFrame, StartFrame, SystemFrame
from pipecat.processors.frame_processor import (
    PAUSE_UNTIL_READY_TIMEOUT_SECS,
    FrameCallback,
    FrameDirection,
    FrameProcessor,
    FrameProcessorSetup,
)
from pipecat.utils.errors import ErrorCategory

from ..errors import ConfigurationError, ServiceError
from ..frames import ReplyInterruptedFrame
from ..reconfigurable import Reconfigurable
from .conductor import Conductor
from .consumes import handlers_of
from .holding import MAX_HELD, Holding, not_ready
from .pipecat_seam import call_push_hooks, noticing_links, watchers_in
from .routes import Handler, RouteTable, blame, observe_hop
from .stages import Stage
from .turn_tasks import MAX_TURN_TASKS

# Pipecat's events round each frame: a processor with a handler for one of them sees every frame
FRAME_EVENTS = frozenset(f"on_{when}_{what}_frame" for when in ("before", "after") for what in ("process", "push"))
_DOWN = FrameDirection.DOWNSTREAM


@noticing_links(lambda processor: processor._engine_routes.forget())
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
        self._engine_holding = Holding()  # what waits here, before StartFrame or in a pause
        self._engine_pause_watch: asyncio.Task[None] | None = None  # waits for what a pause is to last until
        self._engine_routes = RouteTable(self, handler_of=self._handler, holding=self._engine_holding)
        self._engine_routes.sees_all = self._takes_all
        # the table's own dicts, which are emptied and never replaced: one look-up less for each frame
        self._engine_down, self._engine_up = self._engine_routes.down, self._engine_routes.up
        self._engine_own = self._engine_routes.own
        self._engine_hooks: list[tuple[str, Any]] = []  # (event, handler) registered for one of FRAME_EVENTS
        self._engine_tasks: set[asyncio.Task[Any]] = set()  # this processor's turn tasks alive, and its releases
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
        deliver = table.get(frame.__class__) or self._engine_routes.find(frame.__class__, direction)
        if self._engine_taps or self._engine_hooks:
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
            handle = self._engine_own.get(frame.__class__) or self._engine_routes.find_own(frame.__class__)
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
            self._engine_holding.is_open = True
        elif isinstance(frame, CancelFrame):
            self._engine_holding.is_cancelled = True
            self._engine_holding.clear()
            self._engine_routes.forget()
        if not self._takes_all:
            await (self._handler(frame.__class__) or self.push_frame)(frame, direction)

    async def _queue_slow(self, frame: Frame, direction: FrameDirection, callback: FrameCallback | None) -> None:
        holding = self._engine_holding
        if holding.is_all_paused or holding.is_releasing:  # it may have to wait, but what it cuts is cut now
            if isinstance(frame, InterruptionFrame):
                holding.drop(self.drops_held)
            elif isinstance(frame, CancelFrame):
                holding.drop(lambda _: True)
        if holding.must_hold(frame):
            self._hold(frame, direction, callback)
            if holding.is_releasing and isinstance(frame, SystemFrame):
                holding.hasten()
                await self._apart(self._hand_on(SystemFrame))
            return
        await super().queue_frame(frame, direction, callback)
        if isinstance(frame, StartFrame):
            await self._release()

    def _hold(self, frame: Frame, direction: FrameDirection, callback: FrameCallback | None) -> None:
        if self._engine_holding.is_empty:
            self._engine_routes.forget()
        dropped = self._engine_holding.add(frame, direction, callback)
        if dropped is not None:
            logger.warning(f"{self} holds {MAX_HELD} frames; {dropped.name} is dropped")
        elif self._engine_holding.is_over_full:
            logger.warning(f"{self} holds more than {MAX_HELD} frames, and none of them may be dropped")
        self.on_held(frame)

    async def _release(self) -> None:
        holding = self._engine_holding
        if holding.is_releasing or holding.next() is None:  # released by another task, or a held frame's handler
            return
        holding.is_releasing = True
        await self._apart(self._hand_on(Frame))

    async def _apart(self, handing_on: Coroutine[Any, Any, None]) -> None:
        """Wait for it. Where handlers may suspend it has a task of its own, which the caller's end does not cut."""
        if self._engine_conductor is None or not self._engine_routes.sees_all:
            await handing_on
            return
        task = self.create_task(handing_on, "release")
        self._engine_tasks.add(task)
        task.add_done_callback(self._engine_tasks.discard)
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    async def _hand_on(self, wanted: type[Frame]) -> None:
        holding = self._engine_holding
        try:
            while (held := holding.next(wanted)) is not None:
                holding.begin(held[0])
                try:
                    await super().queue_frame(*held)
                finally:
                    holding.remove(held[0])
        finally:
            if wanted is Frame:
                holding.is_releasing = False
            if not holding.is_releasing and holding.next() is not None:  # it was cut short, or was for some only
                self.create_task(self._release(), "release")

    async def _interrupted(self, frame: InterruptionFrame) -> None:
        if self._engine_conductor is not None:
            await self._engine_conductor.on_interruption(frame)
        if self._engine_holding.is_paused:
            self._engine_holding.drop(self.drops_held)
            await self.resume_processing_frames()

    def drops_held(self, frame: Frame) -> bool:
        """Whether an interruption drops a frame that a pause holds here. May be overridden."""
        return frame.interruptible

    def on_held(self, frame: Frame) -> None:
        """A frame is held here, by a pause or before StartFrame. May be overridden."""

    # -- pause -------------------------------------------------------------------------------------------------

    async def pause_processing_frames(self) -> None:
        """Hold data and control frames until resumed; an interruption drops them and resumes."""
        self._engine_holding.is_paused = True
        self._engine_routes.forget()

    async def resume_processing_frames(self) -> None:
        """Hand on what was held, in order."""
        self._engine_holding.is_paused = False
        await self._release()

    async def pause_processing_system_frames(self) -> None:
        """Hold every frame until `resume_processing_system_frames`."""
        self._engine_holding.is_system_paused = True
        self._engine_routes.forget()

    async def resume_processing_system_frames(self) -> None:
        """Hand on what was held, in order."""
        self._engine_holding.is_system_paused = False
        await self._release()

    async def pause_processing_all_frames_until(
        self,
        ready: Callable[[], Awaitable[Any]],
        *,
        timeout: float = PAUSE_UNTIL_READY_TIMEOUT_SECS,  # noqa: ASYNC109 - Pipecat's name
    ) -> None:
        """Hold every frame from the next one on until `ready()` returns, at most `timeout` seconds.

        A second call takes the place of the first, and what is held stays held. If `ready` raises, it is reported as
        an `ErrorFrame` and the pause is lifted; so it is if what `ready` waits for is cancelled.
        """
        watch = self._engine_pause_watch
        await self.pause_processing_system_frames()
        await self.pause_processing_frames()
        self._engine_pause_watch = self.create_task(self._resume_when(ready, timeout), "pause_watch")
        await self._end_pause_watch(watch)  # after its successor is there: a `ready` that pauses again ends itself here

    async def _resume_when(self, ready: Callable[[], Awaitable[Any]], timeout_s: float | None) -> None:
        watch = asyncio.current_task()
        try:
            failing = await not_ready(ready, timeout_s)
            if failing:
                logger.warning(f"{self} {failing}; its frames go on all the same")
        except Exception as error:  # top of a task
            await self.push_error(f"not ready: {error!r}", exception=error, category=ErrorCategory.UNKNOWN)
        finally:
            if self._engine_pause_watch is watch:  # else another pause has taken the place of this one, or all is over
                self._engine_pause_watch = None  # a handler of what goes on now may pause again
                await self.resume_processing_frames()
                await self.resume_processing_system_frames()

    async def _end_pause_watch(self, watch: asyncio.Task[None] | None) -> None:
        if self._engine_pause_watch is watch:
            self._engine_pause_watch = None
        if watch is not None and watch is not asyncio.current_task():
            await self.cancel_task(watch)

    def has_queued_frame(self, frame_type: type[Frame]) -> bool:
        """Whether a data or control frame of this type is held."""
        return self._engine_holding.has(frame_type)

    # -- set-up ------------------------------------------------------------------------------------------------

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Join the conversation. Overrides call `super().setup(setup)` first."""
        await super().setup(setup)
        self._engine_taps = watchers_in(setup.observer)
        if self._engine_conductor is None:
            self._engine_conductor = Conductor.of(setup.pipeline_worker, setup.task_manager)
            self._engine_conductor.join()

    async def cleanup(self) -> None:
        """Leave the conversation and end own turn tasks. Overrides call `super().cleanup()`."""
        self._engine_holding.clear()  # first, so that a release that ends now is not taken up again
        if self._engine_conductor is not None:
            conductor, self._engine_conductor = self._engine_conductor, None
            await conductor.leave(set(self._engine_tasks))
        await self._end_pause_watch(self._engine_pause_watch)
        self._engine_holding.clear()
        self._engine_routes.forget()
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
        if event_name in FRAME_EVENTS:
            self._engine_hooks.append((event_name, handler))
            self._hooks_changed()

    def remove_event_handler(self, event_name: str, handler: Any) -> None:
        """Remove an event handler."""
        super().remove_event_handler(event_name, handler)
        if (event_name, handler) in self._engine_hooks:
            self._engine_hooks.remove((event_name, handler))
            self._hooks_changed()

    def _hooks_changed(self) -> None:
        self._engine_routes.sees_all = self._takes_all or bool(self._engine_hooks)
        self._engine_routes.forget()

    # -- routes ------------------------------------------------------------------------------------------------

    def link(self, processor: FrameProcessor) -> None:
        """Make `processor` the next one; routes through here are found anew."""
        self._engine_routes.forget()
        super().link(processor)

    def _handler(self, frame_type: type[Frame]) -> Handler | None:
        try:
            name = self._resolved[frame_type]
        except KeyError:
            name = next((self._consumed[base] for base in frame_type.__mro__ if base in self._consumed), None)
            self._resolved[frame_type] = name
        return None if name is None else getattr(self, name)

    async def _push_watched(self, deliver: Handler | None, frame: Frame, direction: FrameDirection) -> None:
        if self._engine_hooks:
            await call_push_hooks(self, "on_before_push_frame", frame)
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
        if self._engine_hooks:
            await call_push_hooks(self, "on_after_push_frame", frame)
