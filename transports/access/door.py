"""`Door`: how many sockets may be open, whatever they are and do."""

from __future__ import annotations

from collections import Counter

from .limits import REFUSED, Limits


class Door:
    """Counts sockets, of any kind and state, so that handshakes that never end cannot use up the process."""

    def __init__(self, limits: Limits, *, is_behind_proxy: bool = False) -> None:
        self._most = limits.connections + limits.connections // 3 + 32  # the WebSockets, and handshakes and HTTP
        self._most_per_address = self._most if is_behind_proxy else 2 * limits.connections_per_address
        self._by_address: Counter[str] = Counter()  # open sockets; addresses without any are deleted
        self._count = 0  # of all of them

    def enter(self, address: str) -> bool:
        """Whether one more socket of `address` may be open; counts it if so."""
        if self._count >= self._most or self._by_address[address] >= self._most_per_address:
            REFUSED.labels("sockets").inc()
            if not self._by_address[address]:
                del self._by_address[address]
            return False
        self._by_address[address] += 1
        self._count += 1
        return True

    def leave(self, address: str) -> None:
        """One that entered is gone."""
        self._count -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
