"""`SileroVAD`: speech on, speech off, and the probability of every chunk while speech may be going on."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import soxr
from loguru import logger
from numpy.typing import NDArray
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup

from ..pipeline import Processor, Stage, consumes
from ..pipeline.frames import HangoverFrame, SpeechChunkFrame
from ..pipeline.listening.loudness import QUIET_DB, Loudness
from ..pipeline.listening.pcm import mono
from ..pipeline.listening.speech import Chunker, Offset, Onset, QuietReset, SpeechDetector
from .embedded.silero.batching import SpeechModel, SpeechStream, shared_model

MODEL_RATES = (8000, 16000)  # Hz that the model hears itself; every other rate is resampled to the second
MAX_WAITING = 128  # results not pushed yet (4 s of speech); full: those that a newer one supersedes are dropped

HINT_CHUNKS = 3  # after one above `hint_threshold`, a word that begins with a hiss has its vowel; else it was nothing
END_PATIENCE_S = 1.0  # how long an EndFrame waits for the results of the audio before it; they take milliseconds


class SileroVAD(Processor):
    """Hears when the user speaks. Audio passes at once and unchanged; results follow when the shared model has them.

    `threshold` is the probability at which voice begins, `stop_threshold` (default 0.15 below it) the one at which it
    ends; `onset_ms` of unbroken voice make a start, `hangover_ms` without voice a stop. Times are counted in samples,
    and a result comes at the end of a 32 ms chunk. The barge-in confidence is the gate's business, not this one's; for
    it, a chunk above `hint_threshold` is told even where no voice has begun, and the silence after a blip 64 ms late,
    so that what pauses at the first chunk of a word does not go on before the second.

    While the bot speaks, a voice `quiet_db` below the user's usual level is no start: it is somebody else's, or the
    bot's own. It is still told in chunks. The usual level is learned while the bot is silent.

    metadata of the started frame: `confidence` 0 to 1, `speech_ms` (audio since speech began), `preroll_ms` (audio to
    keep, back from now, pre-roll included); of the stopped frame: `silence_ms` (audio since the last voiced sample).

    `hangover_ms` is for speech of which nobody knows more: a recogniser behind this one ends a complete phrase sooner
    and an unfinished one later, by `HangoverFrame`.

    Consumes: InputAudioRawFrame, BotStartedSpeakingFrame, BotStoppedSpeakingFrame, HangoverFrame (go on), EndFrame,
        CancelFrame
    Emits: the audio, SpeechChunkFrame (each chunk while speech may be going on, and one with speech_ms 0 when it falls
        silent again), VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame; all downstream
    On barge-in: nothing changes; it goes on hearing.
    """

    stage = Stage.VAD

    def __init__(
        self,
        *,
        threshold: float = 0.6,
        stop_threshold: float | None = None,
        onset_ms: int = 64,
        hangover_ms: int = 300,
        preroll_ms: int = 200,
        hint_threshold: float = 0.2,
        quiet_db: float = QUIET_DB,
        model: SpeechModel | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self._settings: dict[str, Any] = {  # of the detector, whose rate is known with the first audio
            "start_threshold": threshold,
            "stop_threshold": max(threshold - 0.15, threshold / 2) if stop_threshold is None else stop_threshold,
            "onset_ms": onset_ms,
            "hangover_ms": hangover_ms,
            "preroll_ms": preroll_ms,
        }
        SpeechDetector(**self._settings)  # raises ConfigurationError now rather than with the first audio
        self._hint = hint_threshold  # a chunk above this may be the beginning of voice
        self._quiet_db = quiet_db  # below the user's usual level, while the bot speaks
        self._loudness = Loudness()  # what that level is
        self._model = model  # None: the loop's shared one
        self._ear: _Ear | None = None  # None until the first audio, and after the end
        self._is_bot_speaking = False  # as the output said last
        self._dropped = 0  # chunks that overload cost, of ears that are gone
        self._is_over = False  # EndFrame or CancelFrame was here: no results any more
        self._waiting: deque[Frame] = deque()  # results on their way to push_frame; see MAX_WAITING
        self._has_waiting = asyncio.Event()  # wakes the task that pushes them
        self._end: tuple[EndFrame, FrameDirection] | None = None  # an EndFrame that waits for the last results
        self._patience: asyncio.TimerHandle | None = None  # ends that wait; None without one
        self._task: asyncio.Task[None] | None = None  # that task; None outside setup and cleanup

    @property
    def dropped_chunks(self) -> int:
        """Chunks of this conversation that overload cost so far."""
        return self._dropped + (self._ear.stream.dropped if self._ear else 0)

    def wrap_model(self, wrap: Callable[[Callable[[], SpeechModel]], SpeechModel]) -> None:
        """Ask what `wrap` makes of the model instead of the model; before the first audio. It gets a way to ours."""
        model = self._model
        self._model = wrap(lambda: model or shared_model())

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Start the task that pushes results."""
        await super().setup(setup)
        self._task = self.create_task(self._push_results(), "results")

    async def cleanup(self) -> None:
        """End the task and leave the model."""
        self._hang_up()
        if self._patience is not None:
            self._patience.cancel()
        task, self._task = self._task, None
        if task is not None:
            await self.cancel_task(task)
        await super().cleanup()

    @consumes(InputAudioRawFrame)
    async def _on_audio(self, frame: InputAudioRawFrame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)
        if self._is_over or direction is not FrameDirection.DOWNSTREAM:
            return
        ear = self._ear
        if ear is None or ear.sample_rate != frame.sample_rate:
            ear = self._listen(frame.sample_rate)
        ear.hear(np.frombuffer(mono(frame.audio, frame.num_channels), np.int16))

    @consumes(BotStartedSpeakingFrame, BotStoppedSpeakingFrame)
    async def _on_bot(self, frame: Frame, direction: FrameDirection) -> None:
        self._is_bot_speaking = isinstance(frame, BotStartedSpeakingFrame)
        if self._ear is not None:
            self._ear.quiet_db = self._quiet_db if self._is_bot_speaking else None
        await self.push_frame(frame, direction)

    @consumes(HangoverFrame)
    async def _on_hangover(self, frame: HangoverFrame, direction: FrameDirection) -> None:
        is_shorter = frame.hangover_ms < self._settings["hangover_ms"]
        if self._ear is not None and (is_shorter or not self._is_bot_speaking):  # else: is it an interruption or not?
            self._ear.wait(frame.hangover_ms)
        await self.push_frame(frame, direction)

    @consumes(EndFrame)
    async def _on_end(self, frame: EndFrame, direction: FrameDirection) -> None:
        if self._task is None or (self._is_answered and not self._waiting):
            self._hang_up()
            await self.push_frame(frame, direction)
            return
        self._is_over = True  # the task pushes it behind the last result
        self._end = (frame, direction)
        self._patience = asyncio.get_running_loop().call_later(END_PATIENCE_S, self._hang_up)

    @consumes(CancelFrame)
    async def _on_cancel(self, frame: CancelFrame, direction: FrameDirection) -> None:
        self._end = None
        self._waiting.clear()
        self._hang_up()
        await self.push_frame(frame, direction)

    @property
    def _is_answered(self) -> bool:
        return self._ear is None or not self._ear.unanswered

    def _listen(self, sample_rate: int) -> _Ear:
        if self._ear is not None:
            self._dropped += self._ear.stream.dropped
            logger.warning(f"{self}: the input changed from {self._ear.sample_rate} to {sample_rate} Hz")
            self._ear.close()
        self._ear = _Ear(
            sample_rate, self._model or shared_model(), self._settings, self._tell, self._hint, self._loudness
        )
        self._ear.quiet_db = self._quiet_db if self._is_bot_speaking else None
        return self._ear

    def _hang_up(self) -> None:
        self._is_over = True
        ear, self._ear = self._ear, None
        if ear is not None:
            self._dropped += ear.stream.dropped
            ear.stream.close()
        self._has_waiting.set()

    def _tell(self, *frames: Frame) -> None:
        if len(self._waiting) >= MAX_WAITING:  # downstream is stuck; what matters then is on, off and the newest chunk
            self._waiting = deque((f for f in self._waiting if not isinstance(f, SpeechChunkFrame)), MAX_WAITING)
        self._waiting.extend(frames)
        if frames or self._end is not None:
            self._has_waiting.set()

    async def _push_results(self) -> None:
        while True:
            await self._has_waiting.wait()
            self._has_waiting.clear()
            while self._waiting:
                await self.push_frame(self._waiting.popleft())
            if self._end is not None and self._is_answered:
                (frame, direction), self._end = self._end, None
                self._hang_up()
                await self.push_frame(frame, direction)


