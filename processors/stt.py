"""`EmbeddedSTT`: what the user said, if it is one of the bot's phrases."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loguru import logger
from pipecat.frames.frames import (
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
from pipecat.utils.errors import ErrorCategory
from pipecat.utils.time import time_now_iso8601

from ..pipeline import Processor, Stage, consumes
from ..pipeline.errors import ConfigurationError, ServiceError, WorkerCrashed
from ..pipeline.frames import EarlyWordsFrame, HangoverFrame, SpeechChunkFrame, UnrecognizedSpeechFrame
from ..pipeline.listening.endpointing import Endpointing
from ..pipeline.listening.pcm import mono
from ..pipeline.listening.standby import Standby
from .embedded.recogniser.sphinx import MAX_UTTERANCE_S, REJECT_BELOW, Recognition, SphinxRecogniser

PREROLL_MS = 500  # audio kept from before the VAD's start, which comes some 100 ms after the voice's
MAX_UTTERANCES = 8  # waiting for the recogniser; full: the oldest is dropped with an error
EARLY_MS = 96  # of quiet after which an utterance is recognised although it may go on
ANSWER_S = 5.0  # from asking for an utterance's words to having them


@dataclass(eq=False)
class _Utterance:
    pcm: bytes  # int16 mono
    sample_rate: int  # Hz
    voiced_ms: float  # of speech in it
    number: int  # the standby's; 0 where there is none
    is_wanted: asyncio.Future[bool]  # True: it ended here; False: the user went on, it is part of a longer one


class EmbeddedSTT(Processor):
    """Recognises listed phrases with pocketsphinx in a worker process that all conversations share.

    `phrases` as a user would say them; `pronunciations` for words that CMUdict lacks; `threshold` is the score below
    which speech counts as none of them; `sample_rate` is the input's, for whoever configures it: audio is taken at the
    rate its frames say. Raises `ConfigurationError` for phrases it cannot hear, naming the word. Of what is no phrase
    it still tells "mhm" and its like, which interrupt nobody, from everything else.

       |<- pre-roll 500 ms ->|VAD start ...... quiet for 96 ms ......... VAD stop| -> TranscriptionFrame
                                               recognised by now, unless voice came back

    A complete phrase ends the turn then, and one that is only begun keeps it open, as `endpointing` says (None: all
    turns end by the VAD's hangover): SileroVAD is told how long to wait.

    The early start needs a VAD that tells of every chunk, as SileroVAD does; with others it begins at the VAD's stop.

    Speech longer than 15 s is cut there and goes on as the next utterance. An utterance during which the worker died is
    recognised by the next one.

    With `standby` it stands behind another recogniser and speaks up where that one is down or too late; of what it
    cannot understand itself it then says nothing.

    Consumes: InputAudioRawFrame, SpeechChunkFrame, VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame,
        transcripts of the recogniser in front (go on, unless they are too late)
    Emits: the same first; EarlyWordsFrame and upstream HangoverFrame when words are known before the VAD's stop, then
        TranscriptionFrame
        (finalized, `text` as listed; `metadata["score"]`) or UnrecognizedSpeechFrame; an ErrorFrame upstream
        when the recogniser fails, and UnrecognizedSpeechFrame too
    On barge-in: nothing is dropped, as the words that interrupt are on their way through here.
    """

    stage = Stage.STT

    def __init__(
        self,
        *,
        phrases: Sequence[str],
        pronunciations: Mapping[str, str] | None = None,
        threshold: float = REJECT_BELOW,
        sample_rate: int = 16000,
        standby: Standby | None = None,
        endpointing: Endpointing | None = Endpointing(),  # noqa: B008 - frozen, and the signature shows the default
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self._standby = standby  # when to speak up for the one in front; None: this is the only one
        self._recogniser = SphinxRecogniser(phrases=phrases, pronunciations=pronunciations, threshold=threshold)
        self._endpointing = endpointing  # how long a silence may be, by the words; None: nobody is told
        self._rate = sample_rate  # Hz of what is in `_audio`
        self._audio = bytearray()  # int16 mono: the pre-roll, and the utterance while there is one
        self._is_hearing = False  # between the VAD's start and stop
        self._voice_from = 0  # where in `_audio` the voice begins, bytes
        self._quiet_from: int | None = None  # length of `_audio` when it fell quiet; None while there is voice
        self._early: _Utterance | None = None  # handed over although it may go on; None most of the time
        self._utterances: asyncio.Queue[_Utterance] = asyncio.Queue(MAX_UTTERANCES)
        # For the one in front, an utterance each, the oldest first. All waits are as long, so they end in this order.
        self._waits: deque[tuple[asyncio.TimerHandle, _Utterance]] = deque()
        self._task: asyncio.Task[None] | None = None  # recognises them one by one; None outside setup and cleanup

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Take hold of the shared recogniser and start its process."""
        await super().setup(setup)
        self._recogniser.open()
        self._task = self.create_task(self._run(), "recognise")

    async def cleanup(self) -> None:
        """End the task and let go of the recogniser; its process stays warm for other conversations."""
        while self._waits:
            self._waits.popleft()[0].cancel()
        task, self._task = self._task, None
        if task is not None:
            await self.cancel_task(task)
        self._recogniser.close()
        await super().cleanup()

    # -- frames ------------------------------------------------------------------------------------------------

    @consumes(InputAudioRawFrame)
    async def _on_audio(self, frame: InputAudioRawFrame, direction: FrameDirection) -> None:
        if frame.sample_rate != self._rate:
            self._rate = frame.sample_rate
            self._on_voice()
            self._audio.clear()  # an utterance cannot go on at another rate; what was heard of it is lost
            self._voice_from = 0
        self._audio += mono(frame.audio, frame.num_channels)
        if self._is_hearing:
            if len(self._audio) >= MAX_UTTERANCE_S * self._rate * 2:
                logger.warning(f"{self}: speech goes on for {MAX_UTTERANCE_S:g} s; it is cut here")
                self._on_voice()  # whatever was handed over early, this is longer
                self._finish(0.0)
        elif len(self._audio) > self._preroll * 2:
            del self._audio[: -self._preroll]
        await self.push_frame(frame, direction)

    @consumes(VADUserStartedSpeakingFrame)
    async def _on_speech(self, frame: VADUserStartedSpeakingFrame, direction: FrameDirection) -> None:
        if not self._is_hearing:
            self._is_hearing = True
            if self._standby is not None:
                self._standby.on_started()
            self._quiet_from = None
            del self._audio[: -self._preroll]
            voiced_ms = frame.metadata.get("speech_ms", frame.start_secs * 1000)
            self._voice_from = max(0, len(self._audio) - int(voiced_ms * self._rate / 1000) * 2)
        await self.push_frame(frame, direction)

    @consumes(SpeechChunkFrame)
    async def _on_chunk(self, frame: SpeechChunkFrame, direction: FrameDirection) -> None:
        if self._is_hearing:
            if not frame.is_silent:
                self._on_voice()
            elif self._standby is None or not self._standby.wait_s:
                self._on_quiet()
        await self.push_frame(frame, direction)

    def _on_voice(self) -> None:
        """Take back what was handed over early."""
        self._quiet_from = None
        early, self._early = self._early, None
        if early is not None:
            early.is_wanted.set_result(False)

    def _on_quiet(self) -> None:
        """Hand over early what would be the utterance if it stayed quiet."""
        if self._quiet_from is None:
            self._quiet_from = len(self._audio)
        quiet_ms = (len(self._audio) - self._quiet_from) * 500 / self._rate
        if self._early is None and quiet_ms >= EARLY_MS and not self._utterances.full():
            self._end_waits()
            self._early = self._utterance(quiet_ms)
            self._utterances.put_nowait(self._early)

    @consumes(VADUserStoppedSpeakingFrame)
    async def _on_silence(self, frame: VADUserStoppedSpeakingFrame, direction: FrameDirection) -> None:
        silence_ms = frame.metadata.get("silence_ms", frame.stop_secs * 1000)
        await self.push_frame(frame, direction)
        if self._is_hearing:
            self._is_hearing = False
            self._finish(silence_ms)

    @consumes(TranscriptionFrame, InterimTranscriptionFrame)
    async def _on_words(self, frame: Any, direction: FrameDirection) -> None:
        is_final = isinstance(frame, TranscriptionFrame)
        if self._standby is None or self._standby.on_words(is_final=is_final):
            await self.push_frame(frame, direction)

    # -- the recogniser ----------------------------------------------------------------------------------------

    @property
    def _preroll(self) -> int:
        return self._rate * PREROLL_MS // 1000 * 2  # bytes

    def _utterance(self, silence_ms: float) -> _Utterance:
        pcm = bytes(self._audio[: int(MAX_UTTERANCE_S * self._rate) * 2])
        voiced_ms = max(0.0, (len(pcm) - self._voice_from) * 500 / self._rate - silence_ms)
        number = 0 if self._standby is None else self._standby.utterance
        return _Utterance(pcm, self._rate, voiced_ms, number, asyncio.get_running_loop().create_future())

    def _finish(self, silence_ms: float) -> None:
        """Hand the utterance over, or say that the early one was all of it; the next one begins."""
        wait_s = 0.0
        if self._standby is not None:
            self._standby.on_ended()
            wait_s = self._standby.wait_s
            if not wait_s:
                self._end_waits()
                self._standby.takes(self._standby.utterance)  # whatever came of it before the one in front went down
        if wait_s:
            self._on_voice()  # handed over early when the one in front was down
            self._wait(self._utterance(silence_ms), wait_s)
        elif self._early is not None:
            self._early.is_wanted.set_result(True)
            self._early = None
        else:
            self._hand_over(self._utterance(silence_ms))
        self._audio.clear()
        self._voice_from = 0

    def _hand_over(self, utterance: _Utterance) -> None:
        if self._utterances.full():
            self._utterances.get_nowait()
            logger.error(f"{self}: {MAX_UTTERANCES} utterances wait for the recogniser; the oldest is dropped")
        utterance.is_wanted.set_result(True)
        self._utterances.put_nowait(utterance)

    def _wait(self, utterance: _Utterance, wait_s: float) -> None:
        handle = asyncio.get_running_loop().call_later(wait_s, self._end_wait)
        self._waits.append((handle, utterance))

    def _end_wait(self) -> None:
        """Stand in for the oldest utterance that waits, unless its words have come."""
        handle, utterance = self._waits.popleft()
        handle.cancel()
        if self._standby is not None and self._standby.takes(utterance.number):
            self._hand_over(utterance)

    def _end_waits(self) -> None:
        """Nobody is waited for: what was said before comes first."""
        while self._waits:
            self._end_wait()

    async def _run(self) -> None:
        try:
            await self._recogniser.warm_up()
        except (ServiceError, ConfigurationError) as error:
            await self._report(error)
        while True:
            utterance = await self._utterances.get()
            if utterance.is_wanted.done() and not utterance.is_wanted.result():
                continue
            heard = await self._recognise(utterance)
            if not utterance.is_wanted.done():
                await self._tell_early(heard)
            if await utterance.is_wanted:
                await self._tell(utterance, heard)

    async def _recognise(self, utterance: _Utterance) -> Recognition:
        heard = Recognition("", -1.0)
        try:
            async with asyncio.timeout(ANSWER_S):
                heard = await self._ask(utterance)
        except TimeoutError:
            await self._report(ServiceError(f"no answer within {ANSWER_S:g} s"))
        except (ServiceError, ConfigurationError) as error:
            await self._report(error)
        return heard

    async def _tell_early(self, heard: Recognition) -> None:
        if heard.text:
            await self.push_frame(EarlyWordsFrame(text=heard.text))
        hangover_ms = self._endpointing.hangover_ms(heard.completeness) if self._endpointing else None
        if hangover_ms is not None:
            await self.push_frame(HangoverFrame(hangover_ms=hangover_ms), FrameDirection.UPSTREAM)

    async def _tell(self, utterance: _Utterance, heard: Recognition) -> None:
        logger.debug(f"{self}: {heard.best_guess!r} scores {heard.score:.5f}")
        if not heard.text and self._standby is not None:
            self._standby.on_not_understood(utterance.number)
            if self._standby.wait_s:
                return  # the one in front works, and has heard nothing either
        if not heard.text:
            frame = UnrecognizedSpeechFrame(voiced_ms=utterance.voiced_ms, likeness=heard.likeness)
            await self.push_frame(frame)
            return
        frame = TranscriptionFrame(heard.text, "", time_now_iso8601(), finalized=True)
        frame.metadata["score"] = heard.score
        await self.push_frame(frame)

    async def _ask(self, utterance: _Utterance) -> Recognition:
        try:
            return await self._recogniser.recognise(utterance.pcm, utterance.sample_rate)
        except WorkerCrashed:  # perhaps for another's utterance: once more, with a new process
            return await self._recogniser.recognise(utterance.pcm, utterance.sample_rate)

    async def _report(self, error: ServiceError | ConfigurationError) -> None:
        await self.push_error(f"the recogniser failed: {error}", exception=error, category=ErrorCategory.UNKNOWN)
