"""`Session`: hosts one conversation. Builds its pipeline, starts it, ends it in bounded time whatever a guest does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from loguru import logger
from pipecat.frames.frames import CancelFrame, EndFrame, ErrorFrame
from pipecat.observers.base_observer import BaseObserver
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.workers.runner import WorkerRunner
from prometheus_client import Counter

from .conversation.conversation_record import ConversationRecord
from .engine.conductor import Conductor
from .errors import LeibnizError
from .pipeline import Pipeline

ERROR_GRACE_S = 0.5  # from the first error of a start to giving it up
START_S = 10.0  # an async `build`; then every processor set up and started
END_S = 10.0  # an EndFrame through the whole pipeline
CANCEL_S = 1.0  # a CancelFrame likewise, then the clean-up

ERRORS = Counter("leibniz_errors", "Errors that processors have reported, by their class", ["processor"])
Build = Callable[["Session"], "Pipeline | Awaitable[Pipeline]"]


class SessionFailed(LeibnizError):  # noqa: N818 - it is an event report, and reads as one
    """The pipeline could not be built or started."""


class Session:
    """One conversation from its first frame to its last. `build(session)` puts `input` and `output` at its ends."""

    def __init__(
        self,
        session_id: str,
        *,
        input: FrameProcessor,
        output: FrameProcessor,
        record: ConversationRecord | None = None,
        resumed: bool = False,
        observers: list[BaseObserver] | None = None,
    ) -> None:
        self.id = session_id  # `[A-Za-z0-9_-]{1,64}`
        self.input = input  # head of the pipeline
        self.output = output  # tail of the pipeline
        self.record = record or ConversationRecord(session_id)  # for the state tracker
        self.resumed = resumed  # whether an earlier conversation goes on
        self.pipeline: Pipeline | None = None  # None before `start`
        self.on_over: Callable[[str], None] | None = None  # told once that it is over, and why; "" if its bot ended it
        self.abandoned = False  # the pipeline did not end in its time and was left behind
        self._observers = observers or []
        self._worker: PipelineWorker | None = None  # Pipecat's host of the pipeline
        self._run: asyncio.Task[None] | None = None  # runs the worker
        self.stuck = ""  # why it could not go on
        self._ending: asyncio.Task[None] | None = None  # ends it for that
        self._ended = asyncio.Event()  # set when it is over, or was left behind

    async def start(self, build: Build) -> None:
        """Build and start the pipeline. Raises `SessionFailed`, with everything taken down again, if it cannot."""
        built = build(self)
        pipeline = await self._in_time(built) if isinstance(built, Awaitable) else built
        if not isinstance(pipeline, Pipeline):
            raise SessionFailed(f"build(session) must return a Pipeline, but returned {type(pipeline).__name__}")
        if _is_sink(self.output, pipeline):
            await pipeline.cleanup()
            raise SessionFailed(
                "build(session) returned a Pipeline with sink=session.output, behind which nothing leaves the "
                "pipeline, so it would never start; put session.output last in the list of its processors"
            )
        self.pipeline = pipeline
        self._worker = PipelineWorker(
            pipeline,
            cancel_timeout_secs=CANCEL_S,
            check_dangling_tasks=False,
            enable_rtvi=False,
            enable_turn_tracking=False,
            idle_timeout_secs=None,
            observers=self._observers,
        )
        started, failed = asyncio.Event(), asyncio.Event()
        errors: list[ErrorFrame] = []

        async def on_started(*_: Any) -> None:
            started.set()

        async def count(_: Any, frame: ErrorFrame) -> None:
            ERRORS.labels(type(frame.processor).__name__ if frame.processor else "").inc()

        async def on_error(_: Any, frame: ErrorFrame) -> None:
            errors.append(frame)
            failed.set()

        self._worker.add_event_handler("on_pipeline_started", on_started)
        self._worker.add_event_handler("on_pipeline_error", on_error)
        self._worker.add_event_handler("on_pipeline_error", count)
        try:
            runner = WorkerRunner(handle_sigint=False)
            await runner.add_workers(self._worker)
            self._run = asyncio.create_task(runner.run(), name=f"session {self.id}")
            self._run.add_done_callback(lambda _: self._over())
            Conductor.of(self._worker).when_stuck(self._on_stuck)
            await self._first_of(started, failed, timeout_s=START_S)
            if failed.is_set() and not started.is_set():
                await self._first_of(started, timeout_s=ERROR_GRACE_S)  # it may be one that the pipeline can live with
        except asyncio.CancelledError:
            await self.cancel("start cancelled")
            raise
        broken = [error.error for error in errors if error.processor and not error.processor.is_usable]
        if broken or not started.is_set():
            await self.cancel("start failed")
            reason = (broken or [error.error for error in errors] or [f"nothing happened for {START_S:.0f} s"])[0]
            raise SessionFailed(f"the pipeline of session {self.id} did not start: {reason}")
        self._worker.remove_event_handler("on_pipeline_error", on_error)

    async def _in_time(self, built: Awaitable[Pipeline]) -> Pipeline:
        limit = asyncio.timeout(START_S)
        try:
            async with limit:
                return await built
        except TimeoutError as error:
            if not limit.expired():
                raise  # one of build's own
            raise SessionFailed(f"build(session) has not returned a Pipeline within {START_S:.0f} s") from error

    async def _first_of(self, *events: asyncio.Event, timeout_s: float) -> None:
        """Wait for an event, or the end of the worker."""
        assert self._run is not None
        waiting = [asyncio.create_task(event.wait()) for event in events]
        try:
            await asyncio.wait({*waiting, self._run}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def end(self, *, timeout_s: float = END_S) -> None:
        """Let what is under way be finished, then end; after `timeout_s` as `cancel`."""
        if self._worker is not None and not await self._done(self._worker.queue_frame(EndFrame()), timeout_s):
            await self.cancel("end took too long")

    async def cancel(self, reason: str = "cancelled") -> None:
        """End now: in at most about 4 s, whatever a guest swallows or drops."""
        if self._worker is None or self._run is None or self._run.done():
            return
        if await self._done(self._worker.cancel(reason=reason), CANCEL_S * 2):
            return
        assert self.pipeline is not None
        logger.warning("session {}: a processor holds up the end; ending without it", self.id)
        await self.pipeline.push_frame(CancelFrame())  # straight to the worker's sink, past whoever dropped it
        await self.pipeline.push_frame(EndFrame())
        if await self._done(None, CANCEL_S):
            return
        self._run.cancel()
        if not await self._done(None, CANCEL_S):
            self.abandoned = True
            logger.error("session {}: the pipeline swallows its cancellation and is abandoned", self.id)
            self._over()

    @property
    def is_over(self) -> bool:
        """Whether the conversation has ended, or was left behind."""
        return self._ended.is_set()

    def _on_stuck(self, reason: str) -> None:
        self.stuck = reason
        self._ending = asyncio.create_task(self.cancel(reason), name=f"end {self.id}")

    def _over(self) -> None:
        self._ended.set()
        if self._worker is not None:
            Conductor.of(self._worker).when_stuck(None)  # it would keep us, and we the worker that it is kept by
        tell, self.on_over = self.on_over, None
        if tell is not None:
            tell(self.stuck)

    async def wait(self) -> None:
        """Return when the conversation is over."""
        if self._run is not None:
            await self._ended.wait()

    async def _done(self, request: Awaitable[None] | None, timeout_s: float) -> bool:
        if self._run is None:
            return True
        if request is not None:
            await request
        await asyncio.wait({self._run}, timeout=timeout_s)
        return self._run.done()


def _is_sink(output: FrameProcessor, pipeline: Pipeline) -> bool:
    """Whether the output stands in place of Pipecat's sink, of the pipeline or of one inside it."""
    inner = [each for each in pipeline.processors if isinstance(each, Pipeline)]
    return pipeline.ends[1] is output or any(_is_sink(output, each) for each in inner)
