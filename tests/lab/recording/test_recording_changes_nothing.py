"""A recorded conversation does what the same one does that nobody records: whatever is watched stays what it is."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from loguru import logger
from pipecat.frames.frames import DataFrame, Frame, TranscriptionFrame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from leibniz_voice.lab import Recording, Tape
from leibniz_voice.lab.recording.recorder import recorded
from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, Processor, Session, consumes
from leibniz_voice.pipeline.errors import LeibnizError
from leibniz_voice.pipeline.frames import SpeechChunkFrame
from leibniz_voice.pipeline.testing import ScriptedIntent, ScriptedVoice, run_virtual
from leibniz_voice.processors import InterruptionGate, Responder, SileroVAD, StateTracker, TurnAggregator
from leibniz_voice.transports import ClientOutput
from leibniz_voice.transports.dialects.dialect import JsonDialect
from leibniz_voice.transports.playout.ticker import Ticker

from ...support.hosted import DOWN, NONE, Wire, build, converse, pipeline_of, session_of


class Loud(Processor):
    """Hands on what it gets. Its push takes one more argument than the engine's, and has an answer."""

    async def push_frame(self, frame: Frame, direction: FrameDirection = DOWN, *, how: str = "") -> str:  # type: ignore[override]
        await super().push_frame(frame, direction)
        return how


def built(chain: Callable[[Session], Any]) -> tuple[Pipeline, Tape]:
    """What a recorded `build` gives, without a conversation."""
    tape = Tape()

    async def main() -> Pipeline:
        return await pipeline_of(tape.records(chain), session_of())

    return run_virtual(main()), tape


def test_a_watched_processor_keeps_its_methods_as_they_are():
    loud = Loud()
    push, clean_up = loud.push_frame, loud.cleanup
    built(lambda session: Pipeline([session.input, loud]))
    for before, after in ((push, loud.push_frame), (clean_up, loud.cleanup)):
        assert type(after) is type(before)
        assert after.__self__ is loud
        assert (after.__name__, after.__doc__) == (before.__name__, before.__doc__)
        assert inspect.signature(after) == inspect.signature(before)
        assert inspect.iscoroutinefunction(after)
    assert run_virtual(loud.push_frame(SpeechChunkFrame(), how="loudly")) == "loudly"


def test_a_build_that_does_not_wait_still_does_not():
    def make(session: Session) -> Pipeline:
        """A bot."""
        return Pipeline([session.input, session.output])

    async def make_slowly(session: Session) -> Pipeline:
        return make(session)

    async def main(build: Any) -> bool:
        pipeline = Tape().records(build)(session_of())
        is_slow = inspect.isawaitable(pipeline)
        assert isinstance(await pipeline if is_slow else pipeline, Pipeline)
        return is_slow

    assert [run_virtual(main(each)) for each in (make, make_slowly)] == [False, True]
    assert (Tape().records(make).__name__, Tape().records(make).__doc__) == ("make", "A bot.")


def test_a_build_that_gives_no_pipeline_is_refused_with_the_same_words():
    async def main(build: Any) -> str:
        with pytest.raises(LeibnizError) as info:
            await session_of().start(build)
        return str(info.value)

    wanted = run_virtual(main(lambda session: None))
    assert "must return a Pipeline" in wanted
    assert run_virtual(main(Tape().records(lambda session: None))) == wanted  # type: ignore[arg-type, return-value]


class Asked:
    """A branch that is an object with attributes of its own."""

    has_side_effects = False

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, turn: Any) -> IntentResult:
        self.asked += 1
        return IntentResult("hours", 1.0)


def test_a_watched_branch_keeps_its_attributes():
    async def plain(turn: Any) -> IntentResult:
        """Answers."""
        return IntentResult()

    asked = Asked()
    parallel = Parallel({"intent": asked, "plain": plain}, fallback={"intent": IntentResult(), "plain": IntentResult()})
    built(lambda session: Pipeline([session.input, parallel, session.output]))
    seen: dict[str, Any] = {}
    parallel.wrap_branches(lambda name, branch: seen.setdefault(name, branch))
    assert seen["intent"].has_side_effects is False
    assert isinstance(seen["intent"], Asked)
    seen["intent"].asked = 7
    assert asked.asked == 7
    assert seen["plain"].__name__ == "plain"
    assert inspect.iscoroutinefunction(seen["plain"])


class OddModel:
    """Answers at once. Its stream has more than a `SpeechStream` must have."""

    def stream(self, sample_rate: int) -> Any:
        return OddStream()


class OddStream:
    dropped = 0
    chunk_samples = 512
    name = "odd"

    def submit(self, chunk: np.ndarray, callback: Callable[[float], None]) -> None:
        callback(0.5)

    def reset(self) -> None:
        self.dropped += 1

    def close(self) -> None: ...


