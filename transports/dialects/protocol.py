"""The JSON + PCM protocol, as a codec: text in, message out; values in, text out. No I/O, no clock, no asyncio.

 client                      decode_text / check_audio                     server
   | -- text message -->  Hello | SttFragment | VadEnd | UserSpeaking | Ack | Ping, or ProtocolError(code, sentence)
   | -- PCM message  -->  nothing, or ProtocolError("bad_audio", ...)
   | <-- text message --  ready() state_update() response_ready() ... error(): each returns the text to send

Every input either decodes or raises `ProtocolError`, whatever a stranger sends: nested, huge, not finite, not text.
docs/protocol.md describes the messages to those who write clients; a test keeps the two lists the same.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from ...pipeline.errors import ProtocolError

VERSION = 1
DEFAULT_RATE = 16_000
IN_RATES = (8_000, 16_000)  # what the voice activity model hears without resampling
OUT_RATES = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)
MAX_MESSAGE_BYTES = 64 * 1024  # the server's `max_size`; past it the connection closes with 1009
MAX_TEXT_CHARS = 4_000  # about five minutes of speech in one fragment
MAX_TOKEN_CHARS = 2_048
MAX_TURN = 2**53 - 1  # the largest integer that JavaScript counts exactly
MAX_PLAYED_MS = 24 * 3600 * 1000.0
INTERRUPTED_MESSAGE = "Listening to your response..."

ERROR_CODES = (
    "bad_json",
    "unknown_type",
    "missing_field",
    "bad_field",
    "bad_audio",
    "rate_mismatch",
    "too_fast",
    "voice_failed",
)

_SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class CloseCode(IntEnum):
    """Why the server closed the connection. 4xxx are ours, the others are RFC 6455's."""

    END = 1000
    PROTOCOL = 1002
    NOT_TEXT = 1007
    POLICY = 1008
    TOO_LARGE = 1009
    OUR_FAULT = 1011
    RESTART = 1012
    FULL = 1013
    BAD_TOKEN = 4401
    BAD_ORIGIN = 4403
    TAKEN_OVER = 4409
    TOO_MANY = 4429


@dataclass(frozen=True, slots=True)
class Hello:
    """First message, if sent. Rates in Hz; `token` is None when none was given."""

    sample_rate: int = DEFAULT_RATE
    out_sample_rate: int = DEFAULT_RATE
    token: str | None = None


@dataclass(frozen=True, slots=True)
class SttFragment:
    """Words of a client that does its own STT; at most `MAX_TEXT_CHARS`, may be empty."""

    text: str
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class VadEnd:
    """End of turn, decided by the client."""


@dataclass(frozen=True, slots=True)
class UserSpeaking:
    """Barge-in, decided by the client; confidence 0 to 1."""

    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Ack:
    """How much of the reply to `turn` the client has played, in ms from its first sample."""

    turn: int
    played_ms: float


@dataclass(frozen=True, slots=True)
class Ping:
    """Heartbeat; answered by `pong`."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A whole turn as text; other dialects have it (RTVI's `send-text`), here it is `stt_fragment` and `vad_end`."""

    text: str


ClientMessage = Hello | SttFragment | VadEnd | UserSpeaking | Ack | Ping | Typed


def is_session_id(text: str) -> bool:
    """Whether this may name a session: 1 to 64 of `A-Z a-z 0-9 _ -`, so it is safe in keys, paths and logs."""
    return _SESSION_ID.fullmatch(text) is not None


# ---------------------------------------------------------------------------------------------- from the client


def decode_text(text: str) -> ClientMessage:
    """One text message of a client. Raises `ProtocolError` with one of `ERROR_CODES`, and nothing else."""
    fields = parse(text)
    kind = fields.get("type")
    if kind is None:
        raise ProtocolError("missing_field", "The message has no `type`.")
    if not isinstance(kind, str):
        raise ProtocolError("bad_field", "`type` must be a string.")
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise ProtocolError("unknown_type", f"There is no message of type {kind[:40]!a}.")
    return decoder(fields)


