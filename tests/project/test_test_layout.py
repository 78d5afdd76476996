"""How the tests are laid out: as the library is, in files that stay readable and have one name each."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from tests.support import ROOT
from tests.support.imports import LIBRARY
from tests.support.shards import ALONE, SECONDS

TESTS = ROOT / "tests"
FILES = sorted(path for path in TESTS.rglob("*.py") if "node_modules" not in path.parts)
MAX_LINES = 400

# Test folders without a library folder of that name, and what they test.
OTHERS = {
    "browser": "transports/console, whose JavaScript runs in a browser alone",
    "project": "the repository: its layout, documents, wheel and deployment",
    "support": "what tests share",
}


def has_code(folder: Path) -> bool:
    """Say whether a package defines anything. What holds a docstring, or hands names on, such as a folder that waits
    for its first module, has nothing to be tested.
    """
    for path in folder.glob("*.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        if any(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) for node in body):
            return True
    return False


def counterpart(folder: Path) -> Path:
    """Return the test folder of a library folder."""
    return TESTS / folder.relative_to(ROOT)


def is_parent(folder: Path) -> bool:
    return any(path.parent.parent == folder for path in LIBRARY if path.name == "__init__.py")


def untested(folders: list[Path]) -> list[str]:
    """Return the library folders with code but no test file: in their test folder, or, of a parent, below it."""
    return [
        str(folder.relative_to(ROOT))
        for folder in folders
        if has_code(folder)
        if not any((counterpart(folder).rglob if is_parent(folder) else counterpart(folder).glob)("test_*.py"))
    ]


def own_code() -> list[Path]:
    """Return what is written in this repository besides the library, which test_layout.py measures."""
    scripts = [path for path in (ROOT / ".ci").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return [
        *FILES,
        *(ROOT / "benchmarks").rglob("*.py"),
        *scripts,
        ROOT / "docs" / "conf.py",
    ]


def too_long(paths: list[Path]) -> list[str]:
    counts = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    return [f"{name}: {count} lines" for name, count in counts.items() if count > MAX_LINES]


def test_every_library_folder_has_its_tests():
    assert untested(sorted({path.parent for path in LIBRARY})) == []


def test_the_check_of_tested_folders_notices(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.project.test_test_layout.ROOT", tmp_path)
    monkeypatch.setattr("tests.project.test_test_layout.TESTS", tmp_path / "tests")
    folders = [tmp_path / "lab" / name for name in ("tested", "forgotten", "empty")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "module.py").write_text('"""A module."""\n' if folder.name == "empty" else "def act(): ...\n")
    (tmp_path / "tests" / "lab" / "tested").mkdir(parents=True)
    (tmp_path / "tests" / "lab" / "tested" / "test_act.py").touch()
    assert untested(folders) == ["lab/forgotten"]


def test_every_test_folder_has_its_library_folder():
    folders = {path.parent.relative_to(TESTS) for path in FILES} - {Path()}
    strays = [str(folder) for folder in folders if folder.parts[0] not in OTHERS and not (ROOT / folder).is_dir()]
    assert strays == []


def test_every_test_folder_is_a_package_that_says_nothing():
    folders = {path.parent for path in FILES}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []
    said = [folder for folder in folders - {TESTS / "support"} if (folder / "__init__.py").read_text(encoding="utf-8")]
    assert said == []


def test_a_test_folder_holds_tests_and_what_they_share_is_in_support():
    others = [path for path in FILES if not path.name.startswith("test_") and path.name != "__init__.py"]
    assert [path for path in others if path.parent != TESTS / "support" and path != TESTS / "conftest.py"] == []


def test_every_test_file_has_a_name_of_its_own():
    names = Counter(path.name for path in FILES if path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_the_files_of_tests_benchmarks_and_scripts_stay_readable():
    assert too_long(own_code()) == []


def test_the_check_of_long_files_notices(tmp_path):
    for lines in (MAX_LINES, MAX_LINES + 1):
        (tmp_path / f"{lines}.py").write_text("\n" * lines)
    assert too_long(sorted(tmp_path.iterdir())) == [f"{tmp_path / '401.py'}: 401 lines"]


def test_budgets_are_given_to_files_that_are_there():
    assert [name for name in [*SECONDS, *ALONE] if not (TESTS / name).is_file()] == []
