"""Long text into pieces that are spoken one after the other."""

from __future__ import annotations

import re

MAX_CHARS = 300  # of a piece: about 20 s of speech, 20 ms of synthesis, 600 kB of audio
_ABBREVIATIONS = {"mr", "mrs", "ms", "dr", "st", "no", "vs", "etc", "approx", "e.g", "i.e", "prof", "inc", "ltd", "co"}
_CLOSING = "[\"'\u201d\u2019)\\]]*"  # quotes and brackets that belong to the sentence before them
_END = re.compile(rf"[.!?\u2026]+{_CLOSING}(?=\s)|[\u3002\uff01\uff1f]|\n\s*\n")  # European and Asian full stops


def split_text(text: str, *, max_chars: int = MAX_CHARS) -> list[str]:
    """Return the sentences of `text`, stripped, none empty, none longer than `max_chars` (at least 20).

    A sentence that is too long is cut after a comma or the like, else at a blank, else hard. Abbreviations, initials
    and decimal points end no sentence.
    """
    pieces, start = [], 0
    for match in _END.finditer(text):
        if not _is_abbreviation(text[start : match.end()]):
            pieces.append(text[start : match.end()])
            start = match.end()
    pieces.append(text[start:])
    return [part for piece in pieces for part in _cut(" ".join(piece.split()), max_chars)]


def has_sentence(text: str) -> bool:
    """Whether a text that is still growing holds a whole sentence."""
    return len(split_text(text)) > 1


def take_sentences(text: str, *, max_chars: int = MAX_CHARS) -> tuple[list[str], str]:
    """Return the whole sentences at the front of a text that is still growing, and the rest with its blanks.

    A sentence is whole when something follows its full stop; a rest of more than `max_chars` is cut as by `split_text`.
    """
    pieces, start = [], 0
    for match in _END.finditer(text):
        if not _is_abbreviation(text[start : match.end()]):
            pieces.extend(split_text(text[start : match.end()], max_chars=max_chars))
            start = match.end()
    rest = text[start:]
    if len(rest) > max_chars:
        *parts, last = _cut(rest, max_chars)
        return [*pieces, *(part for part in parts if part)], last
    return pieces, rest


def _is_abbreviation(piece: str) -> bool:
    if not piece.endswith("."):
        return False
    word = piece[:-1].rpartition(" ")[2].lstrip("(\"'").lower()
    return word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha() and word != "i")


def _cut(piece: str, max_chars: int) -> list[str]:
    parts = []
    while len(piece) > max_chars:
        head = piece[:max_chars]
        at = max(head.rfind(mark) + 1 for mark in (", ", "; ", ": ", " - "))
        if at < max_chars // 3:
            at = head.rfind(" ") + 1 or max_chars
        parts.append(piece[:at].strip())
        piece = piece[at:].strip()
    return [*parts, piece] if piece else parts
