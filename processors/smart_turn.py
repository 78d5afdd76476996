"""`SmartTurn`: listens whether a user who falls silent is done or only pauses. Optional, before `TurnAggregator`."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import soxr
from loguru import logger
from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection

from ..pipeline.engine.consumes import consumes
from ..pipeline.engine.pipecat_seam import turn_probability
from ..pipeline.engine.processor import Processor
from ..pipeline.engine.stages import Stage
from ..pipeline.errors import ConfigurationError
from ..pipeline.frames import SpeechChunkFrame, StateChangedFrame, TurnPredictionFrame
from ..pipeline.listening.pcm import mono
from ..pipeline.states import State

RATE = 16_000  # Hz of the model
WINDOW_S = 8.0  # of the turn's end that the model hears
PREROLL_S = 0.5  # heard from before the voice
ASK_MS = 192  # of quiet that the model is to hear; with less it takes most turns for unfinished


class SmartTurnModel:
    """Pipecat's bundled smart-turn model: one per process, on one thread. 60 to 90 ms of CPU for a prediction."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="smart-turn")
        self._analyzer: Any = None  # loaded by the first prediction

    async def predict(self, pcm: bytes, sample_rate: int) -> float:
        """The probability that `pcm` (int16 mono) ends a turn, 0 to 1. Others' predictions may be in front."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._predict, pcm, sample_rate)

    def _predict(self, pcm: bytes, sample_rate: int) -> float:
        if self._analyzer is None:
            from pipecat.audio.turn.smart_turn.local_smart_turn_v3 import LocalSmartTurnAnalyzerV3

            self._analyzer = LocalSmartTurnAnalyzerV3()
        audio = np.frombuffer(pcm, np.int16).astype(np.float32) / 32768
        if sample_rate != RATE:
            audio = soxr.resample(audio, sample_rate, RATE)
        return turn_probability(self._analyzer, audio)


@cache
def shared_model() -> SmartTurnModel:
    """The process's model."""
    return SmartTurnModel()


class SmartTurn(Processor):
    """Lets the model hear the turn so far during the hangover, so that its answer is there by the end of it.

    voice ~~~~~~~~ quiet for 192 ms: predict ...... VAD stop -> TurnPredictionFrame, then the stop
                                                    still predicting: not complete; the answer when it comes

    `threshold` is the probability from which a turn counts as complete. Where the model fails, it does.

    Consumes: `InputAudioRawFrame`, `SpeechChunkFrame`, speech started/stopped, `StateChangedFrame` (all go on).
    Emits: `TurnPredictionFrame`.
    On barge-in: nothing is dropped.
    """

    stage = Stage.STT

    def __init__(self, *, threshold: float = 0.5, model: SmartTurnModel | None = None) -> None:
        if not 0 < threshold < 1:
            raise ConfigurationError(f"threshold is {threshold}; it is a probability between 0 and 1, such as 0.5")
        super().__init__()
        self._threshold = threshold
        self._model = model or shared_model()
        self._rate = RATE  # Hz of `_audio`
        self._audio = bytearray()  # int16 mono: the pre-roll, then the turn so far, at most WINDOW_S
        self._is_turn = False  # there was voice since the last turn
        self._is_voiced = False  # between the VAD's start and stop
        self._quiet_samples: int | None = None  # of this silence so far; None while there is voice
        self._task: asyncio.Task[None] | None = None  # predicts; None while nothing is asked
        self._probability: float | None = None  # the model's answer to this silence; None: not there yet

    @consumes(InputAudioRawFrame)
    async def _on_audio(self, frame: InputAudioRawFrame, direction: FrameDirection) -> None:
        if frame.sample_rate != self._rate:
            self._rate = frame.sample_rate
            self._audio.clear()
        pcm = mono(frame.audio, frame.num_channels)
        self._audio += pcm
        if self._quiet_samples is not None:
            self._quiet_samples += len(pcm) // 2
            if self._is_voiced and self._quiet_samples * 1000 >= ASK_MS * self._rate:
                self._ask()
        keep = int((WINDOW_S if self._is_turn else PREROLL_S) * self._rate) * 2
        if len(self._audio) > keep:
            del self._audio[:-keep]
        await self.push_frame(frame, direction)

    @consumes(VADUserStartedSpeakingFrame)
    async def _on_started(self, frame: Frame, direction: FrameDirection) -> None:
        self._is_turn = self._is_voiced = True
        self._forget()
        await self.push_frame(frame, direction)

    @consumes(SpeechChunkFrame)
    async def _on_chunk(self, frame: SpeechChunkFrame, direction: FrameDirection) -> None:
        if self._is_voiced and not frame.is_silent:
            self._forget()
        elif self._is_voiced and self._quiet_samples is None:
            self._quiet_samples = 0
        await self.push_frame(frame, direction)

    @consumes(VADUserStoppedSpeakingFrame)
    async def _on_stopped(self, frame: Frame, direction: FrameDirection) -> None:
        self._ask()
        self._is_voiced = False
        await self._tell()
        await self.push_frame(frame, direction)

    @consumes(StateChangedFrame)
    async def _on_state(self, frame: StateChangedFrame, direction: FrameDirection) -> None:
        if frame.state in (State.THINKING, State.IDLE) and not self._is_voiced:
            self._is_turn = False
            self._forget()
        await self.push_frame(frame, direction)

    def _ask(self) -> None:
        if self._task is None and self._audio:
            self._task = self.create_task(self._predict(bytes(self._audio), self._rate), "predict")

    def _forget(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task, self._probability, self._quiet_samples = None, None, None

    async def _predict(self, pcm: bytes, sample_rate: int) -> None:
        try:
            self._probability = await self._model.predict(pcm, sample_rate)
        except Exception as error:  # whatever a model can do wrong: the hangover alone decides then
            logger.warning("the end of a turn could not be predicted: {!r}", error)
            self._probability = 1.0
        if not self._is_voiced:
            await self._tell()

    async def _tell(self) -> None:
        probability = self._probability
        is_complete = probability is not None and probability >= self._threshold
        await self.push_frame(TurnPredictionFrame(is_complete=is_complete, probability=probability or 0.0))
