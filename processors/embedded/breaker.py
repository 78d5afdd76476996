"""A circuit breaker: a service that keeps failing is left alone for a while, and asked carefully again.

    closed --5 failures in a row--> open --5 s--> one probe --answered--> closed
                                      ^                  |
                                      +----- failed -----+

Pure: the caller brings the time and does the work. A request holds a ticket; what it reports counts only while the
breaker is still in the phase the ticket was given in, so a straggler neither opens nor closes it.
"""

from __future__ import annotations

from ...pipeline.errors import ConfigurationError


class CircuitBreaker:
    """Take a ticket by `enter(now)`, make the request, report its end by `succeeded`, `failed` or `cancelled`."""

    def __init__(self, *, max_failures: int = 5, open_s: float = 5.0) -> None:
        if max_failures < 1 or open_s <= 0:
            raise ConfigurationError("a circuit breaker needs max_failures >= 1 and open_s > 0")
        self._max_failures = max_failures
        self._open_s = open_s
        self._phase = 0  # grows when the breaker opens and when a probe starts
        self._failures = 0  # in a row; a success sets it to 0
        self._opened_at: float | None = None  # None while closed
        self._is_probing = False  # one request is out although the breaker is open

    @property
    def is_open(self) -> bool:
        """Requests are being turned away, but for a probe."""
        return self._opened_at is not None

    def enter(self, now: float) -> int | None:
        """A ticket for a request at `now` (s, any monotonic clock); None while the breaker turns it away."""
        if self._opened_at is not None:
            if self._is_probing or now - self._opened_at < self._open_s:
                return None
            self._is_probing = True
            self._phase += 1
        return self._phase

    def succeeded(self, ticket: int) -> None:
        """The service answered properly."""
        if ticket == self._phase:
            self._failures, self._opened_at, self._is_probing = 0, None, False

    def failed(self, ticket: int, now: float) -> bool:
        """The service failed. True if that has opened the breaker (again)."""
        if ticket != self._phase:
            return False
        self._failures += 1
        if not self._is_probing and self._failures < self._max_failures:
            return False
        self._opened_at, self._is_probing = now, False
        self._phase += 1
        return True

    def cancelled(self, ticket: int) -> None:
        """The request was given up by its caller, which says nothing about the service."""
        if ticket == self._phase:
            self._is_probing = False
