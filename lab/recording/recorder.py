"""Records conversations: `recorded(build, ...)` is a `build` whose pipelines are watched, live or offline.

Every frame is noted where it is first pushed, beside what the speech model, the branches and the client's end do.
Noting is a dictionary and a list; whatever costs time (base64, JSON, gzip, the disk) is the sink's business. A
conversation that nobody records is not touched by any of it.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from functools import cache, partial
from importlib import metadata
from typing import Any, Protocol, cast

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
from ...transports.playout.endpoints import ClientOutput
from ...transports.playout.ticker import Ticker
from .events import MAX_SAMPLES, WIRE, RecordedEvent
from .frame_fields import as_json, fields_of, without_words
from .recorded_model import RecordedModel
from .recorded_ticks import WatchedTicker
from .recording import Recording
from .settings import names_of, settings_of

SKIPPED = (StartFrame, StopFrame, EndFrame, CancelFrame, HeartbeatFrame, MetricsFrame)  # of no conversation's content
REMEMBERED = 4096  # frame ids; past it a frame that was held meanwhile would be noted twice
MAX_TAPE = 1_000_000  # events in memory: hours; past it the rest is counted as lost
PACKAGES = ("leibniz-voice", "pipecat-ai", "onnxruntime", "numpy")


class Sink(Protocol):
    """Takes what is recorded, never waits."""

    def put(self, event: RecordedEvent) -> None:
        """Take one event; `pcm` in its fields is bytes."""
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
        self._lost = 0  # events past MAX_TAPE
        self._end = ""  # "over" once the conversation is
        self._began = 0.0  # loop time of the recording's time 0

    def records(self, build: Build) -> Build:
        """Return a `build` whose conversation is recorded here; the newest one replaces those before it."""
        return recorded(build, self._open)

    def _open(self, header: Recording) -> Tape:
        self._header, self._events, self._lost, self._end = header, [], 0, ""
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
            self._lost += 1

    def end(self) -> None:
        """See `Sink.end`."""
        self._end = "over" if not self._lost else "full"

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

    async def build_recorded(session: Session) -> Pipeline:
        built = build(session)
        pipeline = built if isinstance(built, Pipeline) else await built
        if isinstance(pipeline, Pipeline):
            header = header_of(session, pipeline, audio=audio, text=text, bot=bot)
            _Watch(session, pipeline, header, open_sink(header)).begin()
        return pipeline

    return build_recorded


def header_of(session: Session, pipeline: Pipeline, *, audio: bool, text: bool, bot: str) -> Recording:
    """Return a recording that has everything but events."""
    return Recording(
        session_id=session.id,
        began=time.time(),
        bot=bot,
        settings=settings_of(pipeline.processors),
        versions=dict(versions()),
        processors=tuple(names_of(pipeline.processors)),
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

    def begin(self) -> None:
        """Hook everything up."""
        record = self._session.record
        conversation = {
            "resumed": record.is_resumed,
            "fields": {**record.to_fields(), "last_update": "0"},
        }  # of the wall clock
        self.note("session", "downstream", "Conversation", conversation)
        processors = self._pipeline.processors
        for processor, name in zip(processors, names_of(processors), strict=True):
            self._tap(processor, name)
            if isinstance(processor, SileroVAD):
                processor.wrap_model(lambda model, name=name: RecordedModel(model, self._note_model, name))
            elif isinstance(processor, Parallel):
                processor.wrap_branches(lambda branch, ask, name=name: self._watched_branch(name, branch, ask))
            elif isinstance(processor, ClientOutput):
                processor.wrap_dialect(lambda dialect: cast("Dialect", _WatchedDialect(dialect, self.note)))
                note_tick = partial(self._note_tick, name)
                processor.wrap_ticker(lambda get, note=note_tick: lambda: cast("Ticker", WatchedTicker(get(), note)))
        self._tap_end(processors[-1])

    def note(self, processor: str, direction: str, kind: str, fields: dict[str, Any]) -> None:
        """Hand one event to the sink."""
        if self._is_over:
            return
        if not self._has_text:
            fields = without_words(fields)
        if not self._has_audio:
            fields.pop("pcm", None)
        self._sink.put(RecordedEvent(self._loop.time() - self._began, processor, direction, kind, fields))

    def _tap(self, processor: FrameProcessor, name: str) -> None:
        push = processor.push_frame

        async def push_frame(frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
            self._note_frame(name, frame, direction)
            await push(frame, direction)

        # An observer or an event handler would see every hop, off the routes; this sees a push, and costs one call.
        setattr(processor, "push_frame", push_frame)  # noqa: B010 - a method of the instance, on purpose

    def _note_frame(self, name: str, frame: Frame, direction: FrameDirection) -> None:
        if frame.id in self._seen or frame.id in self._older or isinstance(frame, SKIPPED):
            return
        if len(self._seen) >= REMEMBERED:
            self._older, self._seen = self._seen, set()
        self._seen.add(frame.id)
        way = "downstream" if direction is FrameDirection.DOWNSTREAM else "upstream"
        self.note(name, way, type(frame).__name__, fields_of(frame))

    def _note_model(self, name: str, probability: float, level_dbfs: float) -> None:
        self.note(name, "downstream", "Probability", {"probability": probability, "dbfs": level_dbfs})

    def _note_tick(self, name: str, now_s: float) -> None:
        self.note(name, "downstream", "Tick", {"now": round(now_s - self._began, 6)})

    def _watched_branch(self, processor: str, name: str, ask: Branch) -> Branch:
        async def branch(turn: UserTurnFrame) -> Any:
            began = self._loop.time()
            is_guess = isinstance(turn, SpeculativeTurnFrame)
            fields: dict[str, Any] = {"branch": name, "text": turn.text, "is_guess": is_guess}
            try:
                answer = await ask(turn)
            except Exception as error:
                self.note(processor, "downstream", "BranchFailed", {**fields, "type": type(error).__name__})
                raise
            fields |= {"took_ms": round((self._loop.time() - began) * 1000, 3), "answer": as_json(answer)}
            self.note(processor, "downstream", "BranchAnswer", fields)
            return answer

        return branch

    def _tap_end(self, processor: FrameProcessor) -> None:
        clean_up = processor.cleanup

        async def cleanup() -> None:
            await clean_up()
            if not self._is_over:
                self.note("session", "downstream", "Ended", {})
                self._is_over = True
                self._sink.end()

        setattr(processor, "cleanup", cleanup)  # noqa: B010 - as above


class _WatchedDialect:
    """Notes what the client is told, however it is spelled."""

    def __init__(self, dialect: Dialect, note: Callable[[str, str, str, dict[str, Any]], None]) -> None:
        self._dialect = dialect
        self._note = note
        self.subprotocol = dialect.subprotocol  # the dialect's

    def audio(self, pcm: bytes, sample_rate: int) -> str | bytes:
        """See `Dialect.audio`."""
        fields = {"rate": sample_rate, "samples": min(len(pcm) // 2, MAX_SAMPLES), "pcm": bytes(pcm)}
        self._note(WIRE, "to_user", "audio", fields)
        return self._dialect.audio(pcm, sample_rate)

    def __getattr__(self, name: str) -> Any:
        spell = getattr(self._dialect, name)
        if name in ("decode", "audio_type", "mark"):  # nothing that the user is told
            return spell

        def spelled(*args: Any, **kwargs: Any) -> Any:
            fields = {**dict(zip(_POSITIONS.get(name, ()), args, strict=False)), **kwargs}
            self._note(WIRE, "to_user", name, as_json(fields))
            return spell(*args, **kwargs)

        return spelled


_POSITIONS = {  # names of the arguments that a dialect's methods take by position
    "pause": ("turn",),
    "resume": ("turn",),
    "interrupted": ("turn",),
    "turn": ("turn",),
    "error": ("code", "message"),
}
