"""A recorded conversation is spelled as the same one is that nobody records, in every dialect."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest

from leibniz_voice.lab import Tape
from leibniz_voice.pipeline import Pipeline
from leibniz_voice.pipeline.testing import run_virtual
from leibniz_voice.transports import ClientOutput, dialects
from leibniz_voice.transports.dialects.dialect import Dialect, JsonDialect
from leibniz_voice.transports.dialects.rtvi import RtviDialect
from leibniz_voice.transports.dialects.twilio import TwilioDialect

from ...support.hosted import Wire, build, converse, pipeline_of, session_of, timeless


def every_dialect() -> list[type[Any]]:
    modules = [
        importlib.import_module(f"{dialects.__name__}.{m.name}") for m in pkgutil.iter_modules(dialects.__path__)
    ]
    found = {kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)}
    return sorted((k for k in found if hasattr(k, "decode") and k is not Dialect), key=lambda kind: kind.__name__)


DIALECTS = every_dialect()


async def watched(dialect: Dialect) -> tuple[Any, Tape]:
    """The dialect as a recorder watches it, taken at the output that uses it."""
    output, tape, seen = ClientOutput(wire=Wire(), dialect=dialect), Tape(), []
    await pipeline_of(tape.records(lambda session: Pipeline([session.input, output])), session_of(output))

    def look(inner: Dialect) -> Dialect:
        seen.append(inner)
        return inner

    output.wrap_dialect(look)
    return seen[0], tape


def test_every_dialect_is_looked_at():
    assert {JsonDialect, RtviDialect, TwilioDialect} <= set(DIALECTS)


@pytest.mark.parametrize("kind", DIALECTS)
def test_a_watched_dialect_has_every_attribute_of_the_bare_one(kind):
    bare = kind()
    seen, _ = run_virtual(watched(bare))
    names = [name for name in dir(bare) if not name.startswith("_")]
    assert "can_rewind" in names
    assert [name for name in dir(seen) if not name.startswith("_")] == names
    for name in names:
        ours, its = getattr(seen, name), getattr(bare, name)
        assert type(ours) is type(its), name
        if inspect.isroutine(its):
            assert inspect.signature(ours) == inspect.signature(its), name
            assert ours.__name__ == its.__name__
        else:
            assert ours == its, name


@pytest.mark.parametrize("kind", DIALECTS)
def test_a_watched_dialect_is_one_of_its_kind_and_can_be_written_to(kind):
    bare = kind()
    seen, _ = run_virtual(watched(bare))
    assert isinstance(seen, kind)
    seen.stream_sid = "MZ1"
    assert bare.stream_sid == "MZ1"


MESSAGES: dict[str, Callable[[Any], Any]] = {
    "audio": lambda spell: spell.audio(bytes(320), 8000),
    "ready": lambda spell: spell.ready(session_id="s", resumed=False, sample_rate=16000, turn_number=0, token=None),
    "mark": lambda spell: spell.mark(3, 400.0),
    "state_update": lambda spell: spell.state_update(state="idle", text_buffer=(), turn=1, trigger="tts_complete"),
    "response_ready": lambda spell: spell.response_ready(turn=1, text="Hi.", thinking_ms=3.0, final=True),
    "response_text": lambda spell: spell.response_text(turn=1, text="Hi.", final=True),
    "pause": lambda spell: spell.pause(1),
    "resume": lambda spell: spell.resume(1, 120.0),
    "interrupted": lambda spell: spell.interrupted(1),
    "turn": lambda spell: spell.turn(1, waterfall={"latency_ms": {}}),
    "pong": lambda spell: spell.pong(),
    "error": lambda spell: spell.error("voice_failed", "It failed."),
}


def test_everything_that_a_dialect_spells_is_looked_at():
    returned = {name: getattr(member, "__annotations__", {}).get("return") for name, member in vars(Dialect).items()}
    assert {name for name, what in returned.items() if what == "Spelled"} == MESSAGES.keys() - {"audio"}


@pytest.mark.parametrize("kind", DIALECTS)
def test_a_watched_dialect_spells_the_same_and_what_the_user_is_told_is_noted(kind):
    seen, tape = run_virtual(watched(kind()))
    bare = kind()
    spelled = [(timeless(say(seen)), timeless(say(bare))) for say in MESSAGES.values()]
    assert [ours for ours, _ in spelled] == [its for _, its in spelled]
    noted = [event.kind for event in tape.recording.events if event.processor == "wire"]
    assert noted == [name for name in MESSAGES if name != "mark"]


@pytest.mark.parametrize("kind", DIALECTS)
def test_a_recorded_conversation_sends_the_same_over_every_wire(kind):
    tape = Tape()
    plain, states = converse(kind, build)
    ours, its_states = converse(kind, tape.records(build))
    assert "interrupt" in states
    assert its_states == states
    assert len(plain) > 100
    assert ours == plain
    assert tape.recording.frames("PlaybackResumeFrame")
    assert tape.recording.is_whole
