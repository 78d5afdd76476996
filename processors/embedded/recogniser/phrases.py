"""The phrases a bot can hear: from how they are written to what the recogniser's grammar and dictionary need."""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from ....pipeline.errors import ConfigurationError

MAX_PHRASES = 5000  # a grammar of 1,000 costs 0.08 of real time; this many would cost too much to be of use
MAX_WORDS = 40  # in one phrase, about 15 s of speech

_SIGNS = {"&": " and ", "%": " percent ", "+": " plus ", "@": " at ", "$": " dollars ", "€": " euros ", "£": " pounds "}
_MONEY = re.compile(r"([$€£])\s?(\d[\d,]*(?:\.\d+)?)")
_ORDINAL = re.compile(r"\b(\d+)(st|nd|rd|th)\b")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_INITIALS = re.compile(r"\b(?:[a-z]\.){2,}")
# fmt: off
_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ODD_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}
# fmt: on


def normalise_phrase(text: str) -> str:
    """Return the words of `text` as the dictionary spells them: lower case, no punctuation, numbers in words.

    "Where's my order #12?" becomes "where's my order twelve"; "U.K." becomes "u k"; accents are dropped.
    """
    text = unicodedata.normalize("NFKD", text.replace("\u2019", "'")).lower()
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = _MONEY.sub(lambda m: m[2] + _SIGNS[m[1]], text)
    text = _ORDINAL.sub(lambda m: _ordinal(int(m[1])), text)
    text = _NUMBER.sub(lambda m: f" {_spoken(m[0])} ", text)
    text = _INITIALS.sub(lambda m: m[0].replace(".", " "), text)
    for sign, word in _SIGNS.items():
        text = text.replace(sign, word)
    words = re.sub(r"[^a-z']+", " ", text).split()
    return " ".join(word for word in (word.strip("'") for word in words) if word)


def number_words(number: int) -> str:
    """Return a number from 0 to 999,999 in words; a longer one digit by digit."""
    if number > 999_999:
        return " ".join(_ONES[int(digit)] for digit in str(number))
    if number < 20:
        return _ONES[number]
    if number < 100:
        ten, one = divmod(number, 10)
        return _TENS[ten - 2] + (f" {_ONES[one]}" if one else "")
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    many, rest = divmod(number, size)
    return f"{number_words(many)} {name}" + (f" {number_words(rest)}" if rest else "")


def _spoken(number: str) -> str:
    whole, _, decimals = number.replace(",", "").partition(".")
    words = number_words(int(whole))
    return f"{words} point {' '.join(_ONES[int(digit)] for digit in decimals)}" if decimals else words


def _ordinal(number: int) -> str:
    words, _, last = number_words(number).rpartition(" ")
    last = _ODD_ORDINALS.get(last) or (f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th")
    return f"{words} {last}".strip()


def phrase_book(phrases: Sequence[str]) -> dict[str, str]:
    """Return {normalised: as written} of `phrases`; of two that sound the same the first is kept.

    Raises `ConfigurationError` for no phrase, too many, an empty or an overlong one.
    """
    if isinstance(phrases, str) or not phrases:
        raise ConfigurationError("the recogniser needs a list of at least one phrase; it hears nothing else")
    if len(phrases) > MAX_PHRASES:
        raise ConfigurationError(f"{len(phrases)} phrases; the embedded recogniser takes {MAX_PHRASES}")
    book: dict[str, str] = {}
    for phrase in phrases:
        words = normalise_phrase(phrase)
        if not words or words.count(" ") >= MAX_WORDS:
            raise ConfigurationError(f"the phrase {phrase!r} must have 1 to {MAX_WORDS} words")
        book.setdefault(words, phrase)
    return book


def beginnings_of(book: Mapping[str, str]) -> frozenset[str]:
    """Return the words that some phrase of the book begins with and goes on after."""
    split = [words.split() for words in book]
    return frozenset(" ".join(words[:count]) for words in split for count in range(1, len(words)))


def dictionary_of(book: Mapping[str, str], extra: Mapping[str, str], path: Path) -> list[str]:
    """Return the dictionary's lines ("word PH ON ES") for every word of the book, alternatives included.

    `extra` maps words to phones that the file at `path` lacks, or says otherwise. Raises `ConfigurationError` naming
    the word and its phrase if neither has it.
    """
    wanted = {word for words in book for word in words.split()}
    own = {normalise_phrase(word): phones for word, phones in extra.items()}
    found: dict[str, list[str]] = {word: [f"{word} {own[word]}"] for word in wanted & own.keys()}
    for word, line in _entries_of(frozenset(wanted - own.keys()), path):
        found.setdefault(word, []).append(line)
    for words, phrase in book.items():
        for word in words.split():
            if word not in found:
                raise ConfigurationError(_unknown(word, phrase))
    return [line for word in sorted(found) for line in found[word]]


def _unknown(word: str, phrase: str) -> str:
    where = getattr(phrase, "where", "")  # a phrase of a bot's content says where it stands
    unknown = f"the recogniser does not know how {word!r} in the phrase {str(phrase)!r} is pronounced; use another word"
    if where:
        return f"{where} phrases: {unknown}"
    return f"{unknown}, or give pronunciations={{{word!r}: ...}} in the phones of CMUdict, as in 'HH AH L OW'"


@lru_cache(maxsize=32)
def _entries_of(wanted: frozenset[str], path: Path) -> tuple[tuple[str, str], ...]:
    # The file is read anew for each set of phrases (50 ms) rather than kept (12 MB).
    with path.open(encoding="utf-8") as lines:
        return tuple(_matching(wanted, lines))


def _matching(wanted: frozenset[str], lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line in lines:
        word = line.partition(" ")[0].partition("(")[0]
        if word in wanted:
            yield word, line.strip()


def model_folder() -> Path:
    """Return the folder of pocketsphinx's bundled model, without importing it. Raises `ConfigurationError`."""
    spec = importlib.util.find_spec("pocketsphinx")
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place, "model", "en-us")
        if folder.is_dir():
            return folder
    raise ConfigurationError("the embedded recogniser needs pocketsphinx; install leibniz-voice[embedded]")
