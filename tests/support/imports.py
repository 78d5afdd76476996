"""Who imports whom in the library, read from its files: what the tests of the layout go by."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support import ROOT

PACKAGE = "leibniz_voice"
FOLDERS = ("pipeline", "lab", "processors", "transports", "bots")
LIBRARY = sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py") if "_data" not in str(p.parent))


def name_of(path: Path) -> str:
    """Return a library file's module name below `leibniz_voice`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in LIBRARY}


@cache
def imports_of(path: Path, module: str, *, typing_too: bool = True) -> tuple[str, ...]:
    """Return what a file imports, anywhere in it, with relative imports resolved: `leibniz_voice.x.y`, or another name.

    A module that is named by `from package import module` counts as the module. Without `typing_too`, what stands
    below `if TYPE_CHECKING:` is left out.
    """
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return tuple(_imports(tree, package, typing_too))


def _imports(node: ast.AST, package: list[str], typing_too: bool) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test) and not typing_too:
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                base = ".".join([PACKAGE, *package[: len(package) - child.level + 1], *([base] if base else [])])
            inside = [f"{base}.{alias.name}" for alias in child.names]
            modules = [name for name in inside if name.removeprefix(PACKAGE + ".") in MODULES or base == PACKAGE]
            yield from modules
            if len(modules) < len(inside):
                yield base
        yield from _imports(child, package, typing_too)


@cache
def graph() -> dict[str, frozenset[str]]:
    """Return module -> the library's modules that it imports when it runs; names without `leibniz_voice.`."""
    found = {}
    for module, path in MODULES.items():
        ours = (n.removeprefix(f"{PACKAGE}.") for n in imports_of(path, module, typing_too=False))
        found[module] = frozenset(n for n in ours if n in MODULES and n != module)
    return found


def circles(arrows: dict[str, frozenset[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other in a circle (Tarjan's strongly connected components)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    open_: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        open_.append(node)
        for other in arrows[node]:
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in open_:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            start = open_.index(node)
            if len(open_) - start > 1:
                found.append(sorted(open_[start:]))
            del open_[start:]

    for node in arrows:
        if node not in order:
            visit(node)
    return found
