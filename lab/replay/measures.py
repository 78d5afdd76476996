"""How well a bot takes turns: the measures of the tau-voice benchmark, and some of ours, from a recording. Pure.

The definitions and windows are those of tau-voice (Ray et al., arXiv:2603.13686, and its `voice_interaction_metrics`):

 L_R  response_latency   mean s from the end of a user's turn to the start of the bot's answer           lower is better
 R_R  response_rate      share of the user's turns that were answered before the user spoke again         higher
 L_Y  yield_latency      mean s from the start of an interruption until the bot is silent                 lower
 R_Y  yield_rate         share of the interruptions at which it is silent within 2 s                      higher
 I_A  agent_interruption_rate   times the bot begins to speak while the user does, per turn of the user   lower
 S_BC, S_VT, S_ND        share of backchannels, vocal tics (a cough, "um") and speech that is not meant for the bot
                         which it rightly passed over: it did not stop within 1 s and, for the last two, did not
                         answer within 2 s                                                                higher

Ours: a *false cut-off* is a turn taken to be complete while the user had not finished; a *false interruption* a reply
that something which is no turn has cut. A pause that is resumed is neither.

Who tells what was what: events `label` (`{"kind": one of KINDS, "start": s, "end": s}`), which a script that makes a
recording knows; for a call without them it is guessed from the speech detector and the words, so that a cough that
stopped the bot counts as an interruption only if words or a turn came of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from statistics import fmean, median
from typing import NamedTuple

from ...pipeline.listening.backchannel import is_backchannel
from ..recording.events import CLIENT, WIRE, RecordedEvent
from ..recording.recording import Recording
from ..recording.spans import spans_of

__all__ = ["Measures", "Said", "measures_of", "name_of", "told"]

NO_YIELD_S = 2.0  # an interruption after which the bot speaks on for longer was not yielded to
PASSED_S = 1.0  # what is to be passed over must not stop the bot within this
ANSWER_S = 2.0  # nor be answered within this
KINDS = ("turn", "backchannel", "vocal_tic", "non_directed")
SELECTIVE = {"backchannel": "S_BC", "vocal_tic": "S_VT", "non_directed": "S_ND"}
_GAP_S = 0.4  # silence of the bot between two of its words that is no end of its speech
_LOOK_S = 0.05  # about a tick: what begins at an end has not begun before it


class Said(NamedTuple):
    """One thing that the user said, or that sounded at the user's."""

    start: float
    end: float
    kind: str  # one of KINDS


@dataclass
class Measures:
    """The measures of one recording; add them up over several."""

    response_s: list[float] = field(default_factory=list)  # of each turn that was answered
    yield_s: list[float] = field(default_factory=list)  # of each interruption that was yielded to
    turns: int = 0  # the user's
    interruptions: int = 0  # turns that began while the bot spoke
    agent_interruptions: int = 0
    passed: dict[str, int] = field(default_factory=dict)  # kind -> passed over rightly
    to_pass: dict[str, int] = field(default_factory=dict)  # kind -> all of them
    false_cutoffs: int = 0
    false_interruptions: int = 0
    cuts: int = 0  # replies that were cut
    pauses: int = 0  # times that the bot held its voice
    resumes: int = 0  # times that it went on

    def __add__(self, other: Measures) -> Measures:
        kinds = {*self.to_pass, *other.to_pass}
        both = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in both.items():
            its = getattr(other, name)
            if isinstance(value, dict):
                both[name] = {kind: value.get(kind, 0) + its.get(kind, 0) for kind in kinds}
            else:
                both[name] = value + its
        return Measures(**both)

    @property
    def response_latency(self) -> float | None:
        """L_R, s."""
        return fmean(self.response_s) if self.response_s else None

    @property
    def yield_latency(self) -> float | None:
        """L_Y, s."""
        return fmean(self.yield_s) if self.yield_s else None

    def selectivity(self, kind: str) -> float | None:
        """S_BC, S_VT or S_ND; None where there was none of the kind."""
        total = self.to_pass.get(kind, 0)
        return self.passed.get(kind, 0) / total if total else None

    def values(self) -> dict[str, float | None]:
        """Every measure by name; None where nothing was there to be measured."""
        ms = sorted(second * 1000 for second in self.response_s)
        return {
            "response_latency": self.response_latency,
            "response_p50_ms": median(ms) if ms else None,
            "response_p95_ms": ms[min(len(ms) - 1, int(0.95 * len(ms)))] if ms else None,
            "response_rate": len(self.response_s) / self.turns if self.turns else None,
            "yield_latency": self.yield_latency,
            "yield_rate": len(self.yield_s) / self.interruptions if self.interruptions else None,
            "agent_interruption_rate": self.agent_interruptions / self.turns if self.turns else None,
            **{f"selectivity_{kind}": self.selectivity(kind) for kind in SELECTIVE},
            "turns": self.turns,
            "false_cutoffs": self.false_cutoffs,
            "false_interruptions": self.false_interruptions,
            "interruptions": self.interruptions,
            "cuts": self.cuts,
            "pauses": self.pauses,
            "resumes": self.resumes,
        }

    def told(self) -> list[tuple[str, str]]:
        """(name, value with its unit) of every measure that there is."""
        return [
            (_NAMES.get(name, name), told(name, value)) for name, value in self.values().items() if value is not None
        ]


