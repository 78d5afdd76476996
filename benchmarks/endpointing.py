"""End of speech to first bot audio, and false cut-offs, over pauses of 0 to 1,000 ms.

    python benchmarks/endpointing.py [--sentences 60] [--every 1] [--json FILE]

60 sentences of the assistant's phrases by flite's four voices (none is the bot's), 15 each, in three levels of noise;
each whole, and with a pause at its quietest place near the middle. The recogniser is a stub: the words are there 40 ms
after the speech detector's stop. Services and voice answer at once, so what is measured is the end of the turn.
 hangover, smart  this project's pipeline in virtual time: the speech detector's hangover (default), or with `SmartTurn`
 stock ...        stock Pipecat's SileroVADAnalyzer (its defaults) and LocalSmartTurnAnalyzerV3, or a speech timeout of
                  0.6 s, driven in audio time by the rule of its turn strategies; a queue or a task costs it nothing
A cut-off is false if the bot is audible before the user's last sample. Reported on two voices; whatever was chosen by
looking at results was chosen on the other two (`--chosen`).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import statistics
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

os.environ.setdefault("PIPECAT_LOG_LLM_CONTEXT", "off")
logger.remove()

from pipecat.audio.turn.base_turn_analyzer import EndOfTurnState  # noqa: E402 - Pipecat logs a line when imported
from pipecat.audio.turn.smart_turn.local_smart_turn_v3 import LocalSmartTurnAnalyzerV3  # noqa: E402
from pipecat.audio.vad.silero import SileroVADAnalyzer  # noqa: E402
from pipecat.audio.vad.vad_analyzer import VADState  # noqa: E402

from leibniz_voice.bots.content import BotContent  # noqa: E402
from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session  # noqa: E402
from leibniz_voice.pipeline.testing import AsyncCall, run_offline  # noqa: E402
from leibniz_voice.pipeline.testing.scripted import ScriptedVoice  # noqa: E402
from leibniz_voice.pipeline.testing.scripted_stt import Heard, ScriptedSTT  # noqa: E402
from leibniz_voice.processors import (  # noqa: E402
    InterruptionGate,
    Responder,
    SileroVAD,
    StateTracker,
    TurnAggregator,
)
from leibniz_voice.processors.smart_turn import SmartTurn  # noqa: E402

RATE = 16_000
FINAL_S = 0.04
LEAD_MS, TAIL_MS = 300, 4000  # silence around the speech
PAUSES = (0, 100, 200, 300, 400, 600, 800, 1000)
MIN_WORDS = 4  # a pause in "good evening" is no pause in a sentence
CHOSEN, HELD_OUT = ("slt", "rms"), ("awb", "kal")
NOISES = (None, 30.0, 15.0)  # dB below the speech
ROOT = Path(__file__).parent.parent


@cache
def spoken(text: str, voice: str) -> np.ndarray:
    """The sentence without silence at its ends, int16."""
    command = ["flite", "-voice", voice, "-t", text, "-o", "/dev/stdout"]
    wav = subprocess.run(command, capture_output=True, check=True).stdout
    rate = int.from_bytes(wav[24:28], "little")
    pcm = np.frombuffer(wav[44 : 44 + (len(wav) - 44) // 2 * 2], np.int16)
    if rate != RATE:
        import soxr

        pcm = soxr.resample(pcm, rate, RATE)
    loud = np.flatnonzero(np.abs(pcm.astype(int)) > 400)
    return pcm[loud[0] : loud[-1] + 1]


def stimulus(text: str, voice: str, pause_ms: int, noise_db: float | None, seed: int) -> tuple[bytes, float]:
    """(PCM, where the last voiced sample is in s)."""
    pcm = spoken(text, voice).astype(np.float64)
    if pause_ms:
        size = RATE // 100
        places = np.arange(int(len(pcm) * 0.35), int(len(pcm) * 0.65), size)
        at = int(min(places, key=lambda p: float(np.abs(pcm[p : p + size]).sum())))
        fade = np.linspace(1, 0, size)
        first, second = pcm[:at].copy(), pcm[at:].copy()
        first[-size:] *= fade
        second[:size] *= fade[::-1]
        pcm = np.concatenate([first, np.zeros(pause_ms * RATE // 1000), second])
    level = float(np.sqrt(np.mean(pcm[np.abs(pcm) > 0] ** 2)))
    pcm = np.concatenate([np.zeros(LEAD_MS * RATE // 1000), pcm])
    end_s = len(pcm) / RATE
    pcm = np.concatenate([pcm, np.zeros(TAIL_MS * RATE // 1000)])
    if noise_db is not None:
        pcm += np.random.default_rng(seed).normal(0, level * 10 ** (-noise_db / 20), len(pcm))
    return np.clip(pcm, -32768, 32767).astype(np.int16).tobytes(), end_s


# -- ours ------------------------------------------------------------------------------------------------------


def ours(pcm: bytes, *, smart: bool) -> float | None:
    """When the bot is audible, in s of the audio; None if never."""

    async def say(_: Any) -> IntentResult:
        return IntentResult("say", 1.0)

    async def find(_: Any) -> RetrievalResult:
        return RetrievalResult([], "Yes.")

    def build(session: Session) -> Pipeline:
        fallback = {"intent": IntentResult(), "retrieval": RetrievalResult()}
        return Pipeline(
            [
                session.input,
                SileroVAD(),
                *([SmartTurn()] if smart else []),
                ScriptedSTT([Heard("words", delay_s=FINAL_S)] * 8),
                TurnAggregator(),
                Parallel({"intent": say, "retrieval": find}, fallback=fallback),
                Responder(templates={"say": "{context}"}),
                ScriptedVoice(chunks_per_sentence=5),
                InterruptionGate(),
                StateTracker(record=session.record),
                session.output,
            ]
        )

    begun = 0.0

    async def script(call: AsyncCall) -> None:
        nonlocal begun
        begun = asyncio.get_running_loop().time()
        await call.says(pcm, then_silence_s=0)

    call = run_offline(build, script)
    return call.wire.audio[0][0] - begun if call.wire.audio else None


# -- stock -----------------------------------------------------------------------------------------------------


@cache
def stock_model() -> LocalSmartTurnAnalyzerV3:
    """Loaded once; `clear` forgets the utterance before."""
    turn = LocalSmartTurnAnalyzerV3(sample_rate=RATE)
    turn.set_sample_rate(RATE)
    return turn


async def stock(pcm: bytes, *, smart: bool, timeout_s: float = 0.6) -> float | None:
    """The end of the turn by stock Pipecat's own detector and model, in s of the audio; None if never."""
    vad, turn = SileroVADAnalyzer(sample_rate=RATE), stock_model()
    vad.set_sample_rate(RATE)
    turn.clear()
    turn.update_vad_start_secs(vad.params.start_secs)
    speaking, ends_at, size = False, None, RATE // 50 * 2
    for number, start in enumerate(range(0, len(pcm), size)):
        now = (number + 1) * 0.02
        if ends_at is not None and now >= ends_at:
            return ends_at
        chunk = pcm[start : start + size]
        state = await vad.analyze_audio(chunk)
        was_speaking = speaking
        if state == VADState.SPEAKING:
            speaking, ends_at = True, None
        elif state == VADState.QUIET:
            speaking = False
        done = smart and turn.append_audio(chunk, speaking) == EndOfTurnState.COMPLETE
        if was_speaking and not speaking:
            if smart:
                verdict, _ = await turn.analyze_end_of_turn()
                done = verdict == EndOfTurnState.COMPLETE
            else:
                ends_at = now + max(timeout_s, FINAL_S)
        if done:
            return now + FINAL_S
    return ends_at


