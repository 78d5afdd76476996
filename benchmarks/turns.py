"""A turn as named instants, ours against stock Pipecat, with the same stub services in the same run.

    python benchmarks/turns.py [--turns 40] [--svg docs/images/turns.svg]

The services are HTTP servers on loopback: intent 50 ms, retrieval 80 ms. The recogniser's final comes 40 ms after the
speech detector's stop, which is 300 ms after the user's last sample; the voice's first audio 30 ms after its text.
Rows, `--turns` turns each, from the user's last sample:
 stock, in turn   Pipecat's aggregator with its speech timeout (0.6 s after the VAD's stop, its default), then both
                  services one after the other, as an inline frame processor does
 stock, gathered  the same with no speech timeout and asyncio.gather: as well as its users could
 ours             no guess
 ours, guessing   the recogniser knows the words 150 ms after the last sample, as the embedded one does
Every turn's instants are checked to be in order. `wait` is from the end of the turn to the joined answer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from loguru import logger

os.environ.setdefault("PIPECAT_LOG_LLM_CONTEXT", "off")
logger.remove()

from pipecat.frames.frames import (  # noqa: E402 - Pipecat logs a line when imported
    Frame,
    LLMContextFrame,
    OutputAudioRawFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline as StockPipeline  # noqa: E402
from pipecat.pipeline.worker import PipelineWorker  # noqa: E402
from pipecat.processors.aggregators.llm_context import LLMContext  # noqa: E402
from pipecat.processors.aggregators.llm_response_universal import (  # noqa: E402
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor  # noqa: E402
from pipecat.services.settings import TTSSettings  # noqa: E402
from pipecat.services.tts_service import TTSService  # noqa: E402
from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy  # noqa: E402
from pipecat.turns.user_turn_strategies import UserTurnStrategies  # noqa: E402
from pipecat.workers.runner import WorkerRunner  # noqa: E402

from leibniz_voice.pipeline import (  # noqa: E402
    IntentResult,
    Parallel,
    Pipeline,
    Processor,
    RetrievalResult,
    Session,
    TurnContextFrame,
    UserTurnFrame,
    consumes,
)
from leibniz_voice.pipeline.frames import EarlyWordsFrame  # noqa: E402
from leibniz_voice.pipeline.testing import AsyncCall  # noqa: E402
from leibniz_voice.processors import (  # noqa: E402
    HttpIntent,
    HttpRetriever,
    InterruptionGate,
    Responder,
    StateTracker,
    TurnAggregator,
)
from leibniz_voice.processors.embedded.http_client import close_http  # noqa: E402

INTENT_S, RETRIEVAL_S = 0.05, 0.08
HANGOVER_S, FINAL_S, EARLY_S, VOICE_S = 0.3, 0.04, 0.15, 0.03
INSTANTS = ("user_silent", "vad_end", "transcript", "committed", "joined", "first_audio")
COLOURS = {
    "vad_end": "#9ecae1",
    "transcript": "#6baed6",
    "committed": "#fdae6b",
    "joined": "#e6550d",
    "first_audio": "#74c476",
}
TEXT = "where is my order"


class Notes:
    """The instants of the turn going on, in loop seconds."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self.audible = asyncio.Event()

    def mark(self, instant: str) -> None:
        self.at.setdefault(instant, asyncio.get_running_loop().time())
        if instant == "first_audio":
            self.audible.set()

    def restart(self) -> None:
        self.at, self.audible = {}, asyncio.Event()


@asynccontextmanager
async def services() -> AsyncIterator[str]:
    """Both HTTP services; yields their address."""

    async def classify(request: web.Request) -> web.Response:
        await asyncio.sleep(INTENT_S)
        return web.json_response({"intent": "say", "confidence": 1.0})

    async def query(request: web.Request) -> web.Response:
        await asyncio.sleep(RETRIEVAL_S)
        return web.json_response({"results": [], "context": "It is on its way."})

    app = web.Application()
    app.router.add_post("/api/v1/classify", classify)
    app.router.add_post("/api/v1/query", query)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield "http://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


