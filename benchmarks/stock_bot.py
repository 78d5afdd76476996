"""What three parts of ours change in a stock Pipecat bot: CPU and memory of a conversation, in real time.

    python benchmarks/stock_bot.py [--conversations 8] [--seconds 10] [--runs 3]

Both bots are stock pipelines with Pipecat's aggregators (turns end by its speech timeout), scripted STT, LLM and voice,
as bots/stock_pipecat.py; the second has our VAD analyzer, gate and tracker. Each conversation hears 20 ms blocks of
speech-like audio at real time, at a phase of its own.
Each run is a process of its own; runs alternate; medians are printed. CPU is that of the process in percent of one core
for each conversation; memory is what the process grew by, after the first conversation, for each further one.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time

RATE, BLOCK_S, SEED = 16_000, 0.02, 7


def resident_mb() -> float:
    """Memory of this process, in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def run_one(kind: str, conversations: int, seconds: float) -> None:
    """Run the conversations of one kind in this process; print what they cost, and exit."""
    import numpy as np
    from loguru import logger

    logger.remove()
    from pipecat.audio.vad.silero import SileroVADAnalyzer
    from pipecat.frames.frames import Frame, InputAudioRawFrame
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineParams, PipelineWorker
    from pipecat.processors.aggregators.llm_context import LLMContext
    from pipecat.processors.aggregators.llm_response_universal import (
        LLMContextAggregatorPair,
        LLMUserAggregatorParams,
    )
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
    from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy
    from pipecat.turns.user_turn_strategies import UserTurnStrategies
    from pipecat.workers.runner import WorkerRunner

    from leibniz_voice.pipeline.conversation.conversation_record import ConversationRecord
    from leibniz_voice.pipeline.testing import Heard, Manner, ScriptedLLM, ScriptedSTTGuest, ScriptedTTS
    from leibniz_voice.pipeline.testing.audio import chunks, speech_like
    from leibniz_voice.processors import InterruptionGate, SileroAnalyzer, StateTracker

    class End(FrameProcessor):
        """Stands for either end of a transport."""

        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            await self.push_frame(frame, direction)

    def chain(head: End, tail: End) -> list[FrameProcessor]:
        analyzer = SileroAnalyzer() if kind == "after" else SileroVADAnalyzer()
        turns = UserTurnStrategies(stop=[SpeechTimeoutUserTurnStopStrategy()])
        params = LLMUserAggregatorParams(vad_analyzer=analyzer, user_turn_strategies=turns)
        memory = LLMContextAggregatorPair(LLMContext(), user_params=params)
        tts = ScriptedTTS(Manner.IN_ORDER)
        parts = [InterruptionGate(), StateTracker(record=ConversationRecord("stock"))] if kind == "after" else []
        return [head, stt(), memory.user(), ScriptedLLM(), tts, *parts, tail, memory.assistant()]

    def stt() -> FrameProcessor:
        return ScriptedSTTGuest([Heard("where is my order")])

    runner = WorkerRunner(handle_sigint=False)
    heads = []

    async def add() -> None:
        head = End()
        params = PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE)
        worker = PipelineWorker(
            Pipeline(chain(head, End())),
            params=params,
            idle_timeout_secs=None,
            enable_rtvi=False,
            enable_turn_tracking=False,
        )
        await runner.add_workers(worker)
        heads.append(head)

    await add()
    running = asyncio.ensure_future(runner.run())
    running.add_done_callback(lambda _: None)  # held until the end
    await asyncio.sleep(1)
    first_mb = resident_mb()
    for _ in range(conversations - 1):
        await add()
    await asyncio.sleep(1)
    blocks = list(chunks(speech_like(seconds * 1000 / 2, seed=SEED) + bytes(int(seconds * RATE)), BLOCK_S * 1000))
    loop = asyncio.get_running_loop()
    begin = loop.time() + 0.1

    async def talk(head: End, phase: float) -> None:
        for number, block in enumerate(blocks):
            await asyncio.sleep(max(begin + (number + phase) * BLOCK_S - loop.time(), 0))
            await head.push_frame(InputAudioRawFrame(block, RATE, 1))

    cpu, wall = time.process_time(), time.perf_counter()
    phases = np.random.default_rng(SEED).random(conversations)
    await asyncio.gather(*(talk(head, phase) for head, phase in zip(heads, phases, strict=True)))
    share = (time.process_time() - cpu) / (time.perf_counter() - wall)
    grown_mb = resident_mb() - first_mb
    print(json.dumps({"cpu": 100 * share / conversations, "mb": grown_mb / (conversations - 1)}), flush=True)
    os._exit(0)  # to end a stock worker takes longer than the measurement


def main() -> None:
    """Run both kinds in turn and print medians."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--conversations", type=int, default=8)
    options.add_argument("--seconds", type=float, default=10)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--only", choices=("before", "after"), help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.only:
        asyncio.run(run_one(given.only, given.conversations, given.seconds))
    load = os.getloadavg()[0]
    results: dict[str, list[dict[str, float]]] = {"before": [], "after": []}
    for _ in range(given.runs):
        for kind, found in results.items():
            command = [sys.executable, __file__, "--only", kind, "--conversations", str(given.conversations)]
            done = subprocess.run(
                [*command, "--seconds", str(given.seconds)], stdout=subprocess.PIPE, text=True, check=True, timeout=300
            )
            found.append(json.loads(done.stdout.splitlines()[-1]))
    medians = {kind: {key: statistics.median(run[key] for run in found) for key in ("cpu", "mb")}
               for kind, found in results.items()}  # fmt: skip
    print(f"{time.strftime('%Y-%m-%d')}, {platform.platform()}, {os.cpu_count()} cores, load {load:.1f}")
    print(
        f"Python {platform.python_version()}, pipecat-ai {importlib.metadata.version('pipecat-ai')}, seed {SEED}, ",
        end="",
    )
    print(f"{given.conversations} conversations, {given.seconds:g} s, median of {given.runs} runs")
    print("                                CPU, % of a core each      memory, MB each")
    for kind, label in (("before", "stock"), ("after", "with three parts of ours")):
        print(f"{label:<28}{medians[kind]['cpu']:>20.2f}{medians[kind]['mb']:>21.2f}")
    ratios = {key: medians["before"][key] / medians["after"][key] for key in ("cpu", "mb")}
    print(f"{'stock / with ours':<28}{ratios['cpu']:>20.2f}{ratios['mb']:>21.2f}")


if __name__ == "__main__":
    main()
