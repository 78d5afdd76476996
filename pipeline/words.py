"""When two texts are the same words: pure."""

from __future__ import annotations

import re

_NOISE = re.compile(r"[^\w']+")  # a recogniser's final differs from its interim in marks and capitals


def key_of(text: str) -> str:
    """What two texts have in common if they are the same words: neither capitals nor marks count."""
    return _NOISE.sub(" ", text.casefold()).strip()


def beyond(start: str, text: str) -> str | None:
    """What `text` says after the words of `start`; None if it does not begin with them."""
    begun, words = key_of(start).split(), key_of(text).split()
    if words[: len(begun)] != begun:
        return None
    parts = text.split()
    while len(key_of(" ".join(parts)).split()) > len(words) - len(begun):
        parts.pop(0)
    return " ".join(parts)
