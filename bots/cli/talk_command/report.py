"""What came of a call: the numbers for `--json`, and the timeline drawn as text. Pure, from events and audio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from leibniz_voice.lab.drawing.timeline import rows
from leibniz_voice.lab.recording.spans import loudness, stretches

from .sound import audible_span

EMOJI = {"idle": "🟢", "listening": "🔵", "thinking": "🟡", "speaking": "🔴", "interrupt": "⚡"}
FULL_DB = -15.0  # a voice that is drawn in full; speech is near it, and nothing here is louder for long


class NotedEvent(Protocol):
    """What a client notes."""

    @property
    def at_s(self) -> float: ...
    @property
    def kind(self) -> str: ...
    @property
    def fields(self) -> Any: ...


@dataclass(slots=True)
class _TalkTurn:
    """One turn of the call."""

    transcript: str = ""  # the user's words
    reply: list[str] = field(default_factory=list)  # the bot's sentences, as far as they were generated


@dataclass(slots=True)
class Report:
    """A call, as far as it went."""

    session_id: str
    states: list[str]
    turns: dict[int, _TalkTurn]
    latency_ms: dict[str, float]
    is_interrupted: bool
    audio_ms: float
    is_heard: bool  # whether the bot could be heard after the user had spoken

    @property
    def transcript(self) -> str:
        """The user's words; one line per turn."""
        texts = [turn.transcript for turn in self.turns.values() if turn.transcript]
        # Words of a turn that was cut before its answer was heard stand at the front of the next one, too.
        kept = [text for text, after in zip(texts, [*texts, ""][1:], strict=True) if not after.startswith(text)]
        return "\n".join(kept)

    @property
    def reply(self) -> str:
        """The bot's answers; one line per turn."""
        return "\n".join(" ".join(turn.reply) for turn in self.turns.values() if turn.reply)

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "session_id": self.session_id,
            "transcript": self.transcript,
            "reply": self.reply,
            "states": self.states,
            "interrupted": self.is_interrupted,
            "latency_ms": self.latency_ms,
            "audio_ms": self.audio_ms,
        }


def report_of(
    session_id: str,
    events: Iterable[NotedEvent],
    *,
    states: Sequence[str],
    user_end_s: float | None,
    barge_in_s: float | None = None,
    heard: bytes | bytearray,
    played_ms: float,
) -> Report:
    """Make sense of a call. `user_end_s`: when the user's first utterance ended, None: it did not.

    `barge_in_s`: when the user began to speak over the bot; None: never.
    """
    report = Report(session_id, list(states), {}, {}, False, round(played_ms, 1), False)
    spoken = audible_span(heard, from_s=user_end_s) if user_end_s is not None else None
    if user_end_s is not None and spoken is not None:
        report.is_heard = True
        report.latency_ms["response"] = round((spoken[0] - user_end_s) * 1000, 1)
    for event in events:
        _note(report, event)
        if barge_in_s is not None and event.kind in ("pause", "interrupted") and event.at_s >= barge_in_s:
            report.latency_ms.setdefault("silenced", round((event.at_s - barge_in_s) * 1000, 1))
    if len(report.states) > 1:  # a bot that has states has replied only if it came to speak
        report.is_heard = report.is_heard and any(turn.reply for turn in report.turns.values())
    return report


def _note(report: Report, event: NotedEvent) -> None:
    fields, turn_id = event.fields, event.fields.get("turn")
    if not isinstance(turn_id, int):
        return
    turn = report.turns.get(turn_id, _TalkTurn())
    match event.kind:
        case "state_update" if fields.get("state") == "thinking":
            turn.transcript = " ".join(map(str, fields.get("text_buffer") or ()))
        case "response_ready":
            turn.reply = [str(fields.get("text", ""))]
            if isinstance(thinking_ms := fields.get("thinking_ms"), int | float):
                report.latency_ms.setdefault("thinking", thinking_ms)
        case "response_text":
            turn.reply.append(str(fields.get("text", "")))
        case "interrupted":
            report.is_interrupted = True
        case "turn" if isinstance(labels := fields.get("latency_ms"), dict):
            report.latency_ms.update({str(name): ms for name, ms in labels.items() if isinstance(ms, int | float)})
        case _:
            return
    if turn.transcript or turn.reply:
        report.turns[turn_id] = turn


def timeline(
    events: Iterable[NotedEvent],
    *,
    said: bytes | bytearray,
    heard: bytes | bytearray,
    length_s: float,
    width: int = 100,
    plain: bool = False,
) -> str:
    """Draw the call to scale: time, the user's speech, the states, the bot's audio."""
    columns, length_s = max(20, width - 7), max(length_s, 0.1)
    user, bot = (loudness(pcm, columns, length_s, full_db=FULL_DB) for pcm in (said, heard))
    told = [(event.at_s, str(event.fields.get("state"))) for event in events if event.kind == "state_update"]
    drawn = rows(user, bot, stretches([(0.0, "idle"), *told], length_s), length_s, plain=plain)
    return "\n".join(f"{name:<6} {row}".rstrip() for name, row in drawn.items())
