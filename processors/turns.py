"""`TurnAggregator`: makes user turns of words and silence. The decisions are `pipeline.utterance`'s."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from pipecat.frames.frames import (
    Frame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    StartFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection

from ..pipeline.engine.consumes import consumes
from ..pipeline.engine.processor import Processor
from ..pipeline.engine.stages import Stage
from ..pipeline.frames import (
    ClientFragmentFrame,
    ClientTurnEndFrame,
    EarlyWordsFrame,
    ProtectionFrame,
    ReplyInterruptedFrame,
    SpeculativeTurnFrame,
    SpeechChunkFrame,
    StateChangedFrame,
    TextBufferFrame,
    TurnActedFrame,
    TurnPredictionFrame,
    UnrecognizedSpeechFrame,
    UserSpeakingFrame,
    UserTurnFrame,
    UtteranceDiscardedFrame,
    UtteranceStartedFrame,
)
from ..pipeline.interruption.policy import BargeInPolicy, Decision, Stance
from ..pipeline.listening.utterance import UNCLEAR, Committed, Discarded, Guessed, Started, TurnAction, Utterance, Words
from ..pipeline.states import State


class TurnAggregator(Processor):
    """Turns speech, transcripts and client fragments into one `UserTurnFrame` per turn; no word is lost or doubled.

    Consumes: transcripts (interim, final, early), speech chunks, speech started/stopped, `TurnPredictionFrame`,
        `UnrecognizedSpeechFrame`, client fragments, turn ends and `UserSpeakingFrame`, `StateChangedFrame` (a
        `StateTracker` downstream sends them), interruptions.
    Emits: `UtteranceStartedFrame`, `TextBufferFrame`, `SpeculativeTurnFrame`, `UserTurnFrame`,
        `UtteranceDiscardedFrame`. Transcripts end here; speech and state frames go on.
    What is said over protected speech is kept until that is over.
    On barge-in: the words that interrupted stay and begin the next turn; if nothing of the cut reply was heard, the
        words that it answered stay in front of them.
    """

    stage = Stage.TURNS

    def __init__(self, *, utterance: Utterance | None = None, policy: BargeInPolicy | None = None) -> None:
        super().__init__()
        self._policy = policy or BargeInPolicy()  # the gate's: what of the client's own signals counts
        self._core = utterance or Utterance()  # the decisions
        self._turn_id = 0  # the newest turn committed here
        self._heard_turn_id = 0  # the newest turn of whose reply anything was audible
        self._is_protected = False  # what sounds is not to be interrupted
        self._is_quiet = True  # the speech detector's last chunk had no voice
        self._timer: asyncio.TimerHandle | None = None  # set while the core waits for a deadline

    async def cleanup(self) -> None:
        """Stop waiting."""
        if self._timer:
            self._timer.cancel()
        await super().cleanup()

    @consumes(StartFrame)
    async def _on_start(self, frame: StartFrame, direction: FrameDirection) -> None:
        resumption = self.conductor.resumption
        actions: Sequence[TurnAction] = ()
        if resumption is not None:
            self._turn_id = resumption.turn_id
            actions = self._core.resume(resumption, self._now())
        await self.push_frame(frame, direction)
        if resumption is not None and resumption.must_ask:
            await self.push_frame(UserTurnFrame(turn_id=resumption.turn_id, text=_spoken(resumption.question)))
        await self._act(actions)

    @consumes(VADUserStartedSpeakingFrame)
    async def _on_speech_started(self, frame: Frame, direction: FrameDirection) -> None:
        actions = self._core.on_speech_started(self._now())
        await self.push_frame(frame, direction)
        await self._act(actions)

    @consumes(VADUserStoppedSpeakingFrame)
    async def _on_speech_stopped(self, frame: Frame, direction: FrameDirection) -> None:
        actions = self._core.on_speech_stopped(self._now())
        await self.push_frame(frame, direction)
        await self._act(actions)

    @consumes(SpeechChunkFrame)
    async def _on_speech(self, frame: SpeechChunkFrame, direction: FrameDirection) -> None:
        was_quiet, self._is_quiet = self._is_quiet, frame.is_silent
        await self.push_frame(frame, direction)
        if self._is_quiet and not was_quiet:
            await self._act(self._core.on_quiet())

    @consumes(TurnPredictionFrame)
    async def _on_prediction(self, frame: TurnPredictionFrame, direction: FrameDirection) -> None:
        await self._act(self._core.on_prediction(frame.is_complete))

    @consumes(EarlyWordsFrame)
    async def _on_early_words(self, frame: EarlyWordsFrame, direction: FrameDirection) -> None:
        await self._act(self._core.on_early_words(frame.text))

    @consumes(TranscriptionFrame, InterimTranscriptionFrame)
    async def _on_transcript(self, frame: Any, direction: FrameDirection) -> None:
        is_final = isinstance(frame, TranscriptionFrame)
        await self._act(self._core.on_words(frame.text, is_final, self._now()))

    @consumes(UnrecognizedSpeechFrame)
    async def _on_unrecognized(self, frame: UnrecognizedSpeechFrame, direction: FrameDirection) -> None:
        await self._act(self._core.on_unclear(frame.voiced_ms, self._now(), frame.likeness))

    @consumes(ClientFragmentFrame)
    async def _on_client_fragment(self, frame: ClientFragmentFrame, direction: FrameDirection) -> None:
        await self._act(self._core.on_words(frame.text, frame.is_final, self._now(), is_client=True))

    @consumes(ClientTurnEndFrame)
    async def _on_client_turn_end(self, frame: Frame, direction: FrameDirection) -> None:
        await self._act(self._core.on_client_turn_end(self._now()))

    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: UserTurnFrame, direction: FrameDirection) -> None:
        if frame.turn_id > self._turn_id:  # the responder gave late words a turn of their own
            self._turn_id = frame.turn_id
            self._core.on_renewed(frame.text)
            self._arm()
        await self.push_frame(frame, direction)

    @consumes(UserSpeakingFrame)
    async def _on_client_speaking(self, frame: UserSpeakingFrame, direction: FrameDirection) -> None:
        decision = self._policy_now.on_client_says(frame.confidence, is_protected=self._is_protected)
        if decision is Decision.INTERRUPT:  # so says the gate, too
            self._core.on_client_speaking()
        await self.push_frame(frame, direction)

    @consumes(StateChangedFrame)
    async def _on_state(self, frame: StateChangedFrame, direction: FrameDirection) -> None:
        if frame.state == State.SPEAKING:
            self._heard_turn_id = max(self._heard_turn_id, frame.turn_id)
        actions: Sequence[TurnAction] = ()
        if not (frame.state == State.THINKING and frame.turn_id < self._turn_id):  # of a turn already replaced
            actions = self._core.on_state(State(frame.state), self._now())
        await self.push_frame(frame, direction)
        await self._act([*actions, *self._words_over()])

    @consumes(ProtectionFrame)
    async def _on_protection(self, frame: ProtectionFrame, direction: FrameDirection) -> None:
        self._is_protected = frame.is_protected
        await self.push_frame(frame, direction)
        await self._act(self._words_over())

    def _words_over(self) -> Sequence[TurnAction]:
        return self._core.hold(self._is_protected or self._policy_now.stance is Stance.NEVER)

    @property
    def _policy_now(self) -> BargeInPolicy:
        return self._policy.while_in(self._core.state)

    @consumes(InterruptionFrame)
    async def _on_interruption(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        actions: Sequence[TurnAction] = ()
        cut = frame.turn_id if isinstance(frame, ReplyInterruptedFrame) else self._turn_id
        if cut >= self._turn_id:  # else the next turn is committed already
            actions = self._core.on_cut(cut <= self._heard_turn_id, self._now())
        await self.push_frame(frame, direction)
        await self._act(actions)

    @consumes(TurnActedFrame)
    async def _on_acted(self, frame: TurnActedFrame, direction: FrameDirection) -> None:
        if frame.turn_id == self._turn_id:
            self._core.on_acted()

    # -- shell -------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _act(self, actions: Sequence[TurnAction]) -> None:
        self._arm()
        for action in actions:
            await self.push_frame(self._frame(action))

    def _frame(self, action: TurnAction) -> Frame:
        match action:
            case Started():
                return UtteranceStartedFrame()
            case Words(fragments, is_final):
                newest = max(self._turn_id, self._heard_turn_id)
                return TextBufferFrame(fragments=fragments, is_final=is_final, newer_than=newest)
            case Guessed(text):
                return SpeculativeTurnFrame(turn_id=self.conductor.turn_id + 1, text=text)
            case Committed(text, is_joined):
                text = _spoken(text)
                if not is_joined:
                    self._turn_id = self.conductor.commit_turn_id(text)
                return UserTurnFrame(turn_id=self._turn_id, text=text, joined=is_joined)
            case Discarded(reason):
                return UtteranceDiscardedFrame(reason=reason)

    def _arm(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        due = self._core.deadline
        if due is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(due, lambda: self.create_task(self._on_deadline(due)))

    async def _on_deadline(self, due: float) -> None:
        if self._core.deadline == due:  # else something has come before this task began
            await self._act(self._core.on_deadline(self._now()))


def _spoken(text: str) -> str:
    """The words without the marks of unclear speech."""
    return " ".join(text.replace(UNCLEAR, " ").split())
