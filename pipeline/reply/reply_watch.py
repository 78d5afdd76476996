"""What is awaited of one reply, and until when: pure, fed with what is seen of LLM and voice.

 asked .... first token . token . token ........ end of response      each wait of the LLM is bounded, and all of it
    first_token_s   between_tokens_s
 text handed to the voice .... first audio ... audio ... end marker     so is each wait of the voice
                  first_audio_s             voice_stall_s          and all of them: 30 s and what its text may take

A reply with tool calls has several responses; while a tool runs only the bound of the whole reply counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..errors import ConfigurationError
from ..frames import ReplyUnspokenFrame, SecondVoiceFrame

SPEECH_S = 30.0  # of any reply's speech, beside what its text may take


@dataclass(frozen=True, kw_only=True)
class ReplyBounds:
    """How long is waited for LLM and voice, in s. Raises `ConfigurationError` for anything not above 0."""

    first_token_s: float = 4.0  # from asking the LLM
    between_tokens_s: float = 3.0  # silence of the LLM within a response
    reply_s: float = 60.0  # from the question to the LLM's last token, tools included
    first_audio_s: float = 3.0  # from the first whole sentence to the voice's first audio
    voice_stall_s: float = 6.0  # from the last text or audio to more of it, or to the end marker, up to 3 s behind
    voice_s_per_letter: float = 0.5  # of all its speech, and 30 s more; slow speech takes 0.1, or 0.25 per Chinese one

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ConfigurationError(f"{name} is {value}; give it a time above 0 seconds")


class Overdue(Enum):
    """What did not come in time."""

    FIRST_TOKEN = "no token of the LLM came"
    TOKEN = "no further token of the LLM came"
    REPLY = "the reply was not complete"
    FIRST_AUDIO = "no sound of the voice came"
    AUDIO = "no further sound of the voice came"
    SPEECH = "the voice did not end"

    @property
    def is_voice(self) -> bool:
        """Whether the voice is to blame, not the LLM."""
        return self in (Overdue.FIRST_AUDIO, Overdue.AUDIO, Overdue.SPEECH)


class ReplyWatch:
    """One reply. All times are loop seconds."""

    def __init__(self, turn_id: int, now: float, bounds: ReplyBounds, *, has_gate: bool = True) -> None:
        self.turn_id = turn_id
        self.text = ""  # all that was generated, or the direct answer
        self.is_generated = False  # an LLM was asked
        self.is_failing = False  # an apology is being said: nothing more is tried
        self.has_second_voice = False  # the second voice has been asked
        self.may_be_silent = False  # a tool wants no further words of the LLM
        self.is_response_empty = True  # of the LLM's response going on: no token yet
        self.calls: set[str] = set()  # tool calls without a result
        self._bounds = bounds
        self._has_gate = has_gate  # somebody reports the voice's audio
        self._begun_at = now
        self._asked = 0  # responses asked for
        self._ended = 0  # responses over
        self._llm_at = now  # when the LLM was asked, or its last token came
        self._handed_at: float | None = None  # when the voice had its first whole sentence; None before
        self._audio_at: float | None = None  # when the newest audio passed the gate; None before the first
        self._closed_at: float | None = None  # when the end marker set off, behind the last text; None before

    @property
    def is_generating(self) -> bool:
        """Whether the LLM, or a tool, is at work."""
        return self._asked > self._ended or bool(self.calls)

    @property
    def is_closed(self) -> bool:
        """Whether the end marker is on its way."""
        return self._closed_at is not None

    @property
    def is_handed(self) -> bool:
        """Whether the voice has something to say."""
        return self._handed_at is not None

    @property
    def is_audible(self) -> bool:
        """Whether any audio has passed."""
        return self._audio_at is not None

    # -- what is seen ------------------------------------------------------------------------------------------

    def asked(self, now: float) -> None:
        """The LLM is asked, or asked again with results of tools."""
        self.is_generated, self.is_response_empty = True, True
        self.text = f"{self.text.rstrip()} ".lstrip()
        self._asked += 1
        self._llm_at = now

    def token(self, text: str, now: float) -> None:
        """A piece of text from the LLM."""
        self.is_response_empty = False
        self.text += text
        self._llm_at = now

    def tool_said(self, text: str, now: float) -> None:
        """A tool has the voice say something, beside what the LLM says."""
        self.text = f"{self.text.rstrip()} {text.strip()} ".lstrip()
        self.handed(now)

    def ended(self, now: float) -> None:
        """The LLM's response is over; tools may still be at work."""
        self._ended = min(self._ended + 1, self._asked)
        self._llm_at = now

    def called(self, call_ids: set[str]) -> None:
        """The LLM calls tools."""
        self.calls |= call_ids
        self.is_response_empty = False

    def settled(self, call_id: str, now: float) -> bool:
        """A tool has answered or was cancelled; returns whether it was the last one that this reply waited for."""
        was_waiting = call_id in self.calls
        self.calls.discard(call_id)
        self._llm_at = now
        return was_waiting and not self.calls

    def handed(self, now: float) -> None:
        """The voice has something to say."""
        if self._handed_at is None:
            self._handed_at = now

    def closed(self, now: float) -> None:
        """The voice has all that it is to say."""
        self._closed_at = now

    def heard(self, audio_at: float) -> None:
        """Audio of this reply passed the gate then."""
        self._audio_at = audio_at

    def committed(self, now: float) -> None:
        """It was prepared, and its turn is committed: only from now on does anybody wait."""
        self._begun_at = self._llm_at = now
        self._handed_at = None if self._handed_at is None else now

    def over(self) -> None:
        """The end marker has passed the gate: nothing more is awaited of the voice."""
        self._handed_at = None

    def stopped(self, now: float) -> None:
        """LLM and voice were told to stop; what is said now starts anew."""
        self._ended, self.calls, self.is_failing = self._asked, set(), True
        self._handed_at, self._audio_at = None, None
        self._llm_at = now

    def voice_failed(self, now: float, *, has_second: bool) -> None:
        """LLM and voice were told to stop, as the voice failed; the second one, if there is one to try, begins."""
        is_first = not self.has_second_voice
        self.stopped(now)
        if has_second and is_first:
            self.has_second_voice = True
            self.handed(now)

    # -- what is due -------------------------------------------------------------------------------------------

    def next_due(self) -> tuple[float, Overdue] | None:
        """When the next wait is over, and what it will be that did not come; None if nothing is awaited."""
        bounds = self._bounds
        due: list[tuple[float, Overdue]] = []
        if self.is_generating:
            due.append((self._begun_at + bounds.reply_s, Overdue.REPLY))
            if not self.calls and self.is_response_empty:
                due.append((self._llm_at + bounds.first_token_s, Overdue.FIRST_TOKEN))
            elif not self.calls:
                due.append((self._llm_at + bounds.between_tokens_s, Overdue.TOKEN))
        if self._has_gate and self._handed_at is not None:
            if self._audio_at is None:
                due.append((self._handed_at + bounds.first_audio_s, Overdue.FIRST_AUDIO))
            elif self._closed_at is not None:
                due.append((max(self._audio_at, self._closed_at) + bounds.voice_stall_s, Overdue.AUDIO))
                due.append((self._closed_at + SPEECH_S + bounds.voice_s_per_letter * len(self.text), Overdue.SPEECH))
        return min(due, key=lambda item: item[0]) if due else None


def instead_of(watch: ReplyWatch, text: str, reason: str) -> SecondVoiceFrame | ReplyUnspokenFrame:
    """What replaces a voice that failed: the second one if it has been handed the text, else the text itself."""
    if watch.is_handed:
        return SecondVoiceFrame(turn_id=watch.turn_id, text=text, is_told=not watch.is_generated)
    return ReplyUnspokenFrame(turn_id=watch.turn_id, text=text, reason=reason)
