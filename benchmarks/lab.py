"""How fast conversations run offline, and whether they are the same each time.

    python benchmarks/lab.py [--runs 100]

1. A minute with scripted services (recogniser, intent, retrieval, LLM, voice): times real time, and the same each time.
2. A minute with the whole assistant: real detector, recogniser and voice. What the models cost is the real time in
   which virtual time stood still, waiting for their threads and processes; the rest is the pipeline's and the script's.
3. A user's test of a barge-in, in parts.
4. What the pytest plugin adds to the start of every pytest.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from datetime import date
from importlib.metadata import version

from loguru import logger
from pipecat.processors.frame_processor import FrameProcessor

logger.remove()
warnings.simplefilter("ignore")

from leibniz_voice.bots.assistant import build as assistant  # noqa: E402 - the log is silenced first
from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session  # noqa: E402
from leibniz_voice.pipeline.session import Build  # noqa: E402
from leibniz_voice.pipeline.testing import (  # noqa: E402
    AsyncCall,
    Call,
    ScriptedIntent,
    ScriptedLLM,
    ScriptedRetriever,
    ScriptedSTT,
    ScriptedTTS,
    ScriptedVoice,
    ServiceScript,
    ServiceStep,
    run_offline,
)
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator  # noqa: E402

BARGE_IN = """\
def test_a_barge_in_is_answered():
    with Call(build) as call:
        call.user_says("when are you open")
        call.user_interrupts("and on sunday", after_s=0.6)
        call.wait_for_reply()
    assert call.states.count("interrupt") == 1
"""


def build(session: Session) -> Pipeline:
    """A whole bot whose services are scripted and inline, as ours are."""
    return bot(session, "opening_hours", ScriptedVoice(chunks_per_sentence=200))


def build_stock(session: Session) -> Pipeline:
    """The same, answered by an LLM and a voice of Pipecat's kind, with queues and tasks."""
    llm = ScriptedLLM(script=ServiceScript(ServiceStep(delay_s=0.3, each_s=0.02)))
    return bot(
        session,
        "complex_query",
        llm,
        ScriptedTTS(script=ServiceScript(ServiceStep(delay_s=0.1)), chunks_per_sentence=100),
    )


def bot(session: Session, intent: str, *services: FrameProcessor) -> Pipeline:
    """Everything, with these behind the responder."""
    branches = {
        "intent": ScriptedIntent(intent, script=ServiceScript(ServiceStep(delay_s=0.05))),
        "retrieval": ScriptedRetriever("We open at nine.", script=ServiceScript(ServiceStep(delay_s=0.08))),
    }
    return Pipeline(
        [
            session.input,
            ScriptedSTT(),
            TurnAggregator(),
            Parallel(branches, fallback={"intent": IntentResult(), "retrieval": RetrievalResult()}),
            Responder(),
            *services,
            InterruptionGate(),
            StateTracker(record=session.record),
            session.output,
        ]
    )


async def scripted_minute(call: AsyncCall) -> None:
    """Seven turns, every other answer is interrupted."""
    for turn in range(7):
        await call.user_says("when are you open on a friday")
        if turn % 2:
            await call.user_interrupts("and on sunday please", after_s=1.5)
        await call.wait_for_reply()
        await call.noise(ms=64)
        await call.wait(0.5)


async def spoken_minute(call: AsyncCall) -> None:
    """Five turns aloud on a noisy line, two answers are interrupted."""
    await call.noise(ms=70_000, dbfs=-60, wait=False)
    for question, interruption in [
        ("what are your opening hours", ""),
        ("where is my order", "do you sell helmets"),
        ("how can i pay", ""),
        ("where is my order", "what are your opening hours"),
    ]:
        await call.user_says(question)
        if interruption:
            await call.user_interrupts(interruption, after_s=0.8)
        await call.wait_for_reply()
        await call.wait(0.5)


def timed(make: Callable[[], AsyncCall]) -> tuple[float, float, float, AsyncCall]:
    """Real, CPU and virtual seconds of a call. CPU seconds hold where others use the machine too."""
    began, cpu = time.perf_counter(), time.process_time()
    call = make()
    return time.perf_counter() - began, time.process_time() - cpu, call.wire.messages[-1][0], call


