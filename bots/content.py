"""What a bot knows, read from plain files beside it.

    assistant_data/
      intents.toml      one table per intent: phrases, and optionally an answer
      passages/*.md     what the bot can tell
      synonyms.txt      customers' words for the passages' words (optional)

Every mistake in them is a `ConfigurationError` that names the file, the table, the key and the repair.
"""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..pipeline.errors import ConfigurationError

__all__ = ["BotContent", "IntentSpec", "Phrase", "load_intents"]

DEFAULT_ANSWER = "{context}"
_KEYS = frozenset({"phrases", "answer"})
_PHRASE = re.compile(r"[a-z][a-z']*(?: [a-z][a-z']*)*")  # what a recogniser's grammar can hold
_LABEL = re.compile(r"[a-z][a-z0-9_]*")


class Phrase(str):
    """A phrase that knows where it stands, for who must complain about a word of it."""

    where: str  # "path/intents.toml, [label]"


@dataclass(frozen=True, slots=True)
class IntentSpec:
    """One table of intents.toml. `answer` is None where the table has none."""

    label: str
    phrases: tuple[str, ...]
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class BotContent:
    """All of a bot's content, in the shapes its processors take."""

    intents: tuple[IntentSpec, ...]
    passages: Path  # the folder of Markdown
    synonyms: Path | None = None  # None: the bot has no such file

    @classmethod
    def load(cls, folder: str | Path) -> BotContent:
        """Read a bot's data folder. Raises `ConfigurationError`."""
        folder = Path(folder)
        passages, synonyms = folder / "passages", folder / "synonyms.txt"
        if not passages.is_dir():
            raise ConfigurationError(f"{passages}: no such folder; make it, and put a Markdown file per topic in it")
        intents = tuple(load_intents(folder / "intents.toml"))
        return cls(intents=intents, passages=passages, synonyms=synonyms if synonyms.is_file() else None)

    @property
    def phrases(self) -> list[str]:
        """Every phrase of every intent, in the file's order: the recogniser's grammar."""
        return [phrase for intent in self.intents for phrase in intent.phrases]

    @property
    def examples(self) -> dict[str, list[str]]:
        """Label -> its phrases, for `KeywordIntent`."""
        return {intent.label: list(intent.phrases) for intent in self.intents}

    @property
    def templates(self) -> dict[str, str]:
        """Label -> what to answer, with `{context}` for the best passage. Every intent has one."""
        return {intent.label: intent.answer or DEFAULT_ANSWER for intent in self.intents}


def load_intents(path: str | Path) -> list[IntentSpec]:
    """Read an intents.toml. Raises `ConfigurationError` with the file, the table, the key and what to do."""
    path = Path(path)
    intents = [_intent(path, label, table) for label, table in _tables(path).items()]
    if not intents:
        raise ConfigurationError(f'{path}: no intent in it; add a table such as [greeting] with phrases = ["hello"]')
    owner: dict[str, str] = {}
    for intent in intents:
        for phrase in intent.phrases:
            if phrase in owner:
                raise ConfigurationError(
                    f'{path}, [{intent.label}] phrases: "{phrase}" stands in [{owner[phrase]}] already; keep it in one'
                )
            owner[phrase] = intent.label
    return intents


def _tables(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror}); a bot needs this file") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: is not valid TOML: {error}") from error


def _intent(path: Path, label: str, table: Any) -> IntentSpec:
    where = f"{path}, [{label}]"
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{path}, {label}: stands outside of any table; put it under an [intent]")
    if not _LABEL.fullmatch(label):
        raise ConfigurationError(f"{where}: name an intent in lower case letters, digits and underscores")
    if unknown := sorted(set(table) - _KEYS):
        raise ConfigurationError(f"{where} {unknown[0]}: unknown key; an intent has only phrases and answer")
    if "phrases" not in table:
        raise ConfigurationError(f'{where} phrases: missing; add phrases = ["what a customer says"]')
    phrases = table["phrases"]
    if not isinstance(phrases, list) or not phrases:
        raise ConfigurationError(f"{where} phrases: must be a list with at least one phrase in quotes")
    return IntentSpec(label, tuple(_phrase(where, phrase) for phrase in phrases), _answer(where, table.get("answer")))


def _phrase(where: str, phrase: Any) -> str:
    if not isinstance(phrase, str) or not _PHRASE.fullmatch(phrase):
        raise ConfigurationError(
            f"{where} phrases: {phrase!r} must be words in lower case, one space between them, no digits or signs"
        )
    placed = Phrase(phrase)
    placed.where = where
    return placed


def _answer(where: str, answer: Any) -> str | None:
    if answer is None:
        return None
    if not isinstance(answer, str) or not answer.strip():
        raise ConfigurationError(f"{where} answer: must be a text; leave the key out to answer with the best passage")
    try:
        parts = [part for part in string.Formatter().parse(answer) if part[1] is not None]
    except ValueError as error:
        raise ConfigurationError(f"{where} answer: braces do not match ({error}); write {{context}}") from error
    for _, name, spec, conversion in parts:
        if name != "context" or spec or conversion:
            raise ConfigurationError(f"{where} answer: only {{context}} can be filled in, not {{{name}...}}")
    return answer
