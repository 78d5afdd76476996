"""The shop's assistant, offline: the same pipeline as in a call, in virtual time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator

import pytest
from pipecat.frames.frames import (
    Frame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.settings import STTSettings
from pipecat.services.stt_service import SegmentedSTTService

from leibniz_voice.pipeline import Pipeline, Session
from leibniz_voice.pipeline.frames import SpeechChunkFrame
from leibniz_voice.pipeline.listening.utterance import Utterance
from leibniz_voice.pipeline.session import Build
from leibniz_voice.pipeline.testing import AsyncCall, Call, run_offline
from leibniz_voice.pipeline.testing.user import CHUNK_S, spoken_chunks
from leibniz_voice.processors.gate import STALLED_S
from leibniz_voice.transports.dialects.protocol import SttFragment, UserSpeaking
from tests.support.serving import bot
from tests.support.speech import spoken
from tests.support.tools import needs

BOT = bot("assistant.py")
FINAL_WAIT_S = inspect.signature(Utterance).parameters["final_wait_s"].default
ONE_TURN = ["idle", "listening", "thinking", "speaking", "idle"]
CUT_TURN = ["idle", "listening", "thinking", "speaking", "interrupt", "listening", "thinking", "speaking", "idle"]


def words(build: Build = BOT.build) -> Call:
    """A call in which the models are left out: what they would say is said in their place."""
    return Call(build, speech="words")


def test_a_question_is_answered() -> None:
    with words() as call:
        call.user_says("what are your opening hours")
        call.wait_for_reply(contains="Monday to Friday")
    assert call.states == ONE_TURN
    assert call.wire.audio_ms > 2000


def test_a_barge_in_stops_the_bot_and_its_words_begin_the_next_turn() -> None:
    with words() as call:
        call.user_says("where is my order")
        call.user_interrupts("do you sell helmets", after_s=0.6)
        call.wait_for_reply(contains="helmets")
    assert call.states == CUT_TURN
    assert "order" in call.replies[0]
    cut_at = next(at for at, message in call.wire.messages if message["type"] == "interrupted")
    next_at = [at for at, message in call.wire.messages if message["type"] == "response_ready"][1]
    assert not [at for at, _ in call.wire.audio if cut_at < at < next_at]


def test_a_cut_reply_is_remembered_with_what_was_heard_of_it() -> None:
    with words() as call:
        call.types("where is my order")
        call.until_heard(1500)
        call.sends(UserSpeaking(confidence=1.0))
        call.until_state("listening")
    cut = call.record.fields.history[-1]
    assert cut["interrupted"]
    assert cut["text"].startswith(cut["heard"].split()[0])
    assert 0 < len(cut["heard"]) < len(cut["text"])
    assert call.record.fields.llm_response == ""
    assert call.record.fields.text_buffer == []


def test_noise_pauses_the_bot_and_it_goes_on() -> None:
    with words() as call:
        call.types("where is my order")
        call.until_heard(600)
        call.noise(ms=32)
        call.wait_for_reply()
    assert call.states == ONE_TURN
    assert [m["type"] for _, m in call.wire.messages if m["type"] in ("pause", "resume", "interrupted")] == [
        "pause",
        "resume",
    ]


def test_after_a_turn_that_was_understood_a_blip_awaits_no_words() -> None:
    with words() as call:
        call.user_says("where is my order")
        call.until_state("speaking")
        call.detects(SpeechChunkFrame(confidence=0.9, speech_ms=32))
        call.wait(CHUNK_S)
        call.detects(SpeechChunkFrame())
        call.wait_for_reply()
    paused, resumed = (at for at, m in call.wire.messages if m["type"] in ("pause", "resume"))
    assert resumed - paused < 2 * CHUNK_S


def test_speech_in_the_step_of_a_resume_pauses_the_bot_again() -> None:
    async def script(call: AsyncCall) -> None:
        speech, came = SpeechChunkFrame(confidence=0.9, speech_ms=64), asyncio.Event()
        await call.types("where is my order")
        await call.until_heard(600)
        loop = asyncio.get_running_loop()
        loop.call_at(loop.time() + STALLED_S, came.set)  # in the same turn of the loop as the gate's own timer
        await call.detects(speech)  # and nothing more: after a while the gate takes the microphone for dead
        await came.wait()
        await call.detects(speech)
        await asyncio.sleep(CHUNK_S)
        await call.detects(speech)

    call = run_offline(BOT.build, script, speech="words")
    assert [m["type"] for _, m in call.wire.messages if m["type"] in ("pause", "resume")][-1] == "pause"


def test_voice_in_the_step_of_a_deadline_keeps_the_turn_open() -> None:
    async def script(call: AsyncCall) -> None:
        came = asyncio.Event()
        await call.detects(VADUserStartedSpeakingFrame(), InterimTranscriptionFrame("where is", "", ""))
        loop = asyncio.get_running_loop()
        loop.call_at(loop.time() + FINAL_WAIT_S, came.set)  # in the same turn of the loop as the aggregator's timer
        await call.detects(VADUserStoppedSpeakingFrame())
        await came.wait()
        await call.detects(VADUserStartedSpeakingFrame())
        await asyncio.sleep(CHUNK_S)
        assert call.states == ["idle", "listening"]

    run_offline(BOT.build, script, speech="words")


def test_the_words_that_interrupt_are_shown_before_the_turn_ends() -> None:
    with words() as call:
        call.types("where is my order")
        call.until_heard(600)
        call.sends(SttFragment(text="do you", is_final=False))
        call.until_state("listening")
        call.until(lambda: call.record.fields.text_buffer == ["do you"], "interrupting words", timeout_s=0.1)
    assert call.wire.of_type("state_update")[-1]["text_buffer"] == ["do you"]
    assert not call.wire.of_type("pause")


def test_a_question_that_is_cut_before_its_answer_stays_in_front() -> None:
    with words() as call:
        call.types("where is my order")
        call.sends(UserSpeaking(confidence=1.0))  # still thinking
        call.sends(SttFragment(text="and when", is_final=True))
        call.until(lambda: call.record.fields.text_buffer[-1:] == ["and when"], "both", timeout_s=0.1)
    assert call.record.fields.text_buffer == ["where is my order", "and when"]


class QueuedSTT(FrameProcessor):
    """A recogniser as Pipecat's are: with a queue and a task of its own, pushing its words from there."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


