"""`EmbeddedTTS`: the reply's sentences become its audio, in the embedded voice, with the time of every word."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field

from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSTextFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
from pipecat.utils.errors import ErrorCategory

from ..pipeline import Processor, Stage, consumes
from ..pipeline.errors import ConfigurationError, ServiceError, WorkerCrashed
from ..pipeline.frames import (
    ProtectedSpeechFrame,
    ReplyAudioFrame,
    ReplyEndedFrame,
    ReplySpeechFrame,
    ReplyStartedFrame,
    ReplyTextFrame,
    SecondVoiceFrame,
)
from ..pipeline.text.cleaning import CLEAN, CLEANED, Cleaning, TextCleaner, cleaned
from ..pipeline.text.pronunciation import Pronunciation
from ..pipeline.text.sentences import SentenceStream, split_text
from .embedded.voice.espeak import EspeakVoice, Words

YIELD_EVERY = 8  # chunks; other conversations get the loop between them, however fast the voice is
MAX_SENTENCES = 256  # of one reply waiting for the voice; what follows is not spoken, with an error


@dataclass
class _Sentence:
    text: str
    is_told: bool  # the client knows it already


@dataclass
class _Reply:
    """One reply on its way through the voice. Turn 0 is whatever a bot without our Responder says."""

    turn_id: int
    sentences: asyncio.Queue[_Sentence | Frame | None] = field(  # None: end; frames go on between their sentences
        default_factory=lambda: asyncio.Queue(MAX_SENTENCES + 4)
    )
    end: tuple[ReplyEndedFrame, FrameDirection] | None = None  # the marker, kept back until the last audio is out
    is_failed: bool = False  # the voice failed in it: the rest is not spoken
    done: asyncio.Event = field(default_factory=asyncio.Event)  # its task is over


class EmbeddedTTS(Processor):
    """Speaks replies through espeak-ng in a worker process that all conversations share.

    Takes what Pipecat's TTS services take: an LLM's text, spoken sentence by sentence while the rest is generated, and
    `TTSSpeakFrame`s. With `is_standby` it stands behind another voice and speaks what the responder hands to it when
    that one has failed; everything else passes.

    `voice`, `rate_wpm` and `pitch` are the voice's, `sample_rate` that of the audio (Hz). `cleaning` says what of a
    text is left out, `pronunciation` how words are said; those that were heard are told as they are written. Audio is
    made faster than it is played, but at most `lead_s` ahead. The first sound of a sentence must come within
    `first_byte_s`; past it, or when the voice fails, an `ErrorFrame` goes upstream, the rest of the reply stays
    unspoken, and its end is told. A sentence during which the worker died is asked for once more if nothing of it was
    heard.

    ReplyStarted | speech -> audio audio audio | speech -> audio ... | ReplyEnded

    Consumes: ReplyStartedFrame, ReplySpeechFrame, TTSSpeakFrame and LLMTextFrame (end here), LLM response start and
        end, ProtectedSpeechFrame, SecondVoiceFrame, ReplyEndedFrame, InterruptionFrame, EndFrame (waits for the last
        reply)
    Emits: ReplyAudioFrame of 20 to 40 ms, whose words count from the reply's first sample; ReplyTextFrame before each
        of an LLM's sentences; the markers. In a bot without our Responder: TTSAudioRawFrame, and TTSTextFrame after it.
    On barge-in: the synthesis stops in the worker, waiting sentences of that turn and older ones are dropped, and
        nothing more of them comes, except the end marker if it arrives later.
    """

    stage = Stage.VOICE

    def __init__(
        self,
        *,
        voice: str = "en",
        rate_wpm: int = 165,
        pitch: int = 50,
        sample_rate: int = 16000,
        lead_s: float = 10.0,
        first_byte_s: float = 3.0,
        is_standby: bool = False,
        cleaning: Cleaning = CLEAN,
        pronunciation: Pronunciation | None = None,
        name: str | None = None,
    ) -> None:
        if lead_s <= 0 or first_byte_s <= 0:
            raise ConfigurationError(f"lead_s is {lead_s} and first_byte_s {first_byte_s}; both must be above 0")
        super().__init__(name=name)
        self._voice = EspeakVoice(voice=voice, rate_wpm=rate_wpm, pitch=pitch, sample_rate=sample_rate)
        self._lead_s = lead_s  # audio made ahead of real time
        self._first_byte_s = first_byte_s  # from asking for a sentence to its first sound
        self.is_standby = is_standby  # speaks only what the first voice could not
        self._cleaning = cleaning  # what of a text is not said
        self._cleaner = TextCleaner(cleaning)  # of the LLM's response, unless the responder has cleaned it
        self._pronunciation = pronunciation or Pronunciation()  # how words are said
        self._text = SentenceStream()  # of the LLM's response, the sentence that is not whole yet
        self._replies: dict[int, _Reply] = {}  # turn -> reply not over, in the order of their audio
        self._newest = 0  # turn of the last reply opened here; a TTSSpeakFrame without a turn belongs to it
        self._stale_upto = -1  # newest turn that was interrupted; its late texts are not spoken
        self._held_end: tuple[EndFrame, FrameDirection] | None = None  # waits until the last reply is spoken

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Take hold of the shared voice and start its process, so that the first reply need not wait for it."""
        await super().setup(setup)
        self._voice.open()
        self.create_task(self._warm_up(), "warm_up")

    async def cleanup(self) -> None:
        """Let go of the voice; its process stays warm for other conversations."""
        self._replies.clear()
        await super().cleanup()
        self._voice.close()

    async def _warm_up(self) -> None:
        try:
            await self._voice.warm_up()
        except (ServiceError, ConfigurationError) as error:
            await self._report(error)

    # -- frames ------------------------------------------------------------------------------------------------

    @consumes(ReplyStartedFrame)
    async def _on_started(self, frame: ReplyStartedFrame, direction: FrameDirection) -> None:
        self._newest = frame.turn_id
        if not self.is_standby:
            self._open(frame.turn_id)
        await self.push_frame(frame, direction)

    @consumes(TTSSpeakFrame)
    async def _on_speech(self, frame: TTSSpeakFrame, direction: FrameDirection) -> None:
        if self.is_standby:
            await self.push_frame(frame, direction)
            return
        is_reply = isinstance(frame, ReplySpeechFrame)
        if not is_reply and self._newest and self._newest not in self._replies:
            await self.push_frame(TTSSpeakFrame(frame.text), FrameDirection.UPSTREAM)  # the responder opens a reply
            return
        await self._add(frame.turn_id if is_reply else self._newest, self._split(frame.text), is_told=is_reply)

    @consumes(SecondVoiceFrame)
    async def _on_second_voice(self, frame: SecondVoiceFrame, direction: FrameDirection) -> None:
        if self.is_standby:
            await self._add(frame.turn_id, self._split(frame.text), is_told=frame.is_told)
        else:
            await self.push_frame(frame, direction)

    @consumes(LLMTextFrame)
    async def _on_llm_text(self, frame: LLMTextFrame, direction: FrameDirection) -> None:
        if self.is_standby or frame.skip_tts:
            await self.push_frame(frame, direction)
            return
        text = frame.text if CLEANED in frame.metadata else self._cleaner.feed(frame.text)
        await self._add(self._newest, self._text.feed(text), is_told=False)

    @consumes(LLMFullResponseStartFrame, LLMFullResponseEndFrame)
    async def _on_response(self, frame: Frame, direction: FrameDirection) -> None:
        if self.is_standby:
            await self.push_frame(frame, direction)
            return
        rest = [*self._text.feed(self._cleaner.flush()), *self._text.flush()]
        if isinstance(frame, LLMFullResponseEndFrame):
            await self._add(self._newest, rest, is_told=False)
        reply = self._replies.get(self._newest)
        if reply is None or reply.sentences.full():
            await self.push_frame(frame, direction)
        else:
            reply.sentences.put_nowait(frame)  # behind the sentences before it

    def _split(self, text: str) -> list[str]:
        return split_text(cleaned(text, self._cleaning))

    async def _add(self, turn_id: int, pieces: list[str], *, is_told: bool) -> None:
        if not pieces or (turn_id and turn_id <= self._stale_upto and turn_id not in self._replies):
            return  # of a reply that was cut
        reply = self._open(turn_id)
        room = max(0, MAX_SENTENCES - reply.sentences.qsize())
        for piece in pieces[:room]:
            reply.sentences.put_nowait(_Sentence(piece, is_told))
        if len(pieces) > room:
            await self._report(ServiceError(f"more than {MAX_SENTENCES} sentences wait for the voice; some are lost"))

    @consumes(ReplyEndedFrame)
    async def _on_ended(self, frame: ReplyEndedFrame, direction: FrameDirection) -> None:
        reply = self._replies.get(frame.turn_id)
        if reply is None or reply.end is not None:  # interrupted, or nothing of it came by here
            await self.push_frame(frame, direction)
            return
        reply.end = (frame, direction)
        reply.sentences.put_nowait(None)  # there is always room for the one end

    @consumes(ProtectedSpeechFrame)
    async def _on_protected_speech(self, frame: ProtectedSpeechFrame, direction: FrameDirection) -> None:
        reply = self._replies.get(frame.turn_id)
        if self.is_standby or reply is None or reply.sentences.full():
            await self.push_frame(frame, direction)
        else:
            reply.sentences.put_nowait(frame)  # between the sentences that it stands between

    @consumes(InterruptionFrame)
    async def _on_interruption(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        upto = getattr(frame, "turn_id", None)
        cut = [turn_id for turn_id in self._replies if upto is None or turn_id <= upto]
        for turn_id in cut:  # the engine has cancelled their tasks already
            self._replies.pop(turn_id).done.set()
        self._stale_upto = max(self._stale_upto, upto or 0, *cut)
        self._cleaner.flush()
        self._text = SentenceStream()
        await self.push_frame(frame, direction)
        await self._end_if_silent()

    @consumes(EndFrame)
    async def _on_end(self, frame: EndFrame, direction: FrameDirection) -> None:
        for reply in self._replies.values():
            reply.sentences.put_nowait(None)  # what waits is spoken to its end; no more is coming
        self._held_end = frame, direction
        await self._end_if_silent()

    async def _end_if_silent(self) -> None:
        if self._held_end is not None and not self._replies:
            end, self._held_end = self._held_end, None
            await self.push_frame(*end)

    # -- the voice ---------------------------------------------------------------------------------------------

    def _open(self, turn_id: int) -> _Reply:
        reply = self._replies.get(turn_id)
        if reply is None:
            before = next(reversed(self._replies.values()), None)
            reply = _Reply(turn_id)
            self.turn_task(self._speak_reply(reply, before), turn_id=turn_id, name=f"voice of turn {turn_id}")
            self._replies[turn_id] = reply
        return reply

    async def _speak_reply(self, reply: _Reply, before: _Reply | None) -> None:
        if before is not None:
            await before.done.wait()
        try:
            track = _Track(self._voice.sample_rate, self._lead_s)
            while (item := await reply.sentences.get()) is not None:
                if isinstance(item, Frame):
                    await self.push_frame(item)
                elif not reply.is_failed:
                    await self._announce(item, reply.turn_id)
                    reply.is_failed = not await self._speak(item.text, reply.turn_id, track)
                    if not reply.turn_id and not reply.is_failed:
                        await self.push_frame(TTSTextFrame(item.text, text_type="sentence"))
            if reply.end is not None:
                await self.push_frame(*reply.end)
            if self._replies.get(reply.turn_id) is reply:
                del self._replies[reply.turn_id]
            await self._end_if_silent()
        finally:
            reply.done.set()

    async def _announce(self, sentence: _Sentence, turn_id: int) -> None:
        if turn_id and not sentence.is_told:
            await self.push_frame(ReplyTextFrame(turn_id=turn_id, text=sentence.text))

    async def _speak(self, sentence: str, turn_id: int, track: _Track) -> bool:
        """Push the audio of one sentence; False if the voice failed."""
        for is_last_try in (False, True):
            begun_at = track.samples
            try:
                await self._speak_once(sentence, turn_id, track)
                return True
            except TimeoutError:
                await self._report(ServiceError(f"the voice gave no sound within {self._first_byte_s:g} s"))
                return False
            except (ServiceError, ConfigurationError) as error:
                if isinstance(error, WorkerCrashed) and track.samples == begun_at and not is_last_try:
                    continue
                await self._report(error)
                return False
        return False

    async def _speak_once(self, sentence: str, turn_id: int, track: _Track) -> None:
        offset_ms, spoken = track.played_ms, self._pronunciation.spoken(sentence)
        async with aclosing(self._voice.speak(spoken.text)) as chunks:  # type: ignore[type-var]
            async with asyncio.timeout(self._first_byte_s):
                chunk = await anext(chunks, None)
            while chunk is not None:
                pcm, words = chunk
                await track.wait()
                track.add(pcm)
                words = tuple((written, ms) for word, ms in words if (written := spoken.written(word)))
                await self.push_frame(self._audio(pcm, words, turn_id, offset_ms))
                chunk = await anext(chunks, None)

    def _audio(self, pcm: bytes, words: Words, turn_id: int, offset_ms: float) -> TTSAudioRawFrame:
        if not turn_id:
            return TTSAudioRawFrame(pcm, self._voice.sample_rate, 1)
        words = tuple((word, offset_ms + ms) for word, ms in words)
        return ReplyAudioFrame(pcm, self._voice.sample_rate, 1, turn_id=turn_id, words=words)

    async def _report(self, error: ServiceError | ConfigurationError) -> None:
        await self.push_error(f"the embedded voice failed: {error}", exception=error, category=ErrorCategory.UNKNOWN)


class _Track:
    """How much of a reply is out, and when it would have been played if playing began with the first sample."""

    def __init__(self, sample_rate: int, lead_s: float) -> None:
        self._rate = sample_rate  # Hz
        self._lead_s = lead_s  # most audio ahead of real time
        self._loop = asyncio.get_running_loop()  # its time
        self._plays_until = 0.0  # loop time at which all that is out would have been played
        self._chunks = 0  # of the reply so far
        self.samples = 0  # of the reply so far

    @property
    def played_ms(self) -> float:
        """Length of the reply so far."""
        return self.samples * 1000 / self._rate

    def add(self, pcm: bytes) -> None:
        """Count int16 mono audio that goes out now."""
        self.samples += len(pcm) // 2
        self._plays_until = max(self._plays_until, self._loop.time()) + len(pcm) / 2 / self._rate

    async def wait(self) -> None:
        """Wait until no more than the lead is out."""
        ahead = self._plays_until - self._loop.time()
        self._chunks += 1
        if ahead > self._lead_s:
            await asyncio.sleep(ahead - self._lead_s)
        elif self._chunks % YIELD_EVERY == 0:
            await asyncio.sleep(0)
