"""What-if: recordings replayed under two settings, and the measures of both. Pure but for the replays.

Both sides are replays, the one with the recorded settings too, so that they differ by the settings alone. Parts that
would be asked something else under other settings are asked again on both sides, as far as they are here: the speech
model is not (its probabilities hardly depend on settings), the embedded recogniser and voice are, and a branch where it
was not asked the same; an LLM, and a recogniser or voice that is a service, are taken from the recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...pipeline.session import Build
from ..recording.recording import Recording
from .condition import Comparison, Condition
from .measures import Measures, measures_of, name_of, told
from .replay import Lifespan, Replayed, replay

AGAIN = ("embedded",)  # what is asked again unless said otherwise
LOWER_IS_BETTER = (
    "latency", "_ms", "agent_interruption", "false_", "cuts", "pauses",
)  # fmt: skip
SHOWN = (
    "response_latency", "response_p50_ms", "response_p95_ms", "response_rate", "yield_latency", "yield_rate",
    "agent_interruption_rate", "selectivity_backchannel", "selectivity_vocal_tic", "selectivity_non_directed",
    "turns", "interruptions", "cuts", "false_cutoffs", "false_interruptions", "pauses", "resumes",
)  # fmt: skip


@dataclass
class Compared:
    """One recording's measures under both settings."""

    file: str
    before: Measures
    after: Measures
    estimated: int = 0  # replies whose audio was never recorded, and is silence of their length
    is_foreign: bool = False  # whether the bot has none of the processors that were recorded


def compare(
    recording: Recording,
    build: Build,
    changes: Mapping[str, str],
    *,
    file: str = "",
    again: Sequence[str] = AGAIN,
    lifespan: Lifespan | None = None,
) -> Compared:
    """Replay a recording with the bot's settings and with `changes`. Raises as `replay` does."""
    before, _ = measured(recording, build, {}, again=again, lifespan=lifespan)
    after, replayed = measured(recording, build, changes, again=again, lifespan=lifespan)
    own, there = set(recording.processors[1:-1]), set(replayed.recording.processors[1:-1])  # all but input and output
    is_foreign = bool(own) and own.isdisjoint(there)
    return Compared(file, before, after, replayed.counts["voice estimated"], is_foreign)


def measured(
    recording: Recording,
    build: Build,
    changes: Mapping[str, str],
    *,
    again: Sequence[str] = AGAIN,
    lifespan: Lifespan | None = None,
) -> tuple[Measures, Replayed]:
    """Replay a recording with `changes`: its measures, and the replay."""
    replayed = replay(recording, build, again=again, changes=changes, lifespan=lifespan)
    labels = tuple(event for event in recording.events if event.kind == "label")  # what is known of the user
    replayed.recording.events = (*replayed.recording.events, *labels)
    return measures_of(replayed.recording), replayed


def total(compared: Sequence[Compared]) -> tuple[Measures, Measures]:
    """The measures of all recordings together, before and after."""
    before = after = Measures()
    for each in compared:
        before, after = before + each.before, after + each.after
    return before, after


def table(before: Measures, after: Measures, changes: Mapping[str, str]) -> str:
    """The measures before and after, a line each."""
    old, new = before.values(), after.values()
    rows = [("", "recorded", ", ".join(f"{name}={value}" for name, value in changes.items()) or "again", "")]
    for name in SHOWN:
        if old[name] is None and new[name] is None:
            continue
        rows.append((name_of(name), told(name, old[name]), told(name, new[name]), _verdict(name, old[name], new[name])))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip() for a, b, c, d in rows]
    return "\n".join(lines)


def _verdict(name: str, old: float | None, new: float | None) -> str:
    if old is None or new is None or told(name, old) == told(name, new):
        return ""
    if name in ("turns", "interruptions", "resumes"):
        return "other"
    is_lower_better = any(part in name for part in LOWER_IS_BETTER)
    return "better" if (new < old) is is_lower_better else "worse"


def failing(conditions: Sequence[Condition], after: Measures) -> list[tuple[Condition, list[Comparison]]]:
    """The conditions that hold of the measures, each with the comparisons that make it true."""
    values = after.values()
    return [(condition, held) for condition in conditions if (held := condition.failing(values))]
