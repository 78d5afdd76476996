"""Each private name of Pipecat's that the library uses: still there and meaning the same, and used in one file only."""

from __future__ import annotations

import ast
import importlib
import inspect
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipecat.audio.turn.smart_turn.base_smart_turn import BaseSmartTurn
from pipecat.audio.turn.smart_turn.local_smart_turn_v3 import LocalSmartTurnAnalyzerV3
from pipecat.frames.frames import Frame, TextFrame
from pipecat.observers.base_observer import BaseObserver
from pipecat.pipeline.worker_observer import WorkerObserver
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services import tts_service
from pipecat.utils.asyncio.task_manager import TaskManager

from leibniz_voice.pipeline.engine import pipecat_seam
from leibniz_voice.pipeline.engine.pipecat_seam import (
    OF_A_CONNECTION,
    call_push_hooks,
    noticing_links,
    reconnects_when_interrupted,
    turn_probability,
    watchers_in,
)
from leibniz_voice.pipeline.testing import run_virtual
from tests.support import ROOT
from tests.support.pipecat_privates import is_private, privates_in

SEAM = Path(pipecat_seam.__file__)
FOLDERS = ("pipeline", "lab", "processors", "transports", "bots")
LIBRARY = sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py") if p.name != "__main__.py")


def names_in_the_seam() -> set[str]:
    nodes = list(ast.walk(ast.parse(SEAM.read_text(encoding="utf-8"))))
    dotted = {node.attr for node in nodes if isinstance(node, ast.Attribute) and is_private(node.attr)}
    strings = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return dotted | {text for text in strings if is_private(text) and text.isidentifier()}


def test_every_name_in_the_seam_has_a_test_that_is_called_after_it() -> None:
    by_parameter = set(OF_A_CONNECTION)
    names = names_in_the_seam() - by_parameter
    untested = {name for name in names if not any(test.startswith(f"test{name}_") for test in globals())}
    assert untested == set()


def test_prev_is_assigned_to_whoever_is_linked_behind() -> None:
    told = []

    @noticing_links(told.append)
    class Told(FrameProcessor):
        pass

    first, second, third, told_one = FrameProcessor(), FrameProcessor(), FrameProcessor(), Told()
    assert "_prev" in vars(first)
    told.clear()
    for before in (first, second):
        before.link(told_one)
        assert told_one.previous is before
    told_one.link(third)
    assert third.previous is told_one
    assert told == [told_one, told_one]


def test_call_event_handler_calls_what_was_added_in_public() -> None:
    called: list[tuple[Any, Frame]] = []

    async def main() -> None:
        processor, frame = FrameProcessor(), TextFrame("text")

        async def note(of: Any, frame: Frame) -> None:
            called.append((of, frame))

        processor.add_event_handler("on_before_push_frame", note)
        await call_push_hooks(processor, "on_before_push_frame", frame)
        await call_push_hooks(processor, "on_after_push_frame", frame)
        assert called == [(processor, frame)]

    run_virtual(main())
    assert called


def test_proxies_are_the_observers_that_a_worker_tells() -> None:
    async def main() -> None:
        worker_observer, somebody = WorkerObserver(), BaseObserver()
        await worker_observer.setup(TaskManager())
        watchers = watchers_in(worker_observer)
        assert watchers is not True
        assert not watchers
        worker_observer.add_observer(somebody)
        assert watchers
        await worker_observer.remove_observer(somebody)
        assert not watchers

    run_virtual(main())
    assert watchers_in(BaseObserver()) is True
    assert watchers_in(None) is None


def test_predict_endpoint_takes_float_audio_and_tells_the_probability() -> None:
    assert "_predict_endpoint" in BaseSmartTurn.__abstractmethods__
    probability = turn_probability(LocalSmartTurnAnalyzerV3(), np.zeros(16_000, np.float32))
    assert 0 <= probability <= 1


@pytest.mark.parametrize("name", OF_A_CONNECTION)
def test_a_service_with_a_connection_has_methods_of_such_names(name: str) -> None:
    services = Path(tts_service.__file__).parent.rglob("*tts*.py")
    assert any(f"def {name}" in path.read_text(encoding="utf-8") for path in services)


def test_handle_interruption_reconnects_unless_a_service_replaces_it() -> None:
    class Plain(tts_service.InterruptibleTTSService):
        pass

    class Own(tts_service.InterruptibleTTSService):
        async def _handle_interruption(self, frame: Any, direction: Any) -> None: ...

    assert "_disconnect" in inspect.getsource(tts_service.InterruptibleTTSService._handle_interruption)
    assert reconnects_when_interrupted(Plain)
    assert not reconnects_when_interrupted(Own)


@pytest.mark.slow
def test_no_other_file_touches_a_private_name_of_pipecats() -> None:
    found = {}
    for path in LIBRARY:
        names = path.relative_to(ROOT).with_suffix("").parts
        module = importlib.import_module(".".join(("leibniz_voice", *names)).removesuffix(".__init__"))
        if path != SEAM and (privates := privates_in(path, module)):
            found[str(path.relative_to(ROOT))] = privates
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "from pipecat.utils._private import anything",
        "def f(processor): return processor._next",
        "def f(processor): return getattr(processor, '_prev', None)",
        "class Own(FrameProcessor):\n    def f(self): return self._setup",
        "class Own(FrameProcessor):\n    def f(self): setattr(self, '_cancelling', True)",
        "class Own(FrameProcessor):\n    def _call_event_handler(self): ...",
        "class Own(FrameProcessor):\n    _prev = None",
        "class Own(FrameProcessor):\n    def f(self): self._next = None",
        "class Own(Processor):\n    async def f(self): await super()._start_interruption()",
        "class Outer:\n    class Own(Processor):\n        def f(self): return self._metrics",
    ],
)
def test_the_search_finds(line: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    imports = (
        "from pipecat.processors.frame_processor import FrameProcessor\nfrom leibniz_voice.pipeline import Processor\n"
    )
    path.write_text(imports + line, encoding="utf-8")
    module = types.ModuleType("module")
    if "_private" not in line:
        exec(path.read_text(encoding="utf-8"), vars(module))
    assert len(privates_in(path, module)) == 1


def test_the_search_leaves_own_names_alone(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "class Own:\n    def __init__(self): self._next = None\n    def f(self, other): return other._next, self._next",
        encoding="utf-8",
    )
    module = types.ModuleType("module")
    exec(path.read_text(encoding="utf-8"), vars(module))
    assert privates_in(path, module) == []