def test_the_words_that_interrupt_survive_a_queued_stt_in_front_of_the_gate() -> None:
    def build(session: Session) -> Pipeline:
        ours = BOT.build(session).processors
        return Pipeline([ours[0], QueuedSTT(), *ours[3:]])

    with words(build) as call:
        call.user_says("where is my order")
        call.until_heard(600)
        call.pushes(VADUserStartedSpeakingFrame(start_secs=0.064))
        call.noise(ms=224)  # the words confirm it, not the duration
        call.pushes(TranscriptionFrame("do you sell helmets", "", ""), VADUserStoppedSpeakingFrame(stop_secs=0.3))
        call.wait_for_reply(contains="helmets")
    assert call.states == CUT_TURN


class StockSTT(SegmentedSTTService):
    """One of Pipecat's own: collects audio between the speech detector's start and stop, and answers by script."""

    def __init__(self, *words: str) -> None:
        super().__init__(sample_rate=16000, settings=STTSettings(model=None, language=None))
        self.words = list(words)

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        await asyncio.sleep(0.05)
        yield TranscriptionFrame(text=self.words.pop(0), user_id="", timestamp="")


def test_the_words_that_interrupt_survive_pipecats_own_stt_in_front_of_the_gate() -> None:
    def build(session: Session) -> Pipeline:
        ours = BOT.build(session).processors
        return Pipeline([ours[0], StockSTT("where is my order", "do you sell helmets"), *ours[3:]])

    def says(call: Call) -> None:
        for frames in spoken_chunks(1.0):
            call.pushes(*frames)
            call.is_silent(CHUNK_S)  # the audio's content is the script's business

    with words(build) as call:
        says(call)
        call.until_heard(600)
        says(call)
        call.wait_for_reply(contains="helmets")
    assert call.states == CUT_TURN
    assert "order" in call.replies[0]


@pytest.mark.slow
@needs("flite")
def test_real_speech_is_heard_answered_and_interrupts() -> None:
    with Call(BOT.build) as call:
        call.is_silent(0.5)
        call.says(spoken("what are your opening hours").tobytes())
        call.until_state("idle")
        call.says(spoken("where is my order").tobytes())
        call.until_heard(call.wire.audio_ms + 500)
        call.says(spoken("do you sell helmets").tobytes())
        call.until_state("idle")
        call.says(spoken("tell me about the weather on the planet mars").tobytes())
        call.until_state("idle")
    assert call.states == [*ONE_TURN, *CUT_TURN[1:], *ONE_TURN[1:]]
    keys = ["Monday", "order", "helmets"]
    assert [key in reply for key, reply in zip(keys, call.replies, strict=False)] == [True] * 3
    assert call.replies[3].startswith("I didn't get that")
