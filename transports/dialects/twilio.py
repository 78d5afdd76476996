"""`TwilioDialect`: Twilio's media streams, so that a telephone call is a conversation.

Every message is a JSON object with an `event`; audio is mu-law at 8 kHz, base64 in `media.payload`.

 Twilio                                   server
   |-- connected, start -------------------->|    the call's id, the stream's id, your own parameters
   |-- media ============================ >>|    20 ms each, all the time
   |<<= media ===============================|    the bot's voice, 20 ms each, paced
   |<- mark "3:400" -------------------------|    after every 200 ms of it: turn 3, 400 ms
   |-- mark "3:400" ------------------------>|    when it was played so far
   |<- clear --------------------------------|    a barge-in: drop what is buffered
   |-- stop -------------------------------->|    the call is over

A pause is not sent: the server just stops, and Twilio runs dry within the lead. Pipecat's `TwilioFrameSerializer`
speaks the same format, and the tests hold this one against it; it is not used here because it answers to no marks, and
resamples a second time. Reference: https://www.twilio.com/docs/voice/media-streams/websocket-messages
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...pipeline.errors import ProtocolError
from . import protocol
from .dialect import Spelled
from .mulaw import decode_mulaw, encode_mulaw
from .protocol import ClientMessage

RATE = 8_000  # Hz, both ways
_TURN_DIGITS = len(str(protocol.MAX_TURN))  # a conversation begun without its store counts from unix ms on
_FORMAT = ("audio/x-mulaw", RATE, 1)


class TwilioDialect:
    """One call, from its `start` on."""

    can_rewind = False

    subprotocol = "twilio"
    audio_type = str

    def __init__(self) -> None:
        self.stream_sid = ""  # in every message to Twilio; "" before `start`

    def decode(self, message: str | bytes) -> ClientMessage | bytes:
        """See `Dialect.decode`."""
        if isinstance(message, bytes):
            raise ProtocolError("bad_json", "Messages are JSON texts here, never binary.")
        fields = protocol.parse(message)
        match fields.get("event"):
            case "media":
                return _audio_of(_part(fields, "media"))
            case "mark":
                return _position(_part(fields, "mark").get("name"))
            case "start":
                hello = _hello(fields)
                self.stream_sid = self.stream_sid or str(fields.get("streamSid", ""))[:64]
                return hello
            case "connected" | "stop" | "dtmf":
                return protocol.Ping()
            case event:
                raise ProtocolError("unknown_type", f"There is no event {str(event)[:40]!a}.")

    def audio(self, pcm: bytes, sample_rate: int) -> str:
        """See `Dialect.audio`."""
        return self._event("media", media={"payload": base64.b64encode(encode_mulaw(pcm)).decode()})

    def mark(self, turn: int, sent_ms: float) -> Spelled:
        """See `Dialect.mark`."""
        return self._event("mark", mark={"name": f"{turn}:{sent_ms:.0f}"})

    def interrupted(self, turn: int) -> Spelled:
        """See `Dialect.interrupted`."""
        return self._event("clear")

    def _event(self, event: str, **fields: Any) -> str:
        return json.dumps({"event": event, "streamSid": self.stream_sid, **fields})

    # -- what a telephone has no ears for ------------------------------------------------------------------------

    def ready(self, *, again: bool = False, **fields: Any) -> Spelled:
        """See `Dialect.ready`."""

    def state_update(self, *, state: str, text_buffer: Sequence[str], turn: int, trigger: str) -> Spelled:
        """See `Dialect.state_update`."""

    def response_ready(self, *, turn: int, text: str, thinking_ms: float, final: bool) -> Spelled:
        """See `Dialect.response_ready`."""

    def response_text(self, *, turn: int, text: str, final: bool) -> Spelled:
        """See `Dialect.response_text`."""

    def pause(self, turn: int) -> Spelled:
        """See `Dialect.pause`."""

    def resume(self, turn: int, back_ms: float = 0.0) -> Spelled:
        """See `Dialect.resume`."""

    def turn(self, turn: int, *, waterfall: Mapping[str, Any]) -> Spelled:
        """See `Dialect.turn`."""

    def pong(self) -> Spelled:
        """See `Dialect.pong`."""

    def error(self, code: str, message: str) -> Spelled:
        """See `Dialect.error`."""


def is_greeting(message: str | bytes) -> bool:
    """Whether this is the `connected` that comes before `start`. Raises `ProtocolError` for a text that is no JSON."""
    return isinstance(message, str) and protocol.parse(message).get("event") == "connected"


def call_sid_of(message: str | bytes) -> str:
    """Twilio's id of the call, of its `start`. Raises `ProtocolError` for another message, or one of no use."""
    fields = protocol.parse(message) if isinstance(message, str) else {}
    if fields.get("event") != "start":
        raise ProtocolError("unknown_type", "The first event must be `start`, after `connected`.")
    _hello(fields)
    call_sid = _part(fields, "start").get("callSid")
    if not isinstance(call_sid, str) or not protocol.is_session_id(call_sid):
        raise ProtocolError("bad_field", "`start.callSid` must be 1 to 64 letters, digits, '_' or '-'.")
    return call_sid


def _part(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = fields.get(name)
    if not isinstance(part, Mapping):
        raise ProtocolError("missing_field", f"`{name}` is missing.")
    return part


def _audio_of(media: Mapping[str, Any]) -> ClientMessage | bytes:
    if media.get("track", "inbound") != "inbound":
        return protocol.Ping()  # the bot's own voice, of a stream of both tracks
    try:
        coded = base64.b64decode(media.get("payload", ""), validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ProtocolError("bad_audio", "`media.payload` is no base64.") from None
    pcm = decode_mulaw(coded)
    protocol.check_audio(pcm)
    return pcm


def _position(name: Any) -> ClientMessage:
    turn, _, played_ms = str(name).partition(":")
    if not (turn.isdecimal() and played_ms.isdecimal() and len(turn) <= _TURN_DIGITS and len(played_ms) < 10):
        return protocol.Ping()  # somebody else's mark
    return protocol.Ack(turn=int(turn), played_ms=float(played_ms))


def _hello(fields: Mapping[str, Any]) -> protocol.Hello:
    start = _part(fields, "start")
    form = start.get("mediaFormat", {})
    if not isinstance(form, Mapping) or (form.get("encoding"), form.get("sampleRate"), form.get("channels")) != _FORMAT:
        raise ProtocolError("rate_mismatch", "`start.mediaFormat` must be audio/x-mulaw, 8000 Hz, one channel.")
    own = start.get("customParameters")
    token = own.get("token") if isinstance(own, Mapping) else None
    return protocol.Hello(sample_rate=RATE, out_sample_rate=RATE, token=token if isinstance(token, str) else None)
