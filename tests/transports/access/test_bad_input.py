"""Generated bad input at a running server; benchmarks/bad_inputs.py does the same a million times."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from types import ModuleType

import pytest

from leibniz_voice.transports.access.limits import Limits
from tests.support import ROOT
from tests.support.serving import bot, served

LIFTED = Limits(control_per_s=1e9, control_burst=1e9, frames_per_s=1e9, audio_burst_s=1e9)


def benchmark(name: str) -> ModuleType:
    """A script of benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_every_bad_input_is_accepted_or_answered_by_a_clear_error() -> None:
    bad_inputs = benchmark("bad_inputs")

    async def main() -> None:
        found = bad_inputs.Findings()
        async with served(bot("echo.py").build, limits=LIFTED) as server:
            await bad_inputs.storm(server.address, inputs=4000, seed=11, found=found)
            assert server.health()["status"] == "healthy"
        assert found.wrong == []
        assert found.inputs >= 4000
        assert set(found.errors) >= {"bad_json", "bad_field", "missing_field", "unknown_type", "bad_audio"}

    asyncio.run(main())
