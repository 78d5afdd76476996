"""Recording and replaying bots whose chain is no flat list: pipelines in pipelines, ends of their own, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pipecat.frames.frames import Frame
from pipecat.pipeline.parallel_pipeline import ParallelPipeline
from pipecat.pipeline.pipeline import Pipeline as PipecatPipeline
from pipecat.processors.filters.function_filter import FunctionFilter
from pipecat.processors.frame_processor import FrameProcessor

from leibniz_voice.lab import RecordingError, Tape
from leibniz_voice.lab.replay.decisions import differences
from leibniz_voice.pipeline import Pipeline, Processor, Session
from leibniz_voice.pipeline.session import SessionFailed
from leibniz_voice.pipeline.testing import ScriptedVoice, replay, run_virtual
from leibniz_voice.transports.dialects.dialect import JsonDialect

from ...support.hosted import build as flat
from ...support.hosted import converse, session_of

Build = Callable[[Session], Pipeline]


def chain(session: Session) -> list[FrameProcessor]:
    """The same processors as the flat bot's."""
    return flat(session).processors


def nested(session: Session) -> Pipeline:
    head, *inner, last = chain(session)
    return Pipeline([head, Pipeline(inner), last])


def nested_whole(session: Session) -> Pipeline:
    return Pipeline([Pipeline(chain(session))])


def nested_deep(session: Session) -> Pipeline:
    head, *inner, last = chain(session)
    return Pipeline([head, PipecatPipeline([*inner[:2], PipecatPipeline(inner[2:4])]), Pipeline(inner[4:]), last])


def with_source(session: Session) -> Pipeline:
    head, *others = chain(session)
    return Pipeline(others, source=head)


BUILDS = [nested, nested_whole, nested_deep, with_source]


@pytest.mark.parametrize("build", BUILDS)
def test_a_nested_bot_is_recorded_as_a_flat_one_is(build):
    plain, tape = Tape(), Tape()
    converse(JsonDialect, plain.records(flat))
    assert converse(JsonDialect, tape.records(build)) == converse(JsonDialect, build)
    wanted, got = plain.recording, tape.recording
    assert got.processors == wanted.processors
    assert got.settings == wanted.settings
    assert "speaking" in got.states
    assert {event.processor for event in got.events} == {event.processor for event in wanted.events}
    if build is not nested_deep:  # whose frames take other ways, recorded or not
        assert [event[1:4] for event in got.events] == [event[1:4] for event in wanted.events]
    assert got.is_whole


@pytest.mark.parametrize("build", BUILDS)
def test_a_nested_bot_replays_to_the_same(build):
    tape = Tape()
    converse(JsonDialect, tape.records(build))
    after = replay(tape.recording, build)
    assert "speaking" in after.recording.states
    found = differences(tape.recording, after.recording)
    assert {each.kind for each in found} <= {"ReplyPlayedFrame"}  # that voice adds its words as it pushes
    assert after.counts["voice recorded"] == 2


def test_a_setting_of_an_inner_processor_is_changed_in_a_replay():
    tape = Tape()
    converse(JsonDialect, tape.records(nested))
    after = replay(tape.recording, nested, changes={"gate.confirm_ms": "5000"}).recording
    assert after.settings["InterruptionGate"]["confirm_ms"] == 5000


class Hands(Processor):
    """Hands on what it gets."""


async def nothing(frame: Frame) -> bool:
    return False


def beside(*inner: FrameProcessor) -> ParallelPipeline:
    """Two ways, the second of which lets nothing through."""
    return ParallelPipeline(list(inner), [FunctionFilter(nothing)])


def test_what_stands_in_a_parallel_pipeline_is_recorded_too():
    def build(session: Session) -> Pipeline:
        *before, last = chain(session)
        return Pipeline([*before, beside(Hands()), last])

    tape = Tape()
    converse(JsonDialect, tape.records(build))
    assert tape.recording.processors[-4:] == ("ParallelPipeline", "Hands", "FunctionFilter", "ClientOutput")
    assert "speaking" in tape.recording.states
    replay(tape.recording, build)


def test_a_replay_says_what_it_cannot_put_another_in_place_of():
    def build(session: Session) -> Pipeline:
        processors = chain(session)
        at = next(at for at, each in enumerate(processors) if isinstance(each, ScriptedVoice))
        return Pipeline([*processors[:at], beside(processors[at]), *processors[at + 1 :]])

    tape = Tape()
    converse(JsonDialect, tape.records(build))
    with pytest.raises(RecordingError, match="stands in a ParallelPipeline"):
        replay(tape.recording, build)


@pytest.mark.parametrize("ends", [{}, {"source": Hands}, {"sink": Hands}, {"source": Hands, "sink": Hands}])
def test_a_chain_of_nothing_but_its_ends_is_recorded(ends):
    tape = Tape()

    async def main() -> Any:
        given = {name: kind() for name, kind in ends.items()}
        pipeline = tape.records(lambda session: Pipeline([], **given))(session_of())
        await pipeline.cleanup()  # type: ignore[union-attr] # it is no coroutine

    run_virtual(main())
    assert tape.recording.processors == ("Hands", "Hands#2")[: len(ends)]
    assert tape.recording.is_whole


def test_the_recording_of_a_bot_that_its_session_refuses_ends():
    def build(session: Session) -> Pipeline:
        *others, last = chain(session)
        return Pipeline(others, sink=last)

    tape = Tape()
    with pytest.raises(SessionFailed, match="put session"):
        converse(JsonDialect, tape.records(build))
    assert tape.recording.end == "over"
