"""The turn machine: every state and event, and what the docs draw of it."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leibniz_voice.pipeline import Event, State, TurnMachine
from leibniz_voice.pipeline.errors import TransitionError
from leibniz_voice.pipeline.states import TABLE, diagram
from tests.support import ROOT

MOVES = {
    ("idle", "stt_start"): "listening",
    ("idle", "greeting"): "speaking",
    ("listening", "vad_end"): "thinking",
    ("listening", "utterance_discarded"): "idle",
    ("thinking", "response_ready"): "speaking",
    ("thinking", "reply_abandoned"): "idle",
    ("speaking", "reply_abandoned"): "idle",
    ("thinking", "barge_in"): "interrupt",
    ("speaking", "barge_in"): "interrupt",
    ("interrupt", "resume_listening"): "listening",
    ("speaking", "tts_complete"): "idle",
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_moves_as_the_contract_says_and_refuses_the_rest(state: State, event: Event) -> None:
    machine = TurnMachine(state)
    target = MOVES.get((str(state), str(event)))
    assert machine.can(event) == (target is not None)
    if target is None:
        with pytest.raises(TransitionError, match=f"{event}.*{state}"):
            machine.feed(event)
        assert machine.state is state
    else:
        assert machine.feed(event) == target == machine.state


@given(st.lists(st.sampled_from(list(Event)), max_size=60))
def test_a_walk_that_asks_first_never_errs_and_ends_in_a_state_of_the_table(events: list[Event]) -> None:
    machine = TurnMachine()
    for event in events:
        if machine.can(event):
            machine.feed(event)
    assert machine.state in TABLE


def test_every_state_can_be_left_and_reached() -> None:
    assert all(TABLE[state] for state in State)
    assert {target for row in TABLE.values() for target in row.values()} == set(State)


def test_every_state_has_an_emoji_of_its_own() -> None:
    assert len({state.emoji for state in State}) == len(State)


def test_the_diagram_shows_every_move() -> None:
    lines = diagram().splitlines()
    for (state, event), target in MOVES.items():
        assert f"    {state} --> {target}: {event}" in lines


@pytest.mark.slow
def test_the_docs_show_the_diagram_that_the_module_prints() -> None:
    printed = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "leibniz_voice.pipeline.states"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.strip() == diagram()
    page = (ROOT / "docs" / "states.md").read_text()
    assert page.partition("```mermaid\n")[2].partition("```")[0].strip() == diagram()
