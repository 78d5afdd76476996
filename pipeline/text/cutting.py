"""Where a sentence that is too long is cut: behind a comma, at a blank, at least between two characters.

Characters as people count them: the grapheme clusters of https://www.unicode.org/reports/tr29/, as far as a cut could
be heard or seen.
"""

from __future__ import annotations

import re
import unicodedata

from .marks import CLOSERS, COMMAS, SPACED_COMMAS, STRAIGHT_QUOTES

_CLOSING = f"[{re.escape(CLOSERS + STRAIGHT_QUOTES)}]*"
_PAUSE = re.compile(rf"[{re.escape(SPACED_COMMAS)}]{_CLOSING}(?=\s)|\s[-–—](?=\s)|—|[{re.escape(COMMAS)}]{_CLOSING}")
_BLANK = re.compile(r"[\s\u200b]")
_JOINER = "\u200d"
_JOINED = re.compile("[\u200c\u200d\u0e33\u0eb3\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f\u1160-\u11ff\udc00-\udfff]")
_FLAG = re.compile("[\U0001f1e6-\U0001f1ff]*\\Z")


def cut_before(text: str, start: int, limit: int) -> int:
    """Where to cut `text[start:]`, which goes on behind `limit`: above `start`, at most `limit`."""
    least = start + (limit - start) // 3  # a comma before that leaves too little
    at = max((found.end() for found in _PAUSE.finditer(text, least, limit + 1) if found.end() <= limit), default=0)
    if not at:
        at = max((found.end() for found in _BLANK.finditer(text, start + 1, limit)), default=0)
    if at:
        return at
    at = limit
    while at > start and not _is_between(text, at):
        at -= 1
    return at if at > start else limit


def _is_between(text: str, at: int) -> bool:
    """Whether no character, as people count, has parts on both sides of `at`."""
    before, after = text[at - 1], text[at]
    if unicodedata.category(after)[0] == "M" or _JOINED.match(after) or before == _JOINER:
        return False
    if unicodedata.combining(before) == 9:  # a virama binds two consonants of Indic scripts
        return False
    is_flag = "\U0001f1e6" <= after <= "\U0001f1ff"
    return not is_flag or len(_FLAG.search(text[max(0, at - 200) : at])[0]) % 2 == 0  # type: ignore[index]
