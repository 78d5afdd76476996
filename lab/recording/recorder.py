"""Records conversations: `recorded(build, ...)` is a `build` whose pipelines are watched, live or offline.

Every frame is noted where it is first pushed, beside what the speech model, the branches and the client's end do.
Noting is a dictionary and a list; whatever costs time (base64, JSON, gzip, the disk) is the sink's business. A
conversation that nobody records is not touched by any of it, and one that is recorded does the same: what is watched
stays what it is (see `watched`), and an event that cannot be noted is counted.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache, partial, wraps
from importlib import metadata
from typing import Any, Protocol, cast

from loguru import logger
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    HeartbeatFrame,
    MetricsFrame,
    StartFrame,
    StopFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from ...pipeline.engine.parallel import Branch, Parallel
from ...pipeline.frames import SpeculativeTurnFrame, UserTurnFrame
from ...pipeline.pipeline import Pipeline
from ...pipeline.session import Build, Session
from ...processors.vad import SileroVAD
from ...transports.dialects.dialect import Dialect
from ...transports.playout.output import ClientOutput
from .events import MAX_SAMPLES, WIRE, RecordedEvent
from .frame_fields import as_json, fields_of, without_words
from .recorded_model import Chunk, RecordedModel, level_dbfs
from .recorded_ticks import watched_ticker
from .recording import Recording
from .settings import chain_of, names_of, settings_of
from .watched import Pushed, Watched, WatchedFunction, in_place_of, told_push

SKIPPED = (StartFrame, StopFrame, EndFrame, CancelFrame, HeartbeatFrame, MetricsFrame)  # of no conversation's content
REMEMBERED = 4096  # frame ids; past it a frame that was held meanwhile would be noted twice
MAX_TAPE = 1_000_000  # events in memory: hours; past it the rest is counted as lost
PACKAGES = ("leibniz-voice", "pipecat-ai", "onnxruntime", "numpy")


class Sink(Protocol):
    """Takes what is recorded, never waits."""

    def put(self, event: RecordedEvent) -> None:
        """Take one event; `pcm` in its fields is bytes."""
        ...

    def lose(self) -> None:
        """Count an event that could not be noted."""
        ...

    def end(self) -> None:
        """The conversation is over."""
        ...


Open = Callable[[Recording], Sink]  # gets a recording without events: the header


class Tape:
    """Records into memory: `Call(tape.records(build))`, then `tape.recording`."""

    def __init__(self) -> None:
        self._header = Recording()  # what the recording begins with
        self._events: list[RecordedEvent] = []
        self._lost = 0  # events past MAX_TAPE, and those that could not be noted
        self._is_full = False
        self._end = ""  # "over" once the conversation is
        self._began = 0.0  # loop time of the recording's time 0

    def records(self, build: Build) -> Build:
        """Return a `build` whose conversation is recorded here; the newest one replaces those before it."""
        return recorded(build, self._open)

    def _open(self, header: Recording) -> Tape:
        self._header, self._events, self._lost, self._is_full, self._end = header, [], 0, False, ""
        self._began = asyncio.get_running_loop().time()
        return self

    def label(self, kind: str, start: float, end: float) -> None:
        """Say what sounded at the user's between two loop times: "turn", or what `measures` is to know it for."""
        start, end = start - self._began, end - self._began
        self.put(RecordedEvent(max(0.0, end), "user", "to_bot", "label", {"kind": kind, "start": start, "end": end}))

    def put(self, event: RecordedEvent) -> None:
        """See `Sink.put`."""
        if len(self._events) < MAX_TAPE:
            self._events.append(event)
        else:
            self._is_full = True
            self._lost += 1

    def lose(self) -> None:
        """See `Sink.lose`."""
        self._lost += 1

    def end(self) -> None:
        """See `Sink.end`."""
        self._end = "full" if self._is_full else "over"

    @property
    def recording(self) -> Recording:
        """What is recorded so far."""
        header = self._header
        header.lost, header.end = self._lost, self._end
        events = tuple(packed(event) for event in self._events)
        return Recording(**{**_plain(header), "events": events})


def _plain(recording: Recording) -> dict[str, Any]:
    return {name: getattr(recording, name) for name in recording.__dataclass_fields__}


def packed(event: RecordedEvent) -> RecordedEvent:
    """Return an event whose audio is text, as JSON wants it."""
    pcm = event.fields.get("pcm")
    if not isinstance(pcm, bytes):
        return event
    return event._replace(fields={**event.fields, "pcm": base64.b64encode(pcm).decode()})


