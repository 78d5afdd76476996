"""How a stored conversation goes on in another process: pure.

stored state   the machine starts in   what happens
idle           idle                    nothing
listening      listening               the words so far stay in the buffer
interrupt      listening               the same
thinking       thinking                the turn is asked again under its turn_id
speaking       speaking                the stored answer goes on with its first sentence that was not heard to the
                                       end; an answer that is not complete is asked for again
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..states import State
from ..text.marks import UNSPACED
from ..text.sentences import spans
from .snapshot import ConversationFields

RESUMED = "resumed"  # the trigger of the announcement that a conversation goes on; no move of the machine

_WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")  # without blanks between the words, each letter is one


@dataclass(frozen=True, slots=True)
class Exchange:
    """A turn that is over: what was asked ("" for a greeting), and what was said, or heard of it if it was cut."""

    turn_id: int
    question: str
    said: str
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Resumption:
    """Where a conversation goes on."""

    state: State
    turn_id: int = 0
    question: str = ""  # the turn to ask again; "" for none
    rest: str | None = None  # what is left to say of the stored answer; None: nothing is
    said: str = ""  # the sentences before it
    fragments: tuple[str, ...] = ()  # words of the turn that the user is speaking
    is_pending: bool = False  # the last of them is not final
    is_greeting: bool = False  # what is being spoken answers nobody
    exchanges: tuple[Exchange, ...] = ()  # the turns before, the oldest first

    @property
    def must_ask(self) -> bool:
        """Whether the turn has to be asked again."""
        return self.state in (State.THINKING, State.SPEAKING) and self.rest is None


def resumption_of(fields: ConversationFields) -> Resumption:
    """Read a stored conversation. Every stored state has one."""
    return replace(_point_of(fields), exchanges=tuple(_exchanges_in(fields.history)))


def _exchanges_in(history: Sequence[Mapping[str, Any]]) -> Iterator[Exchange]:
    """What the stored messages tell; of a question that was cut before its answer was audible the next turn tells."""
    for message in history:
        turn_id, is_cut = message.get("turn_id"), bool(message.get("interrupted"))
        question, said = message.get("question", ""), message.get("heard" if is_cut else "text", "")
        if isinstance(turn_id, int) and isinstance(question, str) and isinstance(said, str) and (question or said):
            yield Exchange(turn_id, question, said, is_cut)


def _point_of(fields: ConversationFields) -> Resumption:
    state = State(fields.state)
    words = " ".join(fields.text_buffer)
    if state is State.THINKING:
        return Resumption(state, fields.turn_id, question=words)
    if state is State.SPEAKING:
        is_greeting = not fields.text_buffer
        if not fields.is_complete and not is_greeting:
            return Resumption(state, fields.turn_id, question=words)
        said, rest = split_at_unheard(fields.llm_response, fields.heard)
        return Resumption(state, fields.turn_id, question=words, rest=rest, said=said, is_greeting=is_greeting)
    if state is State.IDLE:
        return Resumption(state, fields.turn_id)
    return Resumption(
        State.LISTENING, fields.turn_id, fragments=tuple(fields.text_buffer), is_pending=fields.is_pending
    )


def split_at_unheard(text: str, heard: str) -> tuple[str, str]:
    """Split before the first of the voice's sentences not heard to its end: one is, once a word after it has begun."""
    begun = _last_begin(text, heard)
    for start, end in spans(text):
        if begun < end:
            return text[:start].strip(), text[start:].strip()
    return "", text.strip()


def _last_begin(text: str, heard: str) -> int:
    """Where the last heard word begins in `text`; -1 for none. A word that the voice spelt differently is skipped."""
    text, begin, end = _folded(text), -1, 0
    for word in _WORD.findall(_folded(heard)):
        found = text.find(word, end, end + len(word) + 200)
        if found >= 0:
            begin, end = found, found + len(word)
    return begin


def _folded(text: str) -> str:
    """Without capitals, each character in its place."""
    folded = text.casefold()
    return folded if len(folded) == len(text) else "".join(c.casefold() if len(c.casefold()) == 1 else c for c in text)
