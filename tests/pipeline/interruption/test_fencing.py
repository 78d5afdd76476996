"""Ownership of a session over generated histories: the Lua scripts on a real server, and four ways to break them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from redis import Redis

from leibniz_voice.transports.state.redis_scripts import CLAIM, WRITE, LuaScript
from tests.support.tools import needs

from ...support.histories import HISTORIES, VARIANTS, History, Violation

pytestmark = [
    pytest.mark.slow,
    needs("redis"),
]


@pytest.fixture
def redis(real_redis: str) -> Iterator[Redis]:
    with Redis.from_url(real_redis) as client:
        yield client


def play_many(redis: Redis, count: int, claim: LuaScript = CLAIM, write: LuaScript = WRITE) -> int:
    """Play `count` generated histories; returns how many there were. Raises `Violation`."""
    played = 0

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=os.environ.get("SEED") is None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(HISTORIES)
    def play(steps: list) -> None:
        nonlocal played
        played += 1
        History(redis, claim, write).play(steps)

    play()
    return played


def test_no_generated_history_breaks_the_fence(redis: Redis) -> None:
    assert play_many(redis, 300) >= 250


@pytest.mark.full
def test_ten_thousand_generated_histories_break_nothing(redis: Redis) -> None:
    played = play_many(redis, 10_000)
    print(f"{played} histories, 0 violations")
    assert played >= 10_000


@pytest.mark.parametrize("broken", VARIANTS)
def test_each_deliberately_broken_variant_is_caught(redis: Redis, broken: str) -> None:
    with pytest.raises(Violation) as caught:
        play_many(redis, 5_000, *VARIANTS[broken])
    print(f"{broken}: {caught.value}")


@pytest.mark.parametrize(
    ("broken", "steps"),
    [
        (
            "a plain counter as epoch",
            [
                ("claim", "answered"),
                ("snapshot", None),
                ("claim", "answered"),
                ("failover", None),
                ("claim", "answered"),
            ],
        ),
        ("no comparison of owners", [("claim", "lost, clock behind"), ("write", 0)]),
        (
            "an older sequence number accepted",
            [("claim", "answered"), ("write", 0), ("write", 0), ("late", 0)],
        ),
        (
            "a lost claim not sent again",
            [("claim", "answered"), ("snapshot", None), ("claim", "answered"), ("failover", None), ("write", 1)],
        ),
    ],
)
def test_the_shortest_history_of_each_is_harmless_to_ours(redis: Redis, broken: str, steps: list) -> None:
    History(redis).play(steps)
    with pytest.raises(Violation):
        History(redis, *VARIANTS[broken]).play(steps)