def test_a_watched_stream_of_a_speech_model_is_the_streams_own():
    vad = SileroVAD(model=OddModel())
    built(lambda session: Pipeline([session.input, vad, session.output]))
    models: list[Any] = []

    def look(get: Callable[[], Any]) -> Any:
        models.append(get())
        return models[0]

    vad.wrap_model(look)
    stream = models[0].stream(16_000)
    assert isinstance(stream, OddStream)
    assert stream.name == "odd"
    stream.reset()
    assert stream.dropped == 1
    stream.chunk_samples = 256
    assert stream.chunk_samples == 256


def test_a_watched_ticker_ticks_once_however_often_it_is_asked():
    async def main() -> tuple[int, int, bool]:
        ticker, ticks = Ticker(), [0, 0]
        output = ClientOutput(wire=Wire(), ticker=lambda: ticker)
        await pipeline_of(Tape().records(lambda session: Pipeline([session.input, output])), session_of(output))
        got: list[Any] = []

        def look(get: Callable[[], Any]) -> Callable[[], Any]:
            got.append(get())
            return get

        output.wrap_ticker(look)
        seen = got[0]

        def tick(now: float) -> None:
            ticks[0] += 1

        def fails(now: float) -> None:
            ticks[1] += 1
            raise ValueError("the ticker takes me away")

        seen.add(tick)
        seen.add(tick)
        seen.add(fails)
        await asyncio.sleep(0.101)
        seen.add(fails)  # and it may come again
        await asyncio.sleep(0.02)
        seen.remove(tick)
        seen.remove(tick)
        is_alike = isinstance(seen, Ticker) and seen.period_s == ticker.period_s and not seen.is_running
        return ticks[0], ticks[1], is_alike

    logger.disable("leibniz_voice.transports.playout.ticker")
    try:
        assert run_virtual(main()) == (6, 2, True)
    finally:
        logger.enable("leibniz_voice.transports.playout.ticker")


# -- what the recorder itself cannot do -----------------------------------------------------------------------------


class Unlucky:
    """Something in a frame or an answer that cannot be told."""

    def as_json(self) -> dict[str, Any]:
        raise RuntimeError("I am not to be looked at")


class OddFrame(DataFrame):
    """A frame that has such a thing."""

    def __init__(self) -> None:
        super().__init__()
        self.metadata["what"] = Unlucky()


class Speaker(Processor):
    """Pushes an odd frame behind each transcript."""

    @consumes(TranscriptionFrame)
    async def _on_words(self, frame: TranscriptionFrame, direction: FrameDirection) -> None:
        await self.push_frame(OddFrame(), direction)
        await self.push_frame(frame, direction)


def odd(session: Session) -> Pipeline:
    """A bot of whose frames and answers some cannot be told."""

    async def retrieve(turn: Any) -> Any:
        return Unlucky()

    parallel = Parallel({"intent": ScriptedIntent(), "retrieval": retrieve}, fallback=NONE)
    chain: list[FrameProcessor] = [session.input, Speaker(), TurnAggregator(), parallel, Responder()]
    kept = [ScriptedVoice(), InterruptionGate(), StateTracker(record=session.record), session.output]
    return Pipeline([*chain, *kept])


def test_what_cannot_be_told_is_counted_and_the_conversation_goes_on():
    tape, lines = Tape(), []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", filter="leibniz_voice.lab")
    try:
        plain, states = converse(JsonDialect, odd)
        ours, its_states = converse(JsonDialect, tape.records(odd))
    finally:
        logger.remove(sink)
    assert (ours, its_states) == (plain, states)
    assert "speaking" in states
    recording = tape.recording
    assert recording.lost >= 3
    assert (recording.end, recording.is_whole) == ("over", False)
    assert len([line for line in lines if "cannot be recorded" in line]) == 1
    assert "I am not to be looked at" in "".join(lines)


class BrokenSink:
    """Takes nothing, and cannot even say so."""

    def put(self, event: Any) -> None:
        raise OSError("the disk is gone")

    def lose(self) -> None:
        raise OSError("the disk is gone")

    def end(self) -> None:
        raise OSError("the disk is gone")


def no_sink(header: Recording) -> Any:
    raise OSError("there is no disk")


@pytest.mark.parametrize("open_sink", [lambda header: BrokenSink(), no_sink], ids=["broken", "none"])
def test_a_recorder_that_fails_leaves_the_conversation_alone(open_sink):
    assert converse(JsonDialect, recorded(build, open_sink)) == converse(JsonDialect, build)


class OwnPolicy:
    """A user's own policy, which is no dataclass and remembers nothing of what it was made with."""

    def __init__(self, *, patience: int = 3) -> None:
        self._patience = patience


def test_a_part_that_nobody_knows_can_be_recorded():
    def own(session: Session) -> Pipeline:
        chain = [TurnAggregator(), Responder(), ScriptedVoice(), InterruptionGate(policy=OwnPolicy())]  # type: ignore[arg-type]
        return Pipeline([session.input, *chain, StateTracker(record=session.record), session.output])

    pipeline, tape = built(own)
    assert isinstance(pipeline, Pipeline)
    assert tape.recording.settings["InterruptionGate"]["patience"] == 3
