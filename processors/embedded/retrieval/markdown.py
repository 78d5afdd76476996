"""Markdown files as passages to be spoken, and the synonym file. Pure."""

from __future__ import annotations

import re
from pathlib import Path

from ....pipeline.errors import ConfigurationError
from ....pipeline.text.sentences import spans
from .stop_words import normalised

MAX_PASSAGE = 1200  # characters, about 75 s of speech; a longer section is cut between paragraphs, then sentences
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.*?)[ \t]*#*[ \t]*$")
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")
_MARKS = re.compile(r"[*`]+|(?<!\w)_+|_+(?!\w)")
_BULLET = re.compile(r"^[ \t]*(?:[-*+]|\d+[.)])[ \t]+|^[ \t]*>[ \t]?", re.MULTILINE)


def split_markdown(text: str, *, title: str) -> list[tuple[str, str]]:
    """The (heading, plain text) of each section; `title` stands for the heading of text before the first one.

    Emphasis, links, list signs and line breaks are removed: what remains can be spoken.
    """
    sections: list[tuple[str, list[str]]] = [(title, [])]
    for line in text.splitlines():
        heading = _HEADING.match(line)
        if heading:
            sections.append((_plain(heading[1]) or title, []))
        else:
            sections[-1][1].append(line)
    return [(head, piece) for head, lines in sections for piece in _pieces("\n".join(lines))]


def load_synonyms(path: Path) -> dict[str, tuple[str, ...]]:
    """`synonym_key` of a word or words -> all members of its group, itself included and normalised.

    One group a line, members separated by commas, `#` begins a comment. Raises `ConfigurationError` with the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    groups: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, 1):
        line = line.split("#", 1)[0].strip()
        if not line:
            continue
        members = tuple(dict.fromkeys(normalised(member) for member in line.split(",")))
        if len(members) < 2 or not all(members):
            raise ConfigurationError(f"{path}, line {number}: needs two or more words, separated by commas")
        for member in members:
            key = synonym_key(member.split())
            groups[key] = tuple(dict.fromkeys((*groups.get(key, ()), *members)))
    return groups


def synonym_key(words: list[str]) -> str:
    """Normalised words as the key of their group: without a plural s, so that "cards" is found under "card"."""
    return " ".join(word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word for word in words)


def _pieces(text: str) -> list[str]:
    pieces: list[str] = []
    for paragraph in re.split(r"\n\s*\n", _BULLET.sub("", text)):
        line, before = _plain(paragraph), 0
        for start, end in spans(line, max_chars=MAX_PASSAGE):
            sentence = (line[before:start] if before else " ") + line[start:end]  # with the blank before it, if any
            before = end
            if pieces and len(pieces[-1]) + len(sentence) <= MAX_PASSAGE:
                pieces[-1] += sentence
            else:
                pieces.append(sentence.strip())
    return pieces


def _plain(text: str) -> str:
    return " ".join(_MARKS.sub("", _LINK.sub(r"\1", text)).split())
