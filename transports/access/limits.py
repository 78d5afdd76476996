"""What one client, one address and all together may ask of a server; each limit can be set, each refusal is counted."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from prometheus_client import Counter

from ...pipeline.errors import ConfigurationError

REFUSED = Counter("leibniz_refused", "Connections and messages refused, by the limit they met", ["reason"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Raises `ConfigurationError` for a value not above 0, or endless. Units stand in the names: s seconds, bytes."""

    message_bytes: int = 64 * 1024  # one message; larger: close 1009
    handshake_s: float = 5.0  # from the TCP connection to the WebSocket; slower: dropped
    hello_s: float = 5.0  # for the token, where it comes in `hello`; slower: close 4401
    connections: int = 512  # WebSockets in all; more: close 1013. A third more sockets may wait for their handshake
    connections_per_address: int = 64  # WebSockets of one address; more: close 4429
    frames_per_s: float = 400.0  # WebSocket frames of any kind; audio at real time in 10 ms messages is 100
    audio_rate: float = 1.2  # seconds of audio a second: a sound card with a fast clock, plus catching up
    audio_burst_s: float = 2.0  # audio at once, on top; what comes faster still waits, the oldest is dropped
    audio_dropped_s: float = 10.0  # audio dropped lately; more: close 1008
    control_per_s: float = 30.0  # an eager recogniser sends ten fragments a second, acks and pings come on top
    control_burst: float = 60.0  # text messages at once; what comes faster is dropped
    control_dropped: float = 300.0  # text messages dropped lately; more: close 1008
    idle_s: float = 30.0  # without any message, while the bot is silent; longer: close 1000
    session_s: float = 4 * 3600.0  # one connection; longer: close 1012 at the end of the turn, so that it reconnects
    send_s: float = 2.0  # until the client has read something; longer: aborted

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 < (value := getattr(self, field.name)) < math.inf:
                raise ConfigurationError(f"the limit {field.name} is {value}; give a number above 0, and no inf")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """All limits."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def parse(cls, settings: dict[str, str]) -> Limits:
        """Limits from texts such as `{"idle_s": "60"}`. Raises `ConfigurationError`."""
        values: dict[str, float] = {}
        for name, text in settings.items():
            if name not in cls.names():
                raise ConfigurationError(f"there is no limit {name!r}; there are {', '.join(cls.names())}")
            try:
                is_whole = isinstance(getattr(cls(), name), int)
                values[name] = int(text) if is_whole else float(text)
            except ValueError:
                raise ConfigurationError(f"the limit {name} is {text!r}, which is no number") from None
        return cls(**values)  # type: ignore[arg-type] # whole ones were made so
