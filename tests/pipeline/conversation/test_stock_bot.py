"""bots/stock_pipecat.py: our VAD model, gate and tracker in an otherwise stock Pipecat bot, in virtual time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    InterruptionFrame,
    TTSAudioRawFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline as StockPipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from leibniz_voice.bots.stock_pipecat import chain
from leibniz_voice.pipeline import Pipeline, Session
from leibniz_voice.pipeline.conversation.conversation_record import ConversationRecord
from leibniz_voice.pipeline.testing import Call, Script, Step, run_offline, run_virtual
from leibniz_voice.pipeline.testing.fuzz.stamps import turns_in_audio
from leibniz_voice.pipeline.testing.scripted.scripted_services import ScriptedLLM
from leibniz_voice.pipeline.testing.scripted.scripted_stt import Heard, ScriptedSTTGuest
from leibniz_voice.pipeline.testing.scripted.scripted_tts import Manner, ScriptedTTS
from tests.support import ROOT


class Head(FrameProcessor):
    """Stands for the input transport: frames are put in by the test."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)

    async def speech(self, seconds: float) -> None:
        """The user talks."""
        await self.broadcast_frame(VADUserStartedSpeakingFrame)
        await asyncio.sleep(seconds)
        await self.broadcast_frame(VADUserStoppedSpeakingFrame)


class Tail(FrameProcessor):
    """Stands for the output transport: plays at real time and says when the bot speaks."""

    def __init__(self) -> None:
        super().__init__()
        self.played: list[Any] = []  # turns of the audio, and "cut" where an interruption came
        self._until = 0.0
        self._task: asyncio.Task[None] | None = None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self.played += sorted(turns_in_audio(frame.audio))
            now = asyncio.get_running_loop().time()
            self._until = max(self._until, now) + frame.num_frames / frame.sample_rate
            if self._task is None:
                self._task = self.create_task(self._speak())
        elif isinstance(frame, InterruptionFrame):
            self.played.append("cut")
            self._until = 0.0

    async def _speak(self) -> None:
        loop = asyncio.get_running_loop()
        await self.broadcast_frame(BotStartedSpeakingFrame)
        while self._until > loop.time():
            await asyncio.sleep(0.02)
        self._task = None
        await self.broadcast_frame(BotStoppedSpeakingFrame)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, a minute at most."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


def played(events: list[Any]) -> list[Any]:
    """The same without repetitions."""
    return [event for at, event in enumerate(events) if at == 0 or events[at - 1] != event]


@pytest.mark.parametrize("manner", list(Manner), ids=lambda manner: manner.name)
def test_states_are_tracked_and_nothing_stale_is_heard(manner: Manner) -> None:
    async def main() -> tuple[list[str], list[Any]]:
        head, tail, states = Head(), Tail(), ["idle"]
        record = ConversationRecord("stock", on_change=lambda line, _: states.append(line.state) if line else None)
        processors = chain(
            head=head,
            stt=ScriptedSTTGuest([Heard("where is my order"), Heard("stop that"), Heard("thanks")]),
            llm=ScriptedLLM(script=Script(Step(delay_s=0.2, each_s=0.01))),
            tts=ScriptedTTS(manner, script=Script(Step(delay_s=0.02, each_s=0.005)), chunks_per_sentence=100),
            tail=tail,
            record=record,
        )
        worker = PipelineWorker(StockPipeline(processors), idle_timeout_secs=None)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0.5)
        await head.speech(1.0)
        await until(lambda: states[-1] == "speaking")  # Pipecat's end-of-turn model hears no audio here, and waits
        await asyncio.sleep(1)  # into the answer
        await head.speech(1.0)  # cuts it
        await until(lambda: states[-1] == "idle")
        await worker.cancel()
        await running
        return states, played(tail.played)

    states, audio = run_virtual(main())
    assert states[:9] == [
        "idle", "listening", "thinking", "speaking", "interrupt", "listening", "thinking", "speaking", "idle",
    ]  # fmt: skip
    cut = [at for at, event in enumerate(audio) if event == "cut"][-1]
    assert 1 in audio[:cut]
    assert audio[cut + 1 :] == [2]


def snippets() -> dict[str, Any]:
    """What docs/migrating.md defines."""
    names: dict[str, Any] = {}
    page = (ROOT / "docs" / "migrating.md").read_text()
    for code in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(code, names)
    return names


def test_the_second_step_of_the_migration_guide_answers() -> None:
    pipeline = snippets()["pipeline"]

    def build(session: Session) -> Pipeline:
        llm = ScriptedLLM(script=Script(Step(delay_s=0.2, each_s=0.01)))
        tts = ScriptedTTS(Manner.IN_ORDER, script=Script(Step(delay_s=0.02, each_s=0.005)), chunks_per_sentence=20)
        return pipeline(session, ScriptedSTTGuest([]), llm, tts)

    async def script(call: Call) -> None:
        await call.types("where is my order")
        await call.until_state("speaking")
        await call.until_state("idle")

    call = run_offline(build, script)
    assert call.states == ["idle", "listening", "thinking", "speaking", "idle"]
    assert call.wire.audio_ms > 300


def test_the_first_step_of_the_migration_guide_is_a_chain_that_pipecat_takes() -> None:
    class Transport:
        def input(self) -> FrameProcessor:
            return Head()

        def output(self) -> FrameProcessor:
            return Tail()

    names = snippets()
    script = Script(Step())
    kinds = []
    for step in ("before", "after"):
        chain = names[step](
            Transport(), ScriptedSTTGuest([]), ScriptedLLM(script=script), ScriptedTTS(Manner.IN_ORDER, script=script)
        )
        assert StockPipeline(chain)
        kinds.append([type(processor).__name__ for processor in chain])
    before, after = kinds
    assert [kind for kind in after if kind not in before] == ["InterruptionGate", "StateTracker"]
