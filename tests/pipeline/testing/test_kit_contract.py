"""Every processor of ours, and of the kit, keeps the contract that `check_processor` puts it through."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.filters.identity_filter import IdentityFilter
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from leibniz_voice import processors
from leibniz_voice.pipeline import Parallel, TurnContextFrame, UserTurnFrame
from leibniz_voice.pipeline.frames import (
    ClientFragmentFrame,
    ClientTurnEndFrame,
    PlaybackPauseFrame,
    PlaybackResumeFrame,
    ReplyAudioFrame,
    ReplyEndedFrame,
    ReplySpeechFrame,
    ReplyStartedFrame,
    ReplyTextFrame,
    SpeechChunkFrame,
    StateChangedFrame,
    TextBufferFrame,
    UserSpeakingFrame,
    UtteranceStartedFrame,
)
from leibniz_voice.pipeline.testing.audio import RATE, chunks, silence, speech_like
from leibniz_voice.pipeline.testing.check import check_processor
from leibniz_voice.pipeline.testing.fuzz.stamps import spoken, stamped
from leibniz_voice.pipeline.testing.scripted.scripted_services import (
    ScriptedIntent,
    ScriptedLLM,
    ScriptedRetriever,
    ScriptedVoice,
    ServiceScript,
    ServiceStep,
)
from leibniz_voice.pipeline.testing.scripted.scripted_stt import Heard, ScriptedSTT, ScriptedSTTGuest
from leibniz_voice.pipeline.testing.scripted.scripted_tts import Manner, ScriptedTTS
from leibniz_voice.processors import (
    EmbeddedSTT,
    EmbeddedTTS,
    InterruptionGate,
    Responder,
    SileroVAD,
    SmartTurn,
    SpokenText,
    StateTracker,
    TurnAggregator,
)
from leibniz_voice.transports.memory import MemoryWire
from leibniz_voice.transports.playout.input import ClientInput
from leibniz_voice.transports.playout.output import ClientOutput

DOWN = FrameDirection.DOWNSTREAM
SLOW = ServiceScript(ServiceStep(delay_s=0.1, each_s=0.01))

# -- what makes them work ------------------------------------------------------------------------------------------


def microphone() -> list[Frame]:
    return [InputAudioRawFrame(chunk, RATE, 1) for chunk in chunks(speech_like(500) + silence(500))]


def utterance() -> list[Frame]:
    return [VADUserStartedSpeakingFrame(), *microphone()[:25], VADUserStoppedSpeakingFrame()]


def words() -> list[Frame]:
    return [
        ClientFragmentFrame(text="hello", is_final=True),
        ClientTurnEndFrame(),
        TranscriptionFrame("more", "", ""),
        VADUserStartedSpeakingFrame(),
        TranscriptionFrame("a new one", "", ""),
        VADUserStoppedSpeakingFrame(),
    ]


def two_turns() -> list[Frame]:
    return [UserTurnFrame(turn_id=1, text="one"), UserTurnFrame(turn_id=2, text="two")]


def answers() -> list[Frame]:
    return [
        UserTurnFrame(turn_id=1, text="one"),
        TurnContextFrame(turn_id=1, text="one"),
        UserTurnFrame(turn_id=2, text="two"),
        TurnContextFrame(turn_id=2, text="two"),
    ]


def reply() -> list[Frame]:
    return [
        ReplyStartedFrame(turn_id=1),
        ReplyTextFrame(turn_id=1, text=spoken(1, 3), is_final=True),
        ReplySpeechFrame(turn_id=1, text=spoken(1, 3)),
        ReplyEndedFrame(turn_id=1),
    ]


def llm_response() -> list[Frame]:
    return [LLMFullResponseStartFrame(), LLMTextFrame("<think>no</think>**Yes** <"), LLMFullResponseEndFrame()]


def playback() -> list[Frame]:
    audio = [ReplyAudioFrame(stamped(1, seq), RATE, 1, turn_id=1) for seq in range(20)]
    return [UserTurnFrame(turn_id=1, text="one"), ReplyStartedFrame(turn_id=1), *audio, ReplyEndedFrame(turn_id=1)]


def barge_in() -> list[Frame]:
    return [
        *playback(),
        StateChangedFrame(previous="thinking", state="speaking", trigger="response_ready", turn_id=1),
        SpeechChunkFrame(confidence=0.9, speech_ms=64),
        SpeechChunkFrame(confidence=0.1, speech_ms=0),
        TextBufferFrame(fragments=("stop that",), is_final=True),
        UserSpeakingFrame(confidence=1.0),
    ]


def conversation() -> list[Frame]:
    return [UtteranceStartedFrame(), TextBufferFrame(fragments=("one",)), *answers()[:2], *playback()[1:]]


def pauses() -> list[Frame]:
    return [*playback(), PlaybackPauseFrame(turn_id=1), PlaybackResumeFrame(turn_id=1)]


def parallel() -> Parallel:
    hanging = ScriptedRetriever(script=ServiceScript(ServiceStep(hangs_at=0)))
    branches = {"intent": ScriptedIntent(script=SLOW), "rag": hanging}
    return Parallel(branches, deadline_s=0.4, fallback={"intent": 0, "rag": 1})


def parallel_of_processors() -> Parallel:
    return Parallel({"lane": [IdentityFilter(), ScriptedSTT()]}, deadline_s=0.4, fallback={"lane": None})


OURS: dict[str, tuple[Callable[[], FrameProcessor], Callable[[], Sequence[Frame]]]] = {
    "SileroVAD": (SileroVAD, microphone),
    "SmartTurn": (SmartTurn, microphone),
    "TurnAggregator": (TurnAggregator, words),
    "Parallel": (parallel, two_turns),
    "Parallel of processors": (parallel_of_processors, two_turns),
    "Responder": (Responder, answers),
    "Responder that greets": (lambda: Responder(greeting="Hello."), answers),
    "SpokenText": (SpokenText, lambda: [*llm_response(), *reply()]),
    "EmbeddedTTS": (EmbeddedTTS, reply),
    "InterruptionGate": (InterruptionGate, barge_in),
    "StateTracker": (StateTracker, conversation),
    "ClientInput": (ClientInput, words),
    "ClientOutput": (lambda: ClientOutput(wire=MemoryWire()), pauses),
    "ScriptedSTT": (lambda: ScriptedSTT([Heard("one")] * 3), words),
    "ScriptedSTTGuest": (lambda: ScriptedSTTGuest([Heard("one")] * 3, from_queue=True), words),
    "ScriptedLLM": (lambda: ScriptedLLM(script=SLOW), lambda: [LLMContextFrame(context=LLMContext())]),
    "ScriptedLLM on replies": (lambda: ScriptedLLM(script=SLOW, on_reply=True), reply),
    "ScriptedVoice": (lambda: ScriptedVoice(script=SLOW), reply),
    "ScriptedTTS in order": (lambda: ScriptedTTS(script=SLOW), reply),
    "ScriptedTTS that is slow": (lambda: ScriptedTTS(Manner.SLOW_SYSTEM, script=SLOW), reply),
    "a stock processor": (IdentityFilter, reply),
}


@pytest.mark.parametrize("name", OURS)
def test_every_processor_keeps_the_contract(name: str) -> None:
    factory, frames = OURS[name]
    check_processor(factory, frames=frames)


@pytest.mark.slow
def test_the_embedded_recogniser_keeps_the_contract() -> None:
    check_processor(lambda: EmbeddedSTT(phrases=["hello there"]), frames=utterance)


def test_no_public_processor_is_left_out() -> None:
    public = {name for name in processors.__all__ if isinstance(getattr(processors, name), type)}
    public = {name for name in public if issubclass(getattr(processors, name), FrameProcessor)}
    assert public <= {"EmbeddedSTT", *OURS}
