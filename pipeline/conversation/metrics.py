"""The Prometheus series of states and turns, and the lines of log about them, at no cost to the step they tell of.

What is said of a move is made once instead of at each one. A line costs its step nothing but a note: it is written
within 20 ms, in order, with its own time, as formatting and writing one takes a logger 10 to 50 us, more than all the
rest of a state change. A process that is killed loses the lines of its last 20 ms.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from loguru import logger
from prometheus_client import REGISTRY, Counter, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from ..frames import TurnMeasuredFrame
from ..states import TABLE, Event, State
from .waterfall import LABELS, Waterfall

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2, 3, 5, 10, 30)
LATENCY = Histogram("leibniz_turn_latency_seconds", "Parts of a turn", ["label"], buckets=_BUCKETS)
BARGE_INS = Counter("leibniz_barge_ins", "Replies that the user cut")
DISORDER = Counter("leibniz_latency_out_of_order", "Latencies left out because their instants were crossed", ["label"])


@dataclass(slots=True)
class Move:
    """What goes with one move of the machine."""

    timestamp: str  # its key in the conversation's timestamps
    line: str  # for the log; `{}` is the session
    previous: str  # the state left
    state: str  # the state entered
    trigger: str  # the event's name
    is_urgent: bool  # to be stored at once: `vad_end` and the end of a turn
    count: int = 0  # made so far, by all conversations; a Prometheus counter, with its lock, costs a tenth of a move


MOVES: dict[tuple[State, Event], Move] = {
    (state, event): Move(
        f"{state}_to_{target}",
        f"{target.emoji} {{}} {state} -> {target} ({event})",
        state.value,
        target.value,
        event.value,
        event is Event.VAD_END or target is State.IDLE,
    )
    for state, row in TABLE.items()
    for event, target in row.items()
}


class _Transitions(Collector):
    """`leibniz_transitions`, summed up when somebody asks."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily("leibniz_transitions", "Moves of conversations", labels=["from", "to", "trigger"])
        for move in MOVES.values():
            family.add_metric([move.previous, move.state, move.trigger], move.count)
        yield family


REGISTRY.register(_Transitions())

ENDED_LINE = "{} turn {} ended intent={} results={} join_ms={:.0f} thinking_ms={:.0f}"
_LATENCIES = {label: LATENCY.labels(label) for label in LABELS}


def ended_facts(measured: TurnMeasuredFrame) -> tuple[object, ...]:
    """What `ENDED_LINE` says of a turn, after the session."""
    ms = measured.latency_ms
    label = measured.intent.get("intent", "-")
    return measured.turn_id, label, measured.results, ms.get("Join", 0.0), ms.get("LLM Wait", 0.0)


def observe(waterfall: Waterfall, breakdown: dict[str, float]) -> None:
    """Count the latencies of one finished turn."""
    for label, ms in breakdown.items():
        _LATENCIES[label].observe(ms / 1000)
    for label in waterfall.out_of_order():
        DISORDER.labels(label).inc()


# -- lines of log ---------------------------------------------------------------------------------------------------

WRITE_S = 0.02  # how long a line waits at most; a loop that is busy writes later
MAX_WAITING = 4096  # lines; past it the oldest is lost, which needs 200,000 moves a second

_waiting: deque[tuple[float, str, tuple[Any, ...]]] = deque(maxlen=MAX_WAITING)
_writer: asyncio.AbstractEventLoop | None = None  # the loop that is going to write; None while nothing waits


def info_later(message: str, *args: Any) -> None:
    """Log at INFO soon; needs a running event loop. `args` are formatted then, so give what does not change."""
    global _writer
    _waiting.append((time.monotonic(), message, args))
    if _writer is not None and not _writer.is_closed():
        return
    _writer = asyncio.get_running_loop()
    _writer.call_later(WRITE_S, write_lines)


def write_lines() -> None:
    """Write what waits, now."""
    global _writer
    _writer = None
    while _waiting:
        at, message, args = _waiting.popleft()
        logger.patch(_aged(time.monotonic() - at)).info(message, *args)


def _aged(seconds: float) -> Callable[[Any], None]:
    """A change of a log record: it happened so long ago."""

    def age(record: Any) -> None:
        record["time"] -= timedelta(seconds=seconds)

    return age
