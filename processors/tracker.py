"""`StateTracker`: feeds the state machine from frames, keeps the conversation's record, tells everybody."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

from loguru import logger
from pipecat.frames.frames import Frame, InterruptionFrame, StartFrame, VADUserStoppedSpeakingFrame
from pipecat.processors.frame_processor import FrameDirection

from ..pipeline.consumes import consumes
from ..pipeline.frames import (
    ReplyAudibleFrame,
    ReplyInterruptedFrame,
    ReplyPlayedFrame,
    ReplyTextFrame,
    SpeechChunkFrame,
    StateChangedFrame,
    TextBufferFrame,
    TurnContextFrame,
    TurnMeasuredFrame,
    UserTurnFrame,
    UtteranceDiscardedFrame,
    UtteranceStartedFrame,
)
from ..pipeline.processor import Processor
from ..pipeline.record import ConversationRecord
from ..pipeline.snapshot import ConversationFields
from ..pipeline.stages import Stage
from ..pipeline.states import Event, State, TurnMachine
from ..pipeline.store import LogLine
from ..pipeline.waterfall import Waterfall

Callback = Callable[[ConversationFields], Awaitable[None] | None]

MAX_CALLBACKS = 64  # async callbacks that may wait; past it a new one is dropped with a warning
CALLBACK_S = 5.0  # how long one async callback may take


class StateTracker(Processor):
    """Owns the conversation's state machine. Everybody else learns of it by `StateChangedFrame`s, both ways.

    Consumes: what `pipeline.frames` lists for the user's side, the answer and the playback; interruptions. All go on,
        but words that change nothing stay here.
    Emits: `StateChangedFrame` both ways, `TurnMeasuredFrame` at the end of a turn.
    On barge-in: passes through `interrupt` to `listening` in one step, empties buffer and response; what was generated
        goes to the history, with what was heard of it as soon as the output says.
    """

    stage = Stage.TRACKER

    def __init__(self, *, record: ConversationRecord | None = None) -> None:
        super().__init__()
        self.record = record or ConversationRecord()  # the live conversation
        self._machine = TurnMachine(_resumed_state(self.record.fields.state))  # the state
        self._greeting_id = 0  # turn id of a greeting being spoken; 0: none
        self._waterfall = Waterfall()  # the instants of this turn
        self._last_breakdown: dict[str, float] = {}  # of the last finished turn
        self._callbacks: dict[State, list[Callback]] = {}  # state -> who wants to know
        self._calls: asyncio.Queue[Awaitable[None]] | None = None  # async callbacks waiting; None before the first
        self._caller: asyncio.Task[None] | None = None  # runs them one after the other
        self._response_turn = 0  # the turn that `llm_response` answers

    @property
    def state(self) -> State:
        """Where the conversation stands."""
        return self._machine.state

    def on_transition(self, *states: State) -> Callable[[Callback], Callback]:
        """Register a callback for entering any of `states` (none given: all). It gets the conversation.

        Sync ones run in the step; async ones beside the pipeline, in order. One that raises is logged.
        """

        def register(callback: Callback) -> Callback:
            for state in states or tuple(State):
                self._callbacks.setdefault(state, []).append(callback)
            return callback

        return register

    def latency_breakdown(self) -> dict[str, float]:
        """Return the last finished turn's latencies: label -> ms."""
        return dict(self._last_breakdown)

    async def cleanup(self) -> None:
        """End the task of the async callbacks."""
        if self._caller is not None:
            self._caller.cancel()
        await super().cleanup()

    # -- the user's side ---------------------------------------------------------------------------------------

    @consumes(StartFrame)
    async def _on_start(self, frame: StartFrame, direction: FrameDirection) -> None:
        self.conductor.turn_id = max(self.conductor.turn_id, self.record.fields.turn_id)
        self.record.fields.state = self.state
        await self.push_frame(frame, direction)

    @consumes(SpeechChunkFrame)
    async def _on_speech(self, frame: SpeechChunkFrame, direction: FrameDirection) -> None:
        if self.state is State.IDLE and frame.speech_ms > 0:
            self._waterfall.mark("voice", self._now() - frame.speech_ms / 1000, again=True)

    @consumes(VADUserStoppedSpeakingFrame)
    async def _on_speech_stopped(self, frame: VADUserStoppedSpeakingFrame, direction: FrameDirection) -> None:
        if self.state is State.LISTENING:
            self._waterfall.mark("user_silent", self._now() - frame.stop_secs, again=True)
        await self.push_frame(frame, direction)

    @consumes(UtteranceStartedFrame)
    async def _on_utterance_started(self, frame: Frame, direction: FrameDirection) -> None:
        if self._machine.can(Event.STT_START):
            self.record.fields.text_buffer = []
            await self._move(Event.STT_START)

    @consumes(TextBufferFrame)
    async def _on_words(self, frame: TextBufferFrame, direction: FrameDirection) -> None:
        if frame.fragments and self._machine.can(Event.STT_START):
            await self._move(Event.STT_START)
        if self.state is not State.LISTENING:
            return
        if frame.is_final:
            self._waterfall.mark("transcript", self._now(), again=True)
        self.record.fields.text_buffer = list(frame.fragments)
        self.record.changed()
        await self.push_frame(frame, direction)

    @consumes(UtteranceDiscardedFrame)
    async def _on_discarded(self, frame: UtteranceDiscardedFrame, direction: FrameDirection) -> None:
        if self._machine.can(Event.UTTERANCE_DISCARDED):
            self.record.fields.text_buffer = []
            await self._move(Event.UTTERANCE_DISCARDED)

    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: UserTurnFrame, direction: FrameDirection) -> None:
        fields = self.record.fields
        if self._machine.can(Event.STT_START) and not frame.joined:
            await self._move(Event.STT_START)
        if self._machine.can(Event.VAD_END):
            fields.turn_id = max(fields.turn_id, frame.turn_id)
            if frame.text and " ".join(fields.text_buffer) != frame.text:
                fields.text_buffer = [frame.text]
            fields.intent, fields.rag_results, fields.llm_response = {}, {}, ""
            self._waterfall.mark("committed", self._now(), again=True)
            await self._move(Event.VAD_END)
        elif frame.joined and frame.turn_id == fields.turn_id and self.state is State.THINKING:
            fields.text_buffer = [frame.text]
            self.record.changed()
        await self.push_frame(frame, direction)

    # -- the answer --------------------------------------------------------------------------------------------

    @consumes(TurnContextFrame)
    async def _on_context(self, frame: TurnContextFrame, direction: FrameDirection) -> None:
        fields = self.record.fields
        if frame.turn_id == fields.turn_id and self.state is State.THINKING:
            self._waterfall.mark("joined", self._now(), again=True)
            fields.intent = _as_json(frame.answers.get("intent"))
            fields.rag_results = _as_json(frame.answers.get("retrieval"))
            self.record.changed()
            logger.info(
                "{} turn {} intent={} results={} join_ms={:.0f}",
                self.record.session_id,
                frame.turn_id,
                fields.intent.get("intent", "-"),
                len(fields.rag_results.get("results", ())),
                frame.join_ms,
            )
        await self.push_frame(frame, direction)

    @consumes(ReplyTextFrame)
    async def _on_text(self, frame: ReplyTextFrame, direction: FrameDirection) -> None:
        fields = self.record.fields
        if frame.turn_id > fields.turn_id:  # a greeting's
            self._greeting_id = fields.turn_id = frame.turn_id
        if frame.turn_id == fields.turn_id:
            if frame.turn_id != self._response_turn:
                self._response_turn, fields.llm_response = frame.turn_id, ""
            fields.llm_response = f"{fields.llm_response} {frame.text}".strip()
            self.record.changed()
        await self.push_frame(frame, direction)

    @consumes(ReplyAudibleFrame)
    async def _on_audible(self, frame: ReplyAudibleFrame, direction: FrameDirection) -> None:
        fields = self.record.fields
        if frame.turn_id == fields.turn_id:
            self._waterfall.mark("audible", self._now())
            if self._machine.can(Event.RESPONSE_READY):
                await self._move(Event.RESPONSE_READY)
            elif frame.turn_id == self._greeting_id and self._machine.can(Event.GREETING):
                await self._move(Event.GREETING)
        await self.push_frame(frame, direction)

    @consumes(ReplyPlayedFrame)
    async def _on_played(self, frame: ReplyPlayedFrame, direction: FrameDirection) -> None:
        fields = self.record.fields
        if not frame.complete:
            self._note_heard(frame)
        elif frame.turn_id == fields.turn_id and self.state in (State.SPEAKING, State.THINKING):
            is_spoken = self.state is State.SPEAKING
            self._waterfall.mark("played", self._now())
            is_reply = is_spoken and frame.turn_id != self._greeting_id
            fields.turn_number += is_reply
            self._remember(fields.llm_response if is_spoken else "", interrupted=False)
            await self._move(Event.TTS_COMPLETE if is_spoken else Event.REPLY_ABANDONED)
            await self._measured(frame.turn_id)
        await self.push_frame(frame, direction)

    @consumes(InterruptionFrame)
    async def _on_interruption(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        fields = self.record.fields
        is_stale = isinstance(frame, ReplyInterruptedFrame) and frame.turn_id < fields.turn_id
        is_cut = not is_stale and self._machine.can(Event.BARGE_IN)
        if is_cut:
            if self.state is State.SPEAKING:
                fields.text_buffer = []
            self._remember("", interrupted=True)  # the output says next what was heard of it
            fields.llm_response = ""
            self._waterfall.restart()
        await self.push_frame(frame, direction)
        if is_cut:
            await self._move(Event.BARGE_IN)
            await self._move(Event.RESUME_LISTENING)
            self._waterfall.mark("listening", self._now())

    # -- record ------------------------------------------------------------------------------------------------

    def _remember(self, heard: str, *, interrupted: bool) -> None:
        fields = self.record.fields
        if fields.llm_response:
            self.record.remember(
                {"turn_id": fields.turn_id, "text": fields.llm_response, "heard": heard, "interrupted": interrupted}
            )

    def _note_heard(self, frame: ReplyPlayedFrame) -> None:
        logger.info("{} turn {} interrupted heard_ms={:.0f}", self.record.session_id, frame.turn_id, frame.played_ms)
        for message in self.record.fields.history:
            if message.get("turn_id") == frame.turn_id and message.get("interrupted"):
                message["heard"] = frame.heard
                self.record.changed()

    async def _measured(self, turn_id: int) -> None:
        self._last_breakdown = self._waterfall.breakdown()
        self._waterfall.restart()
        await self.push_frame(TurnMeasuredFrame(turn_id=turn_id, latency_ms=self._last_breakdown))

    async def _move(self, event: Event) -> None:
        previous = self._machine.state
        state = self._machine.feed(event)
        fields, at = self.record.fields, time.time()
        fields.state = state
        fields.timestamps[f"{previous}_to_{state}"] = at
        if event is Event.STT_START:
            self._waterfall.mark("listening", self._now(), again=True)
        is_urgent = event is Event.VAD_END or state is State.IDLE
        self.record.changed(LogLine(previous, state, event, fields.turn_id, at), flush=is_urgent)
        logger.info("{} {} {} -> {} ({})", state.emoji, self.record.session_id, previous, state, event)
        self._call_back(state)
        await self.broadcast_frame(
            StateChangedFrame,
            previous=str(previous),
            state=str(state),
            trigger=str(event),
            turn_id=fields.turn_id,
            text_buffer=tuple(fields.text_buffer),
        )

    def _call_back(self, state: State) -> None:
        for callback in self._callbacks.get(state, ()):
            try:
                result = callback(self.record.fields)
            except Exception:  # a user's callback must stop nothing
                logger.exception("a callback for {} failed", state)
                continue
            if inspect.isawaitable(result):
                self._call_later(result)

    def _call_later(self, call: Any) -> None:
        if self._calls is None:
            self._calls = asyncio.Queue(MAX_CALLBACKS)
            self._caller = self.create_task(self._run_calls(self._calls), "callbacks")
        if self._calls.full():
            call.close()
            logger.warning("{} async callbacks wait; one more is dropped", MAX_CALLBACKS)
        else:
            self._calls.put_nowait(call)

    async def _run_calls(self, calls: asyncio.Queue[Awaitable[None]]) -> None:
        while True:
            call = await calls.get()
            try:
                async with asyncio.timeout(CALLBACK_S):
                    await call
            except Exception:  # a user's callback must stop nothing
                logger.exception("an async callback failed")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _resumed_state(stored: str) -> State:
    return State.LISTENING if stored in (State.LISTENING, State.INTERRUPT) else State.IDLE


def _as_json(answer: Any) -> dict[str, Any]:
    if answer is None:
        return {}
    return dict(answer) if isinstance(answer, dict) else answer.as_json()
