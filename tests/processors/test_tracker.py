"""What feeds the state machine: late, repeated and crossed signals of our own processors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from loguru import logger
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from prometheus_client import REGISTRY

from leibniz_voice.pipeline import IntentResult, RetrievalResult, State
from leibniz_voice.pipeline.conversation.conversation_record import ConversationRecord
from leibniz_voice.pipeline.engine.stages import Stage
from leibniz_voice.pipeline.frames import (
    ReplyAudibleFrame,
    ReplyInterruptedFrame,
    ReplyPlayedFrame,
    ReplyProgressFrame,
    ReplyTextFrame,
    SpeechChunkFrame,
    StateChangedFrame,
    TextBufferFrame,
    TurnContextFrame,
    TurnMeasuredFrame,
    UserTurnFrame,
    UtteranceDiscardedFrame,
    UtteranceStartedFrame,
)
from leibniz_voice.pipeline.testing import run_virtual
from leibniz_voice.processors import StateTracker
from tests.support.chains import Recorder, chain


class Bench:
    """A tracker between two recorders, in Pipecat's own worker, in virtual time.

    The first recorder stands for our turn aggregator, so that the tracker goes by our frames; not in a stock bot.
    """

    def __init__(self, *, is_stock: bool = False) -> None:
        self.tracker = StateTracker()
        self.before, self.after = Recorder(stage=None if is_stock else Stage.TURNS), Recorder()

    async def down(self, *frames: Frame) -> None:
        for frame in frames:
            await self.before.push_frame(frame)

    async def up(self, *frames: Frame) -> None:
        for frame in frames:
            await self.after.push_frame(frame, FrameDirection.UPSTREAM)

    @property
    def moves(self) -> list[str]:
        return [f.trigger for f in self.after.of(StateChangedFrame)]

    @property
    def fields(self) -> Any:
        return self.tracker.record.fields

    def run(self, script: Any) -> Bench:
        async def main() -> None:
            async with chain(self.before, self.tracker, self.after, is_stock=True, ends=EndFrame):
                await script(self)

        run_virtual(main())
        return self


def turn(number: int = 1, text: str = "where is my order") -> list[Frame]:
    return [UtteranceStartedFrame(), TextBufferFrame((text,), True), UserTurnFrame(turn_id=number, text=text)]


def reply(number: int = 1, text: str = "It is on its way.") -> list[Frame]:
    return [ReplyTextFrame(turn_id=number, text=text, is_final=True), ReplyAudibleFrame(turn_id=number)]


def test_every_move_of_the_contract_can_be_made() -> None:
    async def script(b: Bench) -> None:
        await b.down(ReplyTextFrame(turn_id=1, text="Hello."), ReplyAudibleFrame(turn_id=1))
        await b.up(ReplyPlayedFrame(turn_id=1))
        await b.down(UtteranceStartedFrame(), UtteranceDiscardedFrame())
        await b.down(*turn(2), *reply(2), InterruptionFrame(), UserTurnFrame(turn_id=3, text="no"))
        await b.up(ReplyPlayedFrame(turn_id=3))
        await b.down(*turn(4), ReplyInterruptedFrame(turn_id=4), UserTurnFrame(turn_id=5, text="x"), *reply(5))
        await b.up(ReplyPlayedFrame(turn_id=5))
        await b.down(*turn(6), *reply(6))
        await b.up(ReplyProgressFrame(turn_id=6, heard="It is"), ReplyPlayedFrame(turn_id=6, is_unspoken=True))

    bench = Bench().run(script)
    assert bench.moves == [
        "greeting", "tts_complete", "stt_start", "utterance_discarded",
        "stt_start", "vad_end", "response_ready", "barge_in", "resume_listening", "vad_end", "reply_abandoned",
        "stt_start", "vad_end", "barge_in", "resume_listening", "vad_end", "response_ready", "tts_complete",
        "stt_start", "vad_end", "response_ready", "reply_abandoned",
    ]  # fmt: skip
    assert bench.fields.turn_id == 6
    assert bench.fields.turn_number == 1  # no greeting, no cut reply, no abandoned one
    assert bench.fields.history[-1]["heard"] == "It is"


def test_repeated_and_late_signals_move_nothing() -> None:
    async def script(b: Bench) -> None:
        await b.down(InterruptionFrame(), UtteranceDiscardedFrame(), ReplyAudibleFrame(turn_id=0))
        await b.up(ReplyPlayedFrame(turn_id=0))
        await b.down(*turn(), *turn(), UtteranceDiscardedFrame(), *reply(), *reply())
        await b.down(UserTurnFrame(turn_id=1, text="again"), TextBufferFrame(("mhm",), True))
        await b.up(ReplyPlayedFrame(turn_id=1), ReplyPlayedFrame(turn_id=1))
        await b.down(ReplyAudibleFrame(turn_id=1), ReplyInterruptedFrame(turn_id=1), InterruptionFrame())

    bench = Bench().run(script)
    assert bench.moves == ["stt_start", "vad_end", "response_ready", "tts_complete"]
    assert bench.fields.text_buffer == ["where is my order"]


def test_crossed_signals_of_an_older_turn_move_nothing() -> None:
    async def script(b: Bench) -> None:
        await b.down(*turn(1), *reply(1), ReplyInterruptedFrame(turn_id=1), UserTurnFrame(turn_id=2, text="and now"))
        before = list(b.moves)
        await b.down(ReplyInterruptedFrame(turn_id=1), ReplyAudibleFrame(turn_id=1), UserTurnFrame(turn_id=1, text="x"))
        await b.down(TurnContextFrame(turn_id=1, answers={"intent": {"intent": "old"}}))
        await b.down(ReplyTextFrame(turn_id=1, text="old"))
        await b.up(ReplyPlayedFrame(turn_id=1, complete=True), ReplyProgressFrame(turn_id=1, heard="old"))
        assert b.moves == before
        assert (b.fields.intent, b.fields.llm_response, b.fields.heard) == ({}, "", "")

    assert Bench().run(script).tracker.state is State.THINKING


def test_an_interruption_in_idle_or_listening_moves_nothing() -> None:
    async def script(b: Bench) -> None:
        await b.down(InterruptionFrame(), UtteranceStartedFrame(), InterruptionFrame())

    assert Bench().run(script).moves == ["stt_start"]


def test_the_second_of_two_broadcast_interruptions_does_not_cut_the_next_turn() -> None:
    async def script(b: Bench) -> None:
        first, second = InterruptionFrame(), InterruptionFrame()
        first.broadcast_sibling_id, second.broadcast_sibling_id = second.id, first.id
        await b.down(*turn(1), first, UserTurnFrame(turn_id=2, text="two"))
        await b.up(second)

    assert Bench().run(script).tracker.state is State.THINKING


def test_a_state_goes_both_ways_with_one_frame_per_move() -> None:
    bench = Bench().run(lambda b: b.down(*turn()))
    down, up = bench.after.of(StateChangedFrame), bench.before.of(StateChangedFrame)
    assert [(d.previous, d.state) for d in down] == [("idle", "listening"), ("listening", "thinking")]
    assert [d.id for d in down] == [u.id for u in up]


def test_a_barge_in_empties_what_the_contract_says() -> None:
    async def script(b: Bench) -> None:
        await b.down(*turn(), *reply(), ReplyInterruptedFrame(turn_id=1))
        assert (b.fields.text_buffer, b.fields.llm_response) == ([], "")
        await b.up(ReplyPlayedFrame(turn_id=1, complete=False, heard="It is"))
        await b.down(TextBufferFrame(("no",), False), UserTurnFrame(turn_id=2, text="no wait"))
        assert b.fields.text_buffer == ["no wait"]
        await b.down(ReplyInterruptedFrame(turn_id=2))
        assert b.fields.text_buffer == ["no wait"]  # nothing of its answer was heard

    cut = Bench().run(script).fields.history
    told = {"question": "where is my order", "text": "It is on its way.", "heard": "It is"}
    assert cut == [{"turn_id": 1, **told, "interrupted": True}]


@pytest.mark.parametrize("found", [None, 5, "text", ["a"], {"results": None}, {"results": 5}, {"results": "text"}])
def test_whatever_a_branch_has_answered_the_turn_can_be_cut(found: Any) -> None:
    async def script(b: Bench) -> None:
        answers = {"intent": found, "retrieval": found}
        await b.down(*turn(), TurnContextFrame(turn_id=1, answers=answers), *reply(), ReplyInterruptedFrame(turn_id=1))

    bench = Bench().run(script)
    assert bench.moves[-2:] == ["barge_in", "resume_listening"]
    assert len(bench.after.of(ReplyInterruptedFrame)) == len(bench.after.of(TurnContextFrame)) == 1
    assert bench.after.of(TurnMeasuredFrame)[-1].results == 0


def test_the_end_of_the_users_turn_and_of_the_whole_turn_are_stored_at_once() -> None:
    told: list[tuple[str, bool]] = []

    async def script(b: Bench) -> None:
        await b.down(*turn(), *reply())
        await b.up(ReplyPlayedFrame(turn_id=1))

    bench = Bench()

    def note(line: Any, at_once: bool) -> None:
        told.append((line.trigger if line else "", at_once))

    bench.tracker = StateTracker(record=ConversationRecord(on_change=note))
    bench.run(script)
    assert {trigger for trigger, at_once in told if at_once} == {"vad_end", "tts_complete"}
    assert {"", "stt_start", "response_ready"} <= {trigger for trigger, at_once in told if not at_once}


def test_callbacks_get_the_conversation_and_can_stop_nothing() -> None:
    calls: list[Any] = []

    async def script(b: Bench) -> None:
        @b.tracker.on_transition(State.THINKING)
        def sync(conversation: Any) -> None:
            calls.append((conversation.state, conversation.turn_id))

        @b.tracker.on_transition(State.SPEAKING)
        def broken(conversation: Any) -> None:
            raise ValueError("a user's bug")

        @b.tracker.on_transition()
        async def each(conversation: Any) -> None:
            await asyncio.sleep(0.01)
            calls.append(conversation.state)

        @b.tracker.on_transition(State.LISTENING)
        async def endless(conversation: Any) -> None:
            await asyncio.sleep(3600)

        await b.down(*turn(), *reply())
        assert calls == [("thinking", 1)]  # in the step; the others later
        await asyncio.sleep(6)
        assert calls[1:] == ["speaking"] * 3  # after 5 s of the endless one, in order, with the state of then

    assert Bench().run(script).tracker.state is State.SPEAKING


def test_at_most_64_async_callbacks_wait() -> None:
    done: list[int] = []

    async def script(b: Bench) -> None:
        @b.tracker.on_transition()
        async def slow(conversation: Any) -> None:
            await asyncio.sleep(0.1)
            done.append(1)

        for _ in range(60):
            await b.down(UtteranceStartedFrame(), UtteranceDiscardedFrame())
        await asyncio.sleep(30)

    Bench().run(script)
    assert len(done) == 64


def test_each_transition_is_one_line_with_its_emoji_and_no_words_of_the_user() -> None:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line).strip()), format="{message}", level="INFO")

    async def script(b: Bench) -> None:
        await b.down(*turn(), TurnContextFrame(turn_id=1, answers=ANSWERS, join_ms=80.0), *reply())
        await asyncio.sleep(0.5)
        await b.up(ReplyPlayedFrame(turn_id=1))
        await b.down(*turn(2), *reply(2), ReplyInterruptedFrame(turn_id=2))
        await b.up(ReplyPlayedFrame(turn_id=2, complete=False, played_ms=1234.0))

    try:
        Bench().run(script)
    finally:
        logger.remove(sink)
    ours = [line for line in lines if "local" in line]
    assert ours[:5] == [
        "\N{LARGE BLUE CIRCLE} local idle -> listening (stt_start)",
        "\N{LARGE YELLOW CIRCLE} local listening -> thinking (vad_end)",
        "\N{LARGE RED CIRCLE} local thinking -> speaking (response_ready)",
        "\N{LARGE GREEN CIRCLE} local speaking -> idle (tts_complete)",
        "local turn 1 ended intent=hours results=1 join_ms=0 thinking_ms=0",
    ]
    assert ours[-2:] == [
        "\N{LARGE BLUE CIRCLE} local interrupt -> listening (resume_listening)",
        "local turn 2 interrupted heard_ms=1234",
    ]
    assert "order" not in "".join(lines)


ANSWERS = {"intent": IntentResult("hours", 0.9), "retrieval": RetrievalResult(results=["x"], context="Nine to five.")}


def test_the_latency_breakdown_names_every_part_of_the_turn() -> None:
    async def script(b: Bench) -> None:
        await b.down(SpeechChunkFrame(confidence=0.9, speech_ms=64), UtteranceStartedFrame())
        await asyncio.sleep(1.0)
        await b.down(VADUserStoppedSpeakingFrame(stop_secs=0.3))
        await asyncio.sleep(0.05)
        await b.down(TextBufferFrame(("hi",), True), UserTurnFrame(turn_id=1, text="hi"))
        await asyncio.sleep(0.08)
        took = {"intent": 50.0, "retrieval": 80.0}
        await b.down(TurnContextFrame(turn_id=1, answers=ANSWERS, join_ms=80.0, answered_ms=took))
        await asyncio.sleep(0.2)
        await b.down(ReplyTextFrame(turn_id=1, text="Hello.", is_final=True))
        await asyncio.sleep(0.01)
        await b.down(ReplyAudibleFrame(turn_id=1))
        await asyncio.sleep(0.002)
        await b.up(BotStartedSpeakingFrame())
        await asyncio.sleep(0.05)
        await b.up(ReplyProgressFrame(turn_id=1, played_ms=40.0, heard="Hello"))
        await asyncio.sleep(1.0)
        await b.up(ReplyPlayedFrame(turn_id=1))

    bench = Bench().run(script)
    assert bench.tracker.latency_breakdown() == {
        "STT Wait": 64.0, "End-of-Turn": 1050.0, "LLM Wait": 290.0, "TTS Complete": 1052.0, "VAD": 300.0,
        "Transcript": 350.0, "Intent": 50.0, "Retrieval": 80.0, "Join": 80.0, "First Token": 200.0, "Voice": 10.0,
        "Send": 2.0, "Play": 10.0, "Response": 652.0,
    }  # fmt: skip
    measured = bench.after.of(TurnMeasuredFrame)[0]
    assert measured.latency_ms == bench.tracker.latency_breakdown()
    assert measured.instants_ms == {
        "voice": -1114.0, "listening": -1050.0, "user_silent": -350.0, "vad_end": -50.0, "transcript": 0.0,
        "committed": 0.0, "intent": 50.0, "retrieval": 80.0, "joined": 80.0, "first_text": 280.0, "last_text": 280.0,
        "first_audio": 290.0, "sent": 292.0, "heard": 302.0, "played": 1342.0,
    }  # fmt: skip
    assert (measured.intent, measured.results) == ({"intent": "hours", "confidence": 0.9}, 1)
    assert (measured.heard, measured.is_cut) == ("Hello.", False)
    assert bench.fields.latency_ms == bench.tracker.latency_breakdown()
    stamps = bench.fields.timestamps
    assert list(stamps) == ["idle_to_listening", "listening_to_thinking", "thinking_to_speaking", "speaking_to_idle"]


def test_moves_latencies_and_barge_ins_are_counted() -> None:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    move = {"from": "thinking", "to": "speaking", "trigger": "response_ready"}
    before = value("leibniz_transitions_total", **move), value("leibniz_barge_ins_total")
    observed = value("leibniz_turn_latency_seconds_count", label="LLM Wait")

    async def script(b: Bench) -> None:
        await b.down(*turn(), *reply())
        await b.up(ReplyPlayedFrame(turn_id=1))
        await b.down(*turn(2), *reply(2), ReplyInterruptedFrame(turn_id=2))

    Bench().run(script)
    assert value("leibniz_transitions_total", **move) == before[0] + 2
    assert value("leibniz_barge_ins_total") == before[1] + 1
    assert value("leibniz_turn_latency_seconds_count", label="LLM Wait") == observed + 1
