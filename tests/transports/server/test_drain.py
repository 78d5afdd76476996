"""SIGTERM in the middle of many conversations: nothing that was asked is lost."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from .test_operations import Process, running, troubles

QUESTIONS = ("what are your opening hours", "where is my order", "do you sell helmets", "how do I return something")


class Caller:
    """One conversation: asks, waits for the answer to the end, asks again; reconnects when told to."""

    def __init__(self, number: int) -> None:
        self.session = f"call{number}"
        self.rng = random.Random(number)
        self.committed: set[int] = set()  # turns that the server took
        self.answered: set[int] = set()  # turns whose answer was played to the end
        self.closes: list[int | None] = []

    async def talk(self, process: Process, until: asyncio.Event) -> None:
        """Until the server ends, or until there is nothing open any more and `until` is set."""
        try:
            async with process.joined(self.session) as socket:
                await self._converse(socket, until)
        except websockets.ConnectionClosed as closed:
            self.closes.append(closed.rcvd.code if closed.rcvd else None)
        except (OSError, websockets.InvalidStatus):
            pass  # the server has ended already

    async def _converse(self, socket: ClientConnection, until: asyncio.Event) -> None:
        is_open = bool(self.committed - self.answered)
        async with asyncio.timeout(60):
            while True:
                if not is_open:
                    if until.is_set():
                        return
                    await asyncio.sleep(self.rng.random() * 0.5)
                    await socket.send(
                        json.dumps({"type": "stt_fragment", "text": self.rng.choice(QUESTIONS), "is_final": True})
                    )
                    await socket.send('{"type":"vad_end"}')
                    is_open = True
                message = await socket.recv()
                if isinstance(message, bytes):
                    continue
                fields = json.loads(message)
                if fields["type"] != "state_update":
                    continue
                if fields["trigger"] == "vad_end":
                    self.committed.add(fields["turn"])
                elif fields["trigger"] == "tts_complete":
                    self.answered.add(fields["turn"])
                    is_open = False

    @property
    def lost(self) -> set[int]:
        return self.committed - self.answered


async def drill(folder: Path, callers: int, seconds: float) -> dict[str, Any]:
    """Talk, end the server, talk on at the next one; all turns that were taken must have been answered."""
    calls = [Caller(number) for number in range(callers)]
    over = asyncio.Event()
    limits = ("--limit", "connections_per_address=200")
    async with running(folder, *limits, bot="assistant.py") as process:
        talks = [asyncio.create_task(call.talk(process, over)) for call in calls]
        await asyncio.sleep(seconds)
        open_turns = sum(len(call.lost) for call in calls)
        began = time.monotonic()
        process.process.terminate()
        assert await process.ended() == 0
        took_s = time.monotonic() - began
        assert took_s < 15
        await asyncio.gather(*talks)
    log = [line for line in troubles(process.log.read_text()) if "loop is blocked" not in line]
    assert log == []
    assert {code for call in calls for code in call.closes} <= {1012}
    over.set()
    cut = sum(len(call.lost) for call in calls)
    if any(call.lost for call in calls):  # cut at the deadline, in the middle of an answer: the next server goes on
        async with running(folder, *limits, bot="assistant.py") as process:
            await asyncio.gather(*(call.talk(process, over) for call in calls if call.lost))
    assert [call.lost for call in calls if call.lost] == []
    answered = sum(len(call.answered) for call in calls)
    assert answered >= callers
    return {"open_at_sigterm": open_turns, "exit_s": round(took_s, 1), "finished_by_next": cut, "answered": answered}


@pytest.mark.slow
def test_sigterm_loses_no_turn(tmp_path: Path) -> None:
    asyncio.run(drill(tmp_path, callers=5, seconds=4.0))


@pytest.mark.full
@pytest.mark.parametrize("run", range(20))
def test_sigterm_under_forty_conversations_loses_no_turn(run: int, tmp_path: Path) -> None:
    seen = asyncio.run(drill(tmp_path, callers=40, seconds=8.0 + run * 0.37))
    print(f"\nrun {run + 1}:", ", ".join(f"{name} {value}" for name, value in seen.items()), "lost 0", end=" ")
