"""`ChatMemory`: what the LLM is told of the conversation: the words that were said, and those that were heard. Pure.

 instructions (system prompt, whatever the context held at first; kept for ever)
 user       what are your opening hours
 assistant  We open at nine.
 user       and on the moon                  <- with the passages found, as long as it is the newest
 assistant  On the moon we [interrupted]     <- only what was heard of it

The list lives in a Pipecat `LLMContext`, so every Pipecat LLM service, tool and aggregator can read it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.processors.aggregators.llm_context import LLMContext

from ..conversation.resume import Resumption
from ..errors import ConfigurationError

INTERRUPTED = "[interrupted]"  # marks an answer that the user cut
SETTLED = "COMPLETED"  # told of a tool that has no result, as by Pipecat's aggregators
PASSAGES = "{question}\n\nPassages that may help:\n{passages}"


class ChatMemory:
    """Keeps `context` up to date, and within `max_messages` and `max_chars` beside the instructions.

    Raises `ConfigurationError` for bounds below 2 messages or 1,000 characters.
    """

    def __init__(self, context: LLMContext, *, max_messages: int = 40, max_chars: int = 24_000) -> None:
        if max_messages < 2 or max_chars < 1000:
            raise ConfigurationError(
                f"max_messages is {max_messages} (2 or more), max_chars {max_chars} (1000 or more)"
            )
        self.context = context
        self._fixed = list(context.get_messages())  # the instructions
        self._max_messages = max_messages
        self._max_chars = max_chars
        self._turns: dict[int, list[Any]] = {}  # turn -> its messages, the question first; oldest turn first
        self._said_before = (0, "")  # (turn, words) of a reply that began in another process; (0, "") for none
        self._withdrawn: tuple[int, list[Any]] = (0, [])  # the turn cut last before it was audible, and its messages

    def instruct(self, prompt: str) -> None:
        """Put a system prompt in front."""
        self._fixed.insert(0, {"role": "system", "content": prompt})
        self._publish()

    def recall(self, resumption: Resumption | None) -> None:
        """An earlier conversation goes on: its turns come first, and what was said of its last one. None: none does."""
        if resumption is None:
            return
        for turn in resumption.exchanges:
            self._turns[turn.turn_id] = [{"role": "user", "content": turn.question}] if turn.question else []
            self._answer(turn.turn_id, f"{turn.said} {INTERRUPTED}".strip() if turn.is_cut else turn.said)
        if resumption.rest is not None:
            self._said_before = (resumption.turn_id, resumption.said)
            if not resumption.is_greeting:
                self.ask(resumption.turn_id, resumption.question)

    def ask(self, turn_id: int, question: str, passages: str = "") -> None:
        """A turn begins to be answered. Asked twice (late words, a restart), the second question stands."""
        self._turns.pop(turn_id, None)
        for older in self._turns.values():
            self._plain(older)
        content = PASSAGES.format(question=question, passages=passages) if passages else question
        self._turns[turn_id] = [{"role": "user", "content": content}]
        self._publish()

    @property
    def has_tools(self) -> bool:
        """Whether the LLM may call a tool."""
        return isinstance(self.context.tools, ToolsSchema)

    def preview(self, question: str, passages: str = "") -> LLMContext:
        """Return what `ask` would make of the context, as a copy; nothing is remembered of it."""
        context = LLMContext(tools=self.context.tools, tool_choice=self.context.tool_choice)
        draft = ChatMemory(context, max_messages=self._max_messages, max_chars=self._max_chars)
        draft._fixed = list(self._fixed)
        draft._turns = {turn_id: [dict(m) for m in messages] for turn_id, messages in self._turns.items()}
        draft.ask(max(draft._turns, default=0) + 1, question, passages)
        return context

    def tool_called(self, turn_id: int, call_id: str, name: str, arguments: Any) -> None:
        """The LLM called a tool; its result is not there yet."""
        if turn_id not in self._turns and turn_id == self._withdrawn[0]:  # the cut came before the call was known
            self._turns = dict(sorted({**self._turns, turn_id: self._withdrawn[1]}.items()))
        call = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
        messages = self._turns.setdefault(turn_id, [])
        is_behind_words = bool(messages) and messages[-1] in self._pieces(turn_id)
        words = messages.pop() if is_behind_words else {}  # in one message with the call, as strict servers want it
        messages.extend(
            [
                {"role": "assistant", **words, "tool_calls": [{"id": call_id, "function": call, "type": "function"}]},
                {"role": "tool", "content": "IN_PROGRESS", "tool_call_id": call_id},
            ]
        )
        self._publish()

    def tool_answered(self, call_id: str, result: Any) -> None:
        """A tool's result has come, perhaps after its turn was over. Of any type: see `_as_told`."""
        for messages in self._turns.values():
            for message in messages:
                if message.get("tool_call_id") == call_id:
                    message["content"] = _as_told(result)
        self._publish()

    def said(self, turn_id: int, text: str) -> None:
        """A tool is called; `text` is all that was generated in this turn before. The LLM goes on behind it."""
        rest = _parted(text, sum(len(m["content"].split()) for m in self._pieces(turn_id)))[1]
        if rest:
            self._turns.setdefault(turn_id, []).append({"role": "assistant", "content": rest})
            self._publish()

    def played(self, turn_id: int, text: str) -> None:
        """The whole reply `text` was heard."""
        self._answer(turn_id, f"{self._before(turn_id)} {text}")

    def cut(self, turn_id: int, heard: str, *, was_audible: bool) -> None:
        """The reply was interrupted; unless any of it was audible, its question goes back to the user's floor.

        One that has called a tool stays: the call may have had effects.
        """
        before = self._before(turn_id)
        if was_audible or before:
            self._answer(turn_id, " ".join(f"{before} {heard} {INTERRUPTED}".split()))
        elif any("tool_calls" in message for message in self._turns.get(turn_id, ())):
            self._answer(turn_id, INTERRUPTED)
        else:
            self._withdrawn = (turn_id, self._turns.pop(turn_id, []))
            self._publish()

    def _before(self, turn_id: int) -> str:
        return self._said_before[1] if turn_id == self._said_before[0] else ""

    def _pieces(self, turn_id: int) -> list[Any]:
        """What was said before, between and after tool calls: the messages that hold it, the first one first."""
        return [m for m in self._turns.get(turn_id, ()) if m["role"] == "assistant" and m.get("content")]

    def _answer(self, turn_id: int, text: str) -> None:
        """`text` is what was heard of the reply: its words belong to the pieces in front of tool calls, then behind."""
        messages = self._turns.setdefault(turn_id, [])
        self._plain(messages)
        rest, is_cut = text.removesuffix(INTERRUPTED), text.endswith(INTERRUPTED)
        for piece in () if self._before(turn_id) else self._pieces(turn_id):
            piece["content"], rest = _parted(rest, len(piece["content"].split()))
            if not piece["content"]:
                del piece["content"]
        rest = f"{rest.strip()} {INTERRUPTED if is_cut else ''}".strip()
        messages[:] = [m for m in messages if m["role"] != "assistant" or "content" in m or "tool_calls" in m]
        if rest:
            messages.append({"role": "assistant", "content": rest})
        self._publish()

    def _plain(self, messages: list[Any]) -> None:
        """Take the passages off a question that is answered."""
        for message in messages:
            content = message.get("content")
            if message["role"] == "user" and isinstance(content, str):
                message["content"] = content.partition(PASSAGES.format(question="", passages=""))[0]

    def _publish(self) -> None:
        while len(self._turns) > 1 and self._is_too_long():
            del self._turns[next(iter(self._turns))]  # a whole turn, so that no tool's result stands without its call
        self.context.set_messages([*self._fixed, *(m for messages in self._turns.values() for m in messages)])

    def _is_too_long(self) -> bool:
        messages = [m for turn in self._turns.values() for m in turn]
        chars = sum(len(str(m.get("content") or m.get("tool_calls"))) for m in messages)
        return len(messages) > self._max_messages or chars > self._max_chars


def _parted(text: str, size: int) -> tuple[str, str]:
    """The first `size` words of a text, and the rest, with the blanks and lines between their words."""
    ends = [0, *(word.end() for word in re.finditer(r"\S+", text))]
    at = ends[min(size, len(ends) - 1)]
    return text[:at].strip(), text[at:].strip()


def _as_told(result: Any) -> str:
    """What the LLM is told of a tool's result: text as it is, JSON of all that can be JSON, else its text.

    False, 0 and empty lists are results. None is none: `SETTLED`.
    """
    if isinstance(result, str):
        return result or SETTLED
    if result is None:
        return SETTLED
    try:
        return json.dumps(result, ensure_ascii=False, default=_plain_value)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, circles
        return _text_of(result)


def _plain_value(value: Any) -> Any:
    """What JSON does not know, as what it knows: called by `json` for each such value."""
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if callable(dump := getattr(value, "model_dump", None)):  # of pydantic
        return dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    return _text_of(value)


def _text_of(value: Any) -> str:
    try:
        return value.decode() if isinstance(value, (bytes, bytearray)) else str(value)
    except Exception as error:  # whatever a result's own `__str__` raises, the call is settled
        return f"a {type(value).__name__} that cannot be told ({type(error).__name__})"
