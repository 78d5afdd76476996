"""`Call`: a conversation as a plain script, with words where nothing hears, with speech where something does."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path
from typing import Any

import pytest
from pipecat.frames.frames import InputAudioRawFrame, OutputAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection

from leibniz_voice.bots.assistant import build as assistant
from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, Processor, RetrievalResult, Session, consumes
from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.frames import BargeInFrame, ReplyAudioFrame, SpeechChunkFrame, UserTurnFrame
from leibniz_voice.pipeline.testing import Call, CallError, Heard, ScriptedSTT, ScriptedVoice
from leibniz_voice.pipeline.testing.audio import level, silence, speech_like, tone
from leibniz_voice.processors import InterruptionGate, Responder, SileroVAD, StateTracker, TurnAggregator
from leibniz_voice.transports.memory import MemoryWire

FALLBACK = {"intent": IntentResult(), "retrieval": RetrievalResult()}


async def say(turn: UserTurnFrame) -> IntentResult:
    return IntentResult("say", 1.0)


async def echo_words(turn: UserTurnFrame) -> RetrievalResult:
    return RetrievalResult([], f"You said {turn.text}. That is all I know.")


def parrot(*ears: Any) -> Any:
    """The `build` of a bot that repeats what it was told; `ears` make what stands in front of its turns."""

    def build(session: Session) -> Pipeline:
        return Pipeline(
            [
                session.input,
                *(ear() for ear in ears),
                TurnAggregator(),
                Parallel({"intent": say, "retrieval": echo_words}, fallback=FALLBACK),
                Responder(templates={"say": "{context}"}),
                ScriptedVoice(chunks_per_sentence=50),
                InterruptionGate(),
                StateTracker(record=session.record),
                session.output,
            ]
        )

    return build


def test_a_question_is_asked_in_words_where_nothing_hears():
    with Call(parrot()) as call:
        call.user_says("where is my order")
        assert call.wait_for_reply(contains="ORDER") == "You said where is my order. That is all I know."
    assert (call.user.way, call.user.why) == ("words", "no speech detector listens")
    assert call.states == ["idle", "listening", "thinking", "speaking", "idle"]


class Trimmed(Processor):
    """Takes a little off each piece of audio, so that the reply does not end where the ticks of the output are."""

    @consumes(ReplyAudioFrame)
    async def _on_audio(self, frame: ReplyAudioFrame, direction: FrameDirection) -> None:
        frame.audio = frame.audio[: 2 * 303]
        await self.push_frame(frame, direction)


def test_a_bot_that_is_held_after_its_last_sample_speaks_again():
    def build(session: Session) -> Pipeline:
        *before, gate, tracker, output = parrot()(session).processors
        return Pipeline([*before, Trimmed(), gate, tracker, output])

    def two_turns(held_at_s: float | None) -> Call:
        with Call(build) as call:
            call.types("one")
            if held_at_s is not None:
                call.wait(held_at_s)
                call.detects(SpeechChunkFrame(confidence=0.9, speech_ms=64))
            call.wait_for_reply(contains="one")
            call.types("two")
            call.wait_for_reply(contains="two")
        return call

    over_s = next(at for at, m in two_turns(None).wire.messages if m.get("trigger") == "tts_complete")
    call = two_turns(over_s - 0.002)  # the last sample is played, and the output has not noticed it yet
    told = [(round(at - over_s, 3), m["type"]) for at, m in call.wire.messages if m["type"] in ("pause", "resume")]
    assert told == [(-0.002, "pause"), (0.0, "resume")]


@pytest.mark.parametrize("ears", [(), (ScriptedSTT,)])
def test_a_barge_in_cuts_after_so_much_of_the_reply_and_only_the_next_reply_is_whole(ears: Any):
    with Call(parrot(*ears)) as call:
        call.user_says("one")
        call.user_interrupts("two", after_s=0.6)
        assert call.wait_for_reply().startswith("You said two")
    assert len(call.replies) == 2
    cut_ms = call.record.fields.history[0]
    assert cut_ms["interrupted"]
    assert call.states.count("interrupt") == 1


def test_words_take_as_long_as_speech_would_and_their_silence_too():
    times = []

    class Clock(Processor):
        @consumes(UserTurnFrame)
        async def _on_turn(self, frame: UserTurnFrame, direction: FrameDirection) -> None:
            times.append(self.get_event_loop().time())
            await self.push_frame(frame, direction)

    def build(session: Session) -> Pipeline:
        return Pipeline([session.input, TurnAggregator(), Clock(), session.output])

    with Call(build) as call:
        call.user_says("where is my order please")
    assert times == [pytest.approx(5 * 60 / 165 + 0.32, abs=0.05)]


def test_noise_pauses_the_bot_and_it_goes_on():
    with Call(parrot()) as call:
        call.user_says("hello")
        call.until_state("speaking")
        call.wait(0.5)
        call.noise(ms=32)
        call.wait_for_reply()
    told = [m["type"] for _, m in call.wire.messages if m["type"] in ("pause", "resume", "interrupted")]
    assert told == ["pause", "resume"]


def test_a_reply_without_the_words_is_an_error_that_shows_it():
    with Call(parrot()) as call:
        call.user_says("monday")
        with pytest.raises(CallError, match="does not contain 'Friday': 'You said monday") as failed:
            call.wait_for_reply(contains="Friday")
    assert "turn 1  you  monday" in str(failed.value)  # the timeline


def test_the_recording_tells_states_turns_latencies_what_was_heard_and_frames():
    with Call(parrot()) as call:
        call.user_says("one")
        call.user_interrupts("two", after_s=0.6)
        call.wait_for_reply()
    recording = call.recording
    assert recording.states == call.states
    assert [(turn.user, turn.interrupted, turn.complete) for turn in recording.turns] == [
        ("one", True, False),
        ("two", False, True),
    ]
    assert recording.turns[1].heard == "You said two. That is all I know."
    assert recording.latencies[2]["TTS Complete"] == 2000
    (cut,) = recording.frames(BargeInFrame, processor="InterruptionGate", direction="upstream")
    assert cut.fields["turn_id"] == 1
    assert recording.is_whole


def test_a_reply_that_never_comes_is_an_error_that_tells_the_states():
    with Call(parrot()) as call, pytest.raises(CallError, match=r"no reply .* within 3 s; states so far: idle"):
        call.wait_for_reply(timeout_s=3)


def test_a_reply_too_short_to_be_cut_is_an_error():
    with Call(parrot()) as call:
        call.user_says("monday")
        with pytest.raises(CallError, match=r"over after 2\.00 s; it cannot be cut after 9 s"):
            call.user_interrupts("stop", after_s=9)


def test_when_the_client_has_gone_nothing_moves_any_more():
    with Call(parrot()) as call:
        call.user_says("hello")
        call.until_state("speaking")
        call.disconnects()
        audio_ms = call.wire.audio_ms
        call.wait(5)
        assert call.wire.audio_ms == audio_ms


def test_a_call_that_has_not_begun_says_how_it_would():
    call = Call(parrot())
    with pytest.raises(CallError, match="with Call"):
        call.user_says("hello")
    with pytest.raises(CallError, match="with Call"):
        call.user  # noqa: B018 - the property itself is under test


def test_an_unknown_way_to_speak_is_refused():
    with pytest.raises(ConfigurationError, match="speech is 'loud'; it is one of auto, audio, words"):
        Call(parrot(), speech="loud")


class Microphone(Processor):
    """Hears, and says it back."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks: list[tuple[float, bytes]] = []

    @consumes(InputAudioRawFrame)
    async def _on_audio(self, frame: InputAudioRawFrame, direction: FrameDirection) -> None:
        self.chunks.append((self.get_event_loop().time(), frame.audio))
        await self.push_frame(OutputAudioRawFrame(frame.audio, frame.sample_rate, 1))


