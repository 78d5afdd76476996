"""Generated conversations: the same for the same seed, well formed, cheap, and readable."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import find, given, settings

from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.testing.fuzz.generate import Do, Schedule, generate, schedules
from leibniz_voice.pipeline.testing.scripted.scripted_services import scripts_for

SOME = [generate(random.Random(seed)) for seed in range(500)]


def assert_is_well_formed(schedule: Schedule) -> None:
    assert schedule.actions
    assert all(a.at_s <= b.at_s for a, b in pairwise(schedule.actions))
    assert 1 <= len(schedule.delays) <= 4
    kinds = [action.do for action in schedule.actions]
    assert Do.DISCONNECT not in kinds[:-1]
    is_on = False
    for action in schedule.actions:
        assert 0.0 <= action.value <= 1.0
        if action.do is Do.SPEECH_ON:
            assert not is_on
            is_on = True
        elif action.do is Do.SPEECH_OFF:
            assert is_on
            is_on = False
        elif action.do is Do.SPEECH_CHUNK:
            assert is_on
        elif action.do in (Do.INTERIM, Do.FINAL, Do.LATE_FINAL, Do.FRAGMENT):
            assert action.text


def test_the_same_seed_gives_the_same_conversation() -> None:
    assert SOME[:50] == [generate(random.Random(seed)) for seed in range(50)]
    assert len(set(SOME)) > 490


def test_every_generated_conversation_is_well_formed() -> None:
    for schedule in SOME:
        assert_is_well_formed(schedule)


def test_everything_that_can_happen_does() -> None:
    assert {action.do for schedule in SOME for action in schedule.actions} == set(Do)
    bad = {name for s in SOME for d in s.delays for name in (*d.fails, *d.hangs)}
    assert bad == {"intent", "retrieval", "llm", "tts"}
    assert {len(schedule.delays) for schedule in SOME} == {1, 2, 3, 4}


def test_turns_and_failures_can_be_chosen() -> None:
    schedule = generate(random.Random(1), turns=(6, 6), failures=0.0)
    assert len(schedule.delays) == 6
    assert not any(d.fails or d.hangs for d in schedule.delays)
    assert all(d.fails or d.hangs for d in generate(random.Random(1), failures=1.0).delays)
    with pytest.raises(ConfigurationError):
        generate(random.Random(1), turns=(0, 2))


def test_a_conversation_describes_itself_in_a_line_per_action() -> None:
    lines = SOME[0].describe().splitlines()
    assert len(lines) == len(SOME[0].actions) + len(SOME[0].delays)
    assert lines[0].startswith("turn 1: ")


@settings(max_examples=50, deadline=None, derandomize=True)
@given(schedules())
def test_hypothesis_draws_conversations_too(schedule: Schedule) -> None:
    assert_is_well_formed(schedule)


def test_hypothesis_shrinks_a_conversation() -> None:
    def has_late_words(schedule: Schedule) -> bool:
        return any(action.do is Do.LATE_FINAL for action in schedule.actions)

    found = find(schedules(), has_late_words, settings=settings(max_examples=2000, deadline=None, derandomize=True))
    assert len(found.delays) == 1
    assert len(found.actions) < 12


def test_a_schedule_gives_its_services_their_scripts() -> None:
    schedule = next(s for s in SOME if "llm" in s.delays[0].fails)
    step = scripts_for(schedule)["llm"].next()
    assert step.delay_s == schedule.delays[0].llm_first_s
    assert step.fails_at == 2
    assert step.hangs_at is None
    assert schedule.delays_of(99) == schedule.delays[-1]
