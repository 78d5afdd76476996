"""The turns of a recording, and the instants of each: pure, from events alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...pipeline.conversation.waterfall import INSTANTS
from .events import RecordedEvent, StateMove, Turn, as_int

_STALE = ("user_silent", "vad_end", "transcript")  # may be of a cough before, over the bot
_FRESH_S = 5.0  # such an instant is of the turn that is committed so soon after it
_SPEECH_GAP_S = 0.5  # between speech chunks: past it another stretch of speech has begun


def turns_of(events: Sequence[RecordedEvent], moves: Sequence[StateMove]) -> list[Turn]:
    """Every turn in order of its id: what was said, answered and heard, and when.

    A turn's events are told by its id; what has none (speech, words, the wire) belongs to the turn that is going on.
    """
    return _Reader(moves).read(events)


class _Reader:
    def __init__(self, moves: Sequence[StateMove]) -> None:
        self._turns: dict[int, Turn] = {}
        self._coming: dict[str, float] = {}  # instants of the turn that has no id yet
        self._state = "idle"
        self._turn_id = 0  # the newest turn
        self._speech_at: float | None = None  # start of the stretch of speech going on
        self._chunk_at = 0.0  # of its last chunk
        self._moves = {(move.at, move.state): move for move in moves}
        self._is_sent = 0  # the newest turn whose audio was sent

    def read(self, events: Sequence[RecordedEvent]) -> list[Turn]:
        has_frames = any(event.kind == "StateChangedFrame" for event in events)
        for event in events:
            self._message(event, is_needed=not has_frames)
            if event.direction in ("downstream", "upstream"):
                self._frame(event)
        return [self._turns[turn_id] for turn_id in sorted(self._turns)]

    # -- frames ------------------------------------------------------------------------------------------------

    def _frame(self, event: RecordedEvent) -> None:
        fields, turn = event.fields, as_int(event.fields.get("turn_id"))
        match event.kind:
            case "SpeechChunkFrame":
                self._speech(event)
            case "VADUserStoppedSpeakingFrame":
                silence_s = _number(fields.get("silence_ms")) / 1000 or _number(fields.get("stop_secs"))
                self._coming["user_silent"] = max(0.0, event.at - silence_s)
                self._coming["vad_end"] = event.at
            case "TextBufferFrame" if fields.get("is_final"):
                self._coming["transcript"] = event.at
            case "StateChangedFrame" if event.direction == "downstream":
                self._moved(event.at, str(fields.get("state")), str(fields.get("trigger")), turn, fields)
            case "UserTurnFrame" if turn:
                self._turn(turn).user = str(fields.get("text", ""))
            case "TurnContextFrame" if turn:
                self._context(event, self._turn(turn))
            case "ReplyTextFrame" if turn:
                self._reply_text(event, self._turn(turn), str(fields.get("text", "")))
            case "LLMTextFrame" if self._turn_id:
                self._turn(self._turn_id).instants.setdefault("first_text", event.at)
            case "ReplyAudibleFrame" if turn:
                self._turn(turn).instants.setdefault("first_audio", event.at)
            case "ReplyProgressFrame" if turn:
                played_s = _number(fields.get("played_ms")) / 1000
                self._turn(turn).instants.setdefault("heard", max(0.0, event.at - played_s))
                self._turn(turn).heard = str(fields.get("heard", ""))
            case "ReplyPlayedFrame" if turn:
                self._played(event, self._turn(turn))

    def _speech(self, event: RecordedEvent) -> None:
        speech_s = _number(event.fields.get("speech_ms")) / 1000
        if speech_s <= 0:
            self._speech_at = None
        elif self._speech_at is None or event.at - self._chunk_at > _SPEECH_GAP_S:
            self._speech_at = max(0.0, event.at - speech_s)
        if speech_s and self._state == "idle":
            self._coming.setdefault("voice", self._speech_at or event.at)
        self._chunk_at = event.at

    def _moved(self, at: float, state: str, trigger: str, turn_id: int, fields: dict[str, Any]) -> None:
        before, self._state = self._state, state
        self._turn_id = max(self._turn_id, turn_id)
        if state == "listening":
            self._coming["listening"] = at
        elif state == "thinking" and trigger == "vad_end":
            turn = self._turn(turn_id)
            fresh = {name: when for name, when in self._coming.items() if name not in _STALE or at - when < _FRESH_S}
            turn.instants |= {**fresh, "committed": at}
            self._coming = {}
            words = fields.get("text_buffer")
            if isinstance(words, list | tuple) and not turn.user:
                turn.user = " ".join(map(str, words))
        elif state == "interrupt" and turn_id:
            self._turn(turn_id).interrupted = True
        elif state == "speaking" and before != "speaking" and turn_id:
            self._turn(turn_id)
        if state == "idle" and before == "listening":
            self._coming = {}

    def _context(self, event: RecordedEvent, turn: Turn) -> None:
        join_ms, answered = _number(event.fields.get("join_ms")), event.fields.get("answered_ms")
        for name in ("intent", "retrieval"):
            if isinstance(answered, dict) and name in answered:
                turn.instants[name] = max(0.0, event.at - (join_ms - _number(answered[name])) / 1000)
        turn.instants["joined"] = event.at

    def _reply_text(self, event: RecordedEvent, turn: Turn, text: str) -> None:
        if event.fields.get("is_rest"):
            return
        turn.instants.setdefault("first_text", event.at)
        turn.reply = f"{turn.reply} {text}".strip()

    def _played(self, event: RecordedEvent, turn: Turn) -> None:
        turn.complete = event.fields.get("complete") is True
        if turn.complete:
            turn.instants.setdefault("played", event.at)
            turn.heard = turn.reply
        else:
            turn.interrupted = True
            turn.heard = str(event.fields.get("heard", ""))

    # -- messages ----------------------------------------------------------------------------------------------

    def _message(self, event: RecordedEvent, *, is_needed: bool) -> None:
        """What crosses the wire; `is_needed` where it is all there is, as at a client."""
        if event.direction == "to_user" and event.kind == "audio":
            self._sent(event, is_needed)
            return
        if not is_needed or event.direction != "to_user":
            return
        turn_id, text = as_int(event.fields.get("turn")), str(event.fields.get("text", ""))
        match event.kind:
            case "state_update" if event.fields.get("trigger") != "stt_fragment":
                state, trigger = str(event.fields.get("state")), str(event.fields.get("trigger"))
                if state == "idle" and trigger == "tts_complete" and turn_id:
                    turn = self._turn(turn_id)
                    turn.complete, turn.heard = True, turn.reply
                    turn.instants.setdefault("played", event.at)
                self._moved(event.at, state, trigger, turn_id, event.fields)
            case "state_update":
                self._coming["transcript"] = event.at
            case "response_ready" if turn_id:
                turn = self._turn(turn_id)
                turn.instants.setdefault("first_audio", event.at)
                turn.reply = text
            case "response_text" if turn_id:
                turn = self._turn(turn_id)
                turn.reply = f"{turn.reply} {text}".strip()
            case "interrupted" if turn_id:
                self._turn(turn_id).interrupted = True
            case "turn" if turn_id:
                self._measured(self._turn(turn_id), event.fields)

    def _measured(self, turn: Turn, fields: dict[str, Any]) -> None:
        """What only the bot knows of a turn: its instants, in ms from its end, and what was heard of a cut reply."""
        heard, instants_ms = fields.get("heard"), fields.get("instants_ms")
        if isinstance(heard, str) and heard:
            turn.heard = heard
        committed = turn.instants.get("committed")
        if committed is not None and isinstance(instants_ms, dict):
            for name, ms in instants_ms.items():
                if name in INSTANTS and isinstance(ms, int | float):
                    turn.instants.setdefault(name, max(0.0, committed + ms / 1000))

    def _sent(self, event: RecordedEvent, is_client: bool) -> None:
        if self._state != "speaking" or self._turn_id <= self._is_sent:
            return
        self._is_sent = self._turn_id
        instants = self._turn(self._turn_id).instants
        instants.setdefault("sent", event.at)
        if is_client:
            instants.setdefault("heard", event.at)

    def _turn(self, turn_id: int) -> Turn:
        self._turn_id = max(self._turn_id, turn_id)
        return self._turns.setdefault(turn_id, Turn(turn_id))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
