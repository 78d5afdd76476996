"""End of speech to first bot audio, and false cut-offs, over pauses of 0 to 1,000 ms.

    python benchmarks/endpointing.py [--voices slt rms awb kal] [--part K N] [--json FILE]
    python benchmarks/endpointing.py --read FILE... [--svg docs/images/endpointing.svg]

60 sentences of the assistant's phrases by flite's four voices (none is the bot's), 15 each, in three levels of noise;
each whole, and with a pause at its quietest place near the middle, so often within a word. Services and voice answer at
once, so what is measured is the end of the turn.
 ours             this project's pipeline in virtual time with the embedded recogniser: `SETTINGS`; the first is the
                  default of bots/assistant.py
 stock ...        stock Pipecat's SileroVADAnalyzer and LocalSmartTurnAnalyzerV3, or a speech timeout, driven in audio
                  time by the rule of its turn strategies; a queue or a task costs it nothing, and its recogniser has
                  the words 40 ms after the detector's stop. `stock smart-turn` and `stock timeout` are its defaults
A model's own time (recogniser, smart-turn) is 0 for everybody in the delays and printed apart. A cut-off is false if
the bot is audible before the user's last sample. Settings were chosen on two voices; the others are held out.
"""

from __future__ import annotations

import argparse
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

from endpointing_plot import draw  # noqa: E402 - Pipecat logs a line when imported
from endpointing_systems import RATE, Clocked, Ours, trace_stock  # noqa: E402

from leibniz_voice.bots.content import BotContent  # noqa: E402
from leibniz_voice.pipeline.listening.endpointing import Endpointing  # noqa: E402
from leibniz_voice.pipeline.testing.clock import run_virtual  # noqa: E402
from leibniz_voice.processors.embedded.workers.shared import close_all  # noqa: E402

LEAD_MS, TAIL_MS = 300, 4000  # silence around the speech
PAUSES = (0, 100, 200, 300, 400, 600, 800, 1000)
SENTENCES = 60
MIN_WORDS = 4  # a pause in "good evening" is no pause in a sentence
CHOSEN, HELD_OUT = ("slt", "rms"), ("awb", "kal")
NOISES = (None, 30.0, 15.0)  # dB below the speech
ROOT = Path(__file__).parent.parent
PHRASES = BotContent.load(ROOT / "bots" / "assistant_data").phrases
SETTINGS = {
    "ours": Ours(PHRASES, Endpointing()),
    "ours, hangover": Ours(),
    "ours, smart-turn": Ours(is_smart=True),
}
STOPS_S = (0.2, 0.4)  # stock's detector; the first is its default
FALLBACKS_S = (3.0, 2.0, 1.0)  # stock's smart-turn; the first is its default
TIMEOUTS_S = (0.6, 0.0, 0.2, 0.4, 0.8, 1.0)  # stock's speech timeout; the first is its default
MAIN = ("ours", "ours, hangover", "ours, smart-turn", "stock smart-turn", "stock timeout")


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


# -- the run ---------------------------------------------------------------------------------------------------


async def stock(pcm: bytes) -> tuple[dict[str, float | None], list[float]]:
    """(Each of stock's settings -> when it is audible, what the model took in ms)."""
    ends: dict[str, float | None] = {}
    took_ms: list[float] = []
    for stop_s in STOPS_S:
        trace = await trace_stock(pcm, stop_secs=stop_s, asks_model=True)
        took_ms += trace.took_ms
        for fallback_s in FALLBACKS_S:
            is_default = (stop_s, fallback_s) == (STOPS_S[0], FALLBACKS_S[0])
            name = "stock smart-turn" if is_default else f"stock smart-turn {stop_s:g}/{fallback_s:g}"
            ends[name] = trace.by_model(fallback_s)
        for timeout_s in TIMEOUTS_S if stop_s == STOPS_S[0] else ():
            name = "stock timeout" if timeout_s == TIMEOUTS_S[0] else f"stock timeout {timeout_s:g}"
            ends[name] = trace.by_timeout(timeout_s)
    return ends, took_ms


