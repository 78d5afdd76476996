"""What an operator and a client may rely on at the endpoint: health, metrics, cross-origin headers, the idle clock."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from typing import Any

import pytest
from pipecat.processors.frame_processor import FrameDirection
from websockets.asyncio.client import ClientConnection

from leibniz_voice.bots.cli.main import parser
from leibniz_voice.bots.cli.serve import settings_of
from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, Processor, RetrievalResult, Session, consumes
from leibniz_voice.pipeline.frames import ReplyAudioFrame, ReplySpeechFrame, UserTurnFrame
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator
from leibniz_voice.transports import WebSocketServer
from leibniz_voice.transports.access.limits import Limits
from tests.support.serving import joined, served, types, until

pytestmark = pytest.mark.slow


class LateVoice(Processor):
    """Speaks for a second and a half, and goes on although it was cut; its second reply fails."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: list[asyncio.Task[None]] = []  # kept from being collected

    @consumes(ReplySpeechFrame)
    async def _on_speech(self, frame: ReplySpeechFrame, direction: FrameDirection) -> None:
        if self._tasks:
            raise RuntimeError("the voice is gone")
        await self.push_frame(ReplyAudioFrame(bytes(75 * 640), 16_000, 1, turn_id=frame.turn_id))
        self._tasks.append(asyncio.create_task(self._go_on(frame.turn_id)))

    async def _go_on(self, turn_id: int) -> None:
        for _ in range(30):
            await asyncio.sleep(0.02)
            await self.push_frame(ReplyAudioFrame(bytes(640), 16_000, 1, turn_id=turn_id))


async def intent(turn: UserTurnFrame) -> IntentResult:
    return IntentResult("order_status", 1.0)


async def retrieval(turn: UserTurnFrame) -> RetrievalResult:
    return RetrievalResult(context="It is on its way.")


def build(session: Session) -> Pipeline:
    branches = {"intent": intent, "retrieval": retrieval}
    fallback = {"intent": IntentResult(), "retrieval": RetrievalResult()}
    middle = [TurnAggregator(), Parallel(branches, fallback=fallback), Responder(), LateVoice(), InterruptionGate()]
    return Pipeline([session.input, *middle, StateTracker(record=session.record), session.output])


async def page(server: WebSocketServer, path: str, **headers: str) -> tuple[Any, str]:
    url = server.address.replace("ws://", "http://").replace("/orchestrate", path)

    def get() -> tuple[Any, str]:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
            return answer.headers, answer.read().decode()

    return await asyncio.to_thread(get)


def value(metrics: str, sample: str) -> float:
    """A sample of a text in Prometheus' format; 0 where it is missing."""
    found = re.search(rf"^{re.escape(sample)} (\S+)$", metrics, re.M)
    return float(found[1]) if found else 0.0


def test_metrics_tell_of_sessions_moves_latencies_cuts_stale_frames_lag_and_errors() -> None:
    moved = 'leibniz_transitions_total{from="speaking",to="interrupt",trigger="barge_in"}'
    grown = (
        moved,
        "leibniz_barge_ins_total",
        'leibniz_stale_frames_total{kind="cut"}',
        'leibniz_errors_total{processor="LateVoice"}',
        "leibniz_mirror_lag_seconds_count",
        'leibniz_turn_latency_seconds_count{label="End-of-Turn"}',
        'leibniz_turn_latency_seconds_bucket{label="End-of-Turn",le="+Inf"}',
    )

    async def main() -> None:
        async with served(build) as server, joined(server) as socket:
            before = (await page(server, "/metrics"))[1]
            await types(socket, "where is my order")
            await until(socket, type="response_ready")
            await socket.send('{"type":"user_speaking"}')
            await until(socket, type="interrupted")
            await asyncio.sleep(0.2)  # the voice speaks on
            await types(socket, "where is my order")
            await until(socket, state="idle")
            await asyncio.sleep(0.1)
            after = (await page(server, "/metrics"))[1]
            assert value(after, "leibniz_sessions") == 1
            assert value(after, "leibniz_uptime_seconds") > 0
            assert [name for name in grown if value(after, name) <= value(before, name)] == []

    asyncio.run(main())


def test_health_has_the_contracts_fields() -> None:
    async def main() -> None:
        async with served(build) as server, joined(server) as socket:
            await socket.recv()
            health = json.loads((await page(server, "/health"))[1])
            assert (health["status"], health["service"]) == ("healthy", "orchestrator")
            assert (health["active_sessions"], health["redis_connected"]) == (1, False)

    asyncio.run(main())


def test_plain_pages_tell_a_listed_origin_that_it_may_read_them() -> None:
    async def main() -> None:
        async with served(build, origins=["https://shop.example"]) as server:
            for path in ("/health", "/metrics", "/ready", "/"):
                headers, _ = await page(server, path, Origin="https://shop.example")
                assert headers["Access-Control-Allow-Origin"] == "https://shop.example"
                assert headers["Vary"] == "Origin"
                headers, _ = await page(server, path)
                assert headers["Access-Control-Allow-Origin"] is None
                with pytest.raises(urllib.error.HTTPError, match="403"):
                    await page(server, path, Origin="https://other.example")

    asyncio.run(main())


def test_the_command_takes_secret_and_origins_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEIBNIZ_ORIGINS", "https://shop.example https://www.shop.example")
    monkeypatch.setenv("LEIBNIZ_SECRET", "s" * 32)
    settings = settings_of(parser().parse_args(["serve", "bots/echo.py", "--limit", "idle_s=60", "--trust-proxy"]))
    assert settings["origins"] == ["https://shop.example", "https://www.shop.example"]
    assert (settings["secret"], settings["trust_proxy"], settings["insecure"]) == ("s" * 32, True, False)
    assert settings["limits"] == Limits(idle_s=60)
    monkeypatch.delenv("LEIBNIZ_ORIGINS")
    monkeypatch.delenv("LEIBNIZ_SECRET")
    settings = settings_of(parser().parse_args(["serve", "bots/echo.py"]))
    assert (settings["origins"], settings["secret"], settings["host"]) == ([], None, "127.0.0.1")


def test_the_idle_clock_stands_still_while_the_bot_speaks_and_starts_anew_with_any_message() -> None:
    async def talk(socket: ClientConnection) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for message in ('{"type":"ping"}', bytes(640), "{", '{"type":"ping"}'):
            await asyncio.sleep(0.4)
            await socket.send(message)
        await types(socket, "where is my order")  # and for the 1.5 s that the bot speaks now the client is silent
        await until(socket, trigger="tts_complete")
        spoken = loop.time()
        assert spoken - began > 2.9
        await asyncio.wait_for(socket.wait_closed(), 5)
        assert loop.time() - spoken > 0.6
        assert (socket.close_code, socket.close_reason) == (1000, "idle")

    async def main() -> None:
        limits = Limits(idle_s=0.9)
        async with (
            served(build, limits=limits) as server,
            joined(server) as s,
        ):
            await talk(s)

    asyncio.run(main())
