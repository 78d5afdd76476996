"""The frames that Leibniz adds to Pipecat's.

What announces something (a turn, a cut, a state) is a `SystemFrame`: no interruption drops it, and its order is kept
among system frames. What brackets a reply is an uninterruptible `ControlFrame`: it stays in order with the audio.

 user side      UtteranceStartedFrame -> TextBufferFrame* -> UserTurnFrame | UtteranceDiscardedFrame
 before commit  SpeculativeTurnFrame*, SpeculativeContextFrame, ReplyPreparingFrame
 answer         TurnContextFrame -> ReplyStartedFrame -> (ReplyTextFrame, ReplySpeechFrame -> audio)* -> ReplyEndedFrame
 playback       ReplyAudibleFrame (gate, first audio), ReplyProgressFrame* (output, upstream, as words are heard) ...
                ReplyPlayedFrame (output, upstream, last sample played)
 barge-in       SpeechChunkFrame* -> PlaybackPauseFrame -> PlaybackResumeFrame | BargeInFrame -> ReplyInterruptedFrame
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipecat.frames.frames import ControlFrame, InterruptionFrame, SystemFrame, TTSAudioRawFrame, TTSSpeakFrame

SILENCE_BELOW = 0.45  # confidence below which voice has ended, where nobody sets a threshold or tells


@dataclass
class UtteranceStartedFrame(SystemFrame):
    """The user has the floor: first fragment, transcript or speech onset of a new utterance."""


@dataclass
class UtteranceDiscardedFrame(SystemFrame):
    """What had begun was no utterance: `reason` is "noise", "no_words" or "empty"."""

    reason: str = "noise"


@dataclass
class TextBufferFrame(SystemFrame):
    """The words of the current utterance: all finals and at most one pending fragment.

    They are newer than the turn `newer_than`, and may be a part of the next one; None where nobody says.
    """

    fragments: tuple[str, ...] = ()
    is_final: bool = False
    newer_than: int | None = None


@dataclass
class SpeechChunkFrame(SystemFrame):
    """One VAD chunk while speech may be going on.

    `speech_ms` counts voiced audio since the first chunk above the threshold; 0 means that it fell silent again.
    Audio time, so it is exact whatever the machine is doing. `level_db`: how far this stretch of speech, so far, is
    above the user's usual level; 0 where nobody measures it. `is_voiced`: what the detector takes the chunk for, by its
    own thresholds; None where it does not say.
    """

    confidence: float = 0.0
    speech_ms: float = 0.0
    level_db: float = 0.0
    is_voiced: bool | None = None

    @property
    def is_silent(self) -> bool:
        """Whether it sounded like silence: by the detector's word, else by its confidence."""
        return self.confidence < SILENCE_BELOW if self.is_voiced is None else not self.is_voiced


@dataclass
class UnrecognizedSpeechFrame(SystemFrame):
    """Speech that the recogniser rejected: `voiced_ms` long, matching no phrase.

    `likeness` says what it sounded like instead, whatever the words: "backchannel" ("mhm"), "interjection" ("wait"),
    or "" for neither.
    """

    voiced_ms: float = 1000.0
    likeness: str = ""


@dataclass
class EarlyWordsFrame(SystemFrame):
    """What an utterance would be if it ended here, from a recogniser that does not wait for the end of the hangover."""

    text: str = ""


@dataclass
class HangoverFrame(SystemFrame):
    """Upstream, from whoever knows the words: the silence going on ends the speech once it is so long, or now.

    The next voice sets the speech detector's own hangover back.
    """

    hangover_ms: float = 300.0


@dataclass
class TurnPredictionFrame(SystemFrame):
    """Whether the user, who is silent or falling silent, is done; comes before the speech detector's stop.

    Not complete may be followed by complete, when the model has only now made up its mind.
    """

    is_complete: bool = True
    probability: float = 1.0


@dataclass
class UserSpeakingFrame(SystemFrame):
    """The client itself says that its user talks (`user_speaking`), with a confidence of 0 to 1."""

    confidence: float = 1.0


