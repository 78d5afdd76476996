"""`InterruptionGate`: the last door before the output. Decides barge-in, pauses first, lets nothing stale pass."""

from __future__ import annotations

import asyncio
from typing import Any

from pipecat.frames.frames import (
    AggregatedTextFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    LLMFullResponseStartFrame,
    OutputAudioRawFrame,
    StartFrame,
    StopFrame,
    TTSTextFrame,
    VADUserStartedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup

from ..pipeline.engine.consumes import consumes
from ..pipeline.engine.processor import Processor
from ..pipeline.engine.stages import Stage, has_recogniser_before
from ..pipeline.frames import (
    BargeInFrame,
    GenerationStopFrame,
    PlaybackPauseFrame,
    PlaybackResumeFrame,
    ProtectionFrame,
    ReplyAudibleFrame,
    ReplyEndedFrame,
    ReplyInterruptedFrame,
    ReplyPreparingFrame,
    ReplyStartedFrame,
    ReplyTextFrame,
    ReplyUnspokenFrame,
    SpeechChunkFrame,
    StateChangedFrame,
    TextBufferFrame,
    TurnContextFrame,
    UserSpeakingFrame,
    UserTurnFrame,
    UtteranceDiscardedFrame,
)
from ..pipeline.interruption.contexts import VoiceContexts, voices_before
from ..pipeline.interruption.fence import Fence
from ..pipeline.interruption.overlap import Overlap
from ..pipeline.interruption.policy import BargeInPolicy, Decision
from ..pipeline.reply.reply_texts import ReplyTexts
from ..pipeline.states import State

STALLED_S = 1.0  # chunks of speech come every 32 ms; without one for so long, the microphone is off: the bot goes on


class InterruptionGate(Processor):
    """Holds the bot at the first confident speech, cuts it when the speech is confirmed, else lets it go on.

    A cut is silence in the same step: the fence moves and the playback is held, then `BargeInFrame` goes upstream to
    the owner of the reply, which sends the interruption.

    Of a reply that is only prepared nothing passes until its `TurnContextFrame` says that the turn is committed.

    Consumes: audio, reply markers and texts, a voice's sentences and words, `SpeechChunkFrame`, `TextBufferFrame`,
        `UserSpeakingFrame`, `UserTurnFrame`, `TurnContextFrame`, `ReplyPreparingFrame` (ends here), interruptions,
        `StateChangedFrame` (from a `StateTracker` downstream).
    Emits: what is not stale, `ReplyAudibleFrame` before a reply's first audio, `ReplyTextFrame` for each sentence of a
        voice that nobody announced, `PlaybackPauseFrame`, `PlaybackResumeFrame`; upstream `BargeInFrame`.
    On barge-in: drops everything of the cut turn and of older ones, whatever still comes.
    """

    stage = Stage.GATE

    def __init__(self, *, policy: BargeInPolicy | None = None, resume_at_word: bool = False) -> None:
        super().__init__()
        self._is_at_word = resume_at_word  # go on with the word that a pause has cut in two, if the client can
        self._overlap = Overlap(policy or BargeInPolicy())  # what counts as an interruption, and what is going on
        self.fence = Fence()  # what may pass; its counters are public
        self._contexts = VoiceContexts()  # context id of a TTS service -> the turn it was minted for
        self._turn_id = 0  # the newest turn seen: the one that an interruption cuts
        self._preparing = 0  # the turn that is not committed, whose reply is held here; 0: none
        self._audible = 0  # the turn whose first audio has passed
        self._texts = ReplyTexts()  # what the client knows of the reply's words
        self._timer: asyncio.TimerHandle | None = None  # ends a wait: for words, or for speech; None: not held
        self._chunk_at = 0.0  # loop time of the last chunk of speech over the bot

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Follow the context ids of the TTS services upstream."""
        await super().setup(setup)
        for voice in voices_before(self):
            self._contexts.bind(voice)

    async def cleanup(self) -> None:
        """Wait for nothing."""
        self._disarm()
        await super().cleanup()

    @consumes(StartFrame)
    async def _on_start(self, frame: Frame, direction: FrameDirection) -> None:
        self._overlap.has_recogniser = has_recogniser_before(self)
        self.conductor.gate_saw(0)
        await self.push_frame(frame, direction)

    @consumes(OutputAudioRawFrame)
    async def _on_audio(self, frame: Any, direction: FrameDirection) -> None:
        turn_id = self._admit(frame)
        if turn_id is None:
            return
        if frame.audio:  # else nobody hears anything yet
            self.conductor.audio_passed(turn_id, asyncio.get_running_loop().time())
            if turn_id > self._audible:
                self._audible = turn_id
                await self.push_frame(ReplyAudibleFrame(turn_id=turn_id))
        await self.push_frame(frame, direction)

    def _admit(self, frame: Any) -> int | None:
        """Return the turn of an audio frame that may pass, None for one that may not."""
        turn_id = getattr(frame, "turn_id", None)
        if turn_id is not None:
            return turn_id if self.fence.passes(turn_id) else None
        context_id = getattr(frame, "context_id", None)
        if context_id is None:
            return self.fence.marker if self.fence.passes_unlabelled() else None
        minted = self._contexts.of(context_id)
        if not self.fence.passes_context(minted):
            return None
        turn_id = minted.turn_id if minted else self.fence.marker
        if turn_id:
            frame.turn_id = turn_id  # so that the output counts it to the right reply
        return turn_id

    @consumes(LLMFullResponseStartFrame)
    async def _on_unmarked_reply(self, frame: Frame, direction: FrameDirection) -> None:
        self.fence.open_unmarked(frame.id)
        await self.push_frame(frame, direction)

    @consumes(ReplyStartedFrame)
    async def _on_reply_started(self, frame: ReplyStartedFrame, direction: FrameDirection) -> None:
        self.fence.open(frame.turn_id)
        self._turn_id = max(self._turn_id, frame.turn_id)
        if self.fence.passes(frame.turn_id):
            await self.push_frame(frame, direction)

    @consumes(ReplyTextFrame)
    async def _on_reply_text(self, frame: ReplyTextFrame, direction: FrameDirection) -> None:
        if self.fence.passes(frame.turn_id):
            self._texts.announced(frame.turn_id, frame.text, frame.is_final)
            await self.push_frame(frame, direction)

    @consumes(AggregatedTextFrame)
    async def _on_sentence(self, frame: AggregatedTextFrame, direction: FrameDirection) -> None:
        turn_id = self._admit(frame)
        if turn_id is None:
            return
        if turn_id and not isinstance(frame, TTSTextFrame) and self._texts.is_news(turn_id, frame.text):
            await self.push_frame(ReplyTextFrame(turn_id=turn_id, text=frame.text))
        await self.push_frame(frame, direction)

    @consumes(ReplyEndedFrame, ReplyUnspokenFrame)
    async def _on_reply_over(self, frame: Any, direction: FrameDirection) -> None:
        if not self.fence.passes(frame.turn_id):
            return
        self.conductor.reply_closed(frame.turn_id)
        if not self._texts.is_complete(frame.turn_id):
            rest = frame.text if isinstance(frame, ReplyUnspokenFrame) else ""
            text = rest if self._texts.is_news(frame.turn_id, rest) else ""
            self._texts.announced(frame.turn_id, text, True)
            await self.push_frame(ReplyTextFrame(turn_id=frame.turn_id, text=text, is_final=True))
        await self.push_frame(frame, direction)

    @consumes(GenerationStopFrame)
    async def _on_stop(self, frame: GenerationStopFrame, direction: FrameDirection) -> None:
        """It was for LLM and voice; what they had sent before is played, unless it was prepared for nothing."""
        if frame.turn_id:
            self.fence.cut(frame.turn_id)
            self._preparing = 0

    # -- replies that are prepared -----------------------------------------------------------------------------

    @consumes(ReplyPreparingFrame)
    async def _on_preparing(self, frame: ReplyPreparingFrame, direction: FrameDirection) -> None:
        self._preparing = frame.turn_id
        await self.pause_processing_frames()

    @consumes(TurnContextFrame)
    async def _on_context(self, frame: TurnContextFrame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)
        if frame.turn_id == self._preparing:
            self._preparing = 0
            await self.resume_processing_frames()

    def on_held(self, frame: Frame) -> None:
        """Watch what is held of a prepared reply: a little of it, and never the end of the conversation."""
        prepared = self.conductor.prepared if self._preparing else None
        if prepared is not None and isinstance(frame, OutputAudioRawFrame):
            audio_s = len(frame.audio) / 2 / frame.num_channels / frame.sample_rate
            prepared.held(audio_s, asyncio.get_running_loop().time())
        elif prepared is not None and isinstance(frame, EndFrame | StopFrame):
            prepared.give_up("the conversation ends")

    def drops_held(self, frame: Frame) -> bool:
        """Drop all of a prepared reply, its markers too."""
        return super().drops_held(frame) or getattr(frame, "turn_id", 0) == self._preparing > 0

    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: UserTurnFrame, direction: FrameDirection) -> None:
        self._turn_id = max(self._turn_id, frame.turn_id)
        self._overlap.on_settled()
        await self.push_frame(frame, direction)

    @consumes(StateChangedFrame)
    async def _on_state(self, frame: StateChangedFrame, direction: FrameDirection) -> None:
        state = self._overlap.state = State(frame.state)
        is_over = self._overlap.is_holding and state is State.IDLE  # the reply ended while it was held
        if state is not State.SPEAKING:
            self._forget()
        await self.push_frame(frame, direction)
        if is_over:
            await self.push_frame(PlaybackResumeFrame(turn_id=self._turn_id, at_word=self._is_at_word))

    @consumes(VADUserStartedSpeakingFrame)
    async def _on_speech_started(self, frame: Frame, direction: FrameDirection) -> None:
        self._overlap.on_start()
        await self.push_frame(frame, direction)

    @consumes(SpeechChunkFrame)
    async def _on_speech(self, frame: SpeechChunkFrame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)
        if self._is_bot_busy:
            self._chunk_at = asyncio.get_running_loop().time()
            await self._do(self._overlap.on_speech(frame.confidence, frame.speech_ms, frame.level_db))

    @consumes(TextBufferFrame)
    async def _on_words(self, frame: TextBufferFrame, direction: FrameDirection) -> None:
        is_busy = self._is_bot_busy
        is_in_turn = frame.newer_than is not None and frame.newer_than < self._turn_id  # overtaken by their own turn
        await self.push_frame(frame, direction)
        if is_busy and self._is_bot_busy and not is_in_turn:
            await self._do(self._overlap.on_words(" ".join(frame.fragments), frame.is_final))

    @consumes(UtteranceDiscardedFrame)
    async def _on_discarded(self, frame: Frame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)
        await self._do(self._overlap.on_verdict())

    @consumes(UserSpeakingFrame)
    async def _on_client_says(self, frame: UserSpeakingFrame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)
        if self._is_bot_busy:
            await self._do(self._overlap.on_client_says(frame.confidence))

    @consumes(ProtectionFrame)
    async def _on_protection(self, frame: ProtectionFrame, direction: FrameDirection) -> None:
        self._overlap.is_protected = frame.is_protected
        await self.push_frame(frame, direction)

    @consumes(InterruptionFrame)
    async def _on_interruption(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        turn_id = frame.turn_id if isinstance(frame, ReplyInterruptedFrame) else self._turn_id
        self.fence.cut(turn_id, born=frame.id)
        self.conductor.gate_saw(turn_id)
        if self._preparing:  # what was held of it is gone already
            self.fence.cut(self._preparing)
            self._preparing = 0
            if self.conductor.prepared is not None:
                self.conductor.prepared.give_up("an interruption")
        self._forget()
        await self.push_frame(frame, direction)

    @property
    def _is_bot_busy(self) -> bool:
        return self._overlap.state in (State.THINKING, State.SPEAKING) and self._turn_id > self.fence.stale_upto

    async def _do(self, decision: Decision) -> None:
        overlap = self._overlap
        if decision is Decision.INTERRUPT:
            self.fence.cut(self._turn_id)
            if overlap.state is State.SPEAKING and not overlap.is_holding:
                overlap.is_holding = True
                await self.push_frame(PlaybackPauseFrame(turn_id=self._turn_id, is_told=False))
            await self.push_frame(BargeInFrame(turn_id=self._turn_id), FrameDirection.UPSTREAM)
        elif decision is Decision.PAUSE:
            self._arm(STALLED_S)
            await self.push_frame(PlaybackPauseFrame(turn_id=self._turn_id))
        elif decision is Decision.RESUME:
            self._disarm()
            await self.push_frame(PlaybackResumeFrame(turn_id=self._turn_id, at_word=self._is_at_word))
        elif decision is Decision.AWAIT:
            self._arm(overlap.policy.verdict_ms / 1000)

    def _arm(self, wait_s: float) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        left_s = self._chunk_at + STALLED_S - asyncio.get_running_loop().time()
        if self._overlap.is_holding and not self._overlap.is_waiting and left_s > 0:
            self._arm(left_s)
        else:
            self.create_task(self._time_is_up(), "resume")

    async def _time_is_up(self) -> None:
        """Decide here, in the step that acts on it: a chunk of speech may come before this task begins."""
        await self._do(self._overlap.on_time())

    def _forget(self) -> None:
        self._overlap.forget()
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
