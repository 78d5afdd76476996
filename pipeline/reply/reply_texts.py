"""Which words of a reply the client was told, so that a voice's sentence need not be told again: pure."""

from __future__ import annotations


class ReplyTexts:
    """Of the newest reply."""

    def __init__(self) -> None:
        self._turn_id = 0  # of the reply
        self._text = ""  # announced so far, with single blanks
        self._is_final = False  # the last of it was

    def announced(self, turn_id: int, text: str, is_final: bool) -> None:
        """A part of the reply's text goes out."""
        if turn_id != self._turn_id:
            self._turn_id, self._text, self._is_final = turn_id, "", False
        self._text = f"{self._text} {_plain(text)}"
        self._is_final |= is_final

    def is_news(self, turn_id: int, text: str) -> bool:
        """Whether a voice's sentence is not among what was told."""
        return bool(text.strip()) and (turn_id != self._turn_id or _plain(text) not in self._text)

    def is_complete(self, turn_id: int) -> bool:
        """Whether the last of the reply was told."""
        return turn_id == self._turn_id and self._is_final


def _plain(text: str) -> str:
    return " ".join(text.split())
