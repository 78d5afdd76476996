"""`leibniz new`: from an empty folder to a test that passes and a spoken answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from leibniz_voice.bots.cli.main import main as leibniz
from leibniz_voice.bots.content import BotContent

COMMAND = (sys.executable, "-m", "leibniz_voice.bots.cli.main")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UV", raising=False)


def test_it_makes_a_bot_that_is_called_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert leibniz(["new", "corner_shop"]) == 0
    said = capsys.readouterr().out
    for line in ("pytest corner_shop", "leibniz serve corner_shop/bot.py", "leibniz talk"):
        assert line in said
    made = sorted(str(path.relative_to("corner_shop")) for path in Path("corner_shop").rglob("*") if path.is_file())
    assert made == [
        "README.md",
        "bot.py",
        "content/intents.toml",
        "content/passages/delivery.md",
        "content/passages/location.md",
        "content/passages/opening-hours.md",
        "content/synonyms.txt",
        "test_bot.py",
    ]
    assert "this is Corner Shop." in BotContent.load("corner_shop/content").templates["greeting"]
    assert "{{" not in "".join(Path("corner_shop", name).read_text() for name in made)


@pytest.mark.parametrize(("uv", "said"), [(".uv/bin/uv", "  .uv/bin/uv run pytest shop"), ("", "  pytest shop")])
def test_the_next_commands_are_spelled_as_it_was_called(
    uv: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if uv:
        monkeypatch.setenv("UV", str(Path.cwd() / uv))
    leibniz(["new", "shop"])
    assert said in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a b", "no name for a bot"),
        ("..", "no name for a bot"),
        (".", "'.' is no name for a bot"),
        ("full", "exists already"),
        ("full/file/x", "cannot make"),
    ],
)
def test_nothing_is_overwritten_and_errors_say_why(name: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("full").mkdir()
    Path("full/file").write_text("precious")
    assert leibniz(["new", name]) == 2
    error = capsys.readouterr().err
    assert what in error
    assert error.count("\n") == 1
    assert Path("full/file").read_text() == "precious"


@pytest.mark.slow
def test_a_disk_that_takes_no_more_is_told_and_nothing_is_left_behind() -> None:
    command = ["bash", "-c", 'ulimit -f 1; exec "$@"', "new", *COMMAND, "new", "shop"]  # files of 1 KiB at most
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "leibniz new: cannot make shop: File too large\n")
    assert not Path("shop").exists()


@pytest.mark.slow
def test_its_test_passes_and_it_answers_aloud() -> None:
    assert leibniz(["new", "shop"]) == 0
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "shop"], capture_output=True, text=True, timeout=120, env=environment
    )
    assert tested.returncode == 0, tested.stdout
    assert "1 passed" in tested.stdout
    served = [*COMMAND, "serve", "shop/bot.py", "--port", "0"]
    with subprocess.Popen(served, stdout=subprocess.PIPE, text=True, env=environment) as serving:
        try:
            assert serving.stdout is not None
            address = serving.stdout.readline().split()[1].partition("?")[0]
            asked = [*COMMAND, "talk", "--json", "--url", address, "what are your opening hours"]
            talked = subprocess.run(asked, capture_output=True, text=True, timeout=60, env=environment)
        finally:
            serving.terminate()
    assert talked.returncode == 0, talked.stderr
    assert "Monday to Friday" in json.dumps([json.loads(line) for line in talked.stdout.splitlines()])
