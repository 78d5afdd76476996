"""`InterruptionGate`: the last door before the output. Decides barge-in, pauses first, lets nothing stale pass."""

from __future__ import annotations

from typing import Any

from pipecat.frames.frames import Frame, InterruptionFrame, OutputAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection

from ..pipeline.bargein import BargeInPolicy, Decision
from ..pipeline.consumes import consumes
from ..pipeline.fence import Fence
from ..pipeline.frames import (
    BargeInFrame,
    PlaybackPauseFrame,
    PlaybackResumeFrame,
    ReplyAudibleFrame,
    ReplyEndedFrame,
    ReplyInterruptedFrame,
    ReplyStartedFrame,
    ReplyTextFrame,
    SpeechChunkFrame,
    StateChangedFrame,
    TextBufferFrame,
    UserSpeakingFrame,
    UserTurnFrame,
)
from ..pipeline.processor import Processor
from ..pipeline.stages import Stage
from ..pipeline.states import State


class InterruptionGate(Processor):
    """Holds the bot at the first confident speech, cuts it when the speech is confirmed, else lets it go on.

    A cut is silence in the same step: the fence moves and the playback is held, then `BargeInFrame` goes upstream to
    the owner of the reply, which sends the interruption.

    Consumes: audio, reply markers and texts, `SpeechChunkFrame`, `TextBufferFrame`, `UserSpeakingFrame`,
        `UserTurnFrame`, `StateChangedFrame` (from a `StateTracker` downstream), interruptions.
    Emits: what is not stale, `ReplyAudibleFrame` before a reply's first audio, `PlaybackPauseFrame`,
        `PlaybackResumeFrame`; upstream `BargeInFrame`.
    On barge-in: drops everything of the cut turn and of older ones, whatever still comes.
    """

    stage = Stage.GATE

    def __init__(self, *, policy: BargeInPolicy | None = None) -> None:
        super().__init__()
        self._policy = policy or BargeInPolicy()  # what counts as an interruption
        self.fence = Fence()  # what may pass; its counters are public
        self._state = State.IDLE  # the conversation's, as the tracker said last
        self._turn_id = 0  # the newest turn seen: the one that an interruption cuts
        self._audible = 0  # the turn whose first audio has passed
        self._is_paused = False  # the playback is held because of speech not yet confirmed

    @consumes(OutputAudioRawFrame)
    async def _on_audio(self, frame: Any, direction: FrameDirection) -> None:
        turn_id = getattr(frame, "turn_id", None)
        if not self.fence.passes(turn_id):
            return
        turn = self.fence.marker if turn_id is None else turn_id
        if turn != self._audible:
            self._audible = turn
            await self.push_frame(ReplyAudibleFrame(turn_id=turn))
        await self.push_frame(frame, direction)

    @consumes(ReplyStartedFrame)
    async def _on_reply_started(self, frame: ReplyStartedFrame, direction: FrameDirection) -> None:
        self.fence.open(frame.turn_id)
        self._turn_id = max(self._turn_id, frame.turn_id)
        if frame.turn_id > self.fence.stale_upto:
            await self.push_frame(frame, direction)

    @consumes(ReplyEndedFrame, ReplyTextFrame)
    async def _on_reply_part(self, frame: Any, direction: FrameDirection) -> None:
        if frame.turn_id > self.fence.stale_upto:
            await self.push_frame(frame, direction)

    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: UserTurnFrame, direction: FrameDirection) -> None:
        self._turn_id = max(self._turn_id, frame.turn_id)
        await self.push_frame(frame, direction)

    @consumes(StateChangedFrame)
    async def _on_state(self, frame: StateChangedFrame, direction: FrameDirection) -> None:
        self._state = State(frame.state)
        if self._state is not State.SPEAKING:
            self._is_paused = False
        await self.push_frame(frame, direction)

    @consumes(SpeechChunkFrame)
    async def _on_speech(self, frame: SpeechChunkFrame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)
        if self._is_bot_busy:
            await self._do(self._policy.on_speech(frame.confidence, frame.speech_ms, self._is_paused))

    @consumes(TextBufferFrame)
    async def _on_words(self, frame: TextBufferFrame, direction: FrameDirection) -> None:
        is_busy = self._is_bot_busy
        await self.push_frame(frame, direction)
        if is_busy and self._is_bot_busy:
            await self._do(self._policy.on_words(" ".join(frame.fragments)))

    @consumes(UserSpeakingFrame)
    async def _on_client_says(self, frame: UserSpeakingFrame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)
        if self._is_bot_busy:
            await self._do(self._policy.on_client_says(frame.confidence))

    @consumes(InterruptionFrame)
    async def _on_interruption(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        self.fence.cut(frame.turn_id if isinstance(frame, ReplyInterruptedFrame) else self._turn_id)
        self._is_paused = False
        await self.push_frame(frame, direction)

    @property
    def _is_bot_busy(self) -> bool:
        return self._state in (State.THINKING, State.SPEAKING) and self._turn_id > self.fence.stale_upto

    async def _do(self, decision: Decision) -> None:
        is_speaking = self._state is State.SPEAKING
        if decision is Decision.INTERRUPT:
            self.fence.cut(self._turn_id)
            if is_speaking and not self._is_paused:
                self._is_paused = True
                await self.push_frame(PlaybackPauseFrame(turn_id=self._turn_id))
            await self.push_frame(BargeInFrame(turn_id=self._turn_id), FrameDirection.UPSTREAM)
        elif decision is Decision.PAUSE and is_speaking:
            self._is_paused = True
            await self.push_frame(PlaybackPauseFrame(turn_id=self._turn_id))
        elif decision is Decision.RESUME:
            self._is_paused = False
            await self.push_frame(PlaybackResumeFrame(turn_id=self._turn_id))
