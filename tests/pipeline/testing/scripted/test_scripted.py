"""Scripted services: they do what the script says, when it says so, alone and in a whole conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pipecat.frames.frames import (
    ErrorFrame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameProcessor

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session, UserTurnFrame
from leibniz_voice.pipeline.errors import ServiceError
from leibniz_voice.pipeline.frames import (
    ReplyAudioFrame,
    ReplyEndedFrame,
    ReplyInterruptedFrame,
    ReplySpeechFrame,
    ReplyStartedFrame,
)
from leibniz_voice.pipeline.testing import AsyncCall, run_offline, run_virtual
from leibniz_voice.pipeline.testing.bench import Bench
from leibniz_voice.pipeline.testing.fuzz.stamps import Stamp, spoken, stamps
from leibniz_voice.pipeline.testing.scripted.scripted_services import (
    ScriptedIntent,
    ScriptedLLM,
    ScriptedRetriever,
    ScriptedVoice,
    ServiceScript,
    ServiceStep,
    tokens,
)
from leibniz_voice.pipeline.testing.scripted.scripted_stt import Heard, ScriptedSTT, ScriptedSTTGuest
from leibniz_voice.pipeline.testing.scripted.scripted_tts import Manner, ScriptedTTS
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator
from leibniz_voice.transports.dialects.protocol import UserSpeaking

BRISK = ServiceStep(delay_s=0.1, each_s=0.005)


def now() -> float:
    return asyncio.get_running_loop().time()


# -- alone ---------------------------------------------------------------------------------------------------------


def test_the_last_step_of_a_script_stands_for_all_later_calls() -> None:
    script = ServiceScript(ServiceStep(delay_s=1), ServiceStep(delay_s=2))
    assert [script.next().delay_s for _ in range(4)] == [1, 2, 2, 2]
    assert script.calls == 4


def test_pieces_come_when_they_are_due_and_fail_where_the_step_says() -> None:
    async def main() -> list[tuple[int, float]]:
        pieces = ServiceStep(delay_s=0.3, each_s=0.1, fails_at=2).pieces(5)
        came = [(await anext(pieces), round(now(), 6)) for _ in range(2)]
        with pytest.raises(ServiceError):
            await anext(pieces)
        return came

    assert run_virtual(main()) == [(0, 0.3), (1, 0.4)]


def test_branches_answer_fail_and_hang_by_script() -> None:
    async def main() -> None:
        intent = ScriptedIntent(
            "hours",
            0.9,
            script=ServiceScript(ServiceStep(delay_s=0.05), ServiceStep(fails_at=0), ServiceStep(hangs_at=0)),
        )
        assert await intent(UserTurnFrame(turn_id=1, text="one")) == IntentResult("hours", 0.9)
        assert now() == pytest.approx(0.05)
        with pytest.raises(ServiceError):
            await intent.classify("two")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await intent.classify("three")
        assert intent.asked == ["one", "two", "three"]
        assert intent.cancelled == 1
        assert (await ScriptedRetriever("from nine").retrieve("when")).context == "from nine"

    run_virtual(main())


@pytest.mark.parametrize("make", [ScriptedSTT, ScriptedSTTGuest])
def test_a_recogniser_tells_what_it_heard_after_the_end_of_speech(make: Callable[..., Any]) -> None:
    async def main() -> None:
        stt = make([Heard("where is my order", delay_s=0.2, interims=("where", "where is")), Heard("")])
        async with Bench(stt) as bench:
            for _ in range(2):
                await bench.send(VADUserStartedSpeakingFrame())
                await asyncio.sleep(0.5)
                await bench.send(VADUserStoppedSpeakingFrame())
                await asyncio.sleep(0.5)
            await stt.says("by hand")
            await asyncio.sleep(0.1)
            assert [frame.text for frame in bench.below(InterimTranscriptionFrame)] == ["where", "where is"]
            assert [frame.text for frame in bench.below(TranscriptionFrame)] == ["where is my order", "by hand"]
            assert next(s.at for s in bench.seen if isinstance(s.frame, TranscriptionFrame)) == pytest.approx(0.7)

    run_virtual(main())


def test_a_language_model_streams_fails_and_can_be_interrupted() -> None:
    async def main() -> None:
        script = ServiceScript(
            ServiceStep(delay_s=0.3, each_s=0.1), ServiceStep(fails_at=1), ServiceStep(delay_s=0.3, each_s=0.1)
        )
        llm = ScriptedLLM(script=script, reply=lambda turn_id: tokens(f"Turn {turn_id} is on."))
        async with Bench(llm) as bench:
            for _ in range(3):
                await bench.send(LLMContextFrame(context=LLMContext()))
                await asyncio.sleep(0.45)
                await bench.send(InterruptionFrame())
                await asyncio.sleep(0.5)
            assert [f.text for f in bench.below(LLMTextFrame)] == ["Turn", " 1", "Turn", "Turn", " 3"]
            assert len(bench.below(LLMFullResponseStartFrame)) == len(bench.below(LLMFullResponseEndFrame)) == 3
            assert len(bench.above(ErrorFrame)) == 1
            assert llm.cut == [1, 3]

    run_virtual(main())


def test_a_language_model_on_replies_keeps_the_end_marker_back() -> None:
    async def main() -> None:
        llm = ScriptedLLM(script=ServiceScript(ServiceStep(delay_s=0.3, each_s=0.1)), on_reply=True)
        async with Bench(llm) as bench:
            await bench.send(ReplyStartedFrame(turn_id=7))
            await bench.send(ReplyEndedFrame(turn_id=7))
            await asyncio.sleep(3)
            assert "".join(frame.text for frame in bench.below(LLMTextFrame)) == spoken(7, 2)
            assert isinstance(bench.seen[-1].frame, ReplyEndedFrame)
            await bench.send(ReplyStartedFrame(turn_id=8))
            await bench.send(ReplyEndedFrame(turn_id=8))
            await asyncio.sleep(0.5)
            await bench.send(InterruptionFrame())
            await asyncio.sleep(3)
            await bench.send(ReplyStartedFrame(turn_id=9))
            await bench.send(ReplyInterruptedFrame(turn_id=9))  # overtakes the marker, as a system frame does
            await asyncio.sleep(3)
            assert llm.finished == [7]
            assert llm.cut == [8]
            assert bench.below(ReplyEndedFrame)[-1].turn_id == 8

    run_virtual(main())


def reply(turn_id: int, parts: int = 1) -> list[Any]:
    speech = ReplySpeechFrame(turn_id=turn_id, text=spoken(turn_id, parts))
    return [ReplyStartedFrame(turn_id=turn_id), speech, ReplyEndedFrame(turn_id=turn_id)]


def test_the_inline_voice_keeps_the_order_of_markers_and_audio() -> None:
    async def main() -> None:
        async with Bench(ScriptedVoice(script=ServiceScript(BRISK), chunks_per_sentence=3)) as bench:
            for turn_id in (1, 2):
                for frame in reply(turn_id, parts=2):
                    await bench.send(frame)
            await asyncio.sleep(2)
            kinds = [(type(f).__name__, f.turn_id) for f in (s.frame for s in bench.seen) if hasattr(f, "turn_id")]
            one_reply = ["ReplyStartedFrame", *["ReplyAudioFrame"] * 6, "ReplyEndedFrame"]
            assert kinds == [(name, turn_id) for turn_id in (1, 2) for name in one_reply]
            assert [stamps(f.audio) for f in bench.below(ReplyAudioFrame)][:2] == [[Stamp(1, 0)], [Stamp(1, 1)]]

    run_virtual(main())


@pytest.mark.parametrize("manner", Manner, ids=lambda manner: manner.name)
def test_a_tts_service_of_any_manner_speaks_its_turns_in_order(manner: Manner) -> None:
    async def main() -> None:
        tts = ScriptedTTS(manner, script=ServiceScript(BRISK), chunks_per_sentence=3)
        async with Bench(tts) as bench:
            for turn_id in (1, 2):
                for frame in reply(turn_id, parts=2):
                    await bench.send(frame)
            await asyncio.sleep(20)
            heard = [stamps(f.audio)[0] for f in bench.below(TTSAudioRawFrame)]
            assert heard == [Stamp(turn_id, seq) for turn_id in (1, 2) for seq in range(6)]
            assert all(f.context_id for f in bench.below(TTSAudioRawFrame))
            order = [s.frame for s in bench.seen if isinstance(s.frame, (TTSAudioRawFrame, ReplyEndedFrame))]
            assert [index for index, f in enumerate(order) if isinstance(f, ReplyEndedFrame)] == [6, 13]

    run_virtual(main())


@pytest.mark.parametrize(("manner", "is_late"), [(Manner.IN_ORDER, False), (Manner.OWN_TASK, True)])
def test_only_a_service_with_a_task_of_its_own_speaks_on_after_an_interruption(manner: Manner, is_late: bool) -> None:
    async def main() -> None:
        async with Bench(ScriptedTTS(manner, script=ServiceScript(BRISK), tail=3)) as bench:
            for frame in reply(1):
                await bench.send(frame)
            await asyncio.sleep(0.125)
            cut = InterruptionFrame()
            await bench.send(cut)
            await bench.until_seen(cut, 5)
            at = len(bench.seen)
            await asyncio.sleep(5)
            late = [s.frame for s in bench.seen[at:] if isinstance(s.frame, TTSAudioRawFrame)]
            assert bool(late) is is_late
            assert len(late) <= 3

    run_virtual(main())


def test_a_failing_voice_says_so() -> None:
    async def main() -> None:
        for voice in (
            ScriptedVoice(script=ServiceScript(ServiceStep(fails_at=1))),
            ScriptedTTS(script=ServiceScript(ServiceStep(fails_at=1))),
        ):
            async with Bench(voice) as bench:
                for frame in reply(1):
                    await bench.send(frame)
                await asyncio.sleep(10)
                assert len(bench.below(TTSAudioRawFrame)) == 1
                assert len(bench.above(ErrorFrame)) == 1
                assert len(bench.below(ReplyEndedFrame)) == 1

    run_virtual(main())


# -- in a conversation -----------------------------------------------------------------------------------------------


class Speaker(Responder):
    """Answers with sentences that name their turn."""

    async def _reply(self, turn_id: int, text: str, *args: Any, **kwargs: Any) -> None:
        await super()._reply(turn_id, spoken(turn_id, 2), *args, **kwargs)


VOICES: dict[str, Callable[[], FrameProcessor]] = {
    "inline": lambda: ScriptedVoice(script=ServiceScript(BRISK)),
    **{m.name: lambda m=m: ScriptedTTS(m, script=ServiceScript(BRISK)) for m in Manner},  # type: ignore[misc]
}


@pytest.mark.parametrize("name", VOICES)
def test_no_stale_sound_reaches_the_client_and_no_good_sound_is_lost(name: str) -> None:
    def build(session: Session) -> Pipeline:
        branches = {"intent": ScriptedIntent(), "retrieval": ScriptedRetriever()}
        join = Parallel(branches, fallback={"intent": IntentResult(), "retrieval": RetrievalResult()})
        ears: list[FrameProcessor] = [session.input, ScriptedSTT(), TurnAggregator()]
        mouth: list[FrameProcessor] = [VOICES[name](), InterruptionGate(), StateTracker(record=session.record)]
        return Pipeline([*ears, join, Speaker(), *mouth, session.output])

    async def script(call: AsyncCall) -> None:
        for _ in range(3):
            await call.types("hello")
            await call.until_heard(call.wire.audio_ms + 100)
            await call.sends(UserSpeaking(confidence=1.0))
            await call.until_state("listening")
            cuts.append(len(call.wire.audio))
        await call.types("hello")
        await call.until_state("speaking")
        await call.until_state("idle")

    cuts: list[int] = []
    call = run_offline(build, script)
    heard = [[stamp for _, pcm in call.wire.audio[a:b] for stamp in stamps(pcm)] for a, b in _spans(cuts)]
    for turn_id, of_turn in enumerate(heard, 1):
        assert of_turn == [Stamp(turn_id, seq) for seq in range(len(of_turn))]
    assert len(heard[-1]) == 20


def _spans(cuts: list[int]) -> list[tuple[int, int | None]]:
    return list(zip([0, *cuts], [*cuts, None], strict=True))
