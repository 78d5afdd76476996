"""What stops a bot that is speaking, and what does not: clips made by script, in virtual time, with the real detector.

    .venv/bin/python benchmarks/selectivity.py [--half report|tune|all] [--confirm-ms 250 ...] [--ears embedded ...]

Each clip (selectivity_clips.py) is played to a whole pipeline (vad, stt, turns, branches, responder, voice, gate,
tracker, output) while it speaks an answer of 6 s, after the user has said one sentence at the usual level. Whole: no
`interrupted`, every sample of the answer was sent, and a pause was followed by `resume`. Every other clip is for
tuning, the others are reported. Who tells words:

    embedded   EmbeddedSTT with the phrases of bots/assistant.py, of which most of what interrupts here is none
    told       a scripted recogniser that hears them truthfully, 200 ms after the detector's end of speech
    none       nobody stands in the chain, and duration alone decides

First the default policy; `--confirm-ms` adds others, for all ears the same.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import time
from collections import defaultdict
from datetime import date
from pathlib import Path
from typing import Any

from loguru import logger
from pipecat.processors.frame_processor import FrameDirection

logger.remove()

from selectivity_clips import SEED, USUAL, Clip, clips  # noqa: E402 - the log is silenced first

from leibniz_voice.bots.content import BotContent  # noqa: E402
from leibniz_voice.pipeline import (  # noqa: E402
    IntentResult,
    Parallel,
    Pipeline,
    Processor,
    RetrievalResult,
    Session,
    consumes,
)
from leibniz_voice.pipeline.frames import ReplyAudioFrame, ReplySpeechFrame  # noqa: E402
from leibniz_voice.pipeline.interruption.policy import BargeInPolicy  # noqa: E402
from leibniz_voice.pipeline.testing import AsyncCall, Heard, ScriptedSTT, run_offline  # noqa: E402
from leibniz_voice.processors import (  # noqa: E402
    EmbeddedSTT,
    InterruptionGate,
    Responder,
    SileroVAD,
    StateTracker,
    TurnAggregator,
)

ANSWER_MS = 6000
ANSWER = (b"\x10\x27\xf0\xd8" * 8000 * (ANSWER_MS // 1000))[: ANSWER_MS * 32]
PHRASES = BotContent.load(Path(__file__).parent.parent / "bots" / "assistant_data").phrases
QUESTION = "where is my order"
EARS = ("embedded", "told", "none")
KINDS = ("noise", "cough", "mhm", "okay", "other", "echo", "more", "real", "unseen")
STOPPING = ("real", "unseen")


class Voice(Processor):
    """Hands over the whole answer at once."""

    @consumes(ReplySpeechFrame)
    async def _on_speech(self, frame: ReplySpeechFrame, direction: FrameDirection) -> None:
        for at in range(0, len(ANSWER), 3200):
            await self.push_frame(ReplyAudioFrame(ANSWER[at : at + 3200], 16_000, 1, turn_id=frame.turn_id))


async def intent(turn: Any) -> IntentResult:
    """Always the same."""
    return IntentResult("order_status", 1.0)


async def retrieval(turn: Any) -> RetrievalResult:
    """Always the same."""
    return RetrievalResult(context="It is on its way.")


def recogniser(ears: str, clip: Clip) -> list[Processor]:
    """Who tells the words of the question and of the clip."""
    if ears == "embedded":
        return [EmbeddedSTT(phrases=PHRASES)]
    return [ScriptedSTT([Heard(QUESTION), Heard(clip.words, delay_s=0.2)])] if ears == "told" else []


def outcome(clip: Clip, policy: BargeInPolicy, ears: str) -> tuple[str, float]:
    """Return what the clip did: "whole", "stopped" or "broken", and for how many ms the bot was held."""

    def build(session: Session) -> Pipeline:
        return Pipeline(
            [
                session.input,
                SileroVAD(quiet_db=policy.quiet_db),
                *recogniser(ears, clip),
                TurnAggregator(policy=policy),
                Parallel(
                    {"intent": intent, "retrieval": retrieval},
                    fallback={"intent": IntentResult(), "retrieval": RetrievalResult()},
                ),
                Responder(),
                Voice(),
                InterruptionGate(policy=policy),
                StateTracker(record=session.record),
                session.output,
            ]
        )

    async def script(call: AsyncCall) -> None:
        await call.says(USUAL, then_silence_s=0.0)
        if ears == "none":
            await call.is_silent(0.5)
            await call.types(QUESTION)
        while not call.wire.audio:
            await call.is_silent(0.1)
        await call.is_silent(0.7)
        await call.says(clip.pcm, then_silence_s=1.2)
        while call.states[-1] == "speaking" and not call.wire.of_type("interrupted"):
            await call.is_silent(0.2)

    call = run_offline(build, script)
    told = [(at, message["type"]) for at, message in call.wire.messages]
    if any(kind == "interrupted" for _, kind in told):
        return "stopped", 0.0
    pauses = [at for at, kind in told if kind == "pause"]
    resumes = [at for at, kind in told if kind == "resume"]
    held_ms = sum(after - before for before, after in zip(pauses, resumes, strict=False)) * 1000
    is_whole = len(pauses) == len(resumes) and call.wire.audio_ms >= ANSWER_MS
    return ("whole" if is_whole else "broken"), held_ms


def curve(chosen: list[Clip], policy: BargeInPolicy, ears: str) -> str:
    """One line: percent of each kind that the bot survived, or was stopped by."""
    found: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for clip in chosen:
        found[clip.kind].append(outcome(clip, policy, ears))
        if "-v" in sys.argv and found[clip.kind][-1][0] != ("stopped" if clip.kind in STOPPING else "whole"):
            print(f"  {clip.kind} {clip.words!r} {len(clip.pcm) / 32:.0f} ms: {found[clip.kind][-1]}", file=sys.stderr)
    wanted = {kind: "stopped" if kind in STOPPING else "whole" for kind in KINDS}
    share = [100 * sum(o == wanted[kind] for o, _ in found[kind]) / max(1, len(found[kind])) for kind in KINDS]
    others = [o for kind in KINDS[:5] for o in found[kind]]
    whole = 100 * sum(o == "whole" for o, _ in others) / max(1, len(others))
    held = sum(ms for o, ms in others if o == "whole") / max(1, sum(o == "whole" for o, _ in others))
    return "".join(f"{value:8.0f}" for value in share) + f"{whole:12.1f}{held:12.0f}"


def main() -> None:
    """Measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=("report", "tune", "all"), default="report")
    parser.add_argument("--confirm-ms", type=float, nargs="+", default=[])
    parser.add_argument("--ears", choices=EARS, nargs="+", default=list(EARS))
    parser.add_argument("-v", action="store_true", help="name what went wrong")
    options = parser.parse_args()
    chosen = clips()
    chosen = chosen if options.half == "all" else chosen[options.half == "report" :: 2]
    started = time.perf_counter()
    counts = {kind: sum(clip.kind == kind for clip in chosen) for kind in KINDS}
    print(f"{date.today()}, {platform.platform()}, Python {platform.python_version()}, "
          f"pipecat-ai {importlib.metadata.version('pipecat-ai')}, {os.cpu_count()} cores, seed {SEED}, "
          f"half: {options.half}")  # fmt: skip
    print("percent that left the answer whole and resumed (real, unseen: that stopped it); held: mean ms of a pause\n")
    print(f"{'':<24}" + "".join(f"{kind:>8}" for kind in KINDS) + f"{'first five':>12}{'held, ms':>12}")
    print(f"{'clips':<24}" + "".join(f"{counts[kind]:>8}" for kind in KINDS))
    policies = {"default": BargeInPolicy()}
    policies |= {f"confirm {ms:g} ms": BargeInPolicy(confirm_ms=ms, patient_ms=ms) for ms in options.confirm_ms}
    for ears in options.ears:
        for name, policy in policies.items():
            print(f"{f'{name}, {ears}':<24}{curve(chosen, policy, ears)}", flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s in all", file=sys.stderr)


if __name__ == "__main__":
    main()
