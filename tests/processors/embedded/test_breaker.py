"""The circuit breaker as a table of calls; no clock, no network."""

from __future__ import annotations

from leibniz_voice.processors.embedded.breaker import CircuitBreaker


def enter(breaker: CircuitBreaker, now: float) -> int:
    ticket = breaker.enter(now)
    assert ticket is not None
    return ticket


def test_only_failures_in_a_row_count() -> None:
    breaker = CircuitBreaker(max_failures=2, open_s=5.0)
    for _ in range(10):
        breaker.failed(enter(breaker, 0.0), 0.0)
        breaker.succeeded(enter(breaker, 0.0))
    assert not breaker.is_open


def test_one_probe_at_a_time_decides() -> None:
    breaker = CircuitBreaker(max_failures=1, open_s=5.0)
    assert breaker.failed(enter(breaker, 0.0), 1.0)
    assert breaker.enter(5.9) is None
    probe = enter(breaker, 6.0)
    assert breaker.enter(6.0) is None
    assert breaker.failed(probe, 7.0)
    assert breaker.enter(11.9) is None
    breaker.succeeded(enter(breaker, 12.0))
    assert breaker.enter(12.0) is not None


def test_a_cancelled_probe_gives_its_place_to_the_next() -> None:
    breaker = CircuitBreaker(max_failures=1, open_s=5.0)
    breaker.failed(enter(breaker, 0.0), 0.0)
    breaker.cancelled(enter(breaker, 5.0))
    assert breaker.is_open
    breaker.succeeded(enter(breaker, 5.0))
    assert not breaker.is_open


def test_stragglers_neither_open_nor_close_the_breaker() -> None:
    breaker = CircuitBreaker(max_failures=1, open_s=5.0)
    first, second, third = (enter(breaker, 0.0) for _ in range(3))
    breaker.failed(first, 0.0)
    breaker.succeeded(second)
    assert breaker.is_open
    probe = enter(breaker, 5.0)
    assert not breaker.failed(third, 5.0)
    breaker.succeeded(probe)
    assert not breaker.is_open