_NAMES = {
    "response_latency": "L_R response latency",
    "response_rate": "R_R response rate",
    "yield_latency": "L_Y yield latency",
    "yield_rate": "R_Y yield rate",
    "agent_interruption_rate": "I_A bot interrupts",
    "selectivity_backchannel": "S_BC backchannels",
    "selectivity_vocal_tic": "S_VT vocal tics",
    "selectivity_non_directed": "S_ND not for the bot",
    "response_p50_ms": "response p50",
    "response_p95_ms": "response p95",
    "false_cutoffs": "false cut-offs",
    "false_interruptions": "false interruptions",
}


def name_of(name: str) -> str:
    """Return what people call a measure."""
    return _NAMES.get(name, name)


def told(name: str, value: float | None) -> str:
    """Return a value as people read it."""
    if value is None:
        return "-"
    if name.endswith("_ms"):
        return f"{value:.0f} ms"
    if name.endswith("latency"):
        return f"{value:.2f} s"
    if "rate" in name or name.startswith("selectivity"):
        return f"{value:.0%}"
    return f"{value:g}"


def measures_of(recording: Recording) -> Measures:
    """Measure a recording."""
    said, bot = _said_in(recording), _bot_spans(recording)
    turns = [each for each in said if each.kind == "turn"]
    measures = Measures(turns=len(turns))
    for at, turn in enumerate(turns):
        following = turns[at + 1].start if at + 1 < len(turns) else float("inf")
        _measure_turn(measures, turn, following, bot)
    for kind in SELECTIVE:
        them = [each for each in said if each.kind == kind]
        if them:
            measures.to_pass[kind] = len(them)
            measures.passed[kind] = sum(_is_passed(each, bot) for each in them)
    measures.agent_interruptions = sum(
        any(turn.start + _LOOK_S < start < turn.end - _LOOK_S for turn in turns) for start, _ in bot
    )
    _count(measures, recording, said)
    return measures


def _measure_turn(measures: Measures, turn: Said, following: float, bot: Sequence[tuple[float, float]]) -> None:
    speaking = next(((start, end) for start, end in bot if start < turn.start < end), None)
    if speaking is not None:
        measures.interruptions += 1
        if speaking[1] - turn.start <= NO_YIELD_S:
            measures.yield_s.append(speaking[1] - turn.start)
    answer = next((start for start, _ in bot if start >= turn.end - _LOOK_S), None)
    if answer is not None and answer <= following:
        measures.response_s.append(max(0.0, answer - turn.end))


def _is_passed(each: Said, bot: Sequence[tuple[float, float]]) -> bool:
    speaking = next((end for start, end in bot if start < each.start < end), None)
    if speaking is not None:
        return speaking > each.start + PASSED_S or _goes_on(each, bot)
    if each.kind == "backchannel":
        return True
    return not any(each.start < start <= each.end + ANSWER_S for start, _ in bot)


def _goes_on(each: Said, bot: Sequence[tuple[float, float]]) -> bool:
    """Whether the bot, which stopped, was only holding its voice: it spoke again soon after the sound's end."""
    return any(each.start < start <= each.end + PASSED_S for start, _ in bot)


