"""`SpokenText`: stands before a voice, and takes out of its texts what is not to be said."""

from __future__ import annotations

from dataclasses import replace

from pipecat.frames.frames import (
    AggregatedTextFrame,
    Frame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TTSSpeakFrame,
    TTSTextFrame,
)
from pipecat.processors.frame_processor import FrameDirection

from ..pipeline import Processor, consumes
from ..pipeline.text.cleaning import CLEAN, CLEANED, Cleaning, TextCleaner, cleaned


class SpokenText(Processor):
    """Cleans the texts for any voice, ours or Pipecat's, as `cleaning` says: an LLM's while they grow.

    For bots without our `Responder`, which does the same for its own LLM; a text that was cleaned already passes. It
    stands behind the LLM, so all others behind it have the cleaned text too: voice, client and context.

    Consumes: LLMTextFrame and the start and end of its response, TTSSpeakFrame, AggregatedTextFrame (but what a voice
        has said passes), InterruptionFrame
    Emits: the same, with their cleaned text, unless nothing of it is left; an LLMTextFrame with what was held of a
        response before its end
    On barge-in: what was held of the response is dropped.
    """

    def __init__(self, *, cleaning: Cleaning = CLEAN, name: str | None = None) -> None:
        super().__init__(name=name)
        self._cleaning = cleaning  # what is left out
        self._cleaner = TextCleaner(cleaning)  # of the response going on
        self._thoughts = TextCleaner(replace(cleaning, markup=False))  # the same, if somebody has made sentences of it

    @consumes(LLMFullResponseStartFrame, InterruptionFrame)
    async def _on_begin(self, frame: Frame, direction: FrameDirection) -> None:
        self._cleaner.flush()
        self._thoughts.flush()
        await self.push_frame(frame, direction)

    @consumes(LLMTextFrame)
    async def _on_text(self, frame: LLMTextFrame, direction: FrameDirection) -> None:
        if not frame.skip_tts and CLEANED not in frame.metadata:
            frame.text, frame.metadata[CLEANED] = self._cleaner.feed(frame.text), True
        if frame.text:
            await self.push_frame(frame, direction)

    @consumes(LLMFullResponseEndFrame)
    async def _on_end(self, frame: LLMFullResponseEndFrame, direction: FrameDirection) -> None:
        rest = LLMTextFrame(self._cleaner.flush())
        rest.metadata[CLEANED] = True
        if rest.text:
            await self.push_frame(rest, direction)
        await self.push_frame(frame, direction)

    @consumes(TTSSpeakFrame)
    async def _on_speech(self, frame: TTSSpeakFrame, direction: FrameDirection) -> None:
        if CLEANED not in frame.metadata:
            frame.text, frame.metadata[CLEANED] = cleaned(frame.text, self._cleaning), True
        if frame.text.strip():
            await self.push_frame(frame, direction)

    @consumes(AggregatedTextFrame)
    async def _on_sentence(self, frame: AggregatedTextFrame, direction: FrameDirection) -> None:
        is_said = isinstance(frame, TTSTextFrame) or bool(frame.skip_tts)
        if not is_said and CLEANED not in frame.metadata:
            text = cleaned(self._thoughts.feed(frame.text), replace(self._cleaning, thoughts=False))
            frame.raw_text = text if frame.raw_text == frame.text else frame.raw_text
            frame.text, frame.metadata[CLEANED] = text, True
        if frame.text.strip() or is_said:
            await self.push_frame(frame, direction)