@dataclass
class ClientFragmentFrame(SystemFrame):
    """A fragment from a client that does its own STT (`stt_fragment`)."""

    text: str = ""
    is_final: bool = False


@dataclass
class ClientTurnEndFrame(SystemFrame):
    """End of turn, decided by the client (`vad_end`)."""


@dataclass
class SpeculativeTurnFrame(SystemFrame):
    """A guess at the coming turn's text; branches may start on it, nothing of it may be heard."""

    turn_id: int = 0
    text: str = ""


@dataclass
class UserTurnFrame(SystemFrame):
    """One complete user turn. `turn_id` only grows; `joined` marks the same turn sent again with late words.

    A turn that a crash cut short is asked again under its `turn_id`, so whoever has a side effect passes
    `idempotency_key` on: the same call of the same turn has the same key, in every process.
    """

    turn_id: int = 0
    text: str = ""
    joined: bool = False
    session_id: str = ""  # filled in by `Parallel`

    def idempotency_key(self, call: str) -> str:
        """Name one call with a side effect: `<session>:<turn_id>:<call>`."""
        return f"{self.session_id}:{self.turn_id}:{call}"


@dataclass
class BranchAnswerFrame(SystemFrame):
    """The answer of a `Parallel` branch that is a list of processors, pushed downstream by one of them."""

    turn_id: int = 0
    answer: Any = None


@dataclass
class TurnContextFrame(SystemFrame):
    """Every branch's answer to one turn; `late` names the branches whose declared fallback stands in.

    `answered_ms` says how long each branch took that did answer.
    """

    turn_id: int = 0
    text: str = ""
    answers: Mapping[str, Any] = field(default_factory=dict)
    late: tuple[str, ...] = ()
    join_ms: float = 0.0
    answered_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass
class SpeculativeContextFrame(SystemFrame):
    """Every branch's answer to a guess, for a responder that prepares replies; `turn_id` as in the guess."""

    turn_id: int = 0
    text: str = ""
    answers: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class ReplyPreparingFrame(SystemFrame):
    """What comes now is the reply to a turn that is not committed: the gate holds it until its `TurnContextFrame`."""

    turn_id: int = 0


@dataclass
class ReplyStartedFrame(ControlFrame):
    """Opens the reply to `turn_id`. Uninterruptible, in order with the audio."""

    turn_id: int = 0
    interruptible: bool = field(default=False, init=False)


@dataclass
class ReplyEndedFrame(ControlFrame):
    """Closes the reply to `turn_id`: nothing more will be generated. Its audio may still be playing."""

    turn_id: int = 0
    interruptible: bool = field(default=False, init=False)


@dataclass
class ReplyTextFrame(ControlFrame):
    """What the reply says, for client and record, ahead of its audio; `is_final` with the last of it.

    `is_rest` marks what is left to say of a reply that was recorded before a crash.
    """

    turn_id: int = 0
    text: str = ""
    is_final: bool = False
    is_rest: bool = False


@dataclass
class ReplySpeechFrame(TTSSpeakFrame):
    """Words of the reply to `turn_id` for the voice. To Pipecat's TTS services it is a `TTSSpeakFrame`."""

    turn_id: int = 0


@dataclass
class ProtectedSpeechFrame(ControlFrame):
    """From here on the reply to `turn_id` is protected, nobody interrupts it; or no longer. In order with the audio."""

    turn_id: int = 0
    is_protected: bool = True
    interruptible: bool = field(default=False, init=False)


PassageFrame = ProtectedSpeechFrame  # its name until 0.1; a passage is a text that was found


@dataclass
class ProtectionFrame(SystemFrame):
    """From the output, upstream: what sounds now of the reply to `turn_id` is protected; or no longer."""

    turn_id: int = 0
    is_protected: bool = True


@dataclass
class SecondVoiceFrame(SystemFrame):
    """Words of the reply to `turn_id` for the voice that stands by, because the first one failed; goes past that one.

    `is_told`: the client has the text already.
    """

    turn_id: int = 0
    text: str = ""
    is_told: bool = True