class Voice(TTSService):
    """The stub voice of both: 60 ms of silence, 30 ms after its text."""

    def __init__(self) -> None:
        super().__init__(
            sample_rate=16000, push_start_frame=True, push_stop_frames=True, stop_frame_timeout_s=0.2,
            settings=TTSSettings(model=None, voice=None, language=None),
        )  # fmt: skip

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        await asyncio.sleep(VOICE_S)
        yield TTSAudioRawFrame(bytes(1920), 16000, 1, context_id=context_id)


class StockAnswerer(FrameProcessor):
    """What a Pipecat user writes between aggregator and voice."""

    def __init__(self, url: str, notes: Notes, http: aiohttp.ClientSession, *, gathers: bool) -> None:
        super().__init__()
        self.url, self.notes, self.http, self.gathers = url, notes, http, gathers

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        self.notes.mark("committed")
        asked = [self._ask("classify", {"text": TEXT}), self._ask("query", {"query": TEXT})]
        answers = await asyncio.gather(*asked) if self.gathers else [await each for each in asked]
        self.notes.mark("joined")
        await self.push_frame(TTSSpeakFrame(answers[1]["context"]))

    async def _ask(self, what: str, body: dict[str, str]) -> Any:
        async with self.http.post(f"{self.url}/api/v1/{what}", json=body) as response:
            return await response.json()


class StockEnd(FrameProcessor):
    """Sees the first audio."""

    def __init__(self, notes: Notes) -> None:
        super().__init__()
        self.notes = notes

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, OutputAudioRawFrame):
            self.notes.mark("first_audio")
        await self.push_frame(frame, direction)


class OurNotes(Processor):
    """Sees the same instants in ours."""

    def __init__(self, notes: Notes) -> None:
        super().__init__()
        self.notes = notes

    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: Frame, direction: FrameDirection) -> None:
        self.notes.mark("committed")
        await self.push_frame(frame, direction)

    @consumes(TurnContextFrame)
    async def _on_context(self, frame: Frame, direction: FrameDirection) -> None:
        self.notes.mark("joined")
        await self.push_frame(frame, direction)

    @consumes(OutputAudioRawFrame)
    async def _on_audio(self, frame: Frame, direction: FrameDirection) -> None:
        self.notes.mark("first_audio")
        await self.push_frame(frame, direction)


async def speak(push: Any, notes: Notes, *, is_early: bool) -> None:
    """One utterance of the stub user, and wait for the answer's first audio."""
    notes.restart()
    await push(VADUserStartedSpeakingFrame(start_secs=0.2))
    await asyncio.sleep(0.3)
    notes.mark("user_silent")
    await asyncio.sleep(EARLY_S)
    if is_early:
        await push(EarlyWordsFrame(text=TEXT))
    await asyncio.sleep(HANGOVER_S - EARLY_S)
    notes.mark("vad_end")
    await push(VADUserStoppedSpeakingFrame(stop_secs=HANGOVER_S))
    await asyncio.sleep(FINAL_S)
    notes.mark("transcript")
    await push(TranscriptionFrame(TEXT, "", "", finalized=True))
    await asyncio.wait_for(notes.audible.wait(), 10)
    await asyncio.sleep(0.6)  # until it is over


async def stock(url: str, turns: int, *, gathers: bool, timeout_s: float) -> list[dict[str, float]]:
    """Stock Pipecat, `turns` turns."""
    notes = Notes()
    strategies = UserTurnStrategies(stop=[SpeechTimeoutUserTurnStopStrategy(user_speech_timeout=timeout_s)])
    aggregators = LLMContextAggregatorPair(
        LLMContext(), user_params=LLMUserAggregatorParams(user_turn_strategies=strategies)
    )
    async with aiohttp.ClientSession() as http:
        answerer = StockAnswerer(url, notes, http, gathers=gathers)
        pipeline = StockPipeline([aggregators.user(), answerer, Voice(), StockEnd(notes)])
        worker = PipelineWorker(pipeline, enable_rtvi=False, enable_turn_tracking=False, idle_timeout_secs=None)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0.5)
        seen = []
        for _ in range(turns):
            await speak(worker.queue_frame, notes, is_early=False)
            seen.append(notes.at)
        await worker.cancel()
        await asyncio.wait({running}, timeout=3)
    return seen


