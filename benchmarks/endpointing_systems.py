"""The systems of endpointing.py: each says when it is audible, for utterances in audio time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pipecat.audio.turn.base_turn_analyzer import EndOfTurnState
from pipecat.audio.turn.smart_turn.local_smart_turn_v3 import LocalSmartTurnAnalyzerV3
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams, VADState

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session, UserTurnFrame
from leibniz_voice.pipeline.listening.endpointing import Endpointing
from leibniz_voice.pipeline.testing import AsyncCall
from leibniz_voice.pipeline.testing.scripted.scripted_services import ScriptedVoice
from leibniz_voice.pipeline.testing.scripted.scripted_stt import Heard, ScriptedSTT
from leibniz_voice.processors import (
    EmbeddedSTT,
    InterruptionGate,
    Responder,
    SileroVAD,
    StateTracker,
    TurnAggregator,
)
from leibniz_voice.processors.embedded.recogniser.sphinx import SphinxRecogniser
from leibniz_voice.processors.smart_turn import SmartTurn

RATE = 16_000
FINAL_S = 0.04  # from the detector's stop to the stub recogniser's words
STEP_S = 0.02  # of audio at a time


@dataclass(frozen=True)
class Ours:
    """One setting of this project. `phrases`: the embedded recogniser with them; without, a stub recogniser."""

    phrases: Sequence[str] = ()
    endpointing: Endpointing | None = None  # None: words change no hangover
    hangover_ms: int = 300
    is_smart: bool = False  # with the smart-turn model

    async def answer(self, pcm: bytes) -> tuple[float | None, str]:
        """(When the bot is audible, in s of the audio, or None; the words of the turn that it answers)."""
        turns: list[str] = []

        async def say(turn: UserTurnFrame) -> IntentResult:
            turns.append(turn.text)
            return IntentResult("say", 1.0)

        async def find(_: Any) -> RetrievalResult:
            return RetrievalResult([], "Yes.")

        def build(session: Session) -> Pipeline:
            fallback = {"intent": IntentResult(), "retrieval": RetrievalResult()}
            if self.phrases:
                stt: Any = EmbeddedSTT(phrases=self.phrases, endpointing=self.endpointing)
            else:
                stt = ScriptedSTT([Heard("words", delay_s=FINAL_S)] * 8)
            return Pipeline(
                [
                    session.input,
                    SileroVAD(hangover_ms=self.hangover_ms),
                    *([SmartTurn()] if self.is_smart else []),
                    stt,
                    TurnAggregator(),
                    Parallel({"intent": say, "retrieval": find}, fallback=fallback, speculate=()),
                    Responder(templates={"say": "{context}"}),
                    ScriptedVoice(chunks_per_sentence=5),
                    InterruptionGate(),
                    StateTracker(record=session.record),
                    session.output,
                ]
            )

        begun = asyncio.get_running_loop().time()
        async with AsyncCall(build) as call:
            size = int(STEP_S * RATE) * 2
            for start in range(0, len(pcm) - size + 1, size):
                await call.input.receive_audio(pcm[start : start + size])
                await asyncio.sleep(STEP_S)
                if call.wire.audio:
                    break
        return (call.wire.audio[0][0] - begun if call.wire.audio else None), " ".join(turns[-1:])


class Clocked:
    """Notes how long the recogniser takes, in real ms, for as long as the block lasts."""

    def __init__(self) -> None:
        self.took_ms: list[float] = []
        self._recognise = SphinxRecogniser.recognise

    def __enter__(self) -> Clocked:
        recognise, took_ms = self._recognise, self.took_ms

        async def clocked(recogniser: SphinxRecogniser, pcm: bytes, sample_rate: int) -> Any:
            begun = time.perf_counter()
            heard = await recognise(recogniser, pcm, sample_rate)
            took_ms.append((time.perf_counter() - begun) * 1000)
            return heard

        SphinxRecogniser.recognise = clocked  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        SphinxRecogniser.recognise = self._recognise  # type: ignore[method-assign]


@cache
def stock_model() -> LocalSmartTurnAnalyzerV3:
    """Loaded once; `clear` forgets the utterance before."""
    turn = LocalSmartTurnAnalyzerV3(sample_rate=RATE)
    turn.set_sample_rate(RATE)
    return turn


@dataclass
class StockTrace:
    """What stock Pipecat's detector and model said of one utterance, for whatever timeout follows."""

    stops: list[float]  # the detector's stops, in s of the audio
    resumes: list[float]  # for each, when voice came back; inf if it did not
    is_complete: list[bool]  # for each, the model's verdict; short after the first True, where a bot answers
    took_ms: list[float]  # real time of the model

    def by_model(self, fallback_s: float) -> float | None:
        """When the turn ends with smart-turn: at its verdict, or after so much silence."""
        for at, resume, is_complete in zip(self.stops, self.resumes, self.is_complete, strict=False):
            if is_complete:
                return at + FINAL_S
            if resume - at >= fallback_s:
                return at + fallback_s
        return None

    def by_timeout(self, timeout_s: float) -> float | None:
        """When it ends with a speech timeout."""
        wait_s = max(timeout_s, FINAL_S)
        ends = (at + wait_s for at, resume in zip(self.stops, self.resumes, strict=True) if resume - at >= wait_s)
        return next(ends, None)


async def trace_stock(pcm: bytes, *, stop_secs: float, asks_model: bool) -> StockTrace:
    """Drive stock Pipecat's `SileroVADAnalyzer` and `LocalSmartTurnAnalyzerV3` by the rule of its turn strategies."""
    vad, turn = SileroVADAnalyzer(sample_rate=RATE, params=VADParams(stop_secs=stop_secs)), stock_model()
    vad.set_sample_rate(RATE)
    turn.clear()
    turn.update_vad_start_secs(vad.params.start_secs)
    trace, is_speaking, size = StockTrace([], [], [], []), False, int(RATE * STEP_S) * 2
    for number, start in enumerate(range(0, len(pcm), size)):
        now = (number + 1) * STEP_S
        chunk = pcm[start : start + size]
        state = await vad.analyze_audio(chunk)
        was_speaking = is_speaking
        if state in (VADState.SPEAKING, VADState.QUIET):
            is_speaking = state == VADState.SPEAKING
        must_ask = asks_model and True not in trace.is_complete
        if must_ask:
            turn.append_audio(chunk, is_speaking)
        if is_speaking and not was_speaking and trace.stops:
            trace.resumes[-1] = now
        if was_speaking and not is_speaking:
            trace.stops.append(now)
            trace.resumes.append(float("inf"))
            if must_ask:
                begun = time.perf_counter()
                verdict, _ = await turn.analyze_end_of_turn()
                trace.took_ms.append((time.perf_counter() - begun) * 1000)
                trace.is_complete.append(verdict == EndOfTurnState.COMPLETE)
    return trace
