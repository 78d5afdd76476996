"""`Dialect`: how a conversation is spelled on its connection: our JSON + PCM here, Pipecat's in rtvi.py, and Twilio's.

A dialect knows no socket, no clock and no task. It may remember little things of its one conversation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from . import protocol
from .protocol import ClientMessage

Spelled = str | bytes | None | tuple[str | bytes, ...]  # nothing, one message or several


class Dialect(Protocol):
    """Spells what the server says, and reads what the client says."""

    can_rewind: bool  # its clients can play again what they have just played

    subprotocol: str  # its name in the WebSocket handshake

    @property
    def audio_type(self) -> type[str] | type[bytes]:
        """Which kind of message carries audio, and so comes all the time."""
        ...

    def decode(self, message: str | bytes) -> ClientMessage | bytes:
        """A control message, or PCM16 audio. Raises `ProtocolError`."""
        ...

    def audio(self, pcm: bytes, sample_rate: int) -> str | bytes:
        """One chunk of the bot's voice."""
        ...

    def mark(self, turn: int, sent_ms: float) -> Spelled:
        """What makes the client send an `Ack` when it has played so far; nothing where clients do so by themselves."""
        ...

    def ready(self, *, again: bool = False, **fields: Any) -> Spelled:
        """See `protocol.ready`; `again`: the answer to a `Hello` that was not the first message."""
        ...

    def state_update(self, *, state: str, text_buffer: Sequence[str], turn: int, trigger: str) -> Spelled:
        """See `protocol.state_update`."""
        ...

    def response_ready(self, *, turn: int, text: str, thinking_ms: float, final: bool) -> Spelled:
        """See `protocol.response_ready`."""
        ...

    def response_text(self, *, turn: int, text: str, final: bool) -> Spelled:
        """See `protocol.response_text`."""
        ...

    def pause(self, turn: int) -> Spelled:
        """See `protocol.pause`."""
        ...

    def resume(self, turn: int, back_ms: float = 0.0) -> Spelled:
        """See `protocol.resume`."""
        ...

    def interrupted(self, turn: int) -> Spelled:
        """See `protocol.interrupted`."""
        ...

    def turn(self, turn: int, *, waterfall: Mapping[str, Any]) -> Spelled:
        """See `protocol.turn`."""
        ...

    def pong(self) -> Spelled:
        """See `protocol.pong`."""
        ...

    def error(self, code: str, message: str) -> Spelled:
        """See `protocol.error`."""
        ...


class JsonDialect:
    """JSON and raw PCM: docs/protocol.md."""

    can_rewind = True

    subprotocol = "orchestrate"
    audio_type = bytes

    def decode(self, message: str | bytes) -> ClientMessage | bytes:
        """See `Dialect.decode`."""
        if isinstance(message, bytes):
            protocol.check_audio(message)
            return message
        return protocol.decode_text(message)

    def audio(self, pcm: bytes, sample_rate: int) -> bytes:
        """See `Dialect.audio`: raw."""
        return pcm

    def mark(self, turn: int, sent_ms: float) -> Spelled:
        """See `Dialect.mark`: clients send `ack`."""
        return None

    def ready(self, *, again: bool = False, **fields: Any) -> Spelled:
        """See `Dialect.ready`."""
        if again:
            raise protocol.ProtocolError("bad_field", "`hello` is only good as the first message.")
        return protocol.ready(**fields)

    state_update = staticmethod(protocol.state_update)
    response_ready = staticmethod(protocol.response_ready)
    response_text = staticmethod(protocol.response_text)
    pause = staticmethod(protocol.pause)
    resume = staticmethod(protocol.resume)
    interrupted = staticmethod(protocol.interrupted)
    turn = staticmethod(protocol.turn)
    pong = staticmethod(protocol.pong)
    error = staticmethod(protocol.error)
