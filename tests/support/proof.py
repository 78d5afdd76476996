"""The proof of the fence: random conversations with awkward guests, in virtual time, and what must hold of each.

Every sample of the bot's audio is the id of the turn that it answers, so the client can tell whose audio it hears. A
schedule is drawn from a seed: who speaks when and how, which kind of voice service answers and how late, whether other
queued guests stand in the chain, and where the user cuts in. Then:

    stale     audio of turn n that passed the gate after n was cut, or was sent after `interrupted` n   must be 0
    dropped   samples of an uncut reply that never arrived                                  must be 0
    wedged    the conversation is not idle in the end                                       must be 0
    unasked   a turn was cut by nobody: the last reply, or one that is asked again unchanged    must be 0
    lost      a word that was said and is in no turn                                        must be 0
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pipecat.frames.frames import TranscriptionFrame, VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult, Session, UserTurnFrame
from leibniz_voice.pipeline.frames import SpeechChunkFrame
from leibniz_voice.pipeline.testing import AsyncCall, CallError, run_virtual
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator
from leibniz_voice.transports.dialects.protocol import SttFragment, UserSpeaking, VadEnd
from leibniz_voice.transports.memory import MemoryWire

from .fake_openai import FakeOpenAI
from .proof_guests import CHUNK_MS, SAMPLE, VOICES, After, Guest, Oracle, Probe


@dataclass(frozen=True)
class Plan:
    """One schedule, drawn from a seed."""

    seed: int
    voice: str  # a key of VOICES
    guests: tuple[bool, ...]  # a queued guest behind stt, behind the responder, behind the voice
    branch_s: tuple[float, ...]  # delay of the branches, per turn
    chunk_s: float  # the voice's time per chunk
    chunks: tuple[int, ...]  # the reply's length, per turn
    acts: tuple[tuple[str, float], ...]  # (what the user does, seconds after the one before)


def plan(seed: int) -> Plan:
    """Draw a schedule."""
    dice = random.Random(seed)
    turns = dice.randrange(2, 5)
    acts: list[tuple[str, float]] = [("asks", 0.05)]
    for _ in range(turns - 1):
        kind = dice.choice(["asks", "asks", "client", "speech", "word", "early", "twice", "noise", "waits"])
        acts.append(
            (kind, dice.choice([0.0, 0.001, 0.01, 0.05, 0.2, 0.5, 1.0]) * dice.random() + dice.choice([0, 0, 0.06]))
        )
    return Plan(
        seed=seed,
        voice=dice.choice(sorted(VOICES)),
        guests=tuple(dice.random() < 0.35 for _ in range(3)),
        branch_s=tuple(dice.choice([0.0, 0.005, 0.05, 0.2]) * dice.random() for _ in range(16)),
        chunk_s=dice.choice([0.0, 0.001, 0.01, 0.03]),
        chunks=tuple(dice.randrange(2, 25) for _ in range(16)),
        acts=tuple(acts),
    )


# -- the pipeline ----------------------------------------------------------------------------------------------


@dataclass
class Parts:
    """The processors under proof; a deliberately broken variant replaces one."""

    responder: type[Responder] = Responder
    gate: type[InterruptionGate] = InterruptionGate
    tracker: type[StateTracker] = StateTracker
    turns: type[TurnAggregator] = TurnAggregator
    prepares: bool = False  # replies to guesses, at which the user hesitates


def builder(
    plan: Plan, parts: Parts, log: list[tuple[str, Any]], llm: FakeOpenAI | None = None
) -> Callable[[Session], Pipeline]:
    """Return the `build` of a plan's pipeline; `log` is the probes', `llm` the server that answers, if one does."""

    async def ask(turn: UserTurnFrame) -> IntentResult:
        await asyncio.sleep(plan.branch_s[turn.turn_id % 16])
        return IntentResult("complex_query" if llm else "say", 1.0)

    async def look_up(turn: UserTurnFrame) -> RetrievalResult:
        return RetrievalResult([], f"{turn.turn_id} {plan.chunks[turn.turn_id % 16]}.")

    def build(session: Session) -> Pipeline:
        dice = random.Random(plan.seed)
        guests = [[Guest(dice)] if there else [] for there in plan.guests]
        fallback = {"intent": IntentResult(), "retrieval": RetrievalResult()}
        branches = {"intent": ask, "retrieval": look_up}
        return Pipeline(
            [
                session.input,
                *guests[0],
                parts.turns(),
                Parallel(branches, fallback=fallback, speculate=branches if parts.prepares else ()),
                parts.responder(templates={"say": "{context}"}, prepare=parts.prepares),
                *guests[1],
                *([llm.service()] if llm else []),
                VOICES[plan.voice](plan.chunk_s),
                *guests[2],
                Probe(log),
                parts.gate(),
                After(log),
                parts.tracker(record=session.record),
                session.output,
            ]
        )

    return build


@dataclass
class Verdict:
    """What became of one schedule."""

    plan: Plan
    stale: int = 0  # samples
    dropped: int = 0  # samples
    wedged: bool = False
    lost: int = 0  # words
    unasked: bool = False  # a turn was cut by nobody
    cuts: int = 0
    replies: int = 0
    trace: str = ""
    counts: Counter[str] = field(default_factory=Counter)  # the responder's

    @property
    def is_good(self) -> bool:
        """Whether everything held."""
        return not (self.stale or self.dropped or self.wedged or self.lost or self.unasked)


@dataclass
class User:
    """Plays a plan's acts on a call."""

    call: AsyncCall
    dice: random.Random | None = None  # draws hesitations; None: there are none
    said: list[str] = field(default_factory=list)

    async def act(self, kind: str) -> None:
        """Do one thing."""
        call = self.call
        if kind == "asks":
            await self._says()
        elif kind == "client":
            await call.sends(UserSpeaking(confidence=0.9))
            await self._says()
        elif kind in ("speech", "twice"):
            await self._speaks()
            if kind == "twice":
                await asyncio.sleep(0.004)
                await self._speaks()
        elif kind == "word":
            await self._speaks(chunks=5)  # too short to confirm it; the word does
        elif kind == "early":
            await self._speaks(chunks=4, after=3)  # the words come, and cut, while the user still speaks
        elif kind == "noise":
            await call.pushes(SpeechChunkFrame(confidence=0.9, speech_ms=32))
            await asyncio.sleep(0.03)
            await call.pushes(SpeechChunkFrame())
        else:
            await asyncio.sleep(1)

    def _word(self) -> str:
        self.said.append(f"word{len(self.said)}")
        return self.said[-1]

    async def _says(self) -> None:
        if self.dice is None:
            await self.call.types(self._word())
            return
        for _ in range(self.dice.randrange(1, 4)):
            await self.call.sends(SttFragment(text=self._word(), is_final=True))
            await asyncio.sleep(self.dice.choice([0.0, 0.001, 0.05, 0.2, 0.5]) * self.dice.random())
        await self.call.sends(VadEnd())

    async def _speaks(self, chunks: int = 9, after: int = 0) -> None:
        await self.call.pushes(VADUserStartedSpeakingFrame(start_secs=0.064))
        for chunk in range(1, chunks + after + 1):
            await self.call.pushes(SpeechChunkFrame(confidence=0.95, speech_ms=32.0 * chunk))
            await asyncio.sleep(0.032)
            if chunk == chunks:
                await self.call.pushes(TranscriptionFrame(text=self._word(), user_id="", timestamp=""))
        await self.call.pushes(SpeechChunkFrame(), VADUserStoppedSpeakingFrame(stop_secs=0.3))