def check_audio(pcm: bytes) -> None:
    """Refuse a binary message that cannot be PCM16: raises `ProtocolError("bad_audio")` when empty or odd.

    10 to 100 ms are asked for, but any length that fits a message is taken: a late client may send more at once.
    """
    if not pcm:
        raise ProtocolError("bad_audio", "An audio message is empty.")
    if len(pcm) % 2:
        raise ProtocolError("bad_audio", f"Audio is 16-bit samples, so {len(pcm)} bytes cannot be right.")


def parse(text: str) -> dict[str, Any]:
    """A JSON object. Raises `ProtocolError("bad_json")` for anything else."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:  # what the parser says to "[[[[..." instead of a JSON error
        raise ProtocolError("bad_json", "The message is nested too deeply.") from None
    except ValueError:  # JSONDecodeError, our own refusal, and integers past Python's limit of digits
        raise ProtocolError("bad_json", "The message is not valid JSON.") from None
    if not isinstance(value, dict):
        raise ProtocolError("bad_json", "A message must be a JSON object.")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _hello(fields: dict[str, Any]) -> Hello:
    version = fields.get("v")
    if version is not None and (type(version) is not int or version != VERSION):
        raise ProtocolError("bad_field", f"`v` must be {VERSION}, the only version there is.")
    token = fields.get("token")
    return Hello(
        sample_rate=_rate(fields, "sample_rate", IN_RATES),
        out_sample_rate=_rate(fields, "out_sample_rate", OUT_RATES),
        token=None if token is None else _string(fields, "token", MAX_TOKEN_CHARS),
    )


def _stt_fragment(fields: dict[str, Any]) -> SttFragment:
    is_final = fields.get("is_final")
    if is_final is not None and not isinstance(is_final, bool):
        raise ProtocolError("bad_field", "`is_final` must be true or false.")
    return SttFragment(text=_string(fields, "text", MAX_TEXT_CHARS), is_final=bool(is_final))


def _vad_end(fields: dict[str, Any]) -> VadEnd:
    return VadEnd()


def _user_speaking(fields: dict[str, Any]) -> UserSpeaking:
    if fields.get("confidence") is None:
        return UserSpeaking()
    return UserSpeaking(confidence=_number(fields, "confidence", 1.0))


def _ack(fields: dict[str, Any]) -> Ack:
    turn = _required(fields, "turn")
    if type(turn) is not int or not 0 <= turn <= MAX_TURN:
        raise ProtocolError("bad_field", "`turn` must be a whole number, not negative.")
    return Ack(turn=turn, played_ms=_number(fields, "played_ms", MAX_PLAYED_MS))


def _ping(fields: dict[str, Any]) -> Ping:
    return Ping()


_DECODERS: dict[str, Callable[[dict[str, Any]], ClientMessage]] = {
    "hello": _hello,
    "stt_fragment": _stt_fragment,
    "vad_end": _vad_end,
    "user_speaking": _user_speaking,
    "ack": _ack,
    "ping": _ping,
}
CLIENT_TYPES = tuple(_DECODERS)


def _required(fields: dict[str, Any], name: str) -> Any:
    if name not in fields:
        raise ProtocolError("missing_field", f"`{name}` is missing.")
    return fields[name]


def _string(fields: dict[str, Any], name: str, limit: int) -> str:
    value = _required(fields, name)
    if not isinstance(value, str):
        raise ProtocolError("bad_field", f"`{name}` must be a string.")
    if len(value) > limit:
        raise ProtocolError("bad_field", f"`{name}` is longer than {limit} characters.")
    try:
        value.encode()  # half of a surrogate pair is a Python string, but no store or service can take it
    except UnicodeEncodeError:
        raise ProtocolError("bad_field", f"`{name}` is not valid Unicode.") from None
    return value


def _number(fields: dict[str, Any], name: str, limit: float) -> float:
    value = _required(fields, name)
    # `type(...) in` and not isinstance: True is an int. Compared before float(): a huge int would overflow.
    if type(value) not in (int, float) or not 0 <= value <= limit:  # NaN cannot come here, 1e999 fails the limit
        raise ProtocolError("bad_field", f"`{name}` must be a number from 0 to {limit:g}.")
    return float(value)


def _rate(fields: dict[str, Any], name: str, offered: tuple[int, ...]) -> int:
    value = fields.get(name)
    if value is None:
        return DEFAULT_RATE
    if type(value) is not int or value <= 0:
        raise ProtocolError("bad_field", f"`{name}` must be a whole number of Hz.")
    if value not in offered:
        rates = ", ".join(map(str, offered))
        raise ProtocolError("rate_mismatch", f"`{name}` must be one of {rates} Hz.")
    return value


# ---------------------------------------------------------------------------------------------- to the client

# ASCII output on purpose: any string can be sent, half a surrogate pair included.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def ready(
    *,
    session_id: str,
    sample_rate: int = DEFAULT_RATE,
    out_sample_rate: int = DEFAULT_RATE,
    resumed: bool = False,
    turn_number: int = 0,
    token: str | None = None,
) -> str:
    """The server's first message. `token` is left out where no secret is set."""
    fields: dict[str, Any] = {
        "type": "ready",
        "v": VERSION,
        "session_id": session_id,
        "sample_rate": sample_rate,
        "out_sample_rate": out_sample_rate,
        "resumed": resumed,
        "turn_number": turn_number,
    }
    if token is not None:
        fields["token"] = token
    return _encode(fields)


