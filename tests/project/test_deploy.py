"""The files in deploy/ say what is true: they are read, and as much of them as can be is run without a container."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from leibniz_voice.bots.cli.main import parser
from leibniz_voice.bots.cli.serve import EPILOG
from tests.support import ROOT
from tests.support.tools import needs

CONTAINERFILE = (ROOT / "deploy" / "Containerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
UNIT = (ROOT / "deploy" / "leibniz.service").read_text()


def instructions(name: str) -> list[str]:
    """The arguments of a Containerfile's instructions of one name, continued lines joined."""
    joined = CONTAINERFILE.replace("\\\n", " ")
    return [line.removeprefix(name).strip() for line in joined.splitlines() if line.startswith(f"{name} ")]


def filled(text: str, **environment: str) -> str:
    """Compose's `${NAME:-default}` and `${NAME:?message}`, replaced."""

    def value(match: re.Match[str]) -> str:
        return environment.get(match[1]) or match[3]

    return re.sub(r"\$\{(\w+)(:-|:\?)([^}]*)\}", value, text)


def of_unit(name: str) -> str:
    return re.findall(rf"^{name}=(.*)$", UNIT, re.M)[0]


# ------------------------------------------------------------------------------------------------ Containerfile


def test_the_container_copies_what_exists_and_starts_what_can_be_started() -> None:
    copied = [line.split() for line in instructions("COPY") if not line.startswith("--from")]
    assert copied
    assert all((ROOT / source).exists() for *sources, _ in copied for source in sources)
    entry, command = (json.loads(instructions(name)[0]) for name in ("ENTRYPOINT", "CMD"))
    assert entry == ["python", "-m", "leibniz_voice.bots.cli.main"]
    options = parser().parse_args(command)
    assert (ROOT / options.bot).is_file()
    assert options.host == "0.0.0.0"
    assert instructions("EXPOSE") == [str(options.port)]
    assert instructions("USER") == ["leibniz"]
    assert "espeak" not in " ".join(instructions("RUN")).replace("test ! -e /opt/leibniz/espeakng_loader", "")


@pytest.mark.full
def test_the_container_s_steps_make_a_server_that_is_healthy(tmp_path: Path) -> None:
    """The build stage by pip, the rest by hand, as the user and in the folder that this test has."""
    installed, app = tmp_path / "leibniz", tmp_path / "app"
    shutil.copytree(ROOT / "bots", app / "bots")
    python = sys._base_executable  # type: ignore[attr-defined] # one with pip, without our packages
    build = instructions("RUN")[0].replace("/opt/leibniz", str(installed))
    subprocess.run(re.sub(r"^pip", f"{python} -m pip", build), shell=True, cwd=ROOT, check=True, timeout=500)
    entry, command = (json.loads(instructions(name)[0]) for name in ("ENTRYPOINT", "CMD"))
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(installed), "LEIBNIZ_SECRET": "x" * 32, "PORT": "8037"}
    with subprocess.Popen([python, *entry[1:], *command], cwd=app, env=environment) as server:
        try:
            check = json.loads(CONTAINERFILE.split("CMD ")[1].splitlines()[0])
            check = [python, *check[1:-1], check[-1].replace("8004", "8037")]
            deadline = time.monotonic() + 60
            while (said := subprocess.run(check, stderr=subprocess.DEVNULL)).returncode and time.monotonic() < deadline:
                time.sleep(0.5)
            assert said.returncode == 0
            with urllib.request.urlopen("http://127.0.0.1:8037/health", timeout=5) as answer:
                assert json.load(answer)["status"] == "healthy"
        finally:
            server.terminate()
            assert server.wait(20) == 0


# ------------------------------------------------------------------------------------------------ compose


def test_the_compose_file_starts_a_bot_that_finds_its_redis() -> None:
    bot, redis = COMPOSE["services"]["bot"], COMPOSE["services"]["redis"]
    options = parser().parse_args([filled(word) for word in bot["command"]])
    assert (ROOT / options.bot).is_file()
    assert options.workers == 2
    assert filled(bot["ports"][0]) == f"8004:{options.port}"
    assert (ROOT / "deploy" / bot["build"]["context"] / bot["build"]["dockerfile"]).is_file()
    assert set(bot["environment"]) <= set(re.findall(r"^  ([A-Z_]+) ", EPILOG, re.M))
    assert bot["environment"]["REDIS_URL"].startswith("redis://redis:")
    assert bot["depends_on"]["redis"]["condition"] == "service_healthy"
    assert redis["healthcheck"]["test"] == ["CMD", "redis-cli", "ping"]
    assert float(bot["stop_grace_period"].removesuffix("s")) >= options.drain + 5
    assert "${LEIBNIZ_SECRET:?" in bot["environment"]["LEIBNIZ_SECRET"]


# ------------------------------------------------------------------------------------------------ systemd


def test_the_unit_starts_what_can_be_started_and_leaves_it_time_to_end() -> None:
    program, *arguments = shlex.split(of_unit("ExecStart"))
    assert Path(program).name == "leibniz"
    options: Any = parser().parse_args(arguments)
    assert options.workers == 2
    assert options.data == f"/var/lib/{of_unit('StateDirectory')}"
    assert float(of_unit("TimeoutStopSec")) >= options.drain + 5
    assert of_unit("KillMode") == "mixed"


@pytest.mark.slow
@needs("systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "leibniz.service"
    unit.write_text(UNIT.replace("/opt/leibniz/bin/leibniz", sys.executable))
    said = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, "")
    unit.write_text(UNIT.replace("NoNewPrivileges", "NoNewPrivilages"))
    said = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert "NoNewPrivilages" in said.stderr
