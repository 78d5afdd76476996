"""`leibniz talk --microphone`: a sound card, whose programs are scripts here, as a test machine has none."""

import subprocess
import sys
from pathlib import Path

import pytest

from leibniz_voice.bots.cli.main import main
from tests.support import ROOT

RECORDER = """#!{python}
import sys, time
pcm = open({file!r}, "rb").read()
began = time.monotonic()
for at in range(2000):
    chunk = pcm[at * 640 : at * 640 + 640]
    sys.stdout.buffer.write(chunk.ljust(640, b"\\0"))
    sys.stdout.buffer.flush()
    time.sleep(max(0.0, began + at * 0.02 - time.monotonic()))
"""


def put(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def test_without_a_program_for_the_sound_card_it_says_which_there_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["talk", "--microphone"]) == 2
    assert "none of parec, arecord, rec is on the PATH" in capsys.readouterr().err


def test_the_microphone_and_a_text_exclude_each_other(capsys):
    assert main(["talk", "hello", "--microphone"]) == 2
    assert "leave out TEXT" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_said_into_the_microphone_is_answered_through_the_speaker(tmp_path):
    """The words come from the embedded voice, by the recorder's pipe; the answer goes into the player's."""
    import asyncio

    from leibniz_voice.bots.cli.talk_command.sound import synthesise

    (said,) = asyncio.run(synthesise(["what are your opening hours"], voice="en"))
    (tmp_path / "said.raw").write_bytes(bytes(32_000) + said)
    put(tmp_path, "parec", RECORDER.format(python=sys.executable, file=str(tmp_path / "said.raw")))
    put(tmp_path, "pacat", f"#!/bin/sh\nexec /bin/cat > {tmp_path}/heard.raw\n")
    plot = tmp_path / "call.svg"
    command = (sys.executable, "-m", "leibniz_voice.bots.cli.main", "talk", "--microphone", "--timeout", "12")
    bot = str(ROOT / "bots" / "assistant.py")
    done = subprocess.run(
        [*command, "--bot", bot, "--plot", str(plot)],
        capture_output=True, text=True, timeout=90, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "bot    We are open from Monday to Friday" in done.stdout
    heard = (tmp_path / "heard.raw").read_bytes()
    assert any(heard)
    assert "what are your opening hours" in plot.read_text()
