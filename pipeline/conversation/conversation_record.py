"""`ConversationRecord`: one conversation's live fields, and whom to tell when they change."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..states import State
from .snapshot import ConversationFields
from .store import LogLine

Changed = Callable[[LogLine | None, bool], None]

MAX_HISTORY = 64  # messages kept in memory; the store keeps the newest 8 KiB of them


class ConversationRecord:
    """The fields a store keeps, changed in place by the state tracker. Nothing here waits for the store."""

    def __init__(
        self,
        session_id: str = "local",
        *,
        fields: ConversationFields | None = None,
        last_turn_id: int = 0,
        on_change: Changed | None = None,
    ) -> None:
        self.session_id = session_id  # names the conversation in logs and the store
        self.is_resumed = fields is not None  # whether an earlier conversation goes on
        self.fields = fields or ConversationFields(last_update=time.time())  # the conversation
        self.fields.turn_id = max(self.fields.turn_id, last_turn_id)  # turn ids up to this may have been used
        self._on_change = on_change  # told of each change: (transition or None, write at once?); None: nobody

    def changed(self, line: LogLine | None = None, *, flush: bool = False) -> None:
        """Note that the fields changed; `flush` asks for a write at once instead of with the next batch."""
        self.fields.last_update = time.time() if line is None else line.at
        if self._on_change is not None:
            self._on_change(line, flush)

    def remember(self, heard: str, *, question: str, interrupted: bool) -> None:
        """Add the response to the history, if there is one; the oldest message falls out."""
        if not self.fields.llm_response:
            return
        self.fields.history.append(_message(self.fields, heard, question=question, interrupted=interrupted))
        del self.fields.history[:-MAX_HISTORY]

    def adopt(self, stored: ConversationFields) -> None:
        """Put an earlier conversation of this session, found while this one goes on, in front of it.

        For a connection whose store came back: what is being said now stays as it is, nothing earlier is lost.
        """
        fields = self.fields
        earlier = list(stored.history)
        if stored.state in (State.THINKING, State.SPEAKING) and stored.llm_response:
            question = " ".join(stored.text_buffer) if stored.state == State.SPEAKING else ""
            earlier.append(_message(stored, stored.heard, question=question, interrupted=True))
        fields.history[:0] = earlier
        del fields.history[:-MAX_HISTORY]
        fields.turn_number += stored.turn_number
        fields.turn_id = max(fields.turn_id, stored.turn_id)
        fields.timestamps = {**stored.timestamps, **fields.timestamps}
        if not (fields.intent or fields.rag_results or fields.llm_response):
            fields.intent, fields.rag_results = stored.intent, stored.rag_results

    def to_fields(self) -> dict[str, str]:
        """The stored hash's fields."""
        return self.fields.to_fields()


def _message(fields: ConversationFields, heard: str, *, question: str, interrupted: bool) -> dict[str, Any]:
    about = {"turn_id": fields.turn_id, "question": question, "text": fields.llm_response}
    return {**about, "heard": heard, "interrupted": interrupted}
