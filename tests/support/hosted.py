"""A bot hosted in virtual time by nothing but its session, so that nobody records it who is not asked to."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable
from typing import Any

from pipecat.frames.frames import (
    Frame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection

from leibniz_voice.lab.recording.settings import chain_of
from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session
from leibniz_voice.pipeline.conversation.conversation_record import ConversationRecord
from leibniz_voice.pipeline.frames import ReplyAudioFrame, SpeechChunkFrame
from leibniz_voice.pipeline.testing import ScriptedIntent, ScriptedRetriever, ScriptedVoice, run_virtual
from leibniz_voice.processors import InterruptionGate, Responder, SileroVAD, StateTracker, TurnAggregator
from leibniz_voice.transports import ClientInput, ClientOutput

NONE = {"intent": IntentResult(), "retrieval": RetrievalResult()}
DOWN = FrameDirection.DOWNSTREAM


class TimedVoice(ScriptedVoice):
    """A voice that says when its words begin, one every 200 ms."""

    async def push_frame(self, frame: Frame, direction: FrameDirection = DOWN) -> None:
        if isinstance(frame, ReplyAudioFrame) and self._seq % 10 == 1:
            frame.words = ((f"word{self._seq}", (self._seq - 1) * 20.0),)
        await super().push_frame(frame, direction)


def build(session: Session) -> Pipeline:
    """A bot with real decisions and scripted answers, which goes on with a word that a pause has cut in two."""
    branches = {"intent": ScriptedIntent(), "retrieval": ScriptedRetriever()}
    answering = [Parallel(branches, fallback=NONE), Responder(), TimedVoice(chunks_per_sentence=100)]
    kept = [InterruptionGate(resume_at_word=True), StateTracker(record=session.record), session.output]
    return Pipeline([session.input, SileroVAD(), TurnAggregator(), *answering, *kept])


class Wire:
    """Keeps what is sent, each with its time."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, str | bytes]] = []

    def send_audio(self, chunk: str | bytes) -> None:
        self.sent.append((asyncio.get_running_loop().time(), chunk))

    send_text = send_audio


def session_of(output: ClientOutput | None = None) -> Session:
    """A session that has not begun."""
    output = output or ClientOutput(wire=Wire())
    return Session("s", input=ClientInput(), output=output, record=ConversationRecord("s"))


async def pipeline_of(build: Callable[[Session], Any], session: Session) -> Any:
    """What a build gives, waited for where it must be."""
    built = build(session)
    return await built if inspect.isawaitable(built) else built


def converse(kind: type[Any], build: Callable[[Session], Any]) -> tuple[list[Any], list[str]]:
    """One conversation over a wire: a question, a cough over the answer, words over it. What was sent, and states."""

    async def main() -> tuple[list[Any], list[str]]:
        wire = Wire()
        session = session_of(ClientOutput(wire=wire, dialect=kind()))
        head = session.input
        states: list[str] = []
        await session.start(build)
        assert session.pipeline is not None
        tracker = next(each for each in chain_of(session.pipeline) if isinstance(each, StateTracker))
        tracker.add_event_handler("on_before_push_frame", lambda _, frame: states.append(getattr(frame, "state", "")))
        await _speaks(head, "where is my order")
        await asyncio.sleep(1.13)  # into a word
        await head.push_frame(SpeechChunkFrame(confidence=0.9, speech_ms=32))
        await asyncio.sleep(0.032)
        await head.push_frame(SpeechChunkFrame())  # a cough: the bot goes on
        await asyncio.sleep(0.6)
        await _speaks(head, "stop it please")
        await asyncio.sleep(4)
        await session.cancel("the test is over")
        return [(at, timeless(message)) for at, message in wire.sent], [state for state in states if state]

    return run_virtual(main())


async def _speaks(head: ClientInput, text: str) -> None:
    await head.push_frame(VADUserStartedSpeakingFrame(start_secs=0.064))
    for chunk in range(1, 11):
        await head.push_frame(SpeechChunkFrame(confidence=0.95, speech_ms=chunk * 32))
        await asyncio.sleep(0.032)
        if chunk == 6:
            await head.push_frame(InterimTranscriptionFrame(text=text[:9], user_id="", timestamp=""))
    await head.push_frame(TranscriptionFrame(text=text, user_id="", timestamp="", finalized=True))
    await head.push_frame(SpeechChunkFrame())
    await head.push_frame(VADUserStoppedSpeakingFrame(stop_secs=0.3))


def timeless(spelled: Any) -> Any:
    """RTVI's messages bear the time of day, and ids."""
    if isinstance(spelled, tuple):
        return tuple(timeless(each) for each in spelled)
    if isinstance(spelled, bytes):
        return re.sub(rb'"(timestamp|id)":"[^"]*"', b"", spelled)
    return spelled
