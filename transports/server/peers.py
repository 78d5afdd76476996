"""`Peers`: the workers of one port tell each other their numbers, so that any of them answers for all.

    <folder>/worker-<n>.sock   asked "all": one line of JSON, {"health": {...}, "metrics": "..."}
                               told "taken <session id> <monotonic time>": {} when older connections of it have ended
    <folder>/retired.prom      the counters of workers that died, kept by the supervisor so that no sum goes back
    <folder>/spent/            tokens used by any of them

Samples of one name and labels are added up; of what began (`_created`) the earliest counts, of an uptime the longest.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from traceback import format_exception
from typing import Any

from loguru import logger
from prometheus_client import REGISTRY, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

ANSWER_S = 1.0  # for the answer of another worker; a slower one is left out
MAX_ANSWER = 4 * 1024 * 1024  # bytes
RETIRED = "retired.prom"
_YIELD_EVERY = 4  # families of a metrics text, 0.5 ms

OnTaken = Callable[[str, float], Awaitable[None]]


class Peers:
    """The workers that serve one port; `number` is ours."""

    def __init__(self, folder: Path, *, number: int) -> None:
        self.folder = folder  # shared by the workers, for this user only
        self.number = number
        self.spent = folder / "spent"  # used tokens
        self._server: asyncio.Server | None = None  # answers the others
        self._health: Callable[[], dict[str, Any]] = dict  # what we say
        self._on_taken: OnTaken | None = None  # told when another worker has taken a session; None before `start`

    async def start(self, *, health: Callable[[], dict[str, Any]], on_taken: OnTaken) -> None:
        """Answer the others from now on. `on_taken(session_id, since)`: end connections that are older than `since`."""
        self.spent.mkdir(exist_ok=True)
        self._health = health
        self._on_taken = on_taken
        path = socket_of(self.folder, self.number)
        path.unlink(missing_ok=True)  # of a worker that died
        self._server = await asyncio.start_unix_server(self._answer, path)

    async def stop(self) -> None:
        """Answer no more. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
            socket_of(self.folder, self.number).unlink(missing_ok=True)

    async def metrics(self) -> bytes:
        """The metrics of all workers, those that died included, in Prometheus' text format."""
        answers = await self._ask_others()
        retired = self.folder / RETIRED
        texts = [(await exposition()).decode(), *(answer["metrics"] for answer in answers)]
        if retired.is_file():
            texts.append(retired.read_text())
        total = _Sum()
        for text in texts:  # of four workers 40 ms in one step, and somebody asks every 15 s: audio first
            for number, family in enumerate(text_string_to_metric_families(text)):
                total.add(family)
                if number % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)
        return total.text().encode()

    async def health(self, own: dict[str, Any]) -> dict[str, Any]:
        """Our health, with the conversations of all and how many workers answered."""
        healths = [answer["health"] for answer in await self._ask_others()]
        sessions = own["active_sessions"] + sum(health["active_sessions"] for health in healths)
        return {**own, "active_sessions": sessions, "workers": 1 + len(healths)}

    async def take(self, session_id: str, since: float) -> None:
        """Tell the others that a connection of ours has the session; return when theirs have ended."""
        await self._ask_others(f"taken {session_id} {since!r}")

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                question = await _question(reader)
                if question is not None:
                    writer.write(json.dumps(await self._answer_to(*question)).encode() + b"\n")
        except TimeoutError:
            logger.debug("a worker's question could not be answered within {:g} s", ANSWER_S)
        except Exception as error:  # top of a task, and the asker only sees that there is no answer
            logger.error("a worker's question could not be answered: {}", "".join(format_exception(error)))
        finally:
            writer.close()

    async def _answer_to(self, session_id: str, since: float) -> dict[str, Any]:
        if session_id and self._on_taken is not None:
            await self._on_taken(session_id, since)
            return {}
        return {"health": self._health(), "metrics": (await exposition()).decode()}

    async def _ask_others(self, question: str = "all") -> list[dict[str, Any]]:
        own = socket_of(self.folder, self.number)
        others = [path for path in sorted(self.folder.glob("worker-*.sock")) if path != own]
        answers = await asyncio.gather(*(ask(path, question) for path in others))
        return [answer for answer in answers if answer is not None]


async def _question(reader: asyncio.StreamReader) -> tuple[str, float] | None:
    """The session that was taken, and when; ("", 0.0) for any other question, None (logged) for one cut short."""
    try:
        words = (await reader.readline()).decode().split()
        return (words[1], float(words[2])) if words[:1] == ["taken"] else ("", 0.0)
    except (OSError, ValueError, IndexError) as error:
        logger.debug("a worker's question cannot be read: {!r}", error)
        return None


def socket_of(folder: Path, number: int) -> Path:
    """Where a worker answers."""
    return folder / f"worker-{number}.sock"


async def ask(path: Path, question: str = "all") -> dict[str, Any] | None:
    """What a worker says; None if it does not answer."""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(path, limit=MAX_ANSWER)
            try:
                writer.write(question.encode() + b"\n")
                return json.loads(await reader.readline())
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError) as error:
        logger.debug("worker at {} does not answer: {!r}", path.name, error)
        return None


class _Family:
    """A registry of one metric."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return [self._metric]


async def exposition() -> bytes:
    """This process's metrics in Prometheus' text format, written in small steps: at once they take 4 ms."""
    parts: list[bytes] = []
    for number, metric in enumerate(REGISTRY.collect()):
        parts.append(generate_latest(_Family(metric)))  # type: ignore[arg-type] # a registry that can collect will do
        if number % _YIELD_EVERY == 0:
            await asyncio.sleep(0)
    return b"".join(parts)


class _Sum:
    """One text in Prometheus' format out of several. `only_counters` leaves out what goes up and down."""

    def __init__(self, *, only_counters: bool = False) -> None:
        self._only_counters = only_counters
        self._families: dict[str, tuple[str, str]] = {}  # name -> (help, type)
        self._samples: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}  # by the family's name

    def add(self, family: Any) -> None:
        """Add one family of a text."""
        if self._only_counters and family.type not in ("counter", "histogram"):
            return
        self._families.setdefault(family.name, (family.documentation, family.type))
        known = self._samples.setdefault(family.name, {})
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            known[key] = _combine(sample.name, known[key], sample.value) if key in known else sample.value

    def text(self) -> str:
        """What was added."""
        lines: list[str] = []
        for name, (documentation, kind) in self._families.items():
            shown, values = f"{name}_total" if kind == "counter" else name, self._samples[name]
            lines += (f"# HELP {shown} {_escape(documentation)}", f"# TYPE {shown} {kind}")
            lines += (f"{sample}{_labels(labels)} {float(value)!r}" for (sample, labels), value in values.items())
        return "\n".join(lines) + "\n"


def add_up(texts: Iterable[str], *, only_counters: bool = False) -> str:
    """The sum of several texts, at once."""
    total = _Sum(only_counters=only_counters)
    for text in texts:
        for family in text_string_to_metric_families(text):
            total.add(family)
    return total.text()


def _combine(name: str, one: float, other: float) -> float:
    if name.endswith(("_created", "_start_time_seconds")):
        return min(one, other)
    return max(one, other) if name.endswith(("uptime_seconds", "_info")) else one + other


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value, quotes=True)}"' for name, value in labels) + "}"


def _escape(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text
