"""What a module shows is used elsewhere, or stands in its `__all__`; the rest has a `_`."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.imports import LIBRARY, ROOT

SHOWN_BY_OTHERS = {  # whose names are called by something that does not name them
    "bots/cli/pytest_plugin.py": "pytest calls its hooks",
    "bots/custom.py": "an example to be read and copied",
}
READERS = sorted(
    path
    for folder in ("pipeline", "lab", "processors", "transports", "bots", "tests", "benchmarks", "docs")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".md") and "node_modules" not in path.parts
)


@cache
def words_of(path: Path) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", path.read_text(encoding="utf-8")))


def shown(source: str) -> list[str]:
    """Return the functions and classes that a module shows without saying so in `__all__`."""
    body = ast.parse(source).body
    listed = [
        ast.literal_eval(node.value)
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
    ]
    names = [n.name for n in body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]
    return [name for name in names if not name.startswith("_") and name not in (listed[0] if listed else ())]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_module_shows_is_used_elsewhere(path):
    if str(path.relative_to(ROOT)) in SHOWN_BY_OTHERS:
        return
    names = shown(path.read_text(encoding="utf-8"))
    assert [name for name in names if not any(name in words_of(other) for other in READERS if other != path)] == []


def test_what_is_listed_or_private_is_not_shown():
    assert shown("__all__ = ['A']\nclass A: ...\nclass B: ...\ndef _c(): ...\n") == ["B"]
