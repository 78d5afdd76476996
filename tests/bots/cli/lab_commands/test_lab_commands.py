"""`leibniz show`, `replay` and `compare`: recordings looked at, replayed and compared by command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leibniz_voice.bots.cli.main import main
from leibniz_voice.bots.cli.scripts import load_bot
from leibniz_voice.lab.recording.recording_folder import RecordingFolder
from leibniz_voice.pipeline.testing import AsyncCall, run_offline
from tests.support import ROOT

COMMAND = (sys.executable, "-m", "leibniz_voice.bots.cli.main")


def write_bot(folder: Path) -> str:
    """A bot whose answers are scripted; its decisions are real."""
    bot = folder / "bot.py"
    bot.write_text(
        "from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult\n"
        "from leibniz_voice.pipeline.testing import ScriptedIntent, ScriptedRetriever, ScriptedVoice\n"
        "from leibniz_voice.processors import *\n"
        "NONE = {'intent': IntentResult(), 'retrieval': RetrievalResult()}\n"
        "def build(session):\n"
        "    asked = Parallel({'intent': ScriptedIntent(), 'retrieval': ScriptedRetriever()}, fallback=NONE)\n"
        "    return Pipeline([session.input, SileroVAD(), TurnAggregator(), asked, Responder(),\n"
        "        ScriptedVoice(chunks_per_sentence=50), InterruptionGate(), StateTracker(record=session.record),\n"
        "        session.output])\n"
    )
    return str(bot)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[str, Path]:
    """A bot, and a folder with three recordings of it."""
    folder = tmp_path_factory.mktemp("recorded")
    bot = write_bot(folder)

    async def script(call: AsyncCall) -> None:
        await call.types("where is my order")
        await call.until_state("idle")

    recordings = RecordingFolder(folder / "calls")
    for number in range(3):
        run_offline(recordings.records(load_bot(bot).build, bot=bot), script, session_id=f"call{number}")
    recordings.close()
    return bot, folder / "calls"


@pytest.mark.slow
def test_recordings_are_shown_replayed_and_compared_by_command(recorded, tmp_path, capsys):
    bot, calls = recorded
    file, page = str(next(calls.iterdir())), tmp_path / "page.html"
    assert main(["show", file]) == 0
    assert "where is my order" in capsys.readouterr().out
    assert main(["show", file, "--html", str(page), "--svg", str(tmp_path / "picture.svg")]) == 0
    assert "<audio" in page.read_text()
    assert main(["replay", str(calls), "--bot", bot]) == 0
    assert "3 of 3 decide the same" in capsys.readouterr().out
    options = ("--bot", bot, "--set", "gate.onset_ms=64", "--set", "vad.hangover_ms=150", "--jobs", "1")
    assert main(["compare", str(calls), *options, "--json", "--fail-if", "turns > 2"]) == 1
    told = capsys.readouterr()
    result = json.loads(told.out)
    assert (result["files"], result["after"]["turns"], result["failed"]) == (3, 3, ["turns > 2"])
    assert "failed: turns > 2 (3)" in told.err


@pytest.mark.slow
def test_a_bot_that_decides_otherwise_is_told_by_status_and_line(recorded, tmp_path, capsys):
    bot, calls = recorded
    other = tmp_path / "other.py"
    other.write_text(Path(bot).read_text().replace("Responder()", "Responder(greeting='Good day.')"))
    assert main(["replay", str(next(calls.iterdir())), "--bot", str(other)]) == 1
    assert "not the same; at 0.00 s, " in capsys.readouterr().out


@pytest.mark.slow
def test_a_recording_of_another_bot_is_warned_of(recorded, tmp_path, capsys):
    _, calls = recorded
    echo = str(ROOT / "bots" / "echo.py")
    assert main(["compare", str(next(calls.iterdir())), "--bot", echo]) == 0
    assert "warning: the bot has none of its processors" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_ends_a_comparison_and_its_processes(recorded):
    bot, calls = recorded
    files = [str(next(calls.iterdir()))] * 1000
    command = [*COMMAND, "compare", *files, "--bot", bot, "--jobs", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(4)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)  # a comparison that ends by itself has status 0
    assert process.returncode == 130, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("show", "none.gz"), "leibniz show: none.gz: no such file"),
        (("show", "FOLDER"), ": is a folder; give one recording, such as "),
        (("replay", "CALL"), "give --bot BOT"),
        (("replay", "CALL", "--bot", "none.py"), "none.py: no such file"),
        (("compare", "CALL", "--set", "hangover"), "'hangover' is no setting; write NAME=VALUE"),
        (("compare", "CALL", "--bot", "BOT", "--set", "vad.hangover=1"), "there is no setting vad.hangover; there are"),
        (("compare", "CALL", "--fail-if", "x > 1"), "there is no measure x"),
        (("compare", "CALL", "--fail-if", "cuts > nan"), "'nan' is no number"),
        (
            ("compare", "CALL", "--bot", "BOT", "--set", "vad.hangover_ms=nan"),
            "vad.hangover_ms is 'nan'; give a number",
        ),
        (("compare", "CALL", "--again", "stt", "--again", "nothing"), "--again nothing stands alone"),
        (("compare", "CALL", "--bot", "BROKEN"), "broken.py:2: KeyError: 'on purpose'"),
        (("replay", "CALL", "--bot", "BROKEN"), "broken.py:2: KeyError: 'on purpose'"),
        (("replay", "CALL", "--bot", "NOTHING"), "must return a Pipeline, but returned NoneType"),
        (("replay", "CALL", "--tolerance", "nan"), "--tolerance is nan"),
        (("replay", "CALL", "--tolerance", "inf"), "--tolerance is inf"),
        (("serve", "BOT", "--no-audio"), "give it too"),
    ],
)
def test_wrong_use_is_answered_in_one_line(recorded, tmp_path, monkeypatch, capsys, arguments, reason):
    bot, calls = recorded
    monkeypatch.chdir(tmp_path)
    names = {"CALL": str(next(calls.iterdir())), "FOLDER": str(calls), "BOT": bot}
    names |= {"BROKEN": "broken.py", "NOTHING": "nothing.py"}
    Path("broken.py").write_text("def build(session):\n    raise KeyError('on purpose')\n")
    Path("nothing.py").write_text("def build(session): ...\n")
    assert main([names.get(each, each) for each in arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert reason in line
