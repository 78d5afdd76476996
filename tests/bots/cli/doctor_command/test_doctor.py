"""`leibniz doctor`: every service that works, that refuses, that is not there; and nothing secret in what it prints."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from leibniz_voice.bots.cli.doctor_command import checks
from leibniz_voice.bots.cli.doctor_command.checks import Finding, bounded
from leibniz_voice.bots.cli.doctor_command.cloud_checks import CHECKS
from leibniz_voice.bots.cli.doctor_command.doctor import check_all, secrets_of, show

from ....support.fake_cloud import FakeCartesia, FakeDeepgram, FakeElevenLabs
from ....support.fake_openai import Answer, FakeOpenAI, says

NOBODY = "127.0.0.1:1"


def ask(name: str, environment: Mapping[str, str]) -> Finding:
    return asyncio.run(bounded(name, CHECKS[name], environment))


@pytest.mark.slow
def test_a_bare_machine_is_well_but_for_its_secret_and_the_json_says_so(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LEIBNIZ_TEST_RUN")}
    environment["LEIBNIZ_SECRET"] = "too short"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "leibniz_voice.bots.cli.main", "doctor", "--json", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60)
    found = json.loads(done.stdout)
    by_name = {check["name"]: check for check in found["checks"]}
    assert done.returncode == 1, "a secret that is too short"
    assert found["ok"] is False
    assert by_name["Secret"]["status"] == "bad"
    for name in ("Python", "Packages", "Speech detector", "Embedded voice", "Embedded recogniser"):
        assert by_name[name]["status"] == "ok", by_name[name]
    assert by_name["Embedded voice"]["ms"] > 0
    assert by_name["State store"]["status"] in ("ok", "warn")
    assert by_name["Port"]["status"] == "warn"
    assert {by_name[name]["status"] for name in CHECKS} == {"off"}
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


@pytest.mark.slow
def test_what_does_not_answer_is_named_with_its_repair_and_no_secret_is_printed(tmp_path):
    secrets = ["sk-live-0123456789", "hunter22", "dg-9876543210"]
    environment = {
        "REDIS_URL": f"redis://me:{secrets[1]}@{NOBODY}",
        "LLM_API_KEY": secrets[0],
        "LLM_BASE_URL": f"http://{NOBODY}/v1",
        "LLM_MODEL": "m",
        "DEEPGRAM_API_KEY": secrets[2],
        "DEEPGRAM_URL": f"ws://{NOBODY}",
        "INTENT_URL": f"http://x:{secrets[1]}@{NOBODY}",
        "LEIBNIZ_SECRET": "short",
    }
    findings = asyncio.run(check_all(environment, bot=str(tmp_path / "no_bot.py"), port=0))
    stream = io.StringIO()
    show([finding.without(secrets_of(environment.items())) for finding in findings], stream)
    shown = stream.getvalue()
    for name in ("Bot", "Secret", "State store", "Intent service", "Language model", "Cloud recogniser"):
        assert name in shown.splitlines()[-1]
    assert "correct REDIS_URL" in shown
    assert "Traceback" not in shown
    assert not [secret for secret in secrets if secret in shown]


@pytest.mark.slow
def test_services_that_work_are_told_with_their_times():
    async def main() -> list[Finding]:
        async with FakeDeepgram() as stt, FakeOpenAI(says("Hello.")) as llm, FakeCartesia() as tts:
            environment = {**stt.environment, **tts.environment, "LLM_BASE_URL": llm.url, "LLM_MODEL": "fake"}
            found = [await bounded(name, CHECKS[name], environment) for name in list(CHECKS)[2:]]
            assert len(llm.asked) == 1
            assert [message["type"] for message in stt.messages] == ["CloseStream"]
            assert tts.spoken[0].text == "Hello."
            return found

    found = asyncio.run(main())
    assert [finding.status for finding in found] == ["ok"] * 3, found
    assert all(finding.ms and finding.ms > 0 for finding in found)


@pytest.mark.slow
def test_elevenlabs_is_asked_in_its_own_protocol():
    async def main() -> tuple[Finding, Finding]:
        async with FakeElevenLabs() as tts:
            right = await bounded("Cloud voice", CHECKS["Cloud voice"], tts.environment)
            wrong = {**tts.environment, "ELEVENLABS_API_KEY": "wrong"}
            return right, await bounded("Cloud voice", CHECKS["Cloud voice"], wrong)

    right, wrong = asyncio.run(main())
    assert right.status == "ok", right
    assert (wrong.status, wrong.fix) == ("bad", "check ELEVENLABS_API_KEY")
    assert "refuses the key" in wrong.detail


@pytest.mark.slow
def test_a_refused_key_names_its_variable():
    async def main() -> list[Finding]:
        async with FakeDeepgram() as stt, FakeCartesia() as tts, FakeOpenAI(Answer(status=401)) as llm:
            environment = {**stt.environment, **tts.environment, "LLM_BASE_URL": llm.url, "LLM_MODEL": "fake"}
            wrong = {name: "wrong" for name in environment if name.endswith("_KEY")}
            return [await bounded(name, CHECKS[name], {**environment, **wrong}) for name in list(CHECKS)[2:]]

    found = asyncio.run(main())
    assert [finding.status for finding in found] == ["bad"] * 3
    assert [finding.fix for finding in found] == [
        "check LLM_API_KEY",
        "check DEEPGRAM_API_KEY",
        "check CARTESIA_API_KEY",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "status", "part"),
    [
        ({"intent": "greeting", "confidence": 0.9}, "ok", "answers"),
        ({"label": "greeting"}, "bad", "otherwise than agreed"),
        ("no JSON", "bad", "no JSON"),
        (500, "bad", "HTTP 500"),
    ],
)
def test_the_intent_service_is_held_to_its_contract(answer: Any, status: str, part: str):
    async def classify(request: web.Request) -> web.Response:
        if isinstance(answer, int):
            return web.Response(status=answer)
        return web.Response(text=answer) if isinstance(answer, str) else web.json_response(answer)

    async def main() -> Finding:
        app = web.Application()
        app.router.add_post("/api/v1/classify", classify)
        async with TestServer(app) as server:
            environment = {"INTENT_URL": f"http://127.0.0.1:{server.port}"}
            return await bounded("Intent service", CHECKS["Intent service"], environment)

    found = asyncio.run(main())
    assert found.status == status
    assert part in found.detail


def test_a_service_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(checks, "CHECK_S", 0.05)

    async def hang(_: Mapping[str, str]) -> Finding:
        await asyncio.Event().wait()
        raise AssertionError

    began = time.monotonic()
    found = asyncio.run(bounded("It", hang, {}))
    assert (found.status, time.monotonic() - began < 1.0) == ("bad", True)
    assert "no answer within" in found.detail


def test_a_bug_in_a_check_hides_no_other():
    async def break_down(_: Mapping[str, str]) -> Finding:
        raise ZeroDivisionError("by a bug")

    found = asyncio.run(bounded("It", break_down, {}))
    assert (found.status, found.detail) == ("bad", "ZeroDivisionError: by a bug")


def test_what_is_missing_is_a_finding():
    found = ask("Cloud voice", {"CARTESIA_API_KEY": "k"})
    assert (found.status, "CARTESIA_VOICE_ID is not set" in found.detail) == ("bad", True)


def test_secrets_are_blotted_out_wherever_they_are_quoted():
    secrets = secrets_of(
        [("A_API_KEY", "key-12345"), ("LEIBNIZ_SECRET", "longer key-12345"), ("URL", "redis://u:pass@h"), ("X_KEY", "")]
    )
    assert secrets == ["longer key-12345", "key-12345", "pass"]
    finding = Finding("It", "bad", "longer key-12345 and key-12345", fix="not pass").without(secrets)
    assert (finding.detail, finding.fix) == ("*** and ***", "not ***")


def test_the_lines_are_aligned_and_plain_where_they_must_be():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    show([Finding("One", "ok", "fine", ms=12.4), Finding("Another", "bad", "broken", fix="mend it")], stream)
    stream.seek(0)
    assert stream.read().splitlines() == [
        "  ok  One      fine  12 ms",
        "  XX  Another  broken",
        "               -> mend it",
        "",
        "Another: see above.",
    ]
