"""The command line: what it says when it is used well, and in one line when it is not."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from leibniz_voice.bots.cli.main import main
from leibniz_voice.bots.cli.scripts import UsageError, load_bot
from tests.support import ROOT

ECHO = str(ROOT / "bots" / "echo.py")
COMMAND = (sys.executable, "-m", "leibniz_voice.bots.cli.main")


def leibniz(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    env = {key: value for key, value in os.environ.items() if key not in ("PORT", "REDIS_URL")} | environment
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, env=env)


def assert_one_line_and_status_2(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 2
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in last


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_version_is_printed():
    done = leibniz("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"leibniz \d+\.\d+\S*\n", done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["serve", "talk", "COMMAND --help"]),
        (["serve", "--help"], ["BOT", "--port", "REDIS_URL", "bots/echo.py"]),
        (["talk", "--help"], ["FILE.wav", "--json", "--interrupt-after", "examples:", "status:"]),
    ],
)
def test_help_tells_what_there_is(arguments, words):
    done = leibniz(*arguments)
    assert done.returncode == 0
    assert [word for word in words if word not in done.stdout] == []
    assert max(map(len, done.stdout.splitlines())) <= 120


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["talk", "--help"], ["serve", "--help"]])
def test_help_does_not_wait_for_heavy_imports(arguments):
    code = (
        "import sys; from leibniz_voice.bots.cli.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        "print('heavy:', sorted({'numpy', 'pipecat', 'websockets', 'redis'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "heavy: []"


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["sing"], ["serve"], ["serve", "x.py", "--port", "high"]])
def test_wrong_use_is_status_2(arguments):
    assert_one_line_and_status_2(leibniz(*arguments), "error:")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "source", "part"),
    [
        ("missing.py", None, "no such file"),
        ("bot.txt", "", "ending in .py"),
        ("bot.py", "x = 1\n", "no build(session)"),
        ("bot.py", "raise RuntimeError('on purpose')\n", "RuntimeError: on purpose"),
        ("bot.py", "x = 1\ndef build(:\n", "bot.py:2: SyntaxError: invalid syntax"),
        ("bot.py", "def build(): ...\n", "build is called with one argument, but is build()"),
        ("bot.py", "import sys\nsys.exit(3)\n", "bot.py:2: SystemExit: 3"),
        ("shop", "", "shop/bot.py"),
    ],
)
def test_serve_says_what_is_wrong_with_a_script(tmp_path, name, source, part):
    if name == "shop":
        (tmp_path / name).mkdir()
        (tmp_path / name / "bot.py").touch()
    elif source is not None:
        (tmp_path / name).write_text(source)
    assert_one_line_and_status_2(leibniz("serve", str(tmp_path / name)), "leibniz serve: ", name, part)


@pytest.mark.slow
def test_serve_says_that_a_port_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = leibniz("serve", ECHO, "--port", port, "--data", str(tmp_path))
    assert_one_line_and_status_2(done, f"cannot listen on 127.0.0.1:{port}: address already in use; ", "another --port")


@pytest.mark.parametrize(
    ("arguments", "variables", "parts"),
    [
        (["--port", "70000"], {}, ["'70000' is no port"]),
        ([], {"PORT": "abc"}, ["'abc' is no port", "PORT"]),
        (["--log-level", "FOO"], {}, ["--log-level is FOO", "DEBUG"]),
        (["--drain", "-1"], {}, ["--drain is -1"]),
        (["--drain", "nan"], {}, ["--drain is nan"]),
        (["--idle", "inf"], {}, ["idle_s is inf"]),
        (["--workers", "0"], {}, ["--workers is 0", "give 1 to"]),
        (["--workers", "100000"], {}, ["--workers is 100000", "give 1 to"]),
        (["--port", "0"], {"REDIS_URL": "foo"}, ["REDIS_URL", "foo", "redis://"]),
    ],
)
def test_serve_names_the_setting_that_is_wrong(arguments, variables, parts, monkeypatch, capsys):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    try:
        status = main(["serve", ECHO, *arguments])
    except SystemExit as end:  # argparse's
        status = end.code
    assert status == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert [part for part in parts if part not in last] == []


@pytest.mark.slow
def test_workers_of_a_bot_that_cannot_be_loaded_end_with_one_line(tmp_path):
    bot = tmp_path / "bot.py"
    bot.write_text("raise RuntimeError('on purpose')\n")
    done = leibniz("serve", str(bot), "--workers", "2", "--port", "0", "--data", str(tmp_path))
    assert_one_line_and_status_2(done, f"leibniz serve: {bot}:1: RuntimeError: on purpose")
    assert done.stderr.count("\n") == 1


def test_an_error_is_blamed_on_the_innermost_line_of_the_users_code(tmp_path):
    bot = tmp_path / "bot.py"
    bot.write_text("import json\n\ndef read():\n    json.loads('{')\n\nread()\n")
    with pytest.raises(UsageError) as raised:
        load_bot(str(bot))
    assert str(raised.value).startswith(f"{bot}:4: JSONDecodeError: ")
    bot.write_text("from leibniz_voice.processors import TurnAggregator\nTurnAggregator(unfinished_s=-1)\n")
    with pytest.raises(UsageError) as raised:
        load_bot(str(bot))
    assert str(raised.value).startswith(f"{bot}:2: ")
    assert "ConfigurationError" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_served_bot_says_that_it_is_ready_and_ends_with_status_0(tmp_path, number):
    command = [*COMMAND, "serve", ECHO, "--port", "0", "--data", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        page = re.fullmatch(r"Ready: ws://127.0.0.1:\d+/orchestrate\?session_id=ID \(console: (http://\S+/)\)\n", line)
        assert page is not None, line
        with urllib.request.urlopen(page[1] + "health", timeout=5) as answer:
            assert json.load(answer)["status"] == "healthy"
        process.send_signal(number)
        rest, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert rest == "Stopping.\n"
    assert "Traceback" not in errors


# ---------------------------------------------------------------------------------------------- talk, used wrongly


@pytest.mark.slow
def test_talk_without_a_bot_says_what_to_do(free_port):
    done = leibniz("talk", "hello", "--json", PORT=str(free_port))
    assert_one_line_and_status_2(done, f"nothing listens at ws://127.0.0.1:{free_port}", "--bot bots/assistant.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["hello", "--bot", "missing.py"], ["missing.py: no such file"]),
        (["hello", "--bot", ECHO, "--url", "ws://h"], ["not both"]),
        ([], ["give TEXT"]),
        (["  "], ["give TEXT"]),
        (["missing.wav"], ["missing.wav: no such file"]),
        ([str(ROOT / "pyproject.toml")], ["pyproject.toml", "no WAV file"]),
        (["...", "--url", "127.0.0.1:9"], ["nothing to say"]),
        (["hello", "--url", "ftp://h"], ["ftp://h"]),
        (["hello", "--session", "a b"], ["a b", "1 to 64"]),
        (["hello", "--timeout", "0"], ["--timeout is 0"]),
        (["hello", "--stereo"], ["--stereo needs --out"]),
        (["hello", "--out", "/nowhere/x.wav"], ["no such folder"]),
        (["hello", "--out", "/proc/x.wav"], ["/proc/x.wav: cannot be written"]),
        (["hello", "--bot", str(ROOT / "bots")], ["is a folder", "such as", "/bots/assistant.py"]),
        (["hello", "--interrupt-after", "soon", "stop"], ["--interrupt-after is 'soon'"]),
        (["hello", "--voice", "klingon9"], ["klingon9"]),
    ],
)
def test_talk_refuses_wrong_use_in_one_line(arguments, parts):
    assert_one_line_and_status_2(leibniz("talk", *arguments), "leibniz talk: ", *parts)


@pytest.mark.slow
def test_talk_says_why_its_bot_does_not_start(tmp_path):
    bot = tmp_path / "bot.py"
    bot.write_text("raise RuntimeError('on purpose')\n")
    started = time.monotonic()
    assert_one_line_and_status_2(leibniz("talk", "hello", "--bot", str(bot)), "RuntimeError: on purpose")
    assert time.monotonic() - started < 25
