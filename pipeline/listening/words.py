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
    parts, left, at = text.split(), len(words), 0
    while left > len(words) - len(begun):
        left -= len(key_of(parts[at]).split())
        at += 1
    return " ".join(parts[at:])


def newest(fragments: list[str], most: int) -> list[str]:
    """The last `most` characters of `fragments`, from a word on if there is one; the fragments before are left out."""
    over, kept = sum(map(len, fragments)) - most, fragments
    while over > 0:
        first, kept = kept[0], kept[1:]
        rest = first[over:]
        over -= len(first)
        if rest:
            kept = [rest.partition(" ")[2] or rest, *kept]
    return kept
