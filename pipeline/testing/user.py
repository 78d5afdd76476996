"""How a user's words get into a pipeline: as sound where it hears, else as what its recogniser would say.

    the pipeline has                              the user's words arrive as
    a speech detector and a recogniser            "audio": speech by the embedded voice, at real time
    a speech detector and a scripted recogniser   "audio", and the recogniser is told what it will hear
    no speech detector                            "words": what detector and recogniser would push, from their place
    no detector and nothing that makes turns      "audio": a bot such as an echo

Both take the same time on the loop's clock. "audio" costs what the models cost; "words" costs microseconds a chunk, and
can be asked for where the models are not what is tested.
"""

from __future__ import annotations

import asyncio
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from pipecat.frames.frames import (
    Frame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.stt_service import STTService

from ..engine.stages import Stage
from ..errors import ConfigurationError
from ..frames import SpeechChunkFrame
from ..pipeline import Pipeline
from .audio import RATE, at_level, noise, speech
from .microphone import OfflineMicrophone
from .scripted.scripted_stt import Heard, ScriptedSTT, ScriptedSTTGuest

WORD_S = 60 / 165  # of a spoken word; the embedded voice's pace
CHUNK_S = 0.032  # of one chunk of a speech detector: Silero's
ONSET_CHUNKS = 2  # voiced chunks before the detector tells: 64 ms, as SileroVAD's default
HANGOVER_CHUNKS = 10  # quiet chunks before it tells of the end: 300 ms, likewise
SPEECH_DBFS = -23.0  # of a user's voice, as a telephone would bring it
VOICE = "en-us+f2"  # not the voice that the bots here have
WAYS = ("auto", "audio", "words")


class User:
    """Speaks to one conversation. `way` is how: "audio" or "words"; `why` says in a clause why that way."""

    def __init__(self, pipeline: Pipeline, microphone: OfflineMicrophone, *, way: str, voice: str) -> None:
        chain = pipeline.processors
        self._vad = _first(chain, Stage.VAD)  # the speech detector; None without one
        self._stt = _first(chain, Stage.STT) or next((p for p in chain if isinstance(p, STTService)), None)
        self._scripted = self._stt if isinstance(self._stt, (ScriptedSTT, ScriptedSTTGuest)) else None
        self._head = chain[0]  # the pipeline's input
        self._microphone = microphone  # for sound
        self._voice = voice  # espeak-ng's name
        self.way, self.why = self._choose(way, has_turns=_first(chain, Stage.TURNS) is not None)

    def _choose(self, way: str, *, has_turns: bool) -> tuple[str, str]:
        if way != "auto":
            return way, "the test asks for it"
        if self._vad is not None:
            return "audio", f"{type(self._vad).__name__} listens"
        if has_turns:
            return "words", "no speech detector listens"
        return "audio", "nothing here takes words"

    async def says(self, text: str, sound: bytes | str | Path | None = None) -> None:
        """Speak; returns when the pipeline knows that it is over, a third of a second after the last word."""
        if self.way == "words" and sound is None:
            await self._push_words(text)
            return
        if self._scripted is not None:
            self._scripted.will_hear(Heard(text))
        elif self._vad is not None and self._stt is None:
            raise ConfigurationError(
                "nothing in this pipeline recognises words; use call.types(...), or Call(build, speech='words')"
            )
        if isinstance(sound, (str, Path)):
            sound = read_wav(sound)
        elif sound is None:
            sound = at_level(await speech(text, voice=self._voice), SPEECH_DBFS)
        await self._microphone.speak(sound + bytes(round((HANGOVER_CHUNKS + 1) * CHUNK_S * RATE) * 2))

    async def makes_noise(self, sound: bytes | None, *, ms: float, dbfs: float, confidence: float, wait: bool) -> None:
        """Let a sound be heard that is no speech; where there are only words, a blip of the speech detector."""
        if self.way == "audio" or sound is not None:
            await self._microphone.sound(noise(ms, dbfs=dbfs) if sound is None else sound, wait=wait)
            return
        for frame in blip(ms, confidence):
            await self.place.push_frame(frame)
            await asyncio.sleep(CHUNK_S)

    @property
    def place(self) -> FrameProcessor:
        """Whose frames the words are: a scripted recogniser wants them to pass, a real one must not see them."""
        return (None if self._scripted else self._stt) or self._vad or self._head

    async def _push_words(self, text: str) -> None:
        if self._scripted is not None:
            self._scripted.will_hear(Heard(text, delay_s=0.0))
        for frames in spoken_chunks(len(text.split()) * WORD_S):
            await asyncio.sleep(CHUNK_S)
            for frame in frames:
                await self.place.push_frame(frame)
        if self._scripted is None:
            await self.place.push_frame(TranscriptionFrame(text, "", "", finalized=True))


def spoken_chunks(seconds: float, confidence: float = 0.95) -> Iterator[list[Frame]]:
    """What a speech detector tells of so much speech, chunk by chunk, in SileroVAD's order."""
    voiced = max(ONSET_CHUNKS + 1, round(seconds / CHUNK_S))
    for chunk in range(1, voiced + 1):
        onset: list[Frame] = [started(confidence)] if chunk == ONSET_CHUNKS else []
        yield [*onset, SpeechChunkFrame(confidence=confidence, speech_ms=chunk * CHUNK_S * 1000)]
    for _ in range(HANGOVER_CHUNKS - 1):
        yield [SpeechChunkFrame(confidence=0.02, speech_ms=voiced * CHUNK_S * 1000)]
    yield [stopped(), SpeechChunkFrame(confidence=0.02)]


def blip(ms: float, confidence: float = 0.9) -> Iterator[Frame]:
    """What a speech detector tells of a sound that it takes for voice at first: chunks, and silence again."""
    for chunk in range(1, max(1, round(ms / 1000 / CHUNK_S)) + 1):
        yield SpeechChunkFrame(confidence=confidence, speech_ms=chunk * CHUNK_S * 1000)
    yield SpeechChunkFrame()


def started(confidence: float = 0.95) -> Frame:
    """The frame that says that speech has begun."""
    frame = VADUserStartedSpeakingFrame(start_secs=ONSET_CHUNKS * CHUNK_S)
    frame.metadata["confidence"] = confidence
    return frame


def stopped() -> Frame:
    """The frame that says that it is over."""
    return VADUserStoppedSpeakingFrame(stop_secs=HANGOVER_CHUNKS * CHUNK_S)


def check_way(way: str) -> str:
    """Return it. Raises `ConfigurationError` if it is none."""
    if way not in WAYS:
        raise ConfigurationError(f"speech is {way!r}; it is one of {', '.join(WAYS)}")
    return way


def read_wav(path: str | Path) -> bytes:
    """Return a WAV file of 16-bit samples as 16 kHz mono. Raises `ConfigurationError` for other formats."""
    with wave.open(str(path)) as file:
        if file.getsampwidth() != 2:
            raise ConfigurationError(f"{path} has {file.getsampwidth() * 8}-bit samples; convert it to 16-bit")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
        mono = samples.mean(axis=1).astype(np.int16)
        resampled: Any = soxr.resample(mono, file.getframerate(), RATE)
        return resampled.astype("<i2").tobytes()


def _first(chain: list[FrameProcessor], stage: Stage) -> FrameProcessor | None:
    return next((p for p in chain if getattr(p, "stage", None) is stage), None)
