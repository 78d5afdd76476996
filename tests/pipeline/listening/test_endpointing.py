"""How long a silence lasts by the words before it: at once after a whole phrase, on and on in the middle of one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pipecat.frames.frames import VADUserStoppedSpeakingFrame
from pipecat.processors.frame_processor import FrameDirection

from leibniz_voice.pipeline import (
    IntentResult,
    Parallel,
    Pipeline,
    Processor,
    RetrievalResult,
    Session,
    UserTurnFrame,
    consumes,
)
from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.frames import HangoverFrame
from leibniz_voice.pipeline.listening.endpointing import Endpointing
from leibniz_voice.pipeline.testing import AsyncCall
from leibniz_voice.pipeline.testing.clock import run_virtual
from leibniz_voice.pipeline.testing.scripted.scripted_services import ScriptedVoice
from leibniz_voice.processors import EmbeddedSTT, InterruptionGate, Responder, SileroVAD, StateTracker, TurnAggregator
from leibniz_voice.processors.embedded.recogniser.phrases import beginnings_of, phrase_book
from leibniz_voice.processors.embedded.recogniser.sphinx import SphinxRecogniser
from leibniz_voice.processors.embedded.workers.shared import close_all
from tests.support.speech import spoken
from tests.support.tools import needs

RATE = 16000
PHRASES = [
    "what are your opening hours",
    "what are your prices",
    "thank you",
    "thank you very much",
    "where is my order",
]


def test_words_decide_how_long_is_waited() -> None:
    endpointing = Endpointing(complete_ms=50, unknown_ms=300, unfinished_ms=1300)
    waits = [endpointing.hangover_ms(completeness) for completeness in (1, 0.5, 0, -0.25, -1, -2)]
    assert waits == [50, None, None, 550, 1300, 1300]


@pytest.mark.parametrize("wrong", [{"complete_ms": -1}, {"complete_ms": 400}, {"unfinished_ms": 200}])
def test_waits_out_of_order_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=str(next(iter(wrong.values())))):
        Endpointing(**wrong)


def test_the_beginnings_of_phrases_are_known_and_a_phrase_may_be_one() -> None:
    beginnings = beginnings_of(phrase_book(PHRASES))
    assert {"what", "what are your", "what are your opening", "thank you"} < beginnings
    assert not {"where is my order", "thank you very much", "are your"} & beginnings


class Notes(Processor):
    """Remembers what it was told of turns and silences: the frames that end a turn, and the hangovers going up."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[str] = []
        self.silences_ms: list[float] = []
        self.hangovers_ms: list[float] = []

    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: UserTurnFrame, direction: FrameDirection) -> None:
        self.turns.append(frame.text)
        await self.push_frame(frame, direction)

    @consumes(VADUserStoppedSpeakingFrame)
    async def _on_stop(self, frame: VADUserStoppedSpeakingFrame, direction: FrameDirection) -> None:
        self.silences_ms.append(frame.metadata["silence_ms"])
        await self.push_frame(frame, direction)

    @consumes(HangoverFrame)
    async def _on_hangover(self, frame: HangoverFrame, direction: FrameDirection) -> None:
        self.hangovers_ms.append(frame.hangover_ms)
        await self.push_frame(frame, direction)


def hears(*parts: np.ndarray | float, **options: Any) -> tuple[Notes, Notes]:
    """Let a bot hear speech and pauses (s): what was noted before its recogniser, and behind its turns."""
    before, behind = Notes(), Notes()
    sound = [part if isinstance(part, np.ndarray) else np.zeros(int(part * RATE), np.int16) for part in parts]

    async def intent(_: UserTurnFrame) -> IntentResult:
        return IntentResult("say", 1.0)

    async def retrieval(_: UserTurnFrame) -> RetrievalResult:
        return RetrievalResult([], "Yes.")

    def build(session: Session) -> Pipeline:
        return Pipeline(
            [
                session.input,
                SileroVAD(),
                before,
                EmbeddedSTT(phrases=PHRASES, **options),
                TurnAggregator(),
                behind,
                Parallel(
                    {"intent": intent, "retrieval": retrieval},
                    fallback={"intent": IntentResult(), "retrieval": RetrievalResult()},
                ),
                Responder(templates={"say": "{context}"}),
                ScriptedVoice(chunks_per_sentence=5),
                InterruptionGate(),
                StateTracker(record=session.record),
                session.output,
            ]
        )

    async def main() -> None:
        await SphinxRecogniser(phrases=PHRASES).warm_up()  # the clock does not wait for a process that starts
        async with AsyncCall(build) as call:
            await call.says(np.concatenate([np.zeros(RATE // 2, np.int16), *sound]).tobytes(), then_silence_s=2.0)
        await close_all()

    run_virtual(main())
    return before, behind


def cut(text: str, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Speech in two, at the quietest place about there."""
    pcm = spoken(text)
    places = range(int(len(pcm) * (share - 0.08)), int(len(pcm) * (share + 0.08)), 160)
    at = min(places, key=lambda place: float(np.abs(pcm[place : place + 160].astype(float)).sum()))
    return pcm[:at], pcm[at:]


@pytest.mark.slow
@needs("flite")
def test_a_whole_phrase_ends_the_turn_before_the_hangover() -> None:
    before, behind = hears(spoken("where is my order"))
    assert behind.turns == ["where is my order"]
    assert before.hangovers_ms == [0]
    assert before.silences_ms[0] < 220  # the hangover alone is told at 320


@pytest.mark.slow
@needs("flite")
def test_a_pause_of_a_second_in_the_middle_of_a_phrase_does_not_end_the_turn() -> None:
    first, second = cut("what are your opening hours", 0.45)
    before, behind = hears(first, 1.0, second)
    assert behind.turns == ["what are your opening hours"]
    assert len(before.silences_ms) == 1
    assert before.hangovers_ms[0] > 1000


@pytest.mark.slow
@needs("flite")
def test_without_endpointing_by_words_the_pause_ends_it() -> None:
    first, second = cut("what are your opening hours", 0.45)
    before, behind = hears(first, 1.0, second, endpointing=None)
    assert behind.turns[-1] != "what are your opening hours"
    assert not before.hangovers_ms


@pytest.mark.slow
@needs("flite")
def test_a_phrase_that_another_begins_with_waits_for_the_hangover() -> None:
    before, behind = hears(spoken("thank you"))
    assert behind.turns == ["thank you"]
    assert not before.hangovers_ms
    assert before.silences_ms[0] >= 300


@pytest.mark.slow
@needs("flite")
def test_speech_that_is_no_phrase_waits_no_longer_than_the_hangover() -> None:
    before, behind = hears(spoken("set an alarm for seven"))
    assert behind.turns == [""]
    assert before.silences_ms[0] < 400


@pytest.mark.slow
@needs("flite")
def test_a_begun_phrase_without_an_end_is_answered_after_a_while() -> None:
    first, _ = cut("what are your opening hours", 0.45)
    before, behind = hears(first)
    assert len(behind.turns) == 1
    assert 1300 <= before.silences_ms[0] < 1400
