"""The ticker on an event loop whose clock jumps: no drift, no burst, no victim of another's fault."""

from __future__ import annotations

import asyncio

import pytest

from leibniz_voice.transports.playout.ticker import Ticker, shared_ticker


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 100.0
        self._wait, self._selector.select = self._selector.select, self._jump

    def time(self) -> float:
        return self.now_s

    def _jump(self, timeout: float | None = None):
        self.now_s += timeout or 0.0
        return self._wait(0)


def run(main):
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main)


def test_ticks_come_every_20_ms_without_drift():
    async def main():
        ticker, seen = Ticker(), []
        ticker.add(seen.append)
        await asyncio.sleep(20.001)
        ticker.remove(seen.append)
        return seen

    seen = run(main())
    assert seen == pytest.approx([100 + 0.02 * n for n in range(1, 1001)], abs=1e-6)


def test_a_long_step_can_let_a_due_tick_go_first():
    async def main():
        ticker, seen = Ticker(), []
        loop = asyncio.get_running_loop()
        ticker.catch_up()  # nothing runs: nothing to do
        ticker.add(seen.append)
        loop.now_s += 0.019
        ticker.catch_up()
        early = list(seen)
        loop.now_s += 0.002
        ticker.catch_up()
        ticker.catch_up()
        in_time = list(seen)
        await asyncio.sleep(0.04)
        ticker.remove(seen.append)
        return early, in_time, seen

    early, in_time, seen = run(main())
    assert early == []
    assert in_time == pytest.approx([100.02])
    assert seen == pytest.approx([100.02, 100.04, 100.06])


def test_missed_ticks_are_skipped_and_the_grid_is_kept():
    async def main():
        ticker, seen = Ticker(), []
        loop = asyncio.get_running_loop()

        def tick(now_s):
            seen.append(round(now_s - 100, 3))
            if len(seen) == 2:
                loop.now_s += 0.15  # a stall

        ticker.add(tick)
        await asyncio.sleep(0.25)
        ticker.remove(tick)
        return seen

    assert run(main()) == [0.02, 0.04, 0.2, 0.22, 0.24]


def test_a_callback_that_raises_is_removed_and_the_others_go_on():
    async def main():
        ticker, seen, calls = Ticker(), [], []

        def broken(now_s):
            calls.append(now_s)
            raise RuntimeError("no")

        ticker.add(broken)
        ticker.add(seen.append)
        await asyncio.sleep(0.101)
        return len(calls), len(seen), len(ticker)

    assert run(main()) == (1, 5, 1)


def test_the_ticker_runs_from_the_first_registration_to_the_last():
    async def main():
        ticker, first, second = Ticker(), [], []
        running = [ticker.is_running]
        ticker.add(first.append)
        ticker.add(second.append)
        running.append(ticker.is_running)
        ticker.remove(first.append)
        running.append(ticker.is_running)
        ticker.remove(second.append)
        running.append(ticker.is_running)
        await asyncio.sleep(1)
        ticker.add(first.append)
        await asyncio.sleep(0.05)
        return running, len(first), len(second), len(asyncio.all_tasks())

    assert run(main()) == ([False, True, True, False], 2, 0, 1)


def test_a_callback_may_remove_itself_and_others_within_a_tick():
    async def main():
        ticker, seen = Ticker(), []

        def first(now_s):
            ticker.remove(first)
            ticker.remove(second)

        def second(now_s):
            seen.append(now_s)

        ticker.add(first)
        ticker.add(second)
        await asyncio.sleep(0.1)
        return seen, ticker.is_running

    assert run(main()) == ([], False)


def test_a_callback_that_comes_back_within_its_tick_is_called_in_the_next():
    async def main():
        ticker, seen = Ticker(), []

        def tick(now_s):
            seen.append(round(now_s - 100, 3))
            ticker.remove(tick)
            ticker.add(tick)

        ticker.add(tick)
        await asyncio.sleep(0.07)
        return seen

    assert run(main()) == [0.02, 0.04, 0.06]


def test_everyone_on_a_loop_shares_one_ticker():
    async def main():
        return shared_ticker() is shared_ticker(), shared_ticker()

    same, one = run(main())
    assert same
    assert run(main())[1] is not one