def _count(measures: Measures, recording: Recording, said: Sequence[Said]) -> None:
    cuts = [move.at for move in recording.moves if move.state == "interrupt"]
    measures.cuts = len(cuts)
    measures.pauses = len(recording.frames("PlaybackPauseFrame")) or len(recording.frames("pause"))
    measures.resumes = len(recording.frames("PlaybackResumeFrame")) or len(recording.frames("resume"))
    ends = [move.at for move in recording.moves if move.trigger == "vad_end"]
    if any(event.kind == "label" for event in recording.events):
        spoken = [each for each in said if each.kind == "turn"]
        measures.false_cutoffs = sum(any(t.start < at < t.end - _LOOK_S for t in spoken) for at in ends)
        measures.false_interruptions = sum(
            any(each.kind != "turn" and each.start <= at <= each.end + PASSED_S for each in said)
            and not any(each.start <= at <= each.end + PASSED_S for each in spoken)
            for at in cuts
        )
        return
    starts = [event.at for event in recording.frames("VADUserStartedSpeakingFrame")]
    measures.false_cutoffs = sum(
        any(at < start < at + PASSED_S for start in starts) and _is_cut_in_thinking(at, recording) for at in ends
    )
    # By their order: in virtual time the end of the turn may come in the very instant of the cut.
    order = [move for move in recording.moves if move.state == "interrupt" or move.trigger == "vad_end"]
    measures.false_interruptions = sum(
        move.state == "interrupt" and not any(later.trigger == "vad_end" for later in order[number:])
        for number, move in enumerate(order)
    )


def _is_cut_in_thinking(at: float, recording: Recording) -> bool:
    """Whether the turn that ended at `at` was cut before the bot had said a second of its answer."""
    return any(move.state == "interrupt" and at < move.at < at + PASSED_S for move in recording.moves)


# -- who spoke when ----------------------------------------------------------------------------------------------


def _said_in(recording: Recording) -> list[Said]:
    """Everything the user said, in order: as labelled, else as guessed."""
    labels = [event for event in recording.events if event.kind == "label"]
    if labels:
        return sorted(each for event in labels if (each := _labelled(event)) is not None)
    said: list[Said] = []
    committed = [(turn.instants.get("committed"), turn) for turn in recording.turns if turn.user]
    spans = spans_of(recording, "to_bot")
    before = 0.0
    for at, turn in committed:
        if at is None:
            continue
        own = [span for span in spans if before <= span[0] < at]
        end = turn.instants.get("user_silent", at)
        said.append(Said(own[0][0] if own else min(end, turn.instants.get("listening", end)), end, "turn"))
        before = at
    taken = [(turn.start, turn.end) for turn in said]
    for start, end in spans:
        if not any(a - _LOOK_S <= start <= b + _LOOK_S for a, b in taken):
            said.append(Said(start, end, _guessed(recording, start, end)))
    return sorted(said)


def _labelled(event: RecordedEvent) -> Said | None:
    kind, start, end = (event.fields.get(name) for name in ("kind", "start", "end"))
    is_good = kind in KINDS and isinstance(start, int | float) and isinstance(end, int | float)
    return Said(float(start), float(end), kind) if is_good else None  # type: ignore[arg-type] # checked above


def _guessed(recording: Recording, start: float, end: float) -> str:
    """Speech that became no turn: words that mean nothing are a backchannel, no words a vocal tic."""
    words = [
        str(event.fields.get("text", ""))
        for event in recording.frames("TranscriptionFrame")
        if start <= event.at <= end + PASSED_S
    ]
    if not any(word.strip() for word in words):
        return "vocal_tic"
    return "backchannel" if all(is_backchannel(word) for word in words) else "non_directed"


def _bot_spans(recording: Recording) -> list[tuple[float, float]]:
    """When the bot could be heard: a reply is one span, unless it was held or has a gap."""
    spans: list[list[float]] = []
    held: float | None = None  # seconds of audio that the client holds; None while it plays
    for event in recording.events:
        if event.direction != "to_user" or event.processor not in (WIRE, CLIENT):
            continue
        last = spans[-1] if spans else None
        if event.kind == "audio":
            start = max(event.at, last[1] if last else 0.0)
            if last is not None and start - last[1] <= _GAP_S and held is None:
                last[1] = start + event.audio_s
            else:
                spans.append([start, start + event.audio_s])
        elif event.kind in ("interrupted", "pause"):
            held = max(0.0, last[1] - event.at) if last is not None and event.kind == "pause" else None
            if last is not None:
                last[1] = min(last[1], event.at)
        elif event.kind == "resume" and held is not None:
            spans.append([event.at, event.at + held])
            held = None
    return [(start, end) for start, end in spans if end > start]