async def _run_llm(plan: Plan, parts: Parts) -> Verdict:
    async with Oracle(plan.branch_s[0] / 4) as llm:
        return await _run(plan, parts, llm)


async def _run(plan: Plan, parts: Parts, llm: FakeOpenAI | None = None) -> Verdict:
    gate_log: list[tuple[str, Any]] = []
    async with AsyncCall(builder(plan, parts, gate_log, llm), session_id=f"seed{plan.seed}") as call:
        user = User(call, random.Random(plan.seed) if parts.prepares else None)
        for kind, wait_s in plan.acts:
            await asyncio.sleep(wait_s)
            await user.act(kind)
        verdict = Verdict(plan, counts=responder_of(call).counts)
        try:
            await call.until(lambda: call.record.fields.state == "idle", "end", timeout_s=20)
            await asyncio.sleep(1.0)  # whatever would still come, comes now
            await call.until(lambda: call.record.fields.state == "idle", "end", timeout_s=20)
        except CallError:
            verdict.wedged = True
        judge(verdict, gate_log, user.said, call.wire)
        return verdict


def judge(verdict: Verdict, gate_log: list[tuple[str, Any]], said: list[str], wire: MemoryWire) -> None:
    """Fill in what the probes round the gate, and the client, have seen."""
    asked = " ".join(text for kind, text in gate_log if kind == "turn").split()
    verdict.lost = sum(word not in asked for word in said)
    turns = {frame.turn_id: frame.text.split() for kind, frame in gate_log if kind == "asked"}
    cut = {message["turn"] for message in wire.of_type("interrupted")}
    again = [t for t, words in turns.items() if any(set(words) <= set(turns[old]) for old in turns if old < t)]
    verdict.unasked = bool(again) or max(turns, default=0) in cut
    heard: Counter[int] = Counter()
    for _, pcm in wire.audio:
        heard.update(np.frombuffer(pcm, SAMPLE).tolist())
    sent = [("cut", m["turn"]) if kind == "interrupted" else (kind, m) for kind, m in wire.log]
    verdict.stale = _stale(gate_log) + _stale(sent)
    answered = {m["turn"] for m in wire.of_type("response_ready")}
    verdict.cuts, verdict.replies = len(cut), len(answered)
    for turn in answered - cut:
        verdict.dropped += max(0, verdict.plan.chunks[turn % 16] * 16 * CHUNK_MS - heard[turn])
    if not verdict.is_good:
        verdict.trace = "\n".join(f"{at:8.3f} {m}" for at, m in wire.messages)


def responder_of(call: AsyncCall) -> Responder:
    """Return the responder of a call's pipeline."""
    assert call.session.pipeline is not None
    return next(p for p in call.session.pipeline.processors if isinstance(p, Responder))


def _stale(log: list[tuple[str, Any]]) -> int:
    """Samples of a turn that come after the cut of it or of a newer one."""
    cut_upto = stale = 0
    for kind, value in log:
        if kind == "cut":
            cut_upto = max(cut_upto, value)
        elif kind == "audio":
            samples = np.frombuffer(value, SAMPLE)
            stale += int(np.count_nonzero((samples > 0) & (samples <= cut_upto)))
    return stale


def prove(seed: int, parts: Parts | None = None, *, has_llm: bool = False) -> Verdict:
    """Run one schedule in virtual time; `has_llm`: answered by Pipecat's OpenAI service over HTTP."""
    if has_llm:
        return run_virtual(_run_llm(plan(seed), parts or Parts()), grace_s=0.002)
    return run_virtual(_run(plan(seed), parts or Parts()))
