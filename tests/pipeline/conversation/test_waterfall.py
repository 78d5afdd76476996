"""Where the time of a turn went: instants, the latencies between them, and what the client is told of both."""

from __future__ import annotations

import pytest

from leibniz_voice.bots.assistant import build
from leibniz_voice.pipeline.conversation.waterfall import INSTANTS, LABELS, Waterfall
from leibniz_voice.pipeline.testing import Call, run_offline
from leibniz_voice.transports.dialects.protocol import UserSpeaking


def test_instants_out_of_order_are_named_and_give_no_latency() -> None:
    waterfall = Waterfall()
    for number, instant in enumerate(reversed(INSTANTS)):
        waterfall.mark(instant, float(number))
    assert waterfall.breakdown() == {}
    assert set(waterfall.out_of_order()) == set(LABELS)
    with pytest.raises(KeyError):
        waterfall.mark("lunch", 1.0)


def test_a_greeting_counts_its_instants_from_its_first_audio() -> None:
    waterfall = Waterfall()
    assert waterfall.instants_ms() == {}
    waterfall.mark("first_text", 9.0)
    assert waterfall.instants_ms() == {"first_text": 0.0}
    waterfall.mark("first_audio", 9.25)
    assert waterfall.instants_ms() == {"first_text": -250.0, "first_audio": 0.0}


@pytest.mark.slow
def test_a_cut_turn_is_told_with_what_was_heard_and_without_an_end() -> None:
    async def script(call: Call) -> None:
        await call.types("what are your opening hours")
        await call.until_heard(1000)
        await call.sends(UserSpeaking())
        await call.until_state("listening")
        await call.types("what are your opening hours")
        await call.until_state("idle")

    cut, played = run_offline(build, script).wire.of_type("turn")
    assert (cut["turn"], cut["interrupted"], played["turn"], played["interrupted"]) == (1, True, 2, False)
    assert cut["instants_ms"]["committed"] == 0
    assert set(played["instants_ms"]) - set(cut["instants_ms"]) == {"played"}
    assert "TTS Complete" not in cut["latency_ms"]
    assert played["heard"].startswith(cut["heard"])
    assert 0 < len(cut["heard"].split()) < len(played["heard"].split())
    assert (cut["intent"]["intent"], cut["results"] > 0) == ("opening_hours", True)
