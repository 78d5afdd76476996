"""Recording processors that are unlike Pipecat's: with a push of their own, or that let nobody change them."""

from __future__ import annotations

from typing import Any

import pytest
from loguru import logger
from pipecat.frames.frames import Frame, TextFrame, TranscriptionFrame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from leibniz_voice.lab import Tape
from leibniz_voice.pipeline import Parallel, Pipeline, Processor, Session, consumes
from leibniz_voice.pipeline.testing import ScriptedIntent, ScriptedRetriever, run_virtual
from leibniz_voice.processors import InterruptionGate, Responder, SileroVAD, StateTracker, TurnAggregator
from leibniz_voice.transports.dialects.dialect import JsonDialect

from ...support.hosted import DOWN, NONE, TimedVoice, converse, session_of

UP = FrameDirection.UPSTREAM


def bot(*odd: FrameProcessor, session: Session) -> Pipeline:
    """A whole bot with odd processors before its turns."""
    parallel = Parallel({"intent": ScriptedIntent(), "retrieval": ScriptedRetriever()}, fallback=NONE)
    answering = [TurnAggregator(), parallel, Responder(), TimedVoice(chunks_per_sentence=100)]
    kept = [InterruptionGate(resume_at_word=True), StateTracker(record=session.record), session.output]
    return Pipeline([session.input, SileroVAD(), *odd, *answering, *kept])


class Upward(Processor):
    """Pushes upstream where no direction is given."""

    async def push_frame(self, frame: Frame, direction: FrameDirection = UP) -> None:
        await super().push_frame(frame, direction)


class Undirected(Processor):
    """Can tell whether a direction was given."""

    async def push_frame(self, frame: Frame, direction: FrameDirection | None = None) -> None:  # type: ignore[override]
        frame.metadata["given"] = direction is not None
        await super().push_frame(frame, DOWN if direction is None else direction)


class Named(Processor):
    """Takes both by name, or as they come."""

    async def push_frame(self, *both: Any, frame: Frame | None = None, direction: FrameDirection = UP) -> None:  # type: ignore[override]
        await super().push_frame(*(both if frame is None else (frame, direction)))


class Item(Processor):
    """Has another name for the frame, and gives both by name."""

    async def push_frame(self, item: Frame, way: FrameDirection = UP) -> None:  # type: ignore[override]
        await super().push_frame(item, way)


class AtOnce(Processor):
    """Does something when it is called, and gives what is to be awaited."""

    def push_frame(self, frame: Frame, direction: FrameDirection = DOWN) -> Any:
        frame.metadata["seen"] = True
        return super().push_frame(frame, direction)


PUSHES = [
    (Upward, lambda odd, frame: odd.push_frame(frame), "upstream"),
    (Upward, lambda odd, frame: odd.push_frame(frame, DOWN), "downstream"),
    (Upward, lambda odd, frame: odd.push_frame(frame=frame, direction=DOWN), "downstream"),
    (Undirected, lambda odd, frame: odd.push_frame(frame), "downstream"),
    (Undirected, lambda odd, frame: odd.push_frame(frame, direction=UP), "upstream"),
    (Named, lambda odd, frame: odd.push_frame(frame=frame), "upstream"),
    (Named, lambda odd, frame: odd.push_frame(*(frame, DOWN)), "downstream"),
    (Item, lambda odd, frame: odd.push_frame(item=frame), "upstream"),
    (Item, lambda odd, frame: odd.push_frame(way=DOWN, item=frame), "downstream"),
    (AtOnce, lambda odd, frame: odd.push_frame(frame), "downstream"),
    (Processor, lambda odd, frame: odd.push_frame(direction=UP, frame=frame), "upstream"),
]


class Sees(Processor):
    """Keeps the texts that pass, with their ways."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame) and frame.text == "note":
            self.seen.append((direction, dict(frame.metadata)))
        await self.push_frame(frame, direction)


@pytest.mark.parametrize(("kind", "push", "way"), PUSHES)
def test_a_recorded_processor_pushes_where_it_would(kind, push, way):
    class Pushes(kind):
        @consumes(TranscriptionFrame)
        async def _on_words(self, frame: TranscriptionFrame, direction: FrameDirection) -> None:
            await push(self, TextFrame("note"))
            await Processor.push_frame(self, frame, direction)

    def seen(tape: Tape | None) -> list[Any]:
        before, behind = Sees(), Sees()

        def build(session: Session) -> Pipeline:
            return bot(before, Pushes(), behind, session=session)

        converse(JsonDialect, build if tape is None else tape.records(build))
        return [before.seen, behind.seen]

    tape = Tape()
    plain = seen(None)
    assert seen(tape) == plain
    assert bool(plain[0]) is (way == "upstream")
    notes = [event for event in tape.recording.frames("TextFrame") if event.fields["text"] == "note"]
    assert [(event.processor, event.direction) for event in notes] == [("Pushes", way)] * 2
    assert tape.recording.is_whole


def test_a_push_that_is_called_wrongly_fails_as_it_would():
    item = Item()

    async def main() -> None:
        Tape().records(lambda session: Pipeline([session.input, item]))(session_of())

    run_virtual(main())
    with pytest.raises(TypeError, match="frame"):
        run_virtual(item.push_frame(frame=TextFrame("note")))  # type: ignore[call-arg]


# -- processors that let nobody change them ----------------------------------------------------------------------------


class Fixed(Processor):
    """Its push cannot be replaced."""

    @property
    def push_frame(self) -> Any:  # type: ignore[override]
        return super().push_frame


class Guarded(Processor):
    """Lets nobody set anything."""

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["is_closed"] = True

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__dict__.get("is_closed") and not name.startswith("_"):
            raise AttributeError(f"{name} is fixed")
        super().__setattr__(name, value)


class Anything(Processor):
    """Has whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self


class Nothing(Processor):
    """Wants nobody to look."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("do not look")


@pytest.mark.parametrize(
    ("kind", "lost"),
    [(Fixed, 1), (Guarded, 0), (Anything, 0), (Nothing, 0)],
    ids=["fixed", "guarded", "anything", "nothing"],
)
def test_an_odd_processor_costs_the_recording_its_own_frames_at_most(kind, lost):
    def build(session: Session) -> Pipeline:
        return bot(kind(), session=session)

    tape, lines = Tape(), []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", filter="leibniz_voice.lab")
    try:
        plain = converse(JsonDialect, build)
        assert converse(JsonDialect, tape.records(build)) == plain
    finally:
        logger.remove(sink)
    recording = tape.recording
    assert recording.frames("audio", processor="wire")
    assert "interrupt" in recording.states
    assert (recording.end, recording.lost) == ("over", lost)
    assert recording.processors[2] == kind.__name__
    assert len(lines) == lost


def test_a_recording_ends_though_its_last_processor_lets_nobody_change_it():
    class Last(Processor):
        @property
        def cleanup(self) -> Any:  # type: ignore[override]
            return super().cleanup

    tape = Tape()
    converse(JsonDialect, tape.records(lambda session: Pipeline([*bot(session=session).processors, Last()])))
    assert tape.recording.end == "over"