def test_the_microphone_runs_at_real_time_and_carries_sounds_under_the_voice(tmp_path: Path):
    ear = Microphone()
    path = tmp_path / "voice.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(tone(400, hz=300, sample_rate=8000))
    with Call(lambda session: Pipeline([session.input, ear, session.output])) as call:
        assert call.user.why == "nothing here takes words"
        call.noise(ms=1000, dbfs=-50, wait=False)
        call.user_says("anything", sound=path)
        call.wait(0.6)
    times = [at for at, _ in ear.chunks]
    assert times == pytest.approx([n * 0.02 for n in range(len(times))], abs=1e-6)
    assert level(b"".join(pcm for _, pcm in ear.chunks[:20])) == pytest.approx(-20, abs=0.5)
    assert level(b"".join(pcm for _, pcm in ear.chunks[22:50])) == pytest.approx(-50, abs=0.5)
    assert ear.chunks[-1][1] == silence(20)


@pytest.mark.slow
def test_a_scripted_recogniser_behind_a_real_detector_is_told_what_it_hears():
    with Call(parrot(SileroVAD, ScriptedSTT)) as call:
        assert (call.user.way, call.user.why) == ("audio", "SileroVAD listens")
        call.user_says("where is my order", sound=speech_like(900))
        call.wait_for_reply(contains="where is my order")


def test_a_detector_without_a_recogniser_cannot_be_spoken_to():
    with Call(parrot(SileroVAD)) as call, pytest.raises(ConfigurationError, match="recognises words"):
        call.user_says("hello")


@pytest.mark.slow
def test_the_whole_assistant_hears_is_interrupted_and_answers():
    with Call(assistant) as call:
        call.noise(ms=15_000, dbfs=-55, wait=False)
        call.user_says("where is my order")
        call.user_interrupts("do you sell helmets", after_s=0.6)
        call.wait_for_reply(contains="helmets")
    assert call.user.way == "audio"
    assert call.states.count("interrupt") == 1


def test_what_a_scripted_recogniser_hears_by_itself_stays_its_own():
    with Call(parrot(lambda: ScriptedSTT([Heard("first")]))) as call:
        call.user_says("second")
        call.wait_for_reply(contains="first")


def test_a_script_gives_the_same_recording_each_time():
    def talk() -> Any:
        with Call(parrot(ScriptedSTT)) as call:
            call.user_says("one")
            call.noise(ms=64)
            call.user_interrupts("two", after_s=0.6)
            call.wait_for_reply()
        return call.recording.events

    first = talk()
    assert len(first) > 100
    assert all(talk() == first for _ in range(3))


def test_what_the_memory_wire_keeps_is_bounded_for_audio_alone(monkeypatch):
    monkeypatch.setattr("leibniz_voice.transports.memory.MAX_MESSAGES", 10)

    async def hears() -> MemoryWire:
        wire = MemoryWire()
        for number in range(25):
            wire.send_audio(bytes([number, 0]))
        return wire

    wire = asyncio.run(hears())
    assert wire.log == [("audio", bytes([number, 0])) for number in range(15, 25)]
    assert len(wire.audio) == 10