def recorded(build: Build, open_sink: Open, *, audio: bool = True, text: bool = True, bot: str = "") -> Build:
    """Return a `build` that also records each conversation into the sink that `open_sink` gives.

    Without `audio` no sample is kept, only lengths and levels; without `text` every letter of what was said is an x.
    `bot` is the script's path, for whoever replays it.
    """

    def watch(session: Session, pipeline: Pipeline) -> Pipeline:
        if isinstance(pipeline, Pipeline):  # else the session refuses it
            try:
                header = _header_of(session, pipeline, audio=audio, text=text, bot=bot)
                _Watch(session, pipeline, header, open_sink(header)).begin()
            except Exception as error:  # of anybody's disk, or of anybody's processors
                logger.warning("the conversation {} is not recorded, or not whole: {!r}", session.id, error)
        return pipeline

    @wraps(build)
    def build_recorded(session: Session) -> Pipeline | Awaitable[Pipeline]:
        built = build(session)
        return watch_later(session, built) if isinstance(built, Awaitable) else watch(session, built)

    async def watch_later(session: Session, built: Awaitable[Pipeline]) -> Pipeline:
        return watch(session, await built)

    return build_recorded


def _header_of(session: Session, pipeline: Pipeline, *, audio: bool, text: bool, bot: str) -> Recording:
    """Return a recording that has everything but events."""
    chain = chain_of(pipeline)
    return Recording(
        session_id=session.id,
        began=time.time(),
        bot=bot,
        settings=settings_of(chain),
        versions=dict(versions()),
        processors=tuple(names_of(chain)),
        has_audio=audio,
        has_text=text,
    )