@dataclass
class ReplyUnspokenFrame(SystemFrame):
    """The reply to `turn_id` cannot be spoken on: it is over, and the client gets its text and `reason` instead."""

    turn_id: int = 0
    text: str = ""
    reason: str = ""


@dataclass
class GenerationStopFrame(InterruptionFrame):
    """From the owner of a reply, downstream: LLM and voice stop what they are at, the reply itself goes on.

    To Pipecat's services it is an interruption. It ends at the gate, so what was generated and sent on is played.
    """

    turn_id: int = 0  # a reply that was prepared for nothing, which ends with it; 0: it cuts no turn


@dataclass
class ReplyAudioFrame(TTSAudioRawFrame):
    """Reply audio that carries the turn it answers; `words` are (word, start in ms from the reply's first sample)."""

    turn_id: int = 0
    words: tuple[tuple[str, float], ...] = ()


@dataclass
class ReplyAudibleFrame(SystemFrame):
    """The first audio of the reply to `turn_id` is passing the gate now; goes ahead of it."""

    turn_id: int = 0


@dataclass
class ReplyProgressFrame(SystemFrame):
    """From the output, upstream: so much of the reply to `turn_id` is played, and these words have begun by now."""

    turn_id: int = 0
    played_ms: float = 0.0
    heard: str = ""


@dataclass
class ReplyPlayedFrame(SystemFrame):
    """From the output, upstream: the reply is over. `complete` when its last sample was played.

    `played_ms` of it were, and `heard` are the words that had begun by then (where the audio carries word times).
    With `is_unspoken` the voice failed before the end; the rest was told in text.
    """

    turn_id: int = 0
    complete: bool = True
    is_unspoken: bool = False
    played_ms: float = 0.0
    heard: str = ""


@dataclass
class PlaybackPauseFrame(SystemFrame):
    """Hold the bot's audio now and keep the buffer: the user may be interrupting.

    Not `is_told`: the cut is decided, and `interrupted` tells the client in a moment.
    """

    turn_id: int = 0
    is_told: bool = True


@dataclass
class PlaybackResumeFrame(SystemFrame):
    """It was nothing: go on with the held audio, or, `at_word`, with the word that was cut in two."""

    turn_id: int = 0
    at_word: bool = False


@dataclass
class BargeInFrame(SystemFrame):
    """Upstream, from the gate to the owner of the reply: the user has cut `turn_id`; it is silent already."""

    turn_id: int = 0


@dataclass
class ReplyInterruptedFrame(InterruptionFrame):
    """The interruption of one reply, sent once, both ways, by its owner; an InterruptionFrame to Pipecat's own."""

    turn_id: int = 0
    heard_ms: float = 0.0  # 0 also where nobody knows


@dataclass
class TurnActedFrame(SystemFrame):
    """Upstream: the reply to this turn calls a tool, so its words are never put in front of others."""

    turn_id: int = 0


@dataclass
class StateChangedFrame(SystemFrame):
    """One move of the turn machine, both ways. States and trigger are the contract's lower-case names."""

    previous: str = ""
    state: str = ""
    trigger: str = ""
    turn_id: int = 0
    text_buffer: tuple[str, ...] = ()


@dataclass
class TurnMeasuredFrame(SystemFrame):
    """The latency waterfall of a turn that is over, label -> ms, and the instants it was computed from.

    `instants_ms` counts from the end of the user's turn. `heard` is what was heard of the reply; of a cut one it may
    not be known yet.
    """

    turn_id: int = 0
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    instants_ms: Mapping[str, float] = field(default_factory=dict)
    is_cut: bool = False
    heard: str = ""
    intent: Mapping[str, Any] = field(default_factory=dict)
    results: int = 0

    def as_json(self) -> dict[str, Any]:
        """What the client is told of it."""
        return {
            "latency_ms": dict(self.latency_ms),
            "instants_ms": dict(self.instants_ms),
            "interrupted": self.is_cut,
            "heard": self.heard,
            "intent": dict(self.intent),
            "results": self.results,
        }
