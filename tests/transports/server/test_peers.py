"""The metrics of several workers, told in small steps: whoever scrapes them must not be heard in a call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

import leibniz_voice.processors  # noqa: F401 - its metrics too
from leibniz_voice.transports.server.peers import Peers, add_up, exposition


async def stepwise(work: Callable[[], Awaitable[bytes]]) -> tuple[str, int]:
    """What `work` returns, and how often others had a step meanwhile."""
    steps = 0

    async def count() -> None:
        nonlocal steps
        while True:
            steps += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    try:
        return (await work()).decode(), steps
    finally:
        counting.cancel()


def kinds(text: str) -> dict[str, str]:
    return {family.name: family.type for family in text_string_to_metric_families(text)}


def test_the_metrics_of_a_process_are_written_in_small_steps() -> None:
    text, steps = asyncio.run(stepwise(exposition))
    assert kinds(text) == kinds(generate_latest().decode())
    assert "leibniz_transitions_total{" in text
    assert steps >= 5


def test_the_metrics_of_workers_are_added_in_small_steps(tmp_path: Path) -> None:
    async def nothing(session_id: str, since: float) -> None:
        pass

    async def main() -> tuple[str, int]:
        workers = [Peers(tmp_path, number=number) for number in range(2)]
        for worker in workers:
            await worker.start(health=lambda: {"active_sessions": 0}, on_taken=nothing)
        try:
            return await stepwise(workers[0].metrics)
        finally:
            for worker in workers:
                await worker.stop()

    text, steps = asyncio.run(main())
    assert kinds(text) == kinds(add_up([generate_latest().decode()]))
    assert steps >= 20
