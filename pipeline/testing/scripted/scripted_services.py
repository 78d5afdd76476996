"""Services that do as a test tells them: language model, intent, retrieval, inline voice.

    first, second, later = ServiceStep(delay_s=0.2), ServiceStep(fails_at=0), ServiceStep(hangs_at=3)  # its calls
    llm = ScriptedLLM(script=ServiceScript(first, second, later))

All waiting is in the loop's time, so it costs nothing in virtual time. Recognisers are in `scripted_stt`,
Pipecat's kind of TTS service, in four manners, is in `scripted_tts`. Texts and audio name their turn, see `stamps`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipecat.frames.frames import (
    Frame,
    InterruptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from ...engine.consumes import consumes
from ...engine.processor import Processor
from ...engine.stages import Stage
from ...errors import ServiceError
from ...frames import ReplyAudioFrame, ReplyEndedFrame, ReplySpeechFrame, ReplyStartedFrame
from ...services import IntentResult, RetrievalResult
from ..audio import RATE
from ..fuzz.stamps import sentences_in, spoken, stamped

if TYPE_CHECKING:
    from ..fuzz.generate import Schedule

__all__ = [
    "ScriptedAnswer",
    "ScriptedIntent",
    "ScriptedLLM",
    "ScriptedRetriever",
    "ScriptedVoice",
    "ServiceScript",
    "ServiceStep",
    "scripts_for",
    "tokens",
]

CHUNK_MS = 20.0  # length of one chunk of scripted audio


@dataclass(frozen=True, slots=True)
class ServiceStep:
    """How a service behaves in one call: `ServiceStep(delay_s=0.3, each_s=0.05, fails_at=4)`.

    It answers in pieces (tokens, chunks; an intent is one piece).
    """

    delay_s: float = 0.0  # before the first piece
    each_s: float = 0.0  # before each further piece
    fails_at: int | None = None  # raises `ServiceError` instead of this piece; 0: the first. None: never
    hangs_at: int | None = None  # waits for ever instead of this piece. None: never

    async def pieces(self, count: int) -> AsyncIterator[int]:
        """Yield 0 to `count - 1`, each when it is due. Raises `ServiceError` where the step says so."""
        for piece in range(count):
            if piece == self.hangs_at:
                await asyncio.Event().wait()
            wait_s = self.each_s if piece else self.delay_s
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if piece == self.fails_at:
                raise ServiceError(f"scripted failure at piece {piece}")
            yield piece


class ServiceScript:
    """Steps for the calls of one service, in order; the last one stands for all later calls."""

    def __init__(self, *steps: ServiceStep) -> None:
        self._steps = steps or (ServiceStep(),)  # what to do
        self.calls = 0  # asked so far

    def next(self) -> ServiceStep:
        """Return the step of the next call."""
        step = self._steps[min(self.calls, len(self._steps) - 1)]
        self.calls += 1
        return step


def scripts_for(schedule: Schedule) -> dict[str, ServiceScript]:
    """Return the scripts "intent", "retrieval", "llm" and "tts" of a generated schedule, a step per turn.

    `llm = ScriptedLLM(script=scripts_for(schedule)["llm"])`. A service that fails does so at its third piece, if it has
    as many. A service asked twice in a turn runs ahead of the schedule, which changes delays and nothing else.
    """
    steps: dict[str, list[ServiceStep]] = {name: [] for name in ("intent", "retrieval", "llm", "tts")}
    for delays in schedule.delays:
        times = {
            "intent": (delays.intent_s, 0.0),
            "retrieval": (delays.retrieval_s, 0.0),
            "llm": (delays.llm_first_s, delays.llm_each_s),
            "tts": (delays.tts_first_s, delays.tts_each_s),
        }
        for name, (first_s, each_s) in times.items():
            at = 2 if each_s else 0
            fails, hangs = (at if name in names else None for names in (delays.fails, delays.hangs))
            steps[name].append(ServiceStep(first_s, each_s, fails, hangs))
    return {name: ServiceScript(*of_turns) for name, of_turns in steps.items()}


class ScriptedAnswer:
    """An async callable that answers a turn by script: a branch of `Parallel`, or an intent or retrieval service.

    `ScriptedAnswer(lambda text: IntentResult("hours", 1.0), script=ServiceScript(ServiceStep(delay_s=0.05)))`
    """

    def __init__(self, answer: Callable[[str], Any], *, script: ServiceScript | None = None) -> None:
        self._answer = answer  # text -> answer
        self._script = script or ServiceScript()  # delays and failures
        self.asked: list[str] = []  # the text of every call
        self.cancelled = 0  # calls that were cancelled

    async def __call__(self, turn: Any) -> Any:
        return await self._ask(turn.text)

    async def _ask(self, text: str) -> Any:
        self.asked.append(text)
        try:
            async for _ in self._script.next().pieces(1):
                pass
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self._answer(text)


class ScriptedIntent(ScriptedAnswer):
    """An intent service: `ScriptedIntent("complex_query", script=ServiceScript(ServiceStep(delay_s=0.05)))`."""

    def __init__(self, label: str = "test", confidence: float = 1.0, *, script: ServiceScript | None = None) -> None:
        super().__init__(lambda _: IntentResult(label, confidence), script=script)

    async def classify(self, text: str) -> IntentResult:
        """Answer with the label. Raises `ServiceError` where the script says so."""
        return await self._ask(text)


class ScriptedRetriever(ScriptedAnswer):
    """A retrieval service: `ScriptedRetriever("Open from nine.", script=ServiceScript(ServiceStep(hangs_at=0)))`."""

    def __init__(self, context: str = "context", *, script: ServiceScript | None = None) -> None:
        super().__init__(lambda _: RetrievalResult([{"text": context}] if context else [], context), script=script)

    async def retrieve(self, text: str) -> RetrievalResult:
        """Answer with the context. Raises `ServiceError` where the script says so."""
        return await self._ask(text)


class ScriptedLLM(FrameProcessor):
    """A queued language model, streaming as Pipecat's do.

    `ScriptedLLM(script=ServiceScript(ServiceStep(delay_s=0.3, each_s=0.02)))`.

    Answers each LLMContextFrame (which ends here) in the handler of it, so an interruption cancels the stream, and the
    LLMFullResponseEndFrame comes even then. With `on_reply`, each ReplyStartedFrame is answered instead, from a task,
    and the ReplyEndedFrame waits for it. `reply(turn_id)` gives the tokens; the turn is the last ReplyStartedFrame's,
    else calls are counted. A failure becomes an ErrorFrame.
    """

    def __init__(
        self,
        *,
        reply: Callable[[int], Sequence[str]] | None = None,
        script: ServiceScript | None = None,
        on_reply: bool = False,
    ) -> None:
        super().__init__()
        self._reply = reply or (lambda turn_id: tokens(spoken(turn_id, 2)))  # turn -> tokens
        self._script = script or ServiceScript()  # delays and failures
        self._on_reply = on_reply  # what starts an answer
        self._turn_id: int | None = None  # of the last marker; None before one
        self._stale_upto = 0  # newest turn that an interruption named
        self._task: asyncio.Task[None] | None = None  # streams, if `on_reply`
        self.finished: list[int] = []  # turns answered to the end
        self.cut: list[int] = []  # turns cancelled on the way

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answer, or pass on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMContextFrame) and not self._on_reply:
            await self._stream(self._turn_id if self._turn_id is not None else self._script.calls + 1)
            return
        if isinstance(frame, InterruptionFrame):
            self._stale_upto = max(self._stale_upto, getattr(frame, "turn_id", 0))
            if self._task is not None:
                await self.cancel_task(self._task)
        elif isinstance(frame, ReplyEndedFrame) and self._task is not None:
            await asyncio.wait({self._task})
        await self.push_frame(frame, direction)
        if isinstance(frame, ReplyStartedFrame):
            self._turn_id = frame.turn_id
            if self._on_reply and frame.turn_id > self._stale_upto:  # else the interruption has overtaken the marker
                self._task = self.create_task(self._stream(frame.turn_id), "stream")

    async def cleanup(self) -> None:
        """End the stream."""
        if self._task is not None:
            await self.cancel_task(self._task)
        await super().cleanup()

    async def _stream(self, turn_id: int) -> None:
        parts = self._reply(turn_id)
        await self.push_frame(LLMFullResponseStartFrame())
        try:
            async for index in self._script.next().pieces(len(parts)):
                await self.push_frame(LLMTextFrame(parts[index]))
            self.finished.append(turn_id)
        except asyncio.CancelledError:
            self.cut.append(turn_id)
            raise
        except ServiceError as error:
            await self.push_error(f"the scripted LLM failed: {error}", exception=error)
        finally:
            await self.push_frame(LLMFullResponseEndFrame())


class ScriptedVoice(Processor):
    """An inline voice: each sentence becomes stamped audio, `chunks_per_sentence` of 20 ms, by script.

    Consumes: ReplyStartedFrame, ReplySpeechFrame (ends here), ReplyEndedFrame, interruptions
    Emits: the markers, and ReplyAudioFrame
    On barge-in: the cut turn's audio ends at once; its end marker passes if it comes later.
    """

    stage = Stage.VOICE

    def __init__(self, *, script: ServiceScript | None = None, chunks_per_sentence: int = 10) -> None:
        super().__init__()
        self._script = script or ServiceScript()  # delays and failures
        self._count = chunks_per_sentence  # of each sentence
        self._last: asyncio.Task[None] | None = None  # the work queued last; the next waits for it
        self._turn_id = 0  # of the reply that is spoken
        self._seq = 0  # chunks of it so far

    @consumes(ReplyStartedFrame, ReplyEndedFrame)
    async def _on_marker(self, frame: ReplyStartedFrame | ReplyEndedFrame, direction: FrameDirection) -> None:
        if self._last is None or self._last.done():
            await self.push_frame(frame, direction)
        else:
            self._then(frame.turn_id, lambda: self.push_frame(frame, direction))

    @consumes(ReplySpeechFrame)
    async def _on_speech(self, frame: ReplySpeechFrame, direction: FrameDirection) -> None:
        self._then(frame.turn_id, lambda: self._speak(frame))

    def _then(self, turn_id: int, work: Callable[[], Awaitable[None]]) -> None:
        self._last = self.turn_task(_after(self._last, work), turn_id=turn_id, name=f"scripted voice {turn_id}")

    async def _speak(self, frame: ReplySpeechFrame) -> None:
        turn_id = frame.turn_id
        if turn_id != self._turn_id:
            self._turn_id, self._seq = turn_id, 0
        async for _ in self._script.next().pieces(self._count * sentences_in(frame.text)):
            pcm = stamped(turn_id, self._seq, ms=CHUNK_MS)
            self._seq += 1
            await self.push_frame(ReplyAudioFrame(pcm, RATE, 1, turn_id=turn_id))


async def _after(before: asyncio.Task[None] | None, work: Callable[[], Awaitable[None]]) -> None:
    if before is not None and not before.done():
        await asyncio.wait({before})
    await work()


def tokens(text: str) -> list[str]:
    """Cut a text as an LLM streams it, spaces in front: `tokens("Turn 3 part.") == ["Turn", " 3", " part."]`."""
    words = text.split()
    return [*words[:1], *(f" {word}" for word in words[1:])]