@cache
def versions() -> dict[str, str]:
    """Return the versions that decide what a conversation does."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


class _Watch:
    """Notes what happens in one pipeline."""

    def __init__(self, session: Session, pipeline: Pipeline, header: Recording, sink: Sink) -> None:
        self._session = session
        self._pipeline = pipeline
        self._sink = sink
        self._has_audio, self._has_text = header.has_audio, header.has_text
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()  # time 0 of the recording
        self._seen: set[int] = set()  # ids of the newest frames noted
        self._older: set[int] = set()  # those before them
        self._is_over = False
        self._has_missed = False  # an event could not be noted, as was logged

    def begin(self) -> None:
        """Hook everything up."""
        record = self._session.record
        conversation = {
            "resumed": record.is_resumed,
            "fields": {**record.to_fields(), "last_update": "0"},
        }  # of the wall clock
        self.note("session", "downstream", "Conversation", lambda: conversation)
        processors = chain_of(self._pipeline)
        for processor, name in zip(processors, names_of(processors), strict=True):
            self._try(self._tap, processor, name)
            self._try(self._watch_asked, processor, name)
        for processor in (*processors[-1:], self._pipeline):  # whichever is cleaned up first
            self._try(self._tap_end, processor, type(processor).__name__)

    def _try(self, hook: Callable[[FrameProcessor, str], None], processor: FrameProcessor, name: str) -> None:
        """Hook one processor up; where it does not let us, only what it does is missing."""
        try:
            hook(processor, name)
        except Exception as error:  # of anybody's processor
            with suppress(Exception):
                self._miss(name, error)

    def _watch_asked(self, processor: FrameProcessor, name: str) -> None:
        """Watch whom a processor asks: the speech model, the branches, the client's end."""
        if isinstance(processor, SileroVAD):
            processor.wrap_model(lambda model: RecordedModel(model, self._note_model, name))
        elif isinstance(processor, Parallel):
            processor.wrap_branches(lambda branch, ask: self._watched_branch(name, branch, ask))
        elif isinstance(processor, ClientOutput):
            processor.wrap_dialect(lambda dialect: cast("Dialect", _WatchedDialect(dialect, self.note)))
            note_tick = partial(self._note_tick, name)
            processor.wrap_ticker(lambda get: lambda: watched_ticker(get(), note_tick))

    def note(self, processor: str, direction: str, kind: str, tell: Callable[[], dict[str, Any]]) -> None:
        """Hand one event to the sink, with the fields that `tell` gives. Never raises."""
        if self._is_over:
            return
        try:
            fields = tell() if self._has_text else without_words(tell())
            if not self._has_audio:
                fields.pop("pcm", None)
            self._sink.put(RecordedEvent(self._loop.time() - self._began, processor, direction, kind, fields))
        except Exception as error:  # of anybody's frame, answer or disk: the conversation must not notice
            with suppress(Exception):
                self._miss(kind, error)

    def _miss(self, kind: str, error: Exception) -> None:
        has_missed, self._has_missed = self._has_missed, True
        if not has_missed:  # said once
            logger.warning("{}: a {} cannot be recorded: {!r}", self._session.id, kind, error)
        self._sink.lose()

    def _tap(self, processor: FrameProcessor, name: str) -> None:
        def tell(read: Callable[[], Pushed]) -> None:
            try:
                self._note_frame(name, *read())
            except Exception as error:  # of a call that the processor itself is going to refuse
                with suppress(Exception):
                    self._miss(f"push of {name}", error)

        # An observer or an event handler would see every hop, off the routes; this sees a push, and costs one call.
        _replace(processor, "push_frame", told_push(processor.push_frame, tell))

    def _note_frame(self, name: str, frame: Frame | None, direction: FrameDirection) -> None:
        if frame is None or frame.id in self._seen or frame.id in self._older or isinstance(frame, SKIPPED):
            return
        if len(self._seen) >= REMEMBERED:
            self._older, self._seen = self._seen, set()
        self._seen.add(frame.id)
        way = "downstream" if direction is FrameDirection.DOWNSTREAM else "upstream"
        self.note(name, way, type(frame).__name__, lambda: fields_of(frame))

    def _note_model(self, name: str, probability: float, chunk: Chunk) -> None:
        def tell() -> dict[str, Any]:
            return {"probability": round(float(probability), 5), "dbfs": level_dbfs(chunk)}

        self.note(name, "downstream", "Probability", tell)

    def _note_tick(self, name: str, now_s: float) -> None:
        self.note(name, "downstream", "Tick", lambda: {"now": round(now_s - self._began, 6)})

    def _watched_branch(self, processor: str, name: str, branch: Branch) -> Branch:
        async def answer(ask: Branch, turn: UserTurnFrame) -> Any:
            began = self._loop.time()

            def tell(**more: Any) -> dict[str, Any]:
                return {"branch": name, "text": turn.text, "is_guess": isinstance(turn, SpeculativeTurnFrame), **more}

            try:
                found = await ask(turn)
            except Exception as error:
                failure = type(error).__name__
                self.note(processor, "downstream", "BranchFailed", lambda: tell(type=failure))
                raise
            took_ms = round((self._loop.time() - began) * 1000, 3)
            self.note(processor, "downstream", "BranchAnswer", lambda: tell(took_ms=took_ms, answer=as_json(found)))
            return found

        return WatchedFunction(branch, answer)

    def _tap_end(self, processor: FrameProcessor, _: str) -> None:
        clean_up = processor.cleanup

        async def cleanup(_: Any, *args: Any, **named: Any) -> Any:
            try:
                return await clean_up(*args, **named)
            finally:
                self._end()

        _replace(processor, "cleanup", in_place_of(clean_up, cleanup))

    def _end(self) -> None:
        if not self._is_over:
            self.note("session", "downstream", "Ended", dict)
            self._is_over = True
            with suppress(Exception):  # of anybody's disk
                self._sink.end()


def _replace(processor: FrameProcessor, name: str, method: Callable[..., Any]) -> None:
    """Give the instance a method of its own, past a `__setattr__` that guards it or tells of it."""
    object.__setattr__(processor, name, method)


class _WatchedDialect(Watched):
    """Notes what the client is told, however it is spelled."""

    def __init__(self, dialect: Dialect, note: Callable[[str, str, str, Callable[[], dict[str, Any]]], None]) -> None:
        def audio(spell: Callable[..., Any], pcm: bytes, sample_rate: int) -> Any:
            def tell() -> dict[str, Any]:
                return {"rate": sample_rate, "samples": min(len(pcm) // 2, MAX_SAMPLES), "pcm": bytes(pcm)}

            note(WIRE, "to_user", "audio", tell)
            return spell(pcm, sample_rate)

        def message(kind: str, spell: Callable[..., Any], *args: Any, **fields: Any) -> Any:
            note(WIRE, "to_user", kind, lambda: as_json({**dict(zip(_TOLD[kind], args, strict=False)), **fields}))
            return spell(*args, **fields)

        super().__init__(dialect, {"audio": audio, **{kind: partial(message, kind) for kind in _TOLD}})


_TOLD: dict[str, tuple[str, ...]] = {  # what the user is told -> names of the arguments that come by position
    "ready": (),
    "state_update": (),
    "response_ready": (),
    "response_text": (),
    "pause": ("turn",),
    "resume": ("turn",),
    "interrupted": ("turn",),
    "turn": ("turn",),
    "pong": (),
    "error": ("code", "message"),
}
