"""The trade-off between hangover and false cut-offs, by replaying 30 recordings under other settings.

Makes 30 recordings of the assistant in virtual time, with real speech (flite, three voices), the real speech detector
and recogniser: a question with a pause in it, of 0.1 to 0.9 s, then one without, and a sound while the bot answers
("okay", a cough, an interruption). What sounded when is known to the sample. Then replays each with every hangover, as
`leibniz compare --set vad.hangover_ms=...` does, and writes a table and a picture: where the hangover alone ends a turn
(`stt.complete_ms`, `stt.unknown_ms` and `stt.unfinished_ms` set to the same), and as the assistant is, whose words do.

    python benchmarks/compare.py [--n 30] [--keep DIR] [--svg docs/images/compare.svg]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import subprocess
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from loguru import logger

from leibniz_voice.bots.cli.scripts import lifespan_of, load_bot, set_up_log
from leibniz_voice.lab.replay.compare import measured
from leibniz_voice.pipeline.testing import AsyncCall, Measures, Recording, Tape, run_virtual

BOT = str(Path(__file__).parent.parent / "bots" / "assistant.py")
RATE = 16_000
HANGOVERS_MS = (100, 150, 200, 300, 400, 500, 600, 800, 1000)
WORDS = ("stt.complete_ms", "stt.unknown_ms", "stt.unfinished_ms")  # what the words make of a silence
HALVES = (
    ("what are your", "opening hours"), ("when will", "my order arrive"), ("how much does", "delivery cost"),
    ("can you repair", "my bicycle"), ("where can i", "park my car"), ("what is", "your return policy"),
    ("how long does", "delivery take"), ("i want to", "cancel my order"), ("do you", "sell helmets"),
)  # fmt: skip
VOICES = ("slt", "rms", "awb")


def speech(text: str, voice: str) -> bytes:
    """16 kHz PCM16 mono, without the silence at its ends."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", file.name], check=True, capture_output=True)
        command = ["sox", file.name, "-t", "raw", "-r", str(RATE), "-e", "signed", "-b", "16", "-c", "1", "-"]
        raw = subprocess.run(command, check=True, capture_output=True).stdout
    samples = np.frombuffer(raw, np.int16)
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > 300)
    return samples[loud[0] : loud[-1] + 1].tobytes()


def noisy(pcm: bytes, rng: np.random.Generator) -> bytes:
    """With a room's noise, 45 dB below full scale."""
    samples = np.frombuffer(pcm, np.int16) + rng.normal(0, 60, len(pcm) // 2)
    return np.clip(samples, -32768, 32767).astype(np.int16).tobytes()


async def converse(call: AsyncCall, tape: Tape, seed: int) -> None:
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    loop = asyncio.get_running_loop()

    async def say(pcm: bytes, kind: str, silence_s: float) -> None:
        start = loop.time()
        tape.label(kind, start, start + len(pcm) / 2 / RATE)
        await call.says(noisy(pcm, noise), then_silence_s=0.0)
        await call.says(noisy(bytes(2 * int(silence_s * RATE)), noise), then_silence_s=0.0)

    voice = VOICES[seed % len(VOICES)]
    (first, second), (third, fourth) = rng.sample(HALVES, 2)
    pause_s = 0.1 + 0.8 * (seed + rng.random()) / 30
    await call.says(noisy(bytes(RATE), noise), then_silence_s=0.0)
    pcm = speech(first, voice) + bytes(2 * int(pause_s * RATE)) + speech(second, voice)
    await say(pcm, "turn", 2.5)
    sounds = (("okay", "backchannel"), ("", "vocal_tic"), ("", ""))
    text, kind = sounds[seed % len(sounds)]
    if kind == "backchannel":
        await say(speech(text, voice), kind, 1.0)
    elif kind:
        await say(noise.normal(0, 2500, int(0.08 * RATE)).astype(np.int16).tobytes(), kind, 1.0)
    await say(speech(f"{third} {fourth}", voice), "turn", 2.5)
    await call.until_state("idle", timeout_s=30)


def make(seed: int, path: str) -> None:
    """Record one conversation."""
    set_up_log("ERROR")
    logger.disable("leibniz_voice")
    bot, tape = load_bot(BOT), Tape()

    async def main() -> None:
        async with lifespan_of(bot), AsyncCall(tape.records(bot.build), session_id=f"pause-{seed}") as call:
            await converse(call, tape, seed)

    run_virtual(main())
    recording = tape.recording
    recording.bot = BOT
    recording.save(path)


def settings() -> dict[tuple[str, int], dict[str, str]]:
    """What is compared: by who ends a turn, and the hangover in ms."""
    alone = {("hangover", ms): dict.fromkeys(("vad.hangover_ms", *WORDS), str(ms)) for ms in HANGOVERS_MS}
    return alone | {("words", ms): {"vad.hangover_ms": str(ms)} for ms in HANGOVERS_MS}


def measure(path: str) -> dict[tuple[str, int], Measures]:
    """One recording's measures under each setting."""
    set_up_log("ERROR")
    logger.disable("leibniz_voice")
    bot, recording = load_bot(BOT), Recording.load(path)

    def under(changes: dict[str, str]) -> Measures:
        return measured(recording, bot.build, changes, lifespan=lambda: lifespan_of(bot))[0]

    return {which: under(changes) for which, changes in settings().items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=30, help="recordings (default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the recordings in this folder")
    parser.add_argument("--svg", type=Path, help="write the picture")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="leibniz-compare-"))
    folder.mkdir(exist_ok=True)
    began = time.monotonic()
    paths = [str(folder / f"pause-{seed:02}.leibniz.gz") for seed in range(options.n)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        list(pool.map(make, range(options.n), paths))
        made_s = time.monotonic() - began
        measured = list(pool.map(measure, paths))
    audio_s = sum(Recording.load(path).length_s for path in paths)
    took_s = time.monotonic() - began - made_s
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, "
          f"load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d')}")  # fmt: skip
    print(f"{options.n} recordings, {audio_s:.0f} s of audio, made in {made_s:.0f} s; "
          f"{len(settings()) * options.n} replays in {took_s:.0f} s\n")  # fmt: skip
    print("ends a turn, hangover   false cut-offs   turns   L_R    response p50   p95      I_A    S_BC   S_VT   "
          "false interruptions")  # fmt: skip
    rows: dict[str, list[tuple[int, float, float]]] = {}
    for who, hangover_ms in settings():
        whole = sum((each[who, hangover_ms] for each in measured), Measures())
        values = {name: value if value is not None else float("nan") for name, value in whole.values().items()}
        rows.setdefault(who, []).append((hangover_ms, whole.false_cutoffs / options.n, values["response_p50_ms"]))
        print(f"{who:<13}{hangover_ms:5} ms   {whole.false_cutoffs:3} of {options.n:2} pauses  {whole.turns:5}   "
              f"{values['response_latency']:.2f} s {values['response_p50_ms']:8.0f} ms "
              f"{values['response_p95_ms']:8.0f} ms  "
              f"{values['agent_interruption_rate']:5.0%}  {values['selectivity_backchannel']:5.0%}  "
              f"{values['selectivity_vocal_tic']:5.0%}  {whole.false_interruptions:3}", flush=True)  # fmt: skip
    if options.svg:
        options.svg.write_text(plot(rows), encoding="utf-8")


