"""Whether a full stop of ASCII ends its sentence: by the word before it, and by what follows. Pure.

before                    what follows            the sentence ends
a plain word              a small letter          no, unless the sentence began with one itself
                          anything else           yes
Mr, e.g.                  whatever                no
No, Fig                   a number                no, else as a plain word
Jan                       a number, a month       no, else as a plain word
etc, usw, 5 kg            no small letter         yes
9 a.m.                    a capital, not a day    yes
Inc, U.S., Bhf, J         a capital               if it is a word that sentences often begin with: the, we, bitte
3                         a month, a small letter no: it is an ordinal; nor behind "am", "der" before a noun
1 (first of the sentence) whatever                no: the number of a list

Where a name and a sentence begin alike nobody can know: then the text goes on, as a stop too few is heard less than one
too many.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .abbreviations import (
    AFTER_TIMES,
    NAME_PARTICLES,
    ORDINALS_FOLLOW,
    ORDINALS_PRECEDE,
    STARTERS,
    Kind,
    kind_of,
)

_TOKEN = re.compile(r"[^\s()\[\]{}\"'“”„‚‘’«»‹›/–—,;:!?¿¡…-]*\Z")  # what stands before the stop
_WORD_BEFORE = re.compile(r"(\S+)\s+\Z")
_NUMBER = re.compile(r"\d{1,4}|\d{1,2}\.\d{1,2}")
_DATE_GOES_ON = re.compile(r"\d{1,2}\.|(?:1[89]|2\d)\d\d(?!\d)")
_LETTER = re.compile(r"[^\W_]")
_ROMAN = re.compile(r"[IVXLC]{1,5}|[ivxl]{1,4}")
_ELISION = re.compile(r"(?:l|j|c|d|n|s|m|t|qu|un|dell|all|nell)['’]", re.IGNORECASE)
LOOK_BACK = 40  # characters that are read before the stop


class Next(NamedTuple):
    """What follows a full stop and its blanks, opening quotes left out."""

    word: str  # letters and digits; "" for a sign
    rest: str  # the characters behind it, a few

    @property
    def is_small(self) -> bool:
        """Whether it begins with a small letter."""
        return self.word[:1].islower()

    @property
    def is_number(self) -> bool:
        """Whether it begins with a digit."""
        return self.word[:1].isdigit()

    @property
    def is_starter(self) -> bool:
        """Whether sentences often begin with it."""
        small = self.word.casefold()
        is_initial = len(small) == 1 and self.rest.startswith(".")
        return not is_initial and (small in STARTERS or bool(_ELISION.match(self.word)))


class FullStop(NamedTuple):
    """A stop within a sentence: what is before it."""

    token: str  # the letters and digits just before
    start: int  # where they begin
    is_first: bool  # nothing is before them
    before: str  # the word before them; ""
    is_small_style: bool  # the sentence began with a small letter

    @classmethod
    def at(cls, text: str, start: int, at: int) -> FullStop:
        """Of the stop at `at` in the sentence that begins at `start`."""
        window = text[max(start, at - LOOK_BACK) : at]
        found = _TOKEN.search(window)
        token = found[0] if found else ""
        head = window[: len(window) - len(token)]
        before = _WORD_BEFORE.search(head)
        first = _LETTER.search(text, start, at)
        return cls(
            token=token,
            start=at - len(token),
            is_first=first is None or first.start() >= at - len(token),
            before=before[1] if before else "",
            is_small_style=first is not None and first[0].islower(),
        )

    @property
    def needs_word(self) -> bool:
        """Whether the whole next word must be known, not only how it begins."""
        if self.is_number:
            return self._number <= 31 or self._is_led
        return self.kind not in (Kind.WORD, Kind.PREFIX, Kind.NUMBERED, Kind.LAST, Kind.UNIT)

    @property
    def is_number(self) -> bool:
        """Whether it may be an ordinal."""
        return bool(_NUMBER.fullmatch(self.token))

    @property
    def _number(self) -> int:
        return int(self.token.split(".")[0])

    @property
    def _is_led(self) -> bool:
        return self.before.casefold() in ORDINALS_FOLLOW

    @property
    def kind(self) -> Kind:
        """What kind of word it is."""
        return kind_of(self.token, is_after_number=self.before[-1:].isdigit())

    @property
    def is_marker(self) -> bool:
        """Whether it is the number of an item in a list."""
        token = self.token
        is_short = len(token) == 1 or (token.isdigit() and len(token) <= 3) or bool(_ROMAN.fullmatch(token))
        return self.is_first and is_short

    def begins_item(self, before: str) -> bool:
        """Whether it is the next number of a list that goes on in the line: 1. Helmets 2. Gloves."""
        if not self.token.isdigit() or len(self.token) > 2:
            return False
        number = int(self.token)
        return self.before.endswith(":") if number == 1 else bool(re.match(rf"\W*{number - 1}[.)]\s", before))

    def ends(self, following: Next) -> bool:
        """Whether the sentence ends here."""
        if self.is_number:
            return not self._is_ordinal(following)
        kind = self.kind
        if kind is Kind.PREFIX:
            return False
        if kind is Kind.CALENDAR and not following.is_number:
            return not following.is_small and kind_of(following.word) is not Kind.CALENDAR
        if kind is Kind.WORD or (kind is Kind.NUMBERED and not following.is_number):
            return self.is_small_style or not following.is_small
        return self._abbreviation_ends(kind, following)

    def _abbreviation_ends(self, kind: Kind, following: Next) -> bool:
        if following.is_small or following.is_number or not following.word:
            return False
        small = following.word.casefold()
        if kind is Kind.TIME:
            return small not in AFTER_TIMES
        if kind is Kind.INITIAL:
            if self.token in ("I", "я", "Я"):
                return True
            is_name = small in NAME_PARTICLES and self.token.isupper()
            return following.is_starter and not is_name
        return kind in (Kind.LAST, Kind.UNIT) or following.is_starter

    def _is_ordinal(self, following: Next) -> bool:
        if following.is_small:
            return not self.is_small_style or following.word.casefold() in ORDINALS_PRECEDE
        if following.is_number:
            return self._number <= 31 and bool(_DATE_GOES_ON.match(following.word + following.rest))
        if self._number <= 31 and following.word.casefold() in ORDINALS_PRECEDE:
            return True
        return self._is_led and bool(following.word) and not following.is_starter