class _Ear:
    """The way from samples at one rate to frames: resample, cut, ask the model, detect."""

    def __init__(
        self,
        sample_rate: int,
        model: SpeechModel,
        settings: dict[str, Any],
        tell: Callable[..., None],
        hint: float,
        loudness: Loudness,
    ) -> None:
        rate = sample_rate if sample_rate in MODEL_RATES else MODEL_RATES[-1]
        self.sample_rate = sample_rate  # Hz of what is heard
        self.stream: SpeechStream = model.stream(rate)  # the way to the model
        self._resampler = None if rate == sample_rate else soxr.ResampleStream(sample_rate, rate, 1, "int16", "LQ")
        self._chunker = Chunker(self.stream.chunk_samples)  # frames of any length to the model's
        self._detector = SpeechDetector(sample_rate=rate, **settings)  # counts in samples at the model's rate
        self._reset = QuietReset(sample_rate=rate)  # when the model should forget
        self._onset_s = settings["onset_ms"] / 1000  # told in the started frame
        self._tell = tell  # called with the frames that follow from a chunk, or with none
        self._hint = hint  # a chunk above this may be the beginning of voice
        self._hinted = 0  # for so many more chunks voice may be beginning, since such a chunk
        self._loudness = loudness  # of the user
        self._is_mixed = False  # the bot spoke during this stretch of speech
        self._held: Onset | None = None  # an onset that is too quiet to be told; None: no such
        self.quiet_db: float | None = None  # below the usual level, speech is no start; None while the bot is silent
        self.unanswered = 0  # chunks that the model still has
        self._dropped = 0  # of stream.dropped, those the detector knows about

    def hear(self, pcm: NDArray[np.int16]) -> None:
        """Take `(n,) int16, mono` of any length."""
        if self._resampler is not None:
            pcm = self._resampler.resample_chunk(pcm)
        for chunk in self._chunker.push(pcm):
            self.unanswered += 1
            self.stream.submit(chunk, partial(self._on_probability, chunk))

    def wait(self, hangover_ms: float) -> None:
        """End the silence going on after `hangover_ms`."""
        before = self._detector.speech_ms
        if self._detector.wait(hangover_ms) is not None:
            self._hinted = 0
            self._tell(*([self._stopped()] if self._held is None else []), *self._fell_silent(before))

    def close(self) -> None:
        """Leave the model; speech that was going on ends here."""
        self.stream.close()
        stopped = [self._stopped()] if self._detector.is_speaking and self._held is None else []
        self._tell(*stopped, *([SpeechChunkFrame(is_voiced=False)] if self._detector.speech_ms else []))

    def _on_probability(self, chunk: NDArray[np.int16], probability: float) -> None:
        samples = self.stream.chunk_samples
        lost, self._dropped = self.stream.dropped - self._dropped, self.stream.dropped
        self.unanswered -= 1 + lost
        self._detector.skip(lost * samples)
        self._tell(*self._judge(chunk, probability))
        # A reset goes before the next chunk submitted, which is sure to be the next one only if the model has none.
        is_quiet = not (self._detector.speech_ms or self.unanswered)
        if self._reset.feed(probability, samples, is_quiet=is_quiet):
            self.stream.reset()

    def _judge(self, chunk: NDArray[np.int16], probability: float) -> list[Frame]:
        detector, frames = self._detector, []
        before = detector.speech_ms
        event = detector.feed(probability, len(chunk))
        hinted, self._hinted = self._hinted, max(0, self._hinted - 1)
        if isinstance(event, Offset):
            self._hinted = 0
        elif probability > self._hint:
            self._hinted = HINT_CHUNKS
        if not (before or detector.speech_ms or self._hinted or hinted):
            return []
        speech_ms = detector.speech_ms or bool(self._hinted) * len(chunk) * 1000 / detector.sample_rate
        level_db = self._loudness.feed(_dbfs(chunk)) if speech_ms else 0.0
        self._is_mixed |= self.quiet_db is not None
        if isinstance(event, Onset):
            self._held = event
        if self._held is not None and not isinstance(event, Offset):
            if self.quiet_db is None or level_db >= -self.quiet_db:
                frames.append(self._started(self._held))
                self._held = None
        elif isinstance(event, Offset) and self._held is None:
            frames.append(self._stopped())
        if not speech_ms:
            return frames + self._fell_silent(before, probability)
        is_voiced = detector.is_voiced
        frames.append(
            SpeechChunkFrame(confidence=probability, speech_ms=speech_ms, level_db=level_db, is_voiced=is_voiced)
        )
        return frames

    def _fell_silent(self, speech_ms: float, probability: float = 0.0) -> list[Frame]:
        self._loudness.end(speech_ms, is_user=not self._is_mixed)
        self._held, self._is_mixed = None, False
        return [SpeechChunkFrame(confidence=probability, is_voiced=False)]

    def _started(self, onset: Onset) -> Frame:
        frame = VADUserStartedSpeakingFrame(start_secs=self._onset_s)
        frame.metadata["confidence"] = onset.confidence
        frame.metadata["speech_ms"] = self._ms_since(onset.start_sample)
        frame.metadata["preroll_ms"] = self._ms_since(onset.preroll_sample)
        return frame

    def _stopped(self) -> Frame:
        silence_ms = self._detector.silence_ms
        frame = VADUserStoppedSpeakingFrame(stop_secs=silence_ms / 1000)
        frame.metadata["silence_ms"] = silence_ms
        return frame

    def _ms_since(self, sample: int) -> float:
        return (self._detector.position - sample) * 1000 / self._detector.sample_rate


def _dbfs(chunk: NDArray[np.int16]) -> float:
    """RMS level; -120 for silence."""
    wave = chunk.astype(np.float32)
    return 10 * math.log10(max(float(np.dot(wave, wave)) / len(wave) / 32768**2, 1e-12))
