"""How soon a blocked event loop is reported, in ms from its begin: `.venv/bin/python benchmarks/watchdog.py`."""

from __future__ import annotations

import asyncio
import os
import random
import time

from loguru import logger

from leibniz_voice.transports.server.watchdog import Watchdog

BLOCKS, SEED = 40, 7


async def main() -> None:
    """Block, at random phases of the beat, and see when it is told."""
    rng = random.Random(SEED)
    told: list[float] = []
    logger.remove()
    logger.add(lambda message: told.append(time.perf_counter()), level="WARNING")
    watchdog = Watchdog()
    watchdog.start()
    delays = []
    for _ in range(BLOCKS):
        await asyncio.sleep(0.1 + rng.random() * 0.05)
        told.clear()
        began = time.perf_counter()
        while time.perf_counter() < began + 0.4:
            pass
        await asyncio.sleep(0.05)
        delays.append((told[0] - began) * 1000 if told else float("inf"))
    watchdog.stop()
    delays.sort()
    print(f"{BLOCKS} blocks of 400 ms, seed {SEED}, load {os.getloadavg()[0]:.1f}: reported after", end=" ")
    print(f"p50 {delays[BLOCKS // 2]:.0f} ms, max {delays[-1]:.0f} ms, unreported {delays.count(float('inf'))}")


if __name__ == "__main__":
    asyncio.run(main())
