"""Processors set up by hand, as Pipecat's own unit tests do it: with a stand-in for the worker, or none."""

from __future__ import annotations

import asyncio
import gc
import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import MagicMock

import pytest
from pipecat.clocks.system_clock import SystemClock
from pipecat.frames.frames import InterruptionFrame, StartFrame, TextFrame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from pipecat.utils.asyncio.task_manager import TaskManager

from leibniz_voice.pipeline import Conductor, Processor, consumes
from leibniz_voice.pipeline.testing import run_virtual


@dataclass
class Equal:
    """A stand-in that equals any other of its kind, so it has no hash."""

    app_resources: Any = None


@dataclass(frozen=True)
class EqualAndHashed:
    """A stand-in that equals any other of its kind, and has the same hash."""

    app_resources: Any = None


STAND_INS: list[Callable[[], Any]] = [
    lambda: None,
    lambda: types.SimpleNamespace(app_resources=None),
    object,
    MagicMock,
    Equal,
    EqualAndHashed,
]
named = pytest.mark.parametrize("stand_in", STAND_INS, ids=["None", "namespace", "object", "mock", "equal", "hashed"])


class Works(Processor):
    """Has a turn task for each text."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    @consumes(TextFrame)
    async def _on_text(self, frame: TextFrame, direction: FrameDirection) -> None:
        self.turn_task(self._work(frame.text))

    async def _work(self, text: str) -> None:
        self.done.append(text)


async def set_up(processor: FrameProcessor, worker: Any, tasks: Any = None) -> None:
    tasks = TaskManager() if tasks is None else tasks
    setup = FrameProcessorSetup(clock=SystemClock(), task_manager=tasks, pipeline_worker=worker, observer=None)
    await processor.setup(setup)


@named
@pytest.mark.parametrize("base", [FrameProcessor, Processor])
def test_a_processor_is_set_up_with_anything_for_a_worker(base: type[FrameProcessor], stand_in: Any) -> None:
    async def main() -> None:
        processor = base()
        await set_up(processor, stand_in())
        await processor.queue_frame(StartFrame())
        await processor.cleanup()

    run_virtual(main())


@named
def test_it_works_then(stand_in: Any) -> None:
    async def main() -> None:
        processor = Works()
        await set_up(processor, stand_in())
        for frame in (StartFrame(), TextFrame("one"), InterruptionFrame(), TextFrame("two")):
            await processor.queue_frame(frame)
        await asyncio.sleep(0)
        assert processor.done[-1] == "two"
        await processor.cleanup()

    run_virtual(main())


@named
def test_processors_with_the_same_stand_in_and_task_manager_share_a_conversation(stand_in: Any) -> None:
    async def main() -> None:
        one, other, worker, tasks = Works(), Works(), stand_in(), TaskManager()
        await set_up(one, worker, tasks)
        await set_up(other, worker, tasks)
        assert one.conductor is other.conductor

    run_virtual(main())


@named
def test_processors_of_two_tests_never_share_a_conversation(stand_in: Any) -> None:
    async def main() -> None:
        one, other = Works(), Works()
        await set_up(one, stand_in())
        await set_up(other, stand_in())
        assert one.conductor is not other.conductor
        one.conductor.mint_turn_id()
        assert other.conductor.turn_id == 0

    run_virtual(main())


def test_a_worker_that_can_be_told_apart_counts_before_the_task_manager() -> None:
    async def main() -> None:
        one, other, tasks = Works(), Works(), TaskManager()
        await set_up(one, Equal(), tasks)
        await set_up(other, Equal(), tasks)
        assert one.conductor is not other.conductor

    run_virtual(main())


def test_with_nothing_to_tell_conversations_apart_each_processor_has_its_own() -> None:
    bare = types.SimpleNamespace()
    assert Conductor.of(None) is not Conductor.of(None)
    assert Conductor.of(bare, bare) is not Conductor.of(bare, bare)


def test_a_conductor_goes_with_its_worker() -> None:
    worker = Equal()
    conductor = weakref.ref(Conductor.of(worker))
    assert Conductor.of(worker) is conductor()
    del worker
    gc.collect()
    assert conductor() is None
