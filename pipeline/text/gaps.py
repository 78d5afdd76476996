"""What is given out of a text from which parts are left out, with blanks as if they had never been there. Pure."""

from __future__ import annotations

import re

_CLOSES = re.compile(r"[.,;:!?…)\]}»”’。，、！？]")


class Gaps:
    """Collects what is said. A blank is held until something follows it."""

    def __init__(self) -> None:
        self._gap = ""  # blanks since the last thing that was said
        self._out: list[str] = []  # not taken yet
        self._last = ""  # character that was said; "" before the first
        self._has_left_out = False  # something, since it
        self._divides = False  # and that was between two words

    def taken(self, *, is_final: bool = False) -> str:
        """What was said since the last call; `is_final`: with the blanks that end the text."""
        out = "".join(self._out) + (self._gap if is_final and not self._has_left_out else "")
        self._out.clear()
        return out

    def blank(self, blanks: str) -> None:
        """Blanks or a line break come."""
        if not self._has_left_out:
            self._gap += blanks
            return
        for blank in blanks if self._last else "":  # one is enough, or one empty line
            if not self._gap or (blank in "\r\n" and self._gap.count("\n") < 2):
                self._gap += blank

    def left_out(self, *, divides: bool = False) -> None:
        """Something comes that is not said; `divides`: what is before and behind it are two words."""
        self._has_left_out = True
        self._divides |= divides
        if not self._last:
            self._gap = ""

    def paragraph(self) -> None:
        """What follows is a paragraph of its own."""
        self._has_left_out = True
        self._gap = "\n\n" if self._last else ""

    def comma(self) -> None:
        """A comma, if anything was said before it."""
        if self._last and "\n" not in self._gap:
            self._gap = ""
            self.say(",")
            self._gap = " "

    def say(self, text: str) -> None:
        """Text comes that is said."""
        core = text.strip()
        if not core:
            self.blank(text)
            return
        lead = len(text) - len(text.lstrip())
        if lead:
            self.blank(text[:lead])
        if self._has_left_out:
            self._close_gap(core[0])
        self._out.append(self._gap)
        self._out.append(core)
        self._last, self._gap, self._has_left_out, self._divides = core[-1], text[lead + len(core) :], False, False

    def _close_gap(self, following: str) -> None:
        if self._divides and not self._gap and self._last.isalnum() and following.isalnum():
            self._gap = " "
        elif "\n" not in self._gap and _CLOSES.match(following):
            self._gap = ""
