"""What the README shows is what runs."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from leibniz_voice.pipeline.testing import AsyncCall, run_offline
from tests.support import ROOT

README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
RUN = "python3 -m pip install -qU --target .uv uv && .uv/bin/uv run leibniz serve bots/assistant.py"
TEST = "python3 -m pip install -qU --target .uv uv && .uv/bin/uv run pytest"


def test_the_two_commands_stand_alone_on_their_lines() -> None:
    lines = README.splitlines()
    assert lines.count(RUN) == 1
    assert lines.count(TEST) == 1


def test_the_smallest_pipeline_echoes() -> None:
    names: dict[str, object] = {}
    exec(PYTHON[0], names)

    async def script(call: AsyncCall) -> None:
        await call.says(b"\x01\x02" * 16000, then_silence_s=0.2)

    call = run_offline(names["build"], script)  # type: ignore[arg-type]
    assert b"".join(pcm for _, pcm in call.wire.audio).startswith(b"\x01\x02" * 8000)


@pytest.mark.slow
def test_the_test_of_a_barge_in_passes_and_is_short() -> None:
    names: dict[str, Callable[[], None]] = {}
    exec(PYTHON[1], names)
    names["test_a_barge_in_is_answered"]()
    assert len([line for line in PYTHON[1].splitlines() if line.strip()]) <= 12