async def measure(part: int, parts: int, voices: list[str], settings: dict[str, Ours]) -> dict[str, Any]:
    """One row per utterance and system, and what the models took."""
    phrases = [phrase for phrase in PHRASES if len(phrase.split()) >= MIN_WORDS][:SENTENCES]
    assert len(phrases) == SENTENCES, f"only {len(phrases)} phrases are long enough"
    rows, model_ms = [], []
    with Clocked() as clock:
        for number, phrase in enumerate(phrases):
            voice, noise = (*CHOSEN, *HELD_OUT)[number % 4], NOISES[number // 4 % 3]
            for pause_ms in PAUSES if voice in voices and number % parts == part else ():
                pcm, end_s = stimulus(phrase, voice, pause_ms, noise, number)
                ends, took_ms = await stock(pcm)
                model_ms += took_ms
                said = dict.fromkeys(ends, "")
                for name, setting in settings.items():
                    ends[name], said[name] = await setting.answer(pcm)
                rows += [{"system": system, "voice": voice, "noise": noise, "pause_ms": pause_ms, "text": phrase,
                          "heard": said[system], "delay_ms": None if at is None else round((at - end_s) * 1000, 1)}
                         for system, at in ends.items()]  # fmt: skip
    await close_all()
    return {"rows": rows, "recogniser_ms": clock.took_ms, "model_ms": model_ms}


def figures(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """(False cut-offs in %, median delay in ms of those not cut off, or nan)."""
    delays = [row["delay_ms"] for row in rows if row["delay_ms"] is not None]
    good = [delay for delay in delays if delay >= 0]
    return 100 * (len(delays) - len(good)) / max(1, len(rows)), statistics.median(good) if good else float("nan")


def report(rows: list[dict[str, Any]], voices: tuple[str, ...]) -> None:
    """False cut-offs and median delay of each main system per pause, then every setting in the plane of both."""
    mine = [row for row in rows if row["voice"] in voices]
    print(f"voices {', '.join(voices)}: false cut-offs in % | median delay in ms of those not cut off")
    print(f"{'pause ms':18}" + "".join(f"{p:>13}" for p in PAUSES))
    for system in (name for name in MAIN if any(row["system"] == name for row in mine)):
        cells = []
        for pause in PAUSES:
            cut, delay = figures([r for r in mine if (r["system"], r["pause_ms"]) == (system, pause)])
            cells.append(f"{cut:5.0f}% |{delay:5.0f}" if delay == delay else f"{cut:5.0f}% |  -  ")
        print(f"{system:18}" + "".join(f"{cell:>13}" for cell in cells))
    print(f"\n{'':26}{'finished: p50':>13}{'p90 ms':>8}{'cut-offs over all pauses of 100 to 1,000 ms':>48}")
    for system in dict.fromkeys(row["system"] for row in mine):
        whole = sorted(r["delay_ms"] for r in mine if r["system"] == system and not r["pause_ms"])
        if not whole:
            continue
        paused = [r for r in mine if r["system"] == system and r["pause_ms"]]
        line = f"{system:26}{statistics.median(whole):13.0f}{whole[int(len(whole) * 0.9)]:8.0f}"
        line += f"{figures(paused)[0]:11.1f} % of {len(paused)}"
        heard = [r["heard"] == r["text"] for r in mine if r["system"] == system and r["heard"] not in ("", "words")]
        print(line + (f"; where words were heard, right {sum(heard)} of {len(heard)}" if heard else ""))
    never = sum(row["delay_ms"] is None for row in mine)
    print(f"utterances without an answer: {never}\n")


def main() -> None:
    """Measure and print, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), help="K N: sentences K, K + N, K + 2 N...")
    parser.add_argument("--voices", nargs="+", default=[*CHOSEN, *HELD_OUT], choices=[*CHOSEN, *HELD_OUT])
    parser.add_argument("--json", type=Path, help="where to keep what was measured")
    parser.add_argument("--read", type=Path, nargs="+", help="print these instead of measuring")
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    if options.read:
        parts = [json.loads(file.read_text(encoding="utf-8")) for file in options.read]
    else:
        parts = [run_virtual(measure(*options.part, options.voices, SETTINGS))]
        if options.json:
            options.json.write_text(json.dumps(parts[0]), encoding="utf-8")
    rows = [row for part in parts for row in part["rows"]]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", end=", ")
    print(f"pipecat-ai {version('pipecat-ai')}, {len({row['text'] for row in rows})} sentences")
    for what, key in (("recogniser", "recogniser_ms"), ("smart-turn", "model_ms")):
        took = [ms for part in parts for ms in part[key]]
        print(f"{what}'s own time, in no delay below: median {statistics.median(took):.0f} ms of {len(took)}")
    print()
    for voices in (CHOSEN, HELD_OUT):
        if {row["voice"] for row in rows} & set(voices):
            report(rows, voices)
    if options.svg:
        options.svg.write_text(draw(rows, HELD_OUT, PAUSES, figures), encoding="utf-8")


if __name__ == "__main__":
    main()
