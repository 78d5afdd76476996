"""What a stock Pipecat bot's frames mean for the conversation's state: pure.

In a bot without our `TurnAggregator` and `Responder` nobody announces turns and replies. These come by instead, in
any placement of the tracker, some of them twice (broadcasts), late, or not at all:

 frame                                        means
 UserStartedSpeaking, VADUserStartedSpeaking  the user has the floor
 Interim / Transcription                      words (only upstream of the user aggregator, which keeps them)
 UserStoppedSpeaking                          end of turn; where transcripts come by and none came: nothing was said
 VADUserStoppedSpeaking                       the same with the next final words, where no UserStoppedSpeaking ever came
 LLMFullResponseStart                         end of turn, if its own signal was missed
 BotStartedSpeaking                           the reply is audible; without any turn before it, a greeting
 BotStoppedSpeaking                           the reply was played, if the LLM has finished; else a gap in it
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)

SPEECH_FRAMES = (
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    LLMFullResponseStartFrame,
    LLMFullResponseEndFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
)
_SEEN = 64  # ids of broadcast frames remembered; the twin comes at once


class Sign(Enum):
    """What happened, as far as the state is concerned."""

    FLOOR = auto()  # the user has the floor
    TURN_ENDED = auto()
    NOTHING_SAID = auto()  # the floor was the user's, but no words came
    AUDIBLE = auto()
    PLAYED = auto()


class Twins:
    """Recognises the second of two broadcast frames."""

    def __init__(self) -> None:
        self._seen: deque[int] = deque(maxlen=_SEEN)  # ids of frames that were taken

    def is_second(self, frame: Frame) -> bool:
        """Whether this frame, or its twin, has been here."""
        if frame.id in self._seen or (
            frame.broadcast_sibling_id is not None and frame.broadcast_sibling_id in self._seen
        ):
            return True
        self._seen.append(frame.id)
        return False


class StockSignals:
    """One conversation's reading of stock frames; it remembers what the next frame's meaning depends on."""

    def __init__(self) -> None:
        self.finals: list[str] = []  # words of this turn
        self.pending = ""  # the interim after them
        self._sees_words = False  # transcripts come by here
        self._sees_turns = False  # UserStoppedSpeaking comes by here
        self._is_voiced = False  # the speech detector hears voice
        self._is_generating = False  # the LLM has not finished
        self._is_silent_early = False  # the bot fell silent before the LLM had finished

    @property
    def fragments(self) -> list[str]:
        """All finals and the pending interim."""
        return [*self.finals, self.pending] if self.pending else list(self.finals)

    def read(self, frame: Frame) -> Sign | None:
        """Return what `frame` means; None for nothing new. Hand each pair of twins in once."""
        match frame:
            case UserStartedSpeakingFrame() | VADUserStartedSpeakingFrame():
                self._sees_turns |= isinstance(frame, UserStartedSpeakingFrame)
                self._is_voiced = True
                return Sign.FLOOR
            case InterimTranscriptionFrame() | TranscriptionFrame():
                return self._words(frame.text, isinstance(frame, TranscriptionFrame))
            case UserStoppedSpeakingFrame():
                self._sees_turns, self._is_voiced = True, False
                return self._end()
            case VADUserStoppedSpeakingFrame():
                self._is_voiced = False
                return Sign.TURN_ENDED if not self._sees_turns and self.finals and not self.pending else None
            case _:
                return self._bot(frame)

    def restart(self) -> None:
        """The turn is committed or discarded: forget its words."""
        self.finals, self.pending = [], ""

    def _words(self, text: str, is_final: bool) -> Sign | None:
        self._sees_words = True
        if is_final:
            self.finals, self.pending = [*self.finals[-255:], text], ""
        else:
            self.pending = text
        if self._sees_turns and not self._is_voiced:
            return None  # late words of a turn that has ended; where words begin a turn, UserStartedSpeaking says so
        return Sign.FLOOR if self._is_voiced or not is_final else Sign.TURN_ENDED

    def _end(self) -> Sign:
        return Sign.NOTHING_SAID if self._sees_words and not self.fragments else Sign.TURN_ENDED

    def _bot(self, frame: Frame) -> Sign | None:
        match frame:
            case LLMFullResponseStartFrame():
                self._is_generating, self._is_silent_early = True, False
                return Sign.TURN_ENDED
            case LLMFullResponseEndFrame():
                self._is_generating = False
                was_silent, self._is_silent_early = self._is_silent_early, False
                return Sign.PLAYED if was_silent else None
            case BotStartedSpeakingFrame():
                self._is_silent_early = False
                return Sign.AUDIBLE
            case BotStoppedSpeakingFrame():
                self._is_silent_early = self._is_generating
                if not self._is_generating:
                    self.restart()
                return None if self._is_generating else Sign.PLAYED
            case InterruptionFrame():
                self._is_generating = self._is_silent_early = False
        return None
