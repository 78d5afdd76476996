"""`LoadShaping`: what costs most comes one at a time, at a steady pace: a hundred at once do not stop the others."""

from __future__ import annotations

import asyncio

__all__ = ["LoadShaping", "Pacer"]

HURRIED_S = 1.0  # between two turns of one client; nobody asks and hears so fast


class Pacer:
    """To begin or end a conversation costs milliseconds of the loop; a hundred in one step would be heard by all.

    `pass_through` returns at once when nobody was before, else `gap_s` after the one before. In order of arrival.
    """

    def __init__(self, *, gap_s: float) -> None:
        self._gap_s = gap_s  # between two
        self._free_at = 0.0  # loop time at which the next may pass

    async def pass_through(self) -> None:
        """Wait for the turn."""
        now = asyncio.get_running_loop().time()
        at = max(now, self._free_at)
        self._free_at = at + self._gap_s
        if at > now:
            await asyncio.sleep(at - now)


class LoadShaping:
    """The pacers of one server. What passes costs 3 to 6 ms of the loop, so the others get the larger part of it."""

    def __init__(self) -> None:
        self.begin = Pacer(gap_s=0.02)  # conversations: 50 a second
        self.end = Pacer(gap_s=0.02)  # of conversations
        self._turn = Pacer(gap_s=0.008)  # turns ended by a message; those that are heard come one by one anyway
        self._hurried = Pacer(gap_s=0.032)  # those of whoever had one just now, before they come to the others

    async def pass_turn(self, since_last_s: float) -> None:
        """Wait for the turn to have a turn; `since_last_s` after one's last. People never feel the difference."""
        if since_last_s < HURRIED_S:  # else sixty who do nothing else let everybody wait for half a second
            await self._hurried.pass_through()
        await self._turn.pass_through()
