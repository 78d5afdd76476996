"""How a voice is to say certain words: "Nguyen" as "win", "AB12" as "A B 1 2". Pure.

For the voice only: client, record and memory have the words as they are written.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache

from ..errors import ConfigurationError
from .marks import UNSPACED

# Four letters and digits or more, both kinds, in capitals, perhaps with hyphens: an order number, a licence plate.
CODES = r"(?=[A-Z-]*\d)(?=[\d-]*[A-Z])[A-Z\d](?:-?[A-Z\d]){3,}"
_UNSPACED = re.compile(f"[{UNSPACED}]")


class Pronunciation:
    """A list of words and how each is said; `spells` codes, or what a pattern of yours matches, letter by letter.

    A word written in small letters is found in any case, one with a capital only as it is written. It must stand alone,
    except in scripts without blanks between the words. May be given to a voice of Pipecat's as it is:
    `text_transforms=[("*", pronunciation)]`. Raises `ConfigurationError` for an empty word or a pattern that is none.
    """

    def __init__(self, words: Mapping[str, str] | None = None, *, spells: bool | str = False) -> None:
        words = dict(words or {})
        if not all(word.strip() for word in words):
            raise ConfigurationError("a word to be pronounced is empty")
        self._exact = {word: said for word, said in words.items() if word != word.lower()}
        self._small = {word: said for word, said in words.items() if word == word.lower()}
        code = CODES if spells is True else spells or ""
        longest_first = sorted(words, key=len, reverse=True)
        parts = [_pattern(word, is_exact=word in self._exact) for word in longest_first]
        try:
            parts += [f"(?P<code>{_alone(code, code)})"] if code else []
            self._found = re.compile("|".join(parts)) if parts else None
        except re.error as error:
            raise ConfigurationError(f"spells={code!r} is no regular expression: {error}") from error

    def spoken(self, text: str) -> _SpokenWords:
        """Return how `text` is said, and the way back to what is written."""
        return _SpokenWords(self._pieces(text))

    async def __call__(self, text: str, text_type: str) -> str:
        """Return how `text` is said, as a text transform of Pipecat's."""
        return self.spoken(text).text

    def _pieces(self, text: str) -> Iterator[tuple[str, str]]:
        """(said, written) of each part of the text, equal where nothing is changed."""
        at = 0
        for found in self._found.finditer(text) if self._found is not None else ():
            if not found[0]:
                continue
            if found.start() > at:
                yield text[at : found.start()], text[at : found.start()]
            at, written = found.end(), found[0]
            is_code = "code" in found.re.groupindex and found["code"] is not None
            said = " ".join(filter(str.isalnum, written)) if is_code else self._said(written)
            yield said, written
        if at < len(text):
            yield text[at:], text[at:]

    def _said(self, written: str) -> str:
        return self._exact[written] if written in self._exact else self._small.get(written.lower(), written)


class _SpokenWords:
    """A text as it is said, and which written word each of its words stands for."""

    def __init__(self, pieces: Iterator[tuple[str, str]]) -> None:
        self._changed: list[tuple[int, int, str]] = []  # where a part begins and ends that is said otherwise
        self._at = 0  # words were found up to here
        parts, size = [], 0
        for said, written in pieces:
            if said != written:
                self._changed.append((size, size + len(said), written))
            parts.append(said)
            size += len(said)
        self.text = "".join(parts)

    def written(self, word: str) -> str:
        """Which written words begin with the next word that the voice says; "" within some that have begun."""
        if not self._changed:
            return word
        begin = self.text.find(word, self._at)
        if begin < 0:
            return word
        self._at = begin + len(word)
        while self._changed and self._changed[0][1] <= begin:
            self._changed.pop(0)
        if not self._changed or self._changed[0][0] >= self._at:
            return word
        start, end, written = self._changed[0]
        self._changed[0] = (start, end, "")
        return written


def _pattern(word: str, *, is_exact: bool) -> str:
    return _alone(re.escape(word) if is_exact else f"(?i:{re.escape(word)})", word)


def _alone(pattern: str, word: str) -> str:
    """`pattern` where no letter is beside it, as far as the script has blanks between its words."""
    before = "" if _UNSPACED.match(word) else rf"(?<![\w{_marks()}])"
    after = "" if _UNSPACED.match(word[-1:]) else rf"(?![\w{_marks()}])"
    return f"{before}(?:{pattern}){after}"


@cache
def _marks() -> str:
    """The combining marks, which `\\w` leaves out, as ranges for a pattern."""
    ranges: list[list[int]] = []
    for code in range(0x300, 0x20000):
        if unicodedata.category(chr(code)).startswith("M"):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"{chr(low)}-{chr(high)}" for low, high in ranges) + "\u200c\u200d"