def digest(call: AsyncCall) -> str:
    """Of every event, byte for byte."""
    return hashlib.sha256(json.dumps(call.recording.events, sort_keys=True).encode()).hexdigest()


def report_scripted(runs: int, kind: str, build: Build) -> None:
    """Part 1."""
    took, cpu, digests, virtual_s = [], [], set(), 0.0
    for _ in range(runs):
        seconds, cpu_s, virtual_s, call = timed(lambda: run_offline(build, scripted_minute))
        took.append(seconds)
        cpu.append(cpu_s)
        digests.add(digest(call))
    middle, cpu_s = statistics.median(took), statistics.median(cpu)
    print(f"1. scripted services, {kind}: {virtual_s:.1f} s of conversation, "
          f"{len(call.recording.events)} events, {runs} runs")  # fmt: skip
    print(f"   real time p50 {middle * 1000:.0f} ms, best {min(took) * 1000:.0f}, worst {max(took) * 1000:.0f}: "
          f"{virtual_s / middle:.0f} times real time")  # fmt: skip
    print(f"   CPU time p50 {cpu_s * 1000:.0f} ms: {virtual_s / cpu_s:.0f} times real time")
    print(f"   distinct recordings in {runs} runs: {len(digests)}\n")


def report_spoken() -> None:
    """Part 2; a first run starts processes and synthesises the user's speech."""
    waited = []

    async def script(call: AsyncCall) -> None:
        await spoken_minute(call)
        waited.append(asyncio.get_running_loop().waited_s)  # type: ignore[attr-defined]

    run_offline(assistant, script)
    rows = [(*timed(lambda: run_offline(assistant, script))[:3], waited[-1]) for _ in range(5)]
    seconds, _, virtual_s, models_s = sorted(rows)[2]
    print(f"2. the whole assistant, aloud: {virtual_s:.1f} s of conversation, the middle one of 5 runs")
    print(f"   real time {seconds:.2f} s ({virtual_s / seconds:.0f} times real time); the models {models_s:.2f} s, "
          f"pipeline and script {seconds - models_s:.2f} s\n")  # fmt: skip


def report_barge_in() -> None:
    """Part 3: the lines of a user's test, and where its time goes."""
    exec(BARGE_IN, names := {"Call": Call, "build": build})
    parts: list[tuple[float, ...]] = []
    for _ in range(30):
        instants = [time.perf_counter()]
        call = Call(build)
        with call:
            instants.append(time.perf_counter())
            call.user_says("when are you open")
            call.user_interrupts("and on sunday", after_s=0.6)
            call.wait_for_reply()
            instants.append(time.perf_counter())
        instants.append(time.perf_counter())
        began, cpu = time.perf_counter(), time.process_time()
        names["test_a_barge_in_is_answered"]()
        whole = (time.perf_counter() - began, time.process_time() - cpu)
        parts.append((*(b - a for a, b in itertools.pairwise(instants)), *whole))
    start, script, end, real, cpu = (statistics.median(part) * 1000 for part in zip(*parts, strict=True))
    print(f"3. a user's test of a barge-in: {len(BARGE_IN.strip().splitlines())} lines, {real:.1f} ms, "
          f"CPU {cpu:.1f} ms (p50 of 30)")  # fmt: skip
    print(f"   build and start {start:.1f} ms, the conversation {script:.1f} ms, the end {end:.1f} ms\n")


def report_plugin() -> None:
    """Part 4: what -X importtime says of the plugin, p50 of 5."""
    took = []
    for _ in range(5):
        command = [sys.executable, "-X", "importtime", "-c", "import pytest, leibniz_voice.bots.cli.pytest_plugin"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        took += [int(us) for us in re.findall(r"\| +(\d+) \| leibniz_voice\.bots\.cli\.pytest_plugin", told)]
    print(f"4. the pytest plugin: import {statistics.median(took) / 1000:.1f} ms")


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, metavar="N", help="of the scripted minute")
    options = parser.parse_args()
    print(f"{date.today()}, {platform.platform()}, Python {platform.python_version()}, "
          f"pipecat-ai {version('pipecat-ai')}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")  # fmt: skip
    report_scripted(options.runs, "inline", build)
    report_scripted(options.runs, "LLM and voice of Pipecat's kind", build_stock)
    report_spoken()
    report_barge_in()
    report_plugin()


if __name__ == "__main__":
    main()
