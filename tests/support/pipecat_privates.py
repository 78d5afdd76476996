"""Finds private names of Pipecat's in our library: read from the files, resolved by the classes at run time.

Counted are private modules and names in imports; attributes by dot or by `getattr` and its kin; methods and class
attributes that take the place of one. `self._x` counts if a Pipecat base of the class has `_x`; `other._x` if a class
of Pipecat's that the file imports, or `FrameProcessor`, has it and no class of the file has.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pipecat.processors.frame_processor import FrameProcessor

BY_NAME = ("getattr", "setattr", "hasattr", "delattr")


def is_private(name: str) -> bool:
    """Whether it begins with one underscore."""
    return name.startswith("_") and not name.startswith("__")


@cache
def private_names_of(cls: type) -> frozenset[str]:
    """Private names that a class itself defines: its members, and what its methods assign to `self`."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        tree = ast.Module([], [])
    return frozenset({name for name in vars(cls) if is_private(name)} | set(_assigned_to_self(tree)))


def _assigned_to_self(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        is_own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
        if is_own and isinstance(node.ctx, ast.Store) and is_private(node.attr):
            yield node.attr


def _is_pipecats(cls: type) -> bool:
    return cls.__module__.split(".")[0] == "pipecat"


def _names_in_reach(module: ModuleType) -> frozenset[str]:
    """Private names of the classes of Pipecat's that a module knows, and of the base of all processors."""
    classes = [FrameProcessor, *(value for value in vars(module).values() if isinstance(value, type))]
    bases = {base for cls in classes for base in cls.__mro__ if _is_pipecats(base)}
    return frozenset().union(*map(private_names_of, bases))


def privates_in(path: Path, module: ModuleType) -> list[str]:
    """Return `line: name` for each private name of Pipecat's that a file touches."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    own |= set(_assigned_to_self(tree))
    found = sorted(set(_Finder(_names_in_reach(module) - own).find(tree, None, module)))
    return [f"{line}: {name}" for line, name in found]


class _Finder:
    """Walks one file."""

    def __init__(self, foreign: frozenset[str]) -> None:
        self._foreign = foreign  # private names that are Pipecat's on whatever object they are asked of

    def find(self, node: ast.AST, cls: type | None, scope: Any) -> Iterator[tuple[int, str]]:
        """Yield (line, name); `cls` is the class that `node` is in, `scope` what holds the classes in it."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                inner = getattr(scope, child.name, None)
                inner = inner if isinstance(inner, type) else None
                yield from ((child.lineno, name) for name in self._replaced(child, inner))
                yield from self.find(child, inner, inner)
                continue
            yield from ((child.lineno, name) for name in self._touched(child, cls))  # type: ignore[attr-defined]
            yield from self.find(child, cls, scope)

    def _touched(self, node: ast.AST, cls: type | None) -> Iterator[str]:
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] == "pipecat":
                yield from filter(is_private, [*module.split("."), *(alias.name for alias in names)])
            case ast.Attribute(value=value, attr=name) if is_private(name):
                if self._is_pipecats(name, value, cls):
                    yield name
            case ast.Call(func=ast.Name(id=function), args=[value, ast.Constant(value=str(name)), *_]):
                if function in BY_NAME and is_private(name) and self._is_pipecats(name, value, cls):
                    yield name

    def _is_pipecats(self, name: str, value: ast.expr, cls: type | None) -> bool:
        is_super = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "super"
        if is_super or (isinstance(value, ast.Name) and value.id in ("self", "cls")):
            return cls is not None and _inherits(cls, name)
        return name in self._foreign

    def _replaced(self, node: ast.ClassDef, cls: type | None) -> Iterator[str]:
        for member in node.body:
            match member:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    names = [name]
                case ast.Assign(targets=targets):
                    names = [target.id for target in targets if isinstance(target, ast.Name)]
                case ast.AnnAssign(target=ast.Name(id=name)):
                    names = [name]
                case _:
                    names = []
            yield from (name for name in names if cls is not None and is_private(name) and _inherits(cls, name))


def _inherits(cls: type, name: str) -> bool:
    return any(name in private_names_of(base) for base in cls.__mro__ if _is_pipecats(base))
