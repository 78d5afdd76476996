"""`ClientOutput`: the tail of a conversation's pipeline. It knows no socket; it writes to a `Wire`, in a `Dialect`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from loguru import logger
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import PipelineSink
from pipecat.processors.frame_processor import FrameDirection

from ...pipeline.conversation.resume import RESUMED
from ...pipeline.engine.consumes import consumes
from ...pipeline.engine.processor import Processor
from ...pipeline.engine.stages import Stage
from ...pipeline.frames import (
    PassageFrame,
    PlaybackPauseFrame,
    PlaybackResumeFrame,
    ProtectionFrame,
    ReplyEndedFrame,
    ReplyInterruptedFrame,
    ReplyPlayedFrame,
    ReplyProgressFrame,
    ReplyStartedFrame,
    ReplyTextFrame,
    ReplyUnspokenFrame,
    StateChangedFrame,
    TextBufferFrame,
    TurnMeasuredFrame,
)
from ...pipeline.states import State
from ..dialects.dialect import Dialect, JsonDialect, Spelled
from .playout import Playout
from .resampler import PIPELINE_RATE, ReplyResampler, Resampler
from .ticker import Ticker, shared_ticker
from .wire import Wire

MARK_MS = 200.0  # of audio between two marks, for clients that are asked how far they have played
GOODBYE_S = 1.0  # that the end waits for what is still to be played, and its length


class ClientOutput(Processor):
    """The tail of the pipeline: plays the bot's audio at real time, and tells the client what happens.

    Consumes: audio, reply markers and texts, pause and resume, `StateChangedFrame`, `TextBufferFrame`,
        `TurnMeasuredFrame`, interruptions, the end.
    Emits: upstream `ReplyPlayedFrame`, and Pipecat's `BotStartedSpeakingFrame` / `BotStoppedSpeakingFrame`.
    On barge-in: drops what waits, tells the client to drop what it has, and reports what was heard.
    """

    stage = Stage.OUTPUT

    def __init__(
        self,
        *,
        wire: Wire,
        dialect: Dialect | None = None,
        lead_ms: float = 60.0,
        ticker: Callable[[], Ticker] = shared_ticker,
    ) -> None:
        super().__init__()
        self._wire = wire  # where messages go
        self._spell = dialect or JsonDialect()  # how they are written
        self._playout = Playout(sample_rate=PIPELINE_RATE, lead_ms=lead_ms)  # what plays when
        self._get_ticker = ticker  # the process's ticker, asked for when first needed
        self._ticker: Ticker | None = None  # set while something plays or waits to
        self._resample = Resampler(PIPELINE_RATE, PIPELINE_RATE)  # to the client's rate
        self._rate = PIPELINE_RATE  # the client's
        self._from_voice = ReplyResampler(PIPELINE_RATE)  # from the voices' rates
        self._marker = 0  # turn of the reply that came last
        self._overfull: int | None = None  # the turn whose reply was too long to be kept, as was logged
        self._turn_id = 0  # the newest turn of the state machine
        self._sounding: int | None = None  # the turn whose audio is being sent
        self._unspoken = 0  # the newest turn whose voice failed; 0: none
        self._texts: list[tuple[int, str, bool]] = []  # (turn, text, final) waiting for the move to speaking
        self._speaking_turn: int | None = None  # the turn that `response_ready` was sent for
        self._resumed_turn: int | None = None  # being spoken when another process lost it, and not gone on with yet
        self._heard_count = -1  # words of the sounding reply that were reported as begun; -1: not even its start
        self._is_protected = False  # what sounds is protected, as was told upstream
        self._thinking_since = 0.0  # loop time of the last end of turn
        self._is_silent = asyncio.Event()  # cleared while something plays or waits to
        self._goodbye: asyncio.Task[None] | None = None  # waits for that, then ends
        self._marked: tuple[int | None, float] = (None, 0.0)  # turn, and ms of its reply, that the client marked last

    def wrap_dialect(self, wrap: Callable[[Dialect], Dialect]) -> None:
        """Spell with what `wrap` makes of the dialect; before the first message."""
        self._spell = wrap(self._spell)

    def wrap_ticker(self, wrap: Callable[[Callable[[], Ticker]], Callable[[], Ticker]]) -> None:
        """Tick by what `wrap` makes of the way to the ticker; before the first audio."""
        self._get_ticker = wrap(self._get_ticker)

    def set_rate(self, sample_rate: int) -> None:
        """Say at what rate the client plays; 16 kHz until then."""
        self._rate = sample_rate
        self._resample = Resampler(PIPELINE_RATE, sample_rate)

    def acknowledge(self, turn_id: int, played_ms: float) -> None:
        """The client has played so much of the reply to this turn."""
        self._playout.acknowledge(turn_id, played_ms, self._now())

    async def cleanup(self) -> None:
        """Stop playing."""
        if self._goodbye is not None:
            self._goodbye.cancel()
        self._stop()
        await super().cleanup()

    # -- audio -------------------------------------------------------------------------------------------------

    @consumes(InputAudioRawFrame)
    async def _on_microphone(self, frame: Frame, direction: FrameDirection) -> None:
        """The user's audio ends here, unless somebody behind wants it: the way out costs a tenth of a call."""
        if not isinstance(self._next, PipelineSink):
            await self.push_frame(frame, direction)

    @consumes(OutputAudioRawFrame)
    async def _on_audio(self, frame: Any, direction: FrameDirection) -> None:
        turn_id = getattr(frame, "turn_id", None)
        turn_id = self._marker if turn_id is None else turn_id
        pcm = self._from_voice(turn_id, frame.audio, frame.sample_rate, frame.num_channels)
        self._playout.push_audio(turn_id, pcm, getattr(frame, "words", ()))
        if self._playout.is_full and turn_id != self._overfull:
            self._overfull = turn_id
            logger.warning(
                f"turn {turn_id}: {self._playout.held_ms / 1000:g} s wait to be played; what follows is lost"
            )
        self._play()

    @consumes(TTSTextFrame)
    async def _on_spoken(self, frame: Any, direction: FrameDirection) -> None:
        """Words of a stock voice: they begin where its audio ends by now."""
        turn_id = getattr(frame, "turn_id", self._marker)
        self._playout.push_words(turn_id, frame.text)

    @consumes(ReplyUnspokenFrame)
    async def _on_unspoken(self, frame: ReplyUnspokenFrame, direction: FrameDirection) -> None:
        for turn_id, text, final in self._texts:
            if turn_id == frame.turn_id:
                self.say(self._spell.response_text(turn=turn_id, text=text, final=final))
        self._texts = [text for text in self._texts if text[0] != frame.turn_id]
        self.say(self._spell.error("voice_failed", f"The reply could not be spoken: {frame.reason}."))
        self._unspoken = frame.turn_id
        self._end_reply(frame.turn_id)

    @consumes(ReplyStartedFrame)
    async def _on_reply_started(self, frame: ReplyStartedFrame, direction: FrameDirection) -> None:
        self._marker = frame.turn_id

    @consumes(PassageFrame)
    async def _on_passage(self, frame: PassageFrame, direction: FrameDirection) -> None:
        self._playout.protect(frame.turn_id, frame.is_protected)

    @consumes(ReplyEndedFrame)
    async def _on_reply_ended(self, frame: ReplyEndedFrame, direction: FrameDirection) -> None:
        self._end_reply(frame.turn_id)

    def _end_reply(self, turn_id: int) -> None:
        if rest := self._from_voice.flush(turn_id):
            self._playout.push_audio(turn_id, rest)
        self._playout.end(turn_id)
        self._play()

    @consumes(PlaybackPauseFrame)
    async def _on_pause(self, frame: PlaybackPauseFrame, direction: FrameDirection) -> None:
        self._playout.pause(self._now())
        if frame.is_told:
            self.say(self._spell.pause(frame.turn_id))

    @consumes(PlaybackResumeFrame)
    async def _on_resume(self, frame: PlaybackResumeFrame, direction: FrameDirection) -> None:
        back_ms = self._playout.resume(self._now(), at_word=frame.at_word and self._spell.can_rewind)
        self.say(self._spell.resume(frame.turn_id, back_ms))
        self._play()

    @consumes(InterruptionFrame)
    async def _on_interruption(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        now = self._now()
        turn_id = frame.turn_id if isinstance(frame, ReplyInterruptedFrame) else self._playout.turn_id
        if turn_id is not None:
            heard = " ".join(self._playout.heard_words(now))
            heard_ms = self._playout.cut(turn_id, now)
            self._texts = [text for text in self._texts if text[0] > turn_id]
            self.say(self._spell.interrupted(turn_id))
            played = ReplyPlayedFrame(turn_id=turn_id, complete=False, played_ms=heard_ms, heard=heard)
            await self._report(played)
        self._note_protection(now)
        await self.push_frame(frame, direction)

    @consumes(EndFrame, CancelFrame)
    async def _on_end(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, EndFrame) and self._ticker is not None:
            self._goodbye = self.create_task(self._end_when_played(frame, direction), "goodbye")
        else:
            self._stop()
            await self.push_frame(frame, direction)

    async def _end_when_played(self, frame: Frame, direction: FrameDirection) -> None:
        """A bot that says goodbye and ends is heard to its last word."""
        await asyncio.wait({self.create_task(self._is_silent.wait())}, timeout=self._playout.held_ms / 1000 + GOODBYE_S)
        self._stop()
        await self.push_frame(frame, direction)

    # -- messages ----------------------------------------------------------------------------------------------

    @consumes(StateChangedFrame)
    async def _on_state(self, frame: StateChangedFrame, direction: FrameDirection) -> None:
        now = self._now()
        self._turn_id = frame.turn_id
        if frame.state == State.THINKING:
            self._thinking_since = now
        update = self._spell.state_update(
            state=frame.state, text_buffer=frame.text_buffer, turn=frame.turn_id, trigger=frame.trigger
        )
        self.say(update)
        if frame.state == State.SPEAKING and frame.trigger == RESUMED:
            self._resumed_turn = frame.turn_id  # its `response_ready` comes with the rest of the reply
        elif frame.state == State.SPEAKING:
            known = [text for text in self._texts if text[0] == frame.turn_id]
            self._texts.clear()
            self._speaking_turn = frame.turn_id
            ready = self._spell.response_ready(
                turn=frame.turn_id,
                text=" ".join(text for _, text, _ in known),
                thinking_ms=(now - self._thinking_since) * 1000 if frame.previous == State.THINKING else 0.0,
                final=any(final for _, _, final in known),
            )
            self.say(ready)
        await self.push_frame(frame, direction)

    @consumes(TextBufferFrame)
    async def _on_words(self, frame: TextBufferFrame, direction: FrameDirection) -> None:
        update = self._spell.state_update(
            state=State.LISTENING, text_buffer=frame.fragments, turn=self._turn_id, trigger="stt_fragment"
        )
        self.say(update)

    @consumes(ReplyTextFrame)
    async def _on_text(self, frame: ReplyTextFrame, direction: FrameDirection) -> None:
        if frame.turn_id == self._resumed_turn:
            self._resumed_turn, self._speaking_turn = None, frame.turn_id
            ready = self._spell.response_ready(
                turn=frame.turn_id, text=frame.text, thinking_ms=0.0, final=frame.is_final
            )
            self.say(ready)
        elif frame.turn_id == self._speaking_turn:
            self.say(self._spell.response_text(turn=frame.turn_id, text=frame.text, final=frame.is_final))
        else:
            self._texts = [*self._texts[-63:], (frame.turn_id, frame.text, frame.is_final)]

    @consumes(TurnMeasuredFrame)
    async def _on_measured(self, frame: TurnMeasuredFrame, direction: FrameDirection) -> None:
        self.say(self._spell.turn(frame.turn_id, waterfall=frame.as_json()))

    def say(self, spelled: Spelled) -> None:
        """Send what a dialect has spelled."""
        for message in spelled if isinstance(spelled, tuple) else (spelled,):
            if message is not None:
                self._wire.send_text(message)

    # -- playing -----------------------------------------------------------------------------------------------

    def _play(self) -> None:
        if self._ticker is None:
            self._is_silent.clear()
            self._ticker = self._get_ticker()
            self._ticker.add(self._tick)
        self._tick(self._now())

    def _stop(self) -> None:
        if self._ticker is not None:
            self._ticker.remove(self._tick)
            self._ticker = None
            self._is_silent.set()

    def _tick(self, now: float) -> None:
        chunks, turn_id = self._playout.take(now), self._playout.turn_id
        if turn_id != self._sounding:
            self._resample.forget()
        for chunk in chunks:
            if pcm := self._resample(chunk):  # a resampler keeps its first samples for a while
                self._wire.send_audio(self._spell.audio(pcm, self._rate))
        if self._playout.is_sent and (rest := self._resample.flush()):
            self._wire.send_audio(self._spell.audio(rest, self._rate))
        if chunks and turn_id is not None:
            self._mark(turn_id, self._playout.sent_ms)
        if chunks and turn_id != self._sounding:
            self._sounding, self._heard_count = turn_id, -1
            self.create_task(self._broadcast_bot(BotStartedSpeakingFrame), "bot_started")
        self._note_progress(turn_id, now)
        finished = self._playout.finished(now)
        if finished is not None:
            played = ReplyPlayedFrame(turn_id=finished, is_unspoken=finished == self._unspoken)
            self.create_task(self._report(played), "reply_played")
        self._note_protection(now)
        if self._playout.turn_id is None:
            self._stop()

    def _mark(self, turn_id: int, sent_ms: float) -> None:
        if self._marked[0] != turn_id:
            self._marked = (turn_id, 0.0)
        if sent_ms - self._marked[1] >= MARK_MS:
            self._marked = (turn_id, sent_ms)
            self.say(self._spell.mark(turn_id, sent_ms))

    def _note_protection(self, now: float) -> None:
        """Say upstream that a protected passage has begun to sound, or is over."""
        is_protected = self._playout.is_protected(now)
        if is_protected != self._is_protected:
            self._is_protected = is_protected
            frame = ProtectionFrame(turn_id=self._playout.turn_id or 0, is_protected=is_protected)
            self.create_task(self.push_frame(frame, FrameDirection.UPSTREAM), "protection")

    def _note_progress(self, turn_id: int | None, now: float) -> None:
        """Say upstream that the first audio, or another word, has begun to sound."""
        if turn_id is None or turn_id != self._sounding or self._playout.is_paused:
            return
        heard, played_ms = self._playout.heard_words(now), self._playout.played_ms(now)
        if len(heard) == self._heard_count or not played_ms:
            return
        self._heard_count = len(heard)
        progress = ReplyProgressFrame(turn_id=turn_id, played_ms=played_ms, heard=" ".join(heard))
        self.create_task(self.push_frame(progress, FrameDirection.UPSTREAM), "reply_progress")

    async def _report(self, played: ReplyPlayedFrame) -> None:
        if self._sounding is not None:
            self._sounding = None
            await self._broadcast_bot(BotStoppedSpeakingFrame)
        await self.push_frame(played, FrameDirection.UPSTREAM)

    async def _broadcast_bot(self, frame_type: type[Frame]) -> None:
        await self.broadcast_frame(frame_type)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