def state_update(*, state: str, text_buffer: Sequence[str], turn: int, trigger: str) -> str:
    """Every move of the turn machine, and every fragment (then `trigger` names what brought the words)."""
    return _encode(
        {"type": "state_update", "state": state, "text_buffer": list(text_buffer), "turn": turn, "trigger": trigger}
    )


def response_ready(*, turn: int, text: str, thinking_ms: float, final: bool) -> str:
    """Once per reply, before its audio; `thinking_ms` from the end of the user's turn."""
    return _encode(
        {"type": "response_ready", "turn": turn, "text": text, "thinking_ms": _ms(thinking_ms), "final": final}
    )


def response_text(*, turn: int, text: str, final: bool) -> str:
    """One more sentence of a streamed reply."""
    return _encode({"type": "response_text", "turn": turn, "text": text, "final": final})


def pause(turn: int) -> str:
    """Stop playing now and keep the buffer."""
    return _encode({"type": "pause", "turn": turn})


def resume(turn: int, back_ms: float = 0.0) -> str:
    """Go on with what was kept; first, if `back_ms` is above 0, with so much of what was played last."""
    back = {"back_ms": round(back_ms, 1)} if back_ms > 0 else {}
    return _encode({"type": "resume", "turn": turn, **back})


def interrupted(turn: int) -> str:
    """Drop all buffered audio now; none follows before the next `response_ready`."""
    return _encode({"type": "interrupted", "turn": turn, "message": INTERRUPTED_MESSAGE})


def turn(turn: int, *, waterfall: Mapping[str, Any]) -> str:
    """The latency waterfall of a finished turn. Its keys stand beside `turn`; what is not finite becomes null."""
    return _encode({**_finite(waterfall), "type": "turn", "turn": turn})


def pong() -> str:
    """The answer to `ping`."""
    return '{"type":"pong"}'


def error(code: str, message: str) -> str:
    """A refused message; the session lives on."""
    return _encode({"type": "error", "code": code, "message": message})


SERVER_TYPES = (
    "ready",
    "state_update",
    "response_ready",
    "response_text",
    "pause",
    "resume",
    "interrupted",
    "turn",
    "pong",
    "error",
)


def _ms(value: float) -> float | None:
    return round(value, 1) if math.isfinite(value) else None


def _finite(value: Any) -> Any:
    """A copy that JSON can carry: floats that are not finite become None, floats lose what nobody can measure."""
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
