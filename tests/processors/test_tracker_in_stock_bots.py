"""What feeds the state machine in a stock Pipecat bot, wherever the tracker stands."""

from __future__ import annotations

import asyncio
from typing import Any

from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    Frame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)

from leibniz_voice.pipeline import State
from leibniz_voice.pipeline.frames import StateChangedFrame
from leibniz_voice.processors import StateTracker
from tests.processors.test_tracker import Bench
from tests.support.chains import Guest, Recorder, chain


def said(text: str, *, is_final: bool = True) -> Frame:
    return (TranscriptionFrame if is_final else InterimTranscriptionFrame)(text=text, user_id="", timestamp="")


def run_stock(script: Any) -> Bench:
    return Bench(is_stock=True).run(script)


ONE_TURN = ["stt_start", "vad_end", "response_ready", "tts_complete"]


def test_a_stock_bot_with_transcripts_in_sight() -> None:
    async def script(b: Bench) -> None:
        await b.down(VADUserStartedSpeakingFrame(), UserStartedSpeakingFrame(), said("where", is_final=False))
        assert b.fields.text_buffer == ["where"]
        await b.down(VADUserStoppedSpeakingFrame(), said("where is it"), UserStoppedSpeakingFrame())
        assert (b.fields.text_buffer, b.fields.turn_id) == (["where is it"], 1)
        await b.up(BotStartedSpeakingFrame(), BotStoppedSpeakingFrame())

    bench = run_stock(script)
    assert bench.moves == ONE_TURN
    assert bench.fields.turn_number == 1


def test_a_stock_bot_with_the_tracker_behind_llm_and_voice() -> None:
    async def script(b: Bench) -> None:
        await b.down(UserStartedSpeakingFrame(), UserStoppedSpeakingFrame())
        await b.down(LLMFullResponseStartFrame(), LLMTextFrame("It is"), LLMTextFrame(" here."))
        await b.up(BotStartedSpeakingFrame(), BotStoppedSpeakingFrame())  # a gap: the LLM has not finished
        assert b.tracker.state is State.SPEAKING
        await b.up(BotStartedSpeakingFrame())
        await b.down(LLMFullResponseEndFrame())
        await b.up(BotStoppedSpeakingFrame())

    bench = run_stock(script)
    assert bench.moves == ONE_TURN
    assert bench.fields.llm_response == "It is here."


def test_a_stock_bot_with_vad_frames_alone() -> None:
    async def script(b: Bench) -> None:
        await b.down(VADUserStartedSpeakingFrame(), VADUserStoppedSpeakingFrame())
        assert b.tracker.state is State.LISTENING  # the words are late
        await b.down(said("hello"))
        await b.up(BotStartedSpeakingFrame(), BotStoppedSpeakingFrame())

    assert run_stock(script).moves == ONE_TURN


def test_a_stock_bot_greets_and_is_interrupted_and_hears_noise() -> None:
    async def script(b: Bench) -> None:
        await b.up(BotStartedSpeakingFrame())
        await b.down(UserStartedSpeakingFrame(), InterruptionFrame())
        await b.up(BotStoppedSpeakingFrame())
        await b.down(said("stop"), UserStoppedSpeakingFrame())
        await b.up(BotStartedSpeakingFrame(), BotStoppedSpeakingFrame())
        await b.down(UserStartedSpeakingFrame(), UserStoppedSpeakingFrame())

    bench = run_stock(script)
    cut = ["greeting", "barge_in", "resume_listening", "vad_end", "response_ready", "tts_complete"]
    assert bench.moves == [*cut, "stt_start", "utterance_discarded"]
    assert (bench.fields.turn_id, bench.fields.turn_number) == (2, 1)


def test_broadcast_twins_count_once_in_a_stock_bot() -> None:
    async def script(b: Bench) -> None:
        for kind in (
            UserStartedSpeakingFrame,
            UserStoppedSpeakingFrame,
            BotStartedSpeakingFrame,
            BotStoppedSpeakingFrame,
        ):
            first, second = kind(), kind()
            first.broadcast_sibling_id, second.broadcast_sibling_id = second.id, first.id
            await b.down(first)
            await b.up(second)

    assert run_stock(script).moves == ONE_TURN


def test_it_runs_between_queued_processors_of_a_stock_pipeline() -> None:
    tracker, after = StateTracker(), Recorder(StateChangedFrame)

    async def main() -> None:
        async with chain(Guest(), tracker, Guest(), after, is_stock=True, ends=EndFrame) as worker:
            frames = [UserStartedSpeakingFrame(), said("hi"), UserStoppedSpeakingFrame()]
            await worker.queue_frames([*frames, BotStartedSpeakingFrame(), BotStoppedSpeakingFrame()])

    asyncio.run(main())
    assert [frame.trigger for frame in after.of(StateChangedFrame)] == ONE_TURN
