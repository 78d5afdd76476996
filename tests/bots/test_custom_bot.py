"""bots/custom.py: our processors and two of Pipecat's in one pipeline, with real speech in virtual time."""

from __future__ import annotations

import wave
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from leibniz_voice.bots import custom
from leibniz_voice.pipeline.testing import Call, run_offline
from tests.support.speech import spoken
from tests.support.tools import needs

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _recordings_go_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom, "CALLS", tmp_path)


@needs("flite")
def test_nothing_is_answered_before_the_wake_phrase_and_the_call_is_recorded(tmp_path: Path) -> None:
    async def script(call: Call) -> None:
        await call.says(spoken("what are your opening hours").tobytes(), then_silence_s=2)
        assert call.replies == []
        await call.says(spoken("good afternoon").tobytes(), then_silence_s=1)
        await call.until_state("idle")
        await call.says(spoken("what are your opening hours").tobytes(), then_silence_s=1)
        await call.until_state("idle")

    call = run_offline(custom.build, script)
    greeting, hours = call.replies
    assert "Hello" in greeting
    assert hours.endswith(("We are open right now.", "We are closed right now."))
    with wave.open(str(tmp_path / "offline-1.wav")) as track:
        assert track.getnchannels() == 2
        user, bot = np.frombuffer(track.readframes(track.getnframes()), np.int16).reshape(-1, 2).T
    assert np.abs(user).max() > 1000
    assert np.abs(bot).max() > 1000


def test_what_is_typed_needs_no_wake_phrase_and_other_answers_no_note() -> None:
    async def script(call: Call) -> None:
        await call.types("where is my order")
        await call.until_state("speaking")
        await call.until_state("idle")

    call = run_offline(custom.build, script)
    assert len(call.replies) == 1
    assert "right now" not in call.replies[0]


@pytest.mark.parametrize(
    ("when", "is_open"),
    [("2026-11-23 10:00", True), ("2026-11-23 18:00", False), ("2026-11-28 15:59", True), ("2026-11-29 12:00", False)],
)
def test_the_branch_knows_the_hours(when: str, is_open: bool) -> None:
    assert custom.is_open_at(datetime.fromisoformat(when)) is is_open
