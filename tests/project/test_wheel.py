"""The wheel holds what the checkout holds: explicit packages leave new folders and data files out without a word."""

import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.support import ROOT

FOLDERS = ("pipeline", "lab", "processors", "transports", "bots")
BUILD = "from setuptools import build_meta; import sys; build_meta.build_wheel(sys.argv[1])"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The names of the files that git tracks."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tracked, tmp_path_factory) -> zipfile.ZipFile:
    """A wheel of what git tracks, by the installed setuptools: no network, no other tool."""
    pytest.importorskip("setuptools", minversion="77", reason="needs setuptools, which pocketsphinx's friends bring")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)], cwd=source, capture_output=True, text=True, timeout=120
    )
    assert built.returncode == 0, built.stderr[-2000:]
    with zipfile.ZipFile(next(out.glob("*.whl"))) as opened:
        yield opened


def test_the_wheel_holds_every_library_and_data_file(wheel, tracked):
    wanted = {f"leibniz_voice/{name}" for name in tracked if name.split("/")[0] in FOLDERS}
    assert len(wanted) > 100
    assert sorted(wanted - set(wheel.namelist())) == []


def test_the_wheel_holds_nothing_else(wheel):
    assert sorted(n for n in wheel.namelist() if not n.startswith(("leibniz_voice/", "leibniz_voice-"))) == []
    assert "leibniz_voice/__init__.py" not in wheel.namelist()  # a namespace: others may add to it


def read(wheel: zipfile.ZipFile, ending: str) -> str:
    return wheel.read(next(name for name in wheel.namelist() if name.endswith(ending))).decode()


def test_the_wheel_brings_the_command_and_its_licence(wheel):
    assert "leibniz = leibniz_voice.bots.cli.main:main" in read(wheel, ".dist-info/entry_points.txt")
    assert "BSD 2-Clause" in read(wheel, "licenses/LICENSE")
    assert "espeak-ng" in read(wheel, "licenses/THIRD_PARTY.md")


def test_torch_is_no_dependency(wheel):
    needed = [line for line in read(wheel, ".dist-info/METADATA").splitlines() if line.startswith("Requires-Dist:")]
    assert not [line for line in needed if "torch" in line or ("silero" in line and "extra ==" not in line)]
