"""A condition on measures, such as `false_interruptions > 0 or response_p95_ms > 800`: a small parser, no `eval`. Pure.

condition   = all { "or" all }
all         = test { "and" test }
test        = name op number          op: > >= < <= == !=
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ...pipeline.errors import ConfigurationError

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_TOKEN = re.compile(r"\s*(>=|<=|==|!=|>|<|[A-Za-z_][A-Za-z0-9_]*|-?\d+(?:\.\d+)?)")
MAX_LENGTH = 500  # letters


@dataclass(frozen=True)
class Comparison:
    """One comparison."""

    name: str
    op: str
    number: float

    def __str__(self) -> str:
        return f"{self.name} {self.op} {self.number:g}"

    def holds(self, values: Mapping[str, float | None]) -> bool:
        """Whether it does; what was not measured is true of nothing."""
        value = values[self.name]
        return value is not None and OPERATORS[self.op](value, self.number)


class Condition:
    """A parsed condition. Raises `ConfigurationError` that says where it is wrong, or which names there are."""

    def __init__(self, text: str, names: Collection[str]) -> None:
        self.text = text
        self._any: list[list[Comparison]] = [[]]  # any of these, of each all
        words = _words(text)
        while True:
            self._any[-1].append(_comparison(words[:3], text, names))
            del words[:3]
            if not words:
                return
            link = words.pop(0)
            if link not in ("and", "or"):
                raise ConfigurationError(f"{text!r}: {link!r} stands where `and` or `or` should")
            if link == "or":
                self._any.append([])

    def failing(self, values: Mapping[str, float | None]) -> list[Comparison]:
        """The comparisons that make it true; empty if it is not."""
        return next((all_of for all_of in self._any if all(each.holds(values) for each in all_of)), [])


def _words(text: str) -> list[str]:
    words, at = [], 0
    text = text.rstrip()
    if len(text) > MAX_LENGTH:
        raise ConfigurationError(f"a condition of {len(text)} letters is too long")
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ConfigurationError(f"{text!r}: {text[at:].strip()[:20]!r} is not understood; write NAME > NUMBER")
        words.append(match[1])
        at = match.end()
    return words


def _comparison(words: list[str], text: str, names: Collection[str]) -> Comparison:
    if len(words) < 3 or words[1] not in OPERATORS:
        raise ConfigurationError(f"{text!r}: write NAME > NUMBER, such as false_interruptions > 0")
    name, op, number = words
    if name not in names:
        raise ConfigurationError(f"{text!r}: there is no measure {name}; there are {', '.join(names)}")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigurationError(f"{text!r}: {number!r} is no number")
    return Comparison(name, op, value)
