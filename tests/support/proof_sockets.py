"""The proof of the fence (proof.py) over real sockets and in real time: what passed between is what a client got.

Every schedule is a client of one server, `together` of them at a time. The client does its own STT, as it has no voice:
it sends fragments, ends of turns and `user_speaking`. A stale sample is one of a turn that comes after `interrupted`.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import Any

from leibniz_voice.pipeline import Pipeline, Session
from leibniz_voice.transports import WebSocketServer
from leibniz_voice.transports.access.limits import Limits
from leibniz_voice.transports.client.client import WebSocketClient
from leibniz_voice.transports.client.opening import ConnectionFailed
from leibniz_voice.transports.memory import MemoryWire

from .proof import Parts, Plan, Verdict, builder, judge, plan

END_S = 40.0  # for a conversation to come to rest, on a machine that is busy with the others
ROOM = Limits(connections=256, connections_per_address=256, handshake_s=30.0)


class RecordingClient(WebSocketClient):
    """Keeps all that comes, in its order."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, max_s=0.1, **options)
        self.wire = MemoryWire()

    def _on_message(self, message: str | bytes) -> None:
        (self.wire.send_audio if isinstance(message, bytes) else self.wire.send_text)(message)
        super()._on_message(message)


class Caller:
    """Plays a plan's acts on a connection."""

    def __init__(self, client: RecordingClient) -> None:
        self._client = client
        self.said: list[str] = []

    async def act(self, kind: str) -> None:
        """Do one thing."""
        send = self._client.send
        if kind == "waits":
            await asyncio.sleep(1)
        elif kind == "noise":
            await send("user_speaking", confidence=0.3)
        elif kind in ("word", "early"):  # the words come before the turn is over, a fragment at a time
            self.said.append(f"word{len(self.said)}")
            await send("stt_fragment", text=self.said[-1][:4], is_final=False)
            await asyncio.sleep(0.02)
            await send("stt_fragment", text=self.said[-1], is_final=True)
            await asyncio.sleep(0.05)
            await send("vad_end")
        else:
            for again in range({"asks": 0, "twice": 2}.get(kind, 1)):
                await asyncio.sleep(0.004 * again)
                await send("user_speaking", confidence=0.9)
            self.said.append(f"word{len(self.said)}")
            await send("stt_fragment", text=self.said[-1], is_final=True)
            await send("vad_end")


async def _connected(stack: AsyncExitStack, url: str, session_id: str) -> RecordingClient:
    """Open a connection; a machine that is busy with the others may need a second try."""
    for _ in range(4):
        with suppress(ConnectionFailed):
            return await stack.enter_async_context(RecordingClient(url, session_id=session_id))
    return await stack.enter_async_context(RecordingClient(url, session_id=session_id))


async def _run(url: str, plan: Plan, gate_log: list[tuple[str, Any]]) -> Verdict:
    verdict = Verdict(plan)
    async with AsyncExitStack() as stack:
        client = await _connected(stack, url, f"seed{plan.seed}")
        caller = Caller(client)
        for kind, wait_s in plan.acts:
            await asyncio.sleep(wait_s)
            await caller.act(kind)
        for _ in range(2):  # whatever would still come, comes in between
            await asyncio.sleep(0.3)
            verdict.wedged |= not await client.until(lambda: client.state == "idle", timeout_s=END_S)
    judge(verdict, gate_log, caller.said, client.wire)
    return verdict


async def prove_over_sockets(seeds: range, parts: Parts | None = None, *, together: int = 20) -> list[Verdict]:
    """Run a schedule for each seed; each verdict."""
    logs: dict[str, list[tuple[str, Any]]] = {f"seed{seed}": [] for seed in seeds}
    plans = {f"seed{seed}": plan(seed) for seed in seeds}
    places = asyncio.Semaphore(together)

    def build(session: Session) -> Pipeline:
        return builder(plans[session.id], parts or Parts(), logs[session.id])(session)

    async with WebSocketServer(build, port=0, limits=ROOM) as server:
        url = f"ws://127.0.0.1:{server.port}"

        async def one(session_id: str) -> Verdict:
            async with places:
                return await _run(url, plans[session_id], logs[session_id])

        return await asyncio.gather(*map(one, plans))
