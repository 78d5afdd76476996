"""`StateTracker`: feeds the state machine from frames, keeps the conversation's record, tells everybody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    Frame,
    InterruptionFrame,
    LLMTextFrame,
    StartFrame,
    TTSTextFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup

from ..pipeline.conversation import metrics
from ..pipeline.conversation.callbacks import Callback, TransitionCallbacks
from ..pipeline.conversation.conversation_record import ConversationRecord
from ..pipeline.conversation.metrics import BARGE_INS, ENDED_LINE, MOVES, ended_facts, info_later
from ..pipeline.conversation.pipecat_signals import SPEECH_FRAMES, Sign, StockSignals, Twins
from ..pipeline.conversation.resume import RESUMED, resumption_of
from ..pipeline.conversation.store import LogLine
from ..pipeline.conversation.waterfall import Waterfall
from ..pipeline.engine.consumes import consumes
from ..pipeline.engine.processor import Processor
from ..pipeline.engine.stages import Stage, has_stage_before
from ..pipeline.frames import (
    ReplyAudibleFrame,
    ReplyInterruptedFrame,
    ReplyPlayedFrame,
    ReplyProgressFrame,
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
from ..pipeline.states import Event, State, TurnMachine


class StateTracker(Processor):
    """Owns the conversation's state machine. Everybody else learns of it by `StateChangedFrame`s, both ways.

    With our `TurnAggregator` upstream it goes by our frames; in a stock Pipecat bot by Pipecat's (`pipeline.stock`).

    Consumes: what `pipeline.frames` lists for the user's side, the answer and the playback; Pipecat's speech,
        transcript, LLM response and bot speaking frames; interruptions. All go on, but words that change nothing, and
        reports of progress, stay here.
    Emits: `StateChangedFrame` both ways, `TurnMeasuredFrame` at the end of a turn, cut or not.
    On barge-in: passes through `interrupt` to `listening` in one step, empties buffer and response; what was generated
        goes to the history, with what was heard of it as soon as the output says.
    """

    stage = Stage.TRACKER

    def __init__(self, *, record: ConversationRecord | None = None) -> None:
        super().__init__()
        self.record = record or ConversationRecord()  # the live conversation
        self._resumption = resumption_of(self.record.fields)  # where it goes on
        self._machine = TurnMachine(self._resumption.state)  # the state
        self._greeting_id = self._resumption.turn_id if self._resumption.is_greeting else 0  # being spoken; 0: none
        self._response_turn = self._resumption.turn_id if self._resumption.rest is not None else 0  # `llm_response`'s
        self._said_before = (self._resumption.turn_id, self._resumption.said)  # by another process: (turn, sentences)
        self._waterfall = Waterfall()  # the instants of this turn
        self._last_breakdown: dict[str, float] = {}  # of the last finished turn
        self._cut = TurnMeasuredFrame()  # of the last turn that was cut
        self._callbacks = TransitionCallbacks(self.create_task)  # whom else it concerns
        self._twins = Twins()  # of broadcasts
        self._stock = StockSignals()  # reads Pipecat's frames
        self._is_stock = False  # nobody upstream makes turns of words: go by Pipecat's frames

    @property
    def state(self) -> State:
        """Where the conversation stands."""
        return self._machine.state

    def on_transition(self, *states: State) -> Callable[[Callback], Callback]:
        """Register a callback for entering any of `states` (none given: all). It gets the conversation.

        Sync ones run in the step; async ones beside the pipeline, in order, at most 64 waiting, 5 s each. One that
        raises is logged.
        """
        return self._callbacks.register(*states)

    def latency_breakdown(self) -> dict[str, float]:
        """Return the last finished turn's latencies: label -> ms."""
        return dict(self._last_breakdown)

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Tell the other processors, before they start, where the conversation goes on."""
        await super().setup(setup)
        self.conductor.open_conversation(
            session_id=self.record.session_id,
            turn_id=self.record.fields.turn_id,
            resumption=self._resumption if self.record.is_resumed else None,
        )

    async def cleanup(self) -> None:
        """End the async callbacks, write the last log lines."""
        self._callbacks.close()
        metrics.write_lines()
        await super().cleanup()

    @consumes(StartFrame)
    async def _on_start(self, frame: StartFrame, direction: FrameDirection) -> None:
        self._is_stock = not has_stage_before(self, Stage.TURNS)
        self.record.fields.state = self.state
        await self.push_frame(frame, direction)
        if self.record.is_resumed:
            await self._tell(self.state.value, self.state.value, RESUMED)

    # -- the user's side ---------------------------------------------------------------------------------------

    @consumes(SpeechChunkFrame)
    async def _on_speech(self, frame: SpeechChunkFrame, direction: FrameDirection) -> None:
        if self.state is State.IDLE and frame.speech_ms > 0:
            self._waterfall.mark("voice", self._now() - frame.speech_ms / 1000, again=True)

    @consumes(VADUserStoppedSpeakingFrame)
    async def _on_speech_stopped(self, frame: VADUserStoppedSpeakingFrame, direction: FrameDirection) -> None:
        if self.state is State.LISTENING:
            self._waterfall.mark("user_silent", self._now() - frame.stop_secs, again=True)
            self._waterfall.mark("vad_end", self._now(), again=True)
        await self._on_stock(frame, direction)

    @consumes(UtteranceStartedFrame)
    async def _on_utterance_started(self, frame: Frame, direction: FrameDirection) -> None:
        await self._take_floor()

    @consumes(TextBufferFrame)
    async def _on_words(self, frame: TextBufferFrame, direction: FrameDirection) -> None:
        if frame.fragments:
            await self._take_floor()
        if self.state is State.LISTENING:
            self._note_words(list(frame.fragments), is_final=frame.is_final)
            await self.push_frame(frame, direction)

    @consumes(UtteranceDiscardedFrame)
    async def _on_discarded(self, frame: UtteranceDiscardedFrame, direction: FrameDirection) -> None:
        await self._discard()

    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: UserTurnFrame, direction: FrameDirection) -> None:
        fields = self.record.fields
        if not frame.joined and frame.turn_id > fields.turn_id:
            await self._take_floor()
        if self._machine.can(Event.VAD_END) and frame.turn_id > fields.turn_id:
            await self._commit(frame.turn_id, frame.text)
        elif frame.joined and frame.turn_id == fields.turn_id and self.state is State.THINKING:
            fields.text_buffer = [frame.text]
            self.record.changed()
        await self.push_frame(frame, direction)

    async def _take_floor(self) -> None:
        if self._machine.can(Event.STT_START):
            self.record.fields.text_buffer = []
            self._waterfall.mark("listening", self._now(), again=True)
            await self._move(Event.STT_START)

    def _note_words(self, fragments: list[str], *, is_final: bool) -> None:
        if is_final:
            self._waterfall.mark("transcript", self._now(), again=True)
        self.record.fields.text_buffer, self.record.fields.is_pending = fragments, not is_final
        self.record.changed()

    async def _discard(self) -> None:
        if self._machine.can(Event.UTTERANCE_DISCARDED):
            self.record.fields.text_buffer = []
            self._waterfall.restart()
            await self._move(Event.UTTERANCE_DISCARDED)

    async def _commit(self, turn_id: int, text: str) -> None:
        fields = self.record.fields
        fields.turn_id = turn_id
        if text and " ".join(fields.text_buffer) != text:
            fields.text_buffer = [text]
        fields.intent, fields.rag_results, fields.is_pending = {}, {}, False
        self._empty_response()
        self._waterfall.mark("committed", self._now(), again=True)
        await self._move(Event.VAD_END)

    # -- the answer --------------------------------------------------------------------------------------------

    @consumes(TurnContextFrame)
    async def _on_context(self, frame: TurnContextFrame, direction: FrameDirection) -> None:
        fields = self.record.fields
        if frame.turn_id == fields.turn_id and self.state in (State.THINKING, State.SPEAKING):
            now = self._now()
            for name in ("intent", "retrieval"):
                if name in frame.answered_ms:
                    self._waterfall.mark(name, now - (frame.join_ms - frame.answered_ms[name]) / 1000, again=True)
            self._waterfall.mark("joined", now, again=True)
            fields.intent = _as_json(frame.answers.get("intent"))
            fields.rag_results = _as_json(frame.answers.get("retrieval"))
            self.record.changed()
        await self.push_frame(frame, direction)

    @consumes(ReplyTextFrame)
    async def _on_text(self, frame: ReplyTextFrame, direction: FrameDirection) -> None:
        fields = self.record.fields
        if frame.turn_id > fields.turn_id:  # a greeting's
            self._greeting_id = fields.turn_id = frame.turn_id
        if frame.turn_id == fields.turn_id and not frame.is_rest:
            self._waterfall.mark("first_text", self._now())
            if frame.turn_id != self._response_turn:
                self._response_turn = frame.turn_id
                self._empty_response()
            fields.llm_response = f"{fields.llm_response} {frame.text}".strip()
            fields.is_complete = frame.is_final
            if frame.is_final:
                self._waterfall.mark("last_text", self._now())
            self.record.changed()
        await self.push_frame(frame, direction)

    @consumes(ReplyAudibleFrame)
    async def _on_audible(self, frame: ReplyAudibleFrame, direction: FrameDirection) -> None:
        fields = self.record.fields
        if frame.turn_id and frame.turn_id == fields.turn_id:
            self._waterfall.mark("first_audio", self._now())
            if self._machine.can(Event.RESPONSE_READY):
                await self._move(Event.RESPONSE_READY)
            elif frame.turn_id == self._greeting_id and self._machine.can(Event.GREETING):
                await self._move(Event.GREETING)
        await self.push_frame(frame, direction)

    @consumes(ReplyProgressFrame)
    async def _on_progress(self, frame: ReplyProgressFrame, direction: FrameDirection) -> None:
        if frame.turn_id == self.record.fields.turn_id and self.state is State.SPEAKING:
            self._waterfall.mark("heard", self._now() - frame.played_ms / 1000)
            self.record.fields.heard = self._all_heard(frame.turn_id, frame.heard)
            self.record.changed()

    @consumes(ReplyPlayedFrame)
    async def _on_played(self, frame: ReplyPlayedFrame, direction: FrameDirection) -> None:
        if not frame.complete:
            self._note_heard(frame)
        elif frame.turn_id == self.record.fields.turn_id:
            await self._finish(is_unspoken=frame.is_unspoken)
        await self.push_frame(frame, direction)

    @consumes(InterruptionFrame)
    async def _on_interruption(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        fields = self.record.fields
        is_stale = isinstance(frame, ReplyInterruptedFrame) and frame.turn_id < fields.turn_id
        is_cut = not is_stale and not self._twins.is_second(frame) and self._machine.can(Event.BARGE_IN)
        self._stock.read(frame)
        if is_cut:
            BARGE_INS.inc()
            self._cut = self._measure(fields.turn_id, is_cut=True)
            self._remember("", interrupted=True)  # the output says next what was heard of it
            if self.state is State.SPEAKING:
                fields.text_buffer = []
            self._empty_response()
            self._waterfall.restart()
        await self.push_frame(frame, direction)
        if is_cut:
            await self._move(Event.BARGE_IN)
            self._waterfall.mark("listening", self._now())
            await self._move(Event.RESUME_LISTENING)
            await self.push_frame(self._cut)

    async def _finish(self, *, is_unspoken: bool = False) -> None:
        """The reply is complete and its last audio was played; or there was nothing to say, or no voice to the end."""
        fields, turn_id = self.record.fields, self.record.fields.turn_id
        if self.state not in (State.SPEAKING, State.THINKING):
            return
        is_spoken = self.state is State.SPEAKING and not is_unspoken
        is_greeting = turn_id == self._greeting_id
        self._waterfall.mark("played", self._now())
        fields.turn_number += is_spoken and not is_greeting
        fields.heard = fields.llm_response if is_spoken else fields.heard
        self._remember(fields.heard, interrupted=False)
        fields.latency_ms = self._last_breakdown = self._waterfall.breakdown()
        await self._move(Event.TTS_COMPLETE if is_spoken else Event.REPLY_ABANDONED)
        await self._measured(turn_id)

    # -- in a stock bot ----------------------------------------------------------------------------------------

    @consumes(*SPEECH_FRAMES)
    async def _on_stock(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, BotStartedSpeakingFrame):
            self._waterfall.mark("sent", self._now())
        if self._is_stock and not self._twins.is_second(frame):
            await self._heed(self._stock.read(frame))
        await self.push_frame(frame, direction)

    @consumes(LLMTextFrame, TTSTextFrame)
    async def _on_llm_text(self, frame: Any, direction: FrameDirection) -> None:
        self._waterfall.mark("first_text", self._now())
        fields = self.record.fields
        if self._is_stock and self.state in (State.THINKING, State.SPEAKING):
            if isinstance(frame, LLMTextFrame):
                self._response_turn = fields.turn_id
                fields.llm_response += frame.text
            elif self._response_turn != fields.turn_id:  # the tokens do not come by here, the spoken words do
                fields.llm_response = f"{fields.llm_response} {frame.text}".strip()
            self.record.changed()
        await self.push_frame(frame, direction)

    async def _heed(self, sign: Sign | None) -> None:
        words = self._stock.fragments
        if sign is Sign.FLOOR or (sign is Sign.TURN_ENDED and words):
            await self._take_floor()
        if words and self.state is State.LISTENING and words != self.record.fields.text_buffer:
            self._note_words(words, is_final=not self._stock.pending)
        if sign is Sign.NOTHING_SAID:
            await self._discard()
        if sign is Sign.TURN_ENDED and self._machine.can(Event.VAD_END):
            self._stock.restart()
            await self._commit(self.conductor.mint_turn_id(), " ".join(words))
        elif sign is Sign.AUDIBLE:
            await self._sound()
        elif sign is Sign.PLAYED:
            await self._finish()

    async def _sound(self) -> None:
        if self._machine.can(Event.VAD_END):  # the end of the turn was missed
            await self._heed(Sign.TURN_ENDED)
        self._waterfall.mark("first_audio", self._now())
        if self._machine.can(Event.GREETING):
            self._greeting_id = self.record.fields.turn_id = self.conductor.mint_turn_id()
            await self._move(Event.GREETING)
        elif self._machine.can(Event.RESPONSE_READY):
            await self._move(Event.RESPONSE_READY)

    # -- record ------------------------------------------------------------------------------------------------

    def _empty_response(self) -> None:
        fields = self.record.fields
        fields.llm_response, fields.heard, fields.is_complete = "", "", False

    def _remember(self, heard: str, *, interrupted: bool) -> None:
        fields = self.record.fields  # the words of a turn that is cut unheard are the next one's
        is_asked = fields.turn_id != self._greeting_id and not (interrupted and self.state is State.THINKING)
        question = " ".join(fields.text_buffer) if is_asked else ""
        self.record.remember(heard, question=question, interrupted=interrupted)

    def _all_heard(self, turn_id: int, heard: str) -> str:
        said_turn, said = self._said_before
        return f"{said} {heard}".strip() if turn_id == said_turn else heard

    def _note_heard(self, frame: ReplyPlayedFrame) -> None:
        info_later("{} turn {} interrupted heard_ms={:.0f}", self.record.session_id, frame.turn_id, frame.played_ms)
        for message in self.record.fields.history:
            if message.get("turn_id") == frame.turn_id and message.get("interrupted"):
                message["heard"] = self._all_heard(frame.turn_id, frame.heard)
                self.record.changed()
                if self._cut.turn_id == frame.turn_id:
                    self._cut.heard = message["heard"]

    async def _measured(self, turn_id: int) -> None:
        metrics.observe(self._waterfall, self._last_breakdown)
        measured = self._measure(turn_id, heard=self.record.fields.heard)
        info_later(ENDED_LINE, self.record.session_id, *ended_facts(measured))
        self._waterfall.restart()
        await self.push_frame(measured)

    def _measure(self, turn_id: int, *, is_cut: bool = False, heard: str = "") -> TurnMeasuredFrame:
        fields, waterfall = self.record.fields, self._waterfall
        told = (turn_id, waterfall.breakdown(), waterfall.instants_ms(), is_cut, heard)
        results = fields.rag_results.get("results")  # anybody's branch, or hash
        return TurnMeasuredFrame(*told, fields.intent, len(results) if isinstance(results, list) else 0)

    async def _move(self, event: Event) -> None:
        previous, state = self._machine.state, self._machine.feed(event)
        move, record, at = MOVES[previous, event], self.record, time.time()
        fields = record.fields
        fields.state = move.state
        fields.timestamps[move.timestamp] = at
        record.changed(LogLine(move.previous, move.state, move.trigger, fields.turn_id, at), flush=move.is_urgent)
        move.count += 1
        info_later(move.line, record.session_id)
        self._callbacks.call(state, fields)
        await self._tell(move.previous, move.state, move.trigger)

    async def _tell(self, previous: str, state: str, trigger: str) -> None:
        # One frame for both ways, not a pair as `broadcast_frame` makes: nobody may change it, and a frame is 1 us.
        fields = self.record.fields
        frame = StateChangedFrame(previous, state, trigger, fields.turn_id, tuple(fields.text_buffer))
        await self.push_frame(frame)
        await self.push_frame(frame, FrameDirection.UPSTREAM)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _as_json(answer: Any) -> dict[str, Any]:
    if isinstance(answer, dict):
        return dict(answer)
    return getattr(answer, "as_json", dict)()
