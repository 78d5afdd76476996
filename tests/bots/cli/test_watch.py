"""`leibniz watch`: what an operator sees of a store's conversations."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from leibniz_voice.bots.cli.main import main
from leibniz_voice.bots.cli.watch import fit, table
from leibniz_voice.pipeline.conversation.snapshot import ConversationFields
from leibniz_voice.pipeline.conversation.store import LogLine, Write
from leibniz_voice.transports.state.embedded_redis import EmbeddedRedis
from leibniz_voice.transports.state.redis_store import RedisStore
from tests.support.tools import needs

LOG = [LogLine("idle", "listening", "stt_start", 4, 1000.0), LogLine("listening", "thinking", "vad_end", 5, 1001.25)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in which a bot runs, with three conversations."""

    async def fill() -> EmbeddedRedis:
        server = EmbeddedRedis(directory=tmp_path)
        store = RedisStore(server.url)
        await server.start()
        await store.start()
        for number, state in enumerate(["thinking", "speaking", "idle"]):
            fields = ConversationFields(
                state=state, turn_id=5 + number, turn_number=number, last_update=time.time() - number,
                latency_ms={"LLM Wait": 81.4, "Response": 612.0}, text_buffer=["a secret"],
            )  # fmt: skip
            claim = await store.claim(f"caller-{number}", "owner-of-it")
            await store.write([Write(claim.session_id, claim.owner, claim.epoch, 1, fields.to_fields(), LOG)])
        await store.close()
        return server

    server = asyncio.run(fill())
    yield tmp_path
    asyncio.run(server.stop())


@needs("redis")
def test_the_table_shows_every_conversation_the_newest_first(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert main(["watch", "--data", str(folder), "--once"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith("caller-")]
    assert [row[:4] for row in rows] == [
        ["caller-0", "thinking", "5", "0"],
        ["caller-1", "speaking", "6", "1"],
        ["caller-2", "idle", "7", "2"],
    ]
    assert rows[0][6:8] == ["81", "612"]
    assert lines[-1] == "3 sessions: 1 idle, 1 speaking, 1 thinking"
    assert "secret" not in "".join(lines)


@needs("redis")
def test_one_session_shows_its_last_moves(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = EmbeddedRedis(directory=folder).url
    assert main(["watch", "caller-1", "--url", url, "--once"]) == 0
    out = capsys.readouterr().out
    assert "caller-0" not in out
    first, second = out.splitlines()[-2:]
    assert first.split()[1:] == ["turn", "4", "idle", "->", "listening", "stt_start"]
    assert second.split()[1:] == ["+1.250", "s", "turn", "5", "listening", "->", "thinking", "vad_end"]


@needs("redis")
def test_a_hash_of_somebody_else_shows_what_it_can(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = EmbeddedRedis(directory=folder).url
    with Redis.from_url(url) as redis:
        redis.hset("session:odd", mapping={"state": b"\x1b[31m\xff", "latency_ms": "[1]", "timestamps": "{", "x": "y"})
        redis.set("session:text", "not a hash")
    assert main(["watch", "--url", url, "--once"]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert main(["watch", "nobody", "--url", url, "--once"]) == 1


def test_mistakes_are_said_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["watch", "--data", str(tmp_path), "--once"]) == 2
    assert "no bot has a store" in capsys.readouterr().err
    assert main(["watch", "a b", "--once"]) == 2
    assert main(["watch", "--url", "http://user:secret@h", "--once"]) == 2
    assert main(["watch", "--url", f"unix://{tmp_path}/x", "--interval", "0"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 3
    assert "secret" not in err
    assert main(["watch", "--url", f"unix://{tmp_path}/none.sock", "--once"]) == 1
    assert "does not answer" in capsys.readouterr().out


def test_a_terminal_is_not_overrun() -> None:
    fields = {f"s{number}": {"state": "idle"} for number in range(500)}
    lines = fit(table(fields, 0.0), is_live=True)
    assert len(lines) < 60
    assert lines[-1].startswith("500 sessions")


@needs("redis")
@pytest.mark.slow
def test_it_follows_live_and_ends_on_ctrl_c(folder: Path) -> None:
    url = EmbeddedRedis(directory=folder).url
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "leibniz_voice.bots.cli.main", "watch", "--url", url, "--interval", "0.1"]
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    shown, deadline = b"", time.monotonic() + 20
    with Redis.from_url(url) as redis:
        while b"LIVE" not in shown.upper().split(b"\x1b[H")[-1] and time.monotonic() < deadline:
            redis.hset("session:live-one", "state", "speaking")
            shown += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    os.close(ours)
    assert (process.returncode, err) == (0, b"")
    assert shown.count(b"\x1b[2J") >= 1