async def ours(url: str, turns: int, *, is_early: bool) -> list[dict[str, float]]:
    """The same here."""
    notes = Notes()

    def build(session: Session) -> Pipeline:
        return Pipeline(
            [
                session.input,
                TurnAggregator(),
                OurNotes(notes),
                Parallel(
                    {"intent": HttpIntent(base_url=url), "retrieval": HttpRetriever(base_url=url)},
                    fallback={"intent": IntentResult(), "retrieval": RetrievalResult()},
                ),
                OurNotes(notes),
                Responder(templates={"say": "{context}"}),
                Voice(),
                InterruptionGate(),
                OurNotes(notes),
                StateTracker(record=session.record),
                session.output,
            ]
        )

    seen = []
    async with AsyncCall(build) as call:
        for _ in range(turns):
            await speak(call.pushes, notes, is_early=is_early)
            seen.append(notes.at)
            await call.until_state("idle")
    return seen


def in_order(turn: dict[str, float]) -> None:
    """Check one turn's instants. Raises ValueError."""
    times = [turn[instant] for instant in INSTANTS]
    if times != sorted(times):
        raise ValueError(f"instants out of order: {turn}")


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of them are."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def report(rows: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Print the table; return each row's median instants in ms from the last sample."""
    medians = {}
    print(f"{'':17}{'wait p50':>10}{'p95':>8}{'p99':>8}   {'to first audio p50':>18}{'p95':>8}   (ms)")
    for name, turns in rows.items():
        for turn in turns:
            in_order(turn)
        wait = [(turn["joined"] - turn["committed"]) * 1000 for turn in turns]
        total = [(turn["first_audio"] - turn["user_silent"]) * 1000 for turn in turns]
        figures = [percentile(wait, share) for share in (0.5, 0.95, 0.99)]
        print(f"{name:17}{figures[0]:10.1f}{figures[1]:8.1f}{figures[2]:8.1f}", end="")
        print(f"{statistics.median(total):21.1f}{percentile(total, 0.95):8.1f}")
        medians[name] = {
            i: statistics.median([(turn[i] - turn["user_silent"]) * 1000 for turn in turns]) for i in INSTANTS
        }
    return medians


def draw(medians: dict[str, dict[str, float]]) -> str:
    """The waterfall as SVG."""
    scale, left, top = 0.62, 130, 56
    width = left + int(max(row["first_audio"] for row in medians.values()) * scale) + 90
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top + 44 * len(medians) + 30}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>',
        '<text x="10" y="18" font-size="14">From the user\'s last sample to the bot\'s first audio, medians</text>',
    ]
    names = {
        "vad_end": "VAD",
        "transcript": "final words",
        "committed": "end of turn",
        "joined": "services",
        "first_audio": "voice",
    }
    for number, (instant, name) in enumerate(names.items()):
        x = left + number * 110
        parts.append(f'<rect x="{x}" y="28" width="12" height="12" fill="{COLOURS[instant]}"/>')
        parts.append(f'<text x="{x + 16}" y="38">{name}</text>')
    for number, (row, at) in enumerate(medians.items()):
        y, before = top + 44 * number, 0.0
        parts.append(f'<text x="10" y="{y + 19}">{row}</text>')
        for instant in INSTANTS[1:]:
            length = (at[instant] - before) * scale
            parts.append(
                f'<rect x="{left + before * scale:.1f}" y="{y}" width="{length:.1f}" height="28" '
                f'fill="{COLOURS[instant]}"><title>{names[instant]}: {at[instant] - before:.0f} ms</title></rect>'
            )
            before = at[instant]
        parts.append(f'<text x="{left + before * scale + 6:.1f}" y="{y + 19}">{before:.0f} ms</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


async def measure(turns: int) -> dict[str, list[dict[str, float]]]:
    """All rows, one after the other."""
    async with services() as url:
        try:
            return {
                "stock, in turn": await stock(url, turns, gathers=False, timeout_s=0.6),
                "stock, gathered": await stock(url, turns, gathers=True, timeout_s=0.0),
                "ours": await ours(url, turns, is_early=False),
                "ours, guessing": await ours(url, turns, is_early=True),
            }
        finally:
            await close_http()


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, Python {platform.python_version()}")
    print(f"pipecat-ai {version('pipecat-ai')}, n = {options.turns} turns each, intent 50 ms, retrieval 80 ms")
    medians = report(asyncio.run(measure(options.turns)))
    if options.svg:
        options.svg.write_text(draw(medians), encoding="utf-8")


if __name__ == "__main__":
    main()
