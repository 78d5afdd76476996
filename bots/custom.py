"""A pipeline of one's own: our processors, two of Pipecat's, a third branch, and a processor in fifteen lines.

    leibniz serve bots/custom.py        say "good afternoon" first, then "what are your opening hours"

    input -> SileroVAD -> EmbeddedSTT -> FunctionFilter -> TurnAggregator -> Parallel{intent | retrieval | open_now}
          -> OpeningNote -> Responder -> EmbeddedTTS -> InterruptionGate -> StateTracker
          -> AudioBufferProcessor -> output

`FunctionFilter` lets no words pass before a greeting; `AudioBufferProcessor` keeps the call, user left, bot right,
in `.leibniz/calls/SESSION-1.wav` and so on. Both are Pipecat's, queued and unchanged. What is typed needs no greeting.
"""

from __future__ import annotations

import asyncio
import wave
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from itertools import count
from pathlib import Path

from pipecat.frames.frames import Frame, TranscriptionFrame
from pipecat.processors.audio.audio_buffer_processor import AudioBufferProcessor
from pipecat.processors.filters.function_filter import FunctionFilter
from pipecat.processors.frame_processor import FrameDirection

from leibniz_voice.bots.assistant import CONTENT, INTENT, retrieve
from leibniz_voice.bots.parts import embedded_parts
from leibniz_voice.pipeline import (
    IntentResult,
    Parallel,
    Pipeline,
    Processor,
    RetrievalResult,
    Session,
    TurnContextFrame,
    UserTurnFrame,
    consumes,
)
from leibniz_voice.pipeline.frames import EarlyWordsFrame, UnrecognizedSpeechFrame
from leibniz_voice.processors import (
    EmbeddedSTT,
    EmbeddedTTS,
    InterruptionGate,
    Responder,
    SileroVAD,
    StateTracker,
    TurnAggregator,
)

WAKE_PHRASES = tuple(CONTENT.examples["greeting"])
CALLS = Path(".leibniz/calls")
HOURS = {0: (10, 18), 1: (10, 18), 2: (10, 18), 3: (10, 18), 4: (10, 18), 5: (10, 16)}  # weekday -> from, to; Monday 0
HEARD = (TranscriptionFrame, EarlyWordsFrame, UnrecognizedSpeechFrame)  # what a recogniser says
RATE = 16_000  # Hz of the recording
PIECE_S = 30  # of a file, so that a call holds at most 2 MB of sound in memory


class OpeningNote(Processor):
    """Adds to an answer about opening hours whether the shop is open at this moment.

    Consumes: `TurnContextFrame`.
    Emits: the same, with another `context` in its retrieval.
    On barge-in: nothing; it keeps nothing.
    """

    @consumes(TurnContextFrame)
    async def _on_context(self, frame: TurnContextFrame, direction: FrameDirection) -> None:
        intent, found, is_open = (frame.answers[name] for name in ("intent", "retrieval", "open_now"))
        if intent.label == "opening_hours":
            note = f"We are {'open' if is_open else 'closed'} right now."
            answers = {**frame.answers, "retrieval": replace(found, context=f"{found.context} {note}".strip())}
            frame = replace(frame, answers=answers)
        await self.push_frame(frame, direction)


def is_open_at(now: datetime) -> bool:
    """Whether the shop is open then."""
    opens, closes = HOURS.get(now.weekday(), (0, 0))
    return opens <= now.hour < closes


async def open_now(turn: UserTurnFrame) -> bool:
    """Answer a turn: whether the shop is open. Any coroutine function of a turn is a branch."""
    return is_open_at(datetime.now())


def wake_filter() -> FunctionFilter:
    """Pipecat's filter, with a memory: nothing that is heard passes until a greeting is."""
    is_awake = False

    async def passes(frame: Frame) -> bool:
        nonlocal is_awake
        if isinstance(frame, TranscriptionFrame):
            is_awake = is_awake or any(phrase in frame.text.lower() for phrase in WAKE_PHRASES)
        return is_awake or not isinstance(frame, HEARD)

    return FunctionFilter(passes, filter_system_frames=True)


def recorder(folder: Path, session_id: str) -> AudioBufferProcessor:
    """Pipecat's recorder, with a WAV file for every `PIECE_S` of the call; an earlier call's are overwritten."""
    recording = AudioBufferProcessor(
        sample_rate=RATE, num_channels=2, buffer_size=PIECE_S * RATE * 2, auto_start_recording=True
    )
    numbers = count(1)

    def write(path: Path, pcm: bytes) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setparams((2, 2, RATE, 0, "NONE", ""))
            file.writeframes(pcm)

    @recording.event_handler("on_audio_data")
    async def on_audio(_: AudioBufferProcessor, pcm: bytes, rate: int, channels: int) -> None:
        await asyncio.to_thread(write, folder / f"{session_id}-{next(numbers)}.wav", pcm)

    return recording


def build(session: Session) -> Pipeline:
    """Return the pipeline of one conversation."""
    return Pipeline(
        [
            session.input,
            SileroVAD(),
            EmbeddedSTT(phrases=CONTENT.phrases),
            wake_filter(),
            TurnAggregator(),
            Parallel(
                {"intent": INTENT, "retrieval": retrieve, "open_now": open_now},
                deadline_s=5.0,
                fallback={"intent": IntentResult(), "retrieval": RetrievalResult(), "open_now": False},
            ),
            OpeningNote(),
            Responder(templates=CONTENT.templates),
            EmbeddedTTS(),
            InterruptionGate(),
            StateTracker(record=session.record),
            recorder(CALLS, session.id),
            session.output,
        ]
    )


def lifespan() -> AbstractAsyncContextManager[None]:
    """Around serving: voice and recogniser are warm before the first call, and end with the bot."""
    return embedded_parts(CONTENT.phrases)


if __name__ == "__main__":
    from leibniz_voice.bots.cli.main import run_file

    run_file(__file__)