def plot(rows: dict[str, list[tuple[int, float, float]]]) -> str:
    """False cut-offs against the response's latency, a point per hangover."""
    width, height, left, bottom, top, right = 640, 380, 64, 52, 36, 30
    points = [row for each in rows.values() for row in each]
    most = max(ms for _, _, ms in points) * 1.08
    peak = max(0.1, max(share for _, share, _ in points) * 1.1)

    def at(ms: float, share: float) -> tuple[float, float]:
        x = left + (width - left - right) * ms / most
        return x, height - bottom - (height - top - bottom) * share / peak

    drawn = ""
    for step in range(0, int(most), 200):
        x, y = at(step, 0)
        drawn += f'<path class="g" d="M{x:.1f} {top}V{y:.1f}"/>'
        drawn += f'<text class="d" x="{x - 10:.1f}" y="{y + 18:.1f}">{step}</text>'
    share = 0.0
    while share <= peak:
        x, y = at(0, share)
        drawn += f'<path class="g" d="M{x:.1f} {y:.1f}H{width - right}"/>'
        drawn += f'<text class="d" x="24" y="{y + 4:.1f}">{share:.0%}</text>'
        share += 0.2 if peak > 0.5 else 0.05
    for who, each in rows.items():
        line = "M" + "L".join("{:.1f} {:.1f}".format(*at(ms, share)) for _, share, ms in each)
        drawn += f'<path class="l {who}" d="{line}"/>'
        for hangover_ms, share, ms in each:
            x, y = at(ms, share)
            drawn += f'<circle class="{who}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
            if who == "hangover":
                drawn += f'<text x="{x + 7:.1f}" y="{y - 7:.1f}">{hangover_ms}</text>'
    x, y = at(*reversed(rows["words"][1][1:]))
    drawn += f'<text x="{x + 10:.1f}" y="{y + 4:.1f}">the words end it: {HANGOVERS_MS[1]}</text>'
    x, y = at(*reversed(rows["words"][-1][1:]))
    drawn += f'<text x="{x + 10:.1f}" y="{y - 7:.1f}">{HANGOVERS_MS[2]} to {HANGOVERS_MS[-1]}</text>'
    style = (
        "svg{--bg:#fff;--fg:#1d2433;--dim:#5c667a;--line:#e3e7ee;--a:#1f6feb;--b:#c2410c;"
        "font:12px system-ui,sans-serif}@media(prefers-color-scheme:dark){svg{--bg:#141821;--fg:#e6e9f0;--dim:#a3adbf;"
        "--line:#2a3140;--a:#7db2ff;--b:#fb923c}}text{fill:var(--fg)}.d{fill:var(--dim)}.g{stroke:var(--line)}"
        "circle.hangover{fill:var(--a)}circle.words{fill:var(--b)}.l{fill:none;stroke-width:2}"
        ".l.hangover{stroke:var(--a)}.l.words{stroke:var(--b)}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="False cut-offs against response latency"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="var(--bg)"/>{drawn}'
        f'<text x="{left}" y="20">turns cut off in a pause of 0.1 to 0.9 s, by hangover in ms</text>'
        f'<text class="d" x="{width - right}" y="{height - 10}" text-anchor="end">response p50, ms</text></svg>\n'
    )


if __name__ == "__main__":
    main()
