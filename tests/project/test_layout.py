"""How the project is laid out: who imports whom, how long files are, what may not be in the repository."""

import ast
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from leibniz_voice.pipeline import Processor
from tests.support import ROOT
from tests.support.imports import FOLDERS, LIBRARY, PACKAGE, imports_of, name_of

OWN_CODE = [*LIBRARY, *sorted((ROOT / "benchmarks").rglob("*.py")), *sorted((ROOT / "tests").rglob("*.py"))]
MAX_LINES = 400


def may_import(module: str, target: str) -> bool:
    """Say whether the file `module` may import `target`, both below `leibniz_voice`."""
    room, other = module.split(".")[0], target.split(".")[0]
    if module.startswith(("pipeline.testing", "lab")):
        return other != "bots"
    if target.startswith(("pipeline.testing", "lab")):
        return module.startswith("bots.cli")
    if room == "bots":
        return True
    if room == "processors":
        is_index = module == "processors"  # __init__ names them all
        is_kit = target.startswith("processors.embedded")
        return other == "pipeline" or is_kit or (other == room and is_index)
    if room == "transports":
        return other in ("pipeline", "transports")
    return other == room


def forbidden(path: Path, module: str | None = None) -> list[str]:
    """Return the imports of a library file that the rules forbid."""
    module = module or name_of(path)
    ours = [name.removeprefix(PACKAGE + ".") for name in imports_of(path, module) if name.startswith(PACKAGE + ".")]
    return [target for target in ours if not may_import(module, target)]


def test_imports_go_downhill_only():
    assert {name_of(path): forbidden(path) for path in LIBRARY if forbidden(path)} == {}


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("pipeline.x", "from ..processors.gate import InterruptionGate"),
        ("pipeline.x", "from ..transports import wire"),
        ("pipeline.x", "from .testing import Call"),
        ("processors.x", "from .gate import InterruptionGate"),
        ("processors.x", "from leibniz_voice.transports import Wire"),
        ("processors.embedded.x", "from ..gate import InterruptionGate"),
        ("transports.x", "from ..processors.embedded.words import words_of"),
        ("transports.x", "import leibniz_voice.bots.content"),
        ("bots.x", "from ..pipeline.testing import Call"),
        ("pipeline.x", "from ..lab import Recording"),
        ("bots.x", "from ..lab.recording.recorder import recorded"),
        ("pipeline.testing.x", "from leibniz_voice import bots"),
    ],
)
def test_the_check_of_imports_notices(tmp_path, module, line):
    file = tmp_path / "x.py"
    file.write_text(line)
    assert forbidden(file, module)


def test_nobody_imports_torch_or_a_second_copy():
    tops = {path: {name.split(".")[0] for name in imports_of(path, name_of(path))} for path in OWN_CODE}
    assert [path for path, names in tops.items() if names & {"torch", *FOLDERS}] == []


def test_a_second_copy_of_the_library_cannot_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    with pytest.raises(ImportError, match=r"import leibniz_voice\.pipeline, not pipeline"):
        importlib.import_module("pipeline")


def test_every_package_that_the_library_imports_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    declared = {re.split(r"[\[<>=;~! ]", each, maxsplit=1)[0].lower() for each in listed}
    homes = packages_distributions()
    tops = {name.split(".")[0] for path in LIBRARY for name in imports_of(path, name_of(path))}
    foreign = {top for top in tops if top and top not in sys.stdlib_module_names and top != PACKAGE} & homes.keys()
    undeclared = {top for top in foreign if not {home.lower().replace("_", "-") for home in homes[top]} & declared}
    assert undeclared == set()


def reads_environment(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    if "environ" not in text and "getenv" not in text:
        return False
    nodes = list(ast.walk(ast.parse(text)))
    named = any(isinstance(n, ast.Attribute) and n.attr in ("environ", "getenv") for n in nodes)
    imported = any(
        isinstance(n, ast.ImportFrom) and n.module == "os" and {a.name for a in n.names} & {"environ", "getenv"}
        for n in nodes
    )
    return named or imported


def test_bots_alone_read_the_environment():
    others = [path for path in LIBRARY if path.relative_to(ROOT).parts[0] != "bots"]
    assert [path for path in others if reads_environment(path)] == []


def test_library_files_stay_readable():
    assert [path for path in LIBRARY if len(path.read_text(encoding="utf-8").splitlines()) > MAX_LINES] == []


@pytest.mark.parametrize("folder", sorted({p.parent for p in LIBRARY}), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_library_folder_is_a_typed_package(folder):
    assert (folder / "__init__.py").is_file()
    assert (folder / "py.typed").is_file()


def processors() -> list[type]:
    """Return every public processor that the library defines."""
    skip = ("__init__", "__main__")
    modules = [importlib.import_module(f"{PACKAGE}.{name_of(p)}") for p in LIBRARY if p.stem not in skip]
    return sorted(
        {
            member
            for module in modules
            for name, member in inspect.getmembers(module, inspect.isclass)
            if issubclass(member, Processor) and member is not Processor and not name.startswith("_")
            if member.__module__.startswith(PACKAGE)
        },
        key=lambda member: member.__qualname__,
    )


@pytest.mark.parametrize("processor", processors(), ids=lambda member: member.__qualname__)
def test_every_processor_says_what_it_consumes_emits_and_does_on_barge_in(processor):
    lines = [line.strip() for line in (processor.__doc__ or "").splitlines()]
    for start in ("Consumes:", "Emits:", "On barge-in:"):
        assert any(line.startswith(start) for line in lines), f"{processor.__qualname__} says nothing of {start}"


def tracked() -> list[Path]:
    """Return the files that git tracks, and skip where there is no git."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_lock_file_is_tracked():
    assert not [path for path in tracked() if path.name in ("uv.lock", "package-lock.json", "poetry.lock")]


def test_no_package_registry_is_named():
    hosts = r"pypi\.(?:org|python)|pythonhosted|npmjs\.(?:org|com)|deb\.debian|index-url|find-links|crates\.io"
    pattern = re.compile(f"(?:{hosts})", re.IGNORECASE)
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if path != Path(__file__).resolve():
            found += [f"{path.relative_to(ROOT)}: {hit}" for hit in pattern.findall(text)]
    assert found == []


@pytest.mark.slow
def test_the_library_imports_no_test_tool():
    """A bot that is served must not need pytest, hypothesis or the browser's driver."""
    code = (
        f"import {PACKAGE}.bots.cli.main, {PACKAGE}.processors, {PACKAGE}.transports, sys;"
        "print(sorted({'pytest', 'hypothesis', 'playwright', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