# -- the run ---------------------------------------------------------------------------------------------------


def measure(sentences: int, every: int) -> list[dict[str, Any]]:
    """One row per utterance and system."""
    phrases = BotContent.load(ROOT / "bots" / "assistant_data").phrases
    phrases = [phrase for phrase in phrases if len(phrase.split()) >= MIN_WORDS][:sentences]
    assert len(phrases) == sentences, f"only {len(phrases)} phrases are long enough"
    voices = (*CHOSEN, *HELD_OUT)
    pairs = itertools.product(enumerate(phrases), enumerate(PAUSES))
    cases = [(sentence, pause) for sentence, (index, pause) in pairs if (sentence[0] + index) % every == 0]
    rows = []
    for (number, phrase), pause_ms in cases:
        voice, noise = voices[number % 4], NOISES[number // 4 % 3]
        pcm, end_s = stimulus(phrase, voice, pause_ms, noise, number)
        systems = {
            "hangover": ours(pcm, smart=False),
            "smart": ours(pcm, smart=True),
            "stock smart-turn": asyncio.run(stock(pcm, smart=True)),
            "stock timeout": asyncio.run(stock(pcm, smart=False)),
        }
        for system, at in systems.items():
            rows.append({"system": system, "voice": voice, "noise": noise, "pause_ms": pause_ms, "text": phrase,
                         "delay_ms": None if at is None else round((at - end_s) * 1000, 1)})  # fmt: skip
    return rows


def report(rows: list[dict[str, Any]], voices: tuple[str, ...]) -> None:
    """False cut-offs and median delay of each system, per pause."""
    print(f"voices {', '.join(voices)}: false cut-offs in % | median delay in ms of those not cut off")
    print(f"{'pause ms':18}" + "".join(f"{p:>13}" for p in PAUSES))
    for system in dict.fromkeys(row["system"] for row in rows):
        cells = []
        for pause in PAUSES:
            mine = [r for r in rows if r["system"] == system and r["pause_ms"] == pause and r["voice"] in voices]
            delays = [r["delay_ms"] for r in mine if r["delay_ms"] is not None]
            good = [d for d in delays if d >= 0]
            cut = 100 * (len(delays) - len(good)) / max(1, len(mine))
            cells.append(f"{cut:5.0f}% |{statistics.median(good):5.0f}" if good else f"{cut:5.0f}% |  -  ")
        print(f"{system:18}" + "".join(f"{cell:>13}" for cell in cells))
    never = sum(row["delay_ms"] is None for row in rows if row["voice"] in voices)
    print(f"utterances without an answer: {never}\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=60)
    parser.add_argument("--every", type=int, default=1, help="only every nth utterance")
    parser.add_argument("--chosen", action="store_true", help="report on the two voices that settings are chosen on")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", end=", ")
    print(f"pipecat-ai {version('pipecat-ai')}, {options.sentences} sentences")
    rows = measure(options.sentences, options.every)
    if options.json:
        options.json.write_text(json.dumps(rows), encoding="utf-8")
    report(rows, CHOSEN if options.chosen else HELD_OUT)


if __name__ == "__main__":
    main()
