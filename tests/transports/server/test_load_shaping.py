"""Turns that come all at once are spaced out, and those who hurry do not hold up the others. In virtual time."""

from __future__ import annotations

import asyncio

import pytest

from leibniz_voice.pipeline.testing import run_virtual
from leibniz_voice.transports.server.load_shaping import HURRIED_S, LoadShaping
from tests.support.serving import bot, joined, served


async def took(load_shaping: LoadShaping, since_last_s: float) -> float:
    began = asyncio.get_running_loop().time()
    await load_shaping.pass_turn(since_last_s)
    return asyncio.get_running_loop().time() - began


def test_turns_that_come_at_once_pass_8_ms_apart() -> None:
    async def main() -> list[float]:
        load_shaping = LoadShaping()
        return await asyncio.gather(*(took(load_shaping, HURRIED_S) for _ in range(5)))

    assert run_virtual(main()) == pytest.approx([0, 0.008, 0.016, 0.024, 0.032])


def test_sixty_who_do_nothing_else_hold_up_nobody() -> None:
    async def hurry(load_shaping: LoadShaping) -> None:
        since_s = HURRIED_S
        while True:
            await load_shaping.pass_turn(since_s)
            since_s = 0.0

    async def main() -> list[float]:
        load_shaping = LoadShaping()
        hurried = [asyncio.create_task(hurry(load_shaping)) for _ in range(60)]
        await asyncio.sleep(2)
        waits = []
        for _ in range(20):
            waits.append(await took(load_shaping, since_last_s=2.0))
            await asyncio.sleep(0.113)
        for task in hurried:
            task.cancel()
        return waits

    assert max(run_virtual(main())) <= 0.016


@pytest.mark.slow
def test_the_end_of_a_turn_without_words_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[float] = []

    async def pass_turn(self: LoadShaping, since_last_s: float) -> None:
        passed.append(since_last_s)

    monkeypatch.setattr(LoadShaping, "pass_turn", pass_turn)

    async def main() -> None:
        async with served(bot("echo.py").build) as server, joined(server) as socket:
            for _ in range(2):
                await socket.send('{"type":"vad_end"}')
                await socket.send('{"type":"stt_fragment","text":"where is my order","is_final":false}')
                await socket.send('{"type":"vad_end"}')
                await socket.send('{"type":"vad_end"}')
            await socket.send('{"type":"ping"}')
            async with asyncio.timeout(20):
                while b"pong" not in (await socket.recv(decode=False)):
                    pass

    asyncio.run(main())
    assert len(passed) == 2
    assert passed[0] > HURRIED_S > passed[1]
