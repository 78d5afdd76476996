"""`RtviDialect`: the protocol of Pipecat's client SDKs, so that they connect as they are.

Every message is a protobuf `Frame` of Pipecat's serializer: audio, or an RTVI message (JSON in `message.data`).

 client                                   server
   |-- client-ready ------------------------>|
   |<- bot-ready ----------------------------|
   |== audio ==============================>>|
   |<- user-started-speaking ----------------|    listening
   |<- user-stopped-speaking ----------------|    thinking
   |<- user-transcription (final) -----------|
   |<- bot-transcription, bot-output --------|
   |<- bot-started-speaking -----------------|    speaking
   |<<= audio ===============================|
   |<- bot-stopped-speaking -----------------|    idle, or cut: then an interruption frame goes before it

What RTVI has no word for (pause and resume, the latency of a turn) goes as a `server-message` with our own object in
`data`. Reference: https://docs.pipecat.ai/client/rtvi-standard; versions 1 and 2 of it differ in nothing used here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pipecat.frames.protobufs.frames_pb2 as wire
from google.protobuf.message import DecodeError
from pipecat.processors.frameworks.rtvi import models

from ...pipeline.errors import ProtocolError
from ...pipeline.states import State
from . import protocol
from .dialect import Spelled
from .protocol import ClientMessage

RATE = 16_000  # Hz both ways: what Pipecat's media managers are told to use
_IGNORED = frozenset({"raw-audio-metrics", "client-message", "disconnect-bot", "llm-function-call-result"})


class RtviDialect:
    """One conversation with a Pipecat client. `bot-ready` is sent when the client has said `client-ready`."""

    can_rewind = False

    subprotocol = "pipecat"
    audio_type = bytes

    def __init__(self) -> None:
        self._ready_id: str | None = None  # of `client-ready`, to be answered under it; None before
        self._version = models.PROTOCOL_VERSION  # what is spoken with this client
        self._is_bot_speaking = False  # between bot-started- and bot-stopped-speaking
        self._words: tuple[str, ...] = ()  # what the user said in this turn

    # -- from the client ---------------------------------------------------------------------------------------

    def decode(self, message: str | bytes) -> ClientMessage | bytes:
        """See `Dialect.decode`."""
        if isinstance(message, str):
            raise ProtocolError("bad_json", "Messages are protobuf frames here, so binary.")
        try:
            frame = wire.Frame.FromString(message)  # type: ignore[attr-defined] # made at import
        except DecodeError:
            raise ProtocolError("bad_json", "The message is no protobuf frame.") from None
        match frame.WhichOneof("frame"):
            case "audio":
                return self._audio_of(frame.audio)
            case "message":
                return self._message_of(frame.message.data)
            case "text":
                return protocol.Typed(text=self._text(frame.text.text))
            case "interruption":
                return protocol.UserSpeaking()
            case None:
                raise ProtocolError("missing_field", "The frame is empty.")
            case kind:
                raise ProtocolError("unknown_type", f"A {kind} frame means nothing from a client.")

    def _audio_of(self, audio: Any) -> bytes:
        if audio.sample_rate not in (0, RATE):
            raise ProtocolError("rate_mismatch", f"Audio must have {RATE} Hz, not {audio.sample_rate}.")
        if audio.num_channels not in (0, 1):
            raise ProtocolError("bad_audio", f"Audio must have one channel, not {audio.num_channels}.")
        protocol.check_audio(audio.audio)
        return audio.audio

    def _message_of(self, text: str) -> ClientMessage:
        fields = protocol.parse(text)
        kind, data = fields.get("type"), fields.get("data")
        if not isinstance(kind, str):
            raise ProtocolError("bad_field", "`type` must be a string.")
        data = data if isinstance(data, dict) else {}
        if kind == "client-ready":
            self._ready_id = str(fields.get("id", ""))[:64]
            version = str(data.get("version", ""))[:16]
            self._version = version if version.startswith("1.") else models.PROTOCOL_VERSION
            return protocol.Hello()
        if kind == "send-text":
            return protocol.Typed(text=self._text(data.get("content")))
        if kind in _IGNORED:
            return protocol.Ping()
        raise ProtocolError("unknown_type", f"There is no message of type {kind[:40]!a}.")

    def _text(self, text: Any) -> str:
        if not isinstance(text, str) or len(text) > protocol.MAX_TEXT_CHARS:
            raise ProtocolError("bad_field", f"The text must be at most {protocol.MAX_TEXT_CHARS} characters.")
        return text.encode("utf-8", "replace").decode()

    # -- to the client -----------------------------------------------------------------------------------------

    def audio(self, pcm: bytes, sample_rate: int) -> bytes:
        """See `Dialect.audio`."""
        return wire.Frame(  # type: ignore[attr-defined] # made at import
            audio=wire.AudioRawFrame(audio=pcm, sample_rate=sample_rate, num_channels=1)  # type: ignore[attr-defined]
        ).SerializeToString()

    def mark(self, turn: int, sent_ms: float) -> Spelled:
        """See `Dialect.mark`: these clients do not tell."""
        return None

    def ready(self, *, again: bool = False, **fields: Any) -> Spelled:
        """See `Dialect.ready`: nothing until the client has said that it is."""
        if self._ready_id is None:
            return None
        about = {"library": "leibniz-voice", "session": {name: fields[name] for name in ("session_id", "resumed")}}
        if fields.get("token"):
            about["token"] = fields["token"]
        return _message(
            models.BotReady(id=self._ready_id, data=models.BotReadyData(version=self._version, about=about))
        )

    def state_update(self, *, state: str, text_buffer: Sequence[str], turn: int, trigger: str) -> Spelled:
        """See `Dialect.state_update`."""
        if trigger == "stt_fragment":
            self._words = tuple(text_buffer)
            return _transcription(" ".join(text_buffer), final=False)
        match state:
            case State.LISTENING:
                self._words = tuple(text_buffer)
                return _message(models.UserStartedSpeakingMessage())
            case State.THINKING:
                text = " ".join(text_buffer or self._words)
                return _message(models.UserStoppedSpeakingMessage()), _transcription(text, final=True)
            case State.IDLE:
                return self._bot_stopped()
        return None

    def response_ready(self, *, turn: int, text: str, thinking_ms: float, final: bool) -> Spelled:
        """See `Dialect.response_ready`."""
        self._is_bot_speaking = True
        started = _message(models.BotStartedSpeakingMessage())
        return (*_said(text), started) if text else started

    def response_text(self, *, turn: int, text: str, final: bool) -> Spelled:
        """See `Dialect.response_text`."""
        return _said(text)

    def pause(self, turn: int) -> Spelled:
        """See `Dialect.pause`."""
        return _ours("pause", turn=turn)

    def resume(self, turn: int, back_ms: float = 0.0) -> Spelled:
        """See `Dialect.resume`."""
        return _ours("resume", turn=turn)

    def interrupted(self, turn: int) -> Spelled:
        """See `Dialect.interrupted`. Pipecat's JS client cannot flush what it plays: keep the server's lead small."""
        cut = wire.Frame(interruption=wire.InterruptionFrame()).SerializeToString()  # type: ignore[attr-defined]
        return (cut, *self._bot_stopped())

    def turn(self, turn: int, *, waterfall: Mapping[str, Any]) -> Spelled:
        """See `Dialect.turn`."""
        return _ours("turn", **{**waterfall, "turn": turn})

    def pong(self) -> Spelled:
        """See `Dialect.pong`: RTVI has none."""
        return None

    def error(self, code: str, message: str) -> Spelled:
        """See `Dialect.error`."""
        return _message(models.Error(data=models.ErrorData(error=f"{code}: {message}", fatal=False)))

    def _bot_stopped(self) -> tuple[bytes, ...]:
        was, self._is_bot_speaking = self._is_bot_speaking, False
        return (_message(models.BotStoppedSpeakingMessage()),) if was else ()


def _message(model: Any) -> bytes:
    text = model.model_dump_json(exclude_none=True)
    return wire.Frame(message=wire.MessageFrame(data=text)).SerializeToString()  # type: ignore[attr-defined]


def _transcription(text: str, *, final: bool) -> bytes:
    data = models.UserTranscriptionMessageData(
        text=_clean(text), user_id="", timestamp=datetime.now(UTC).isoformat(), final=final
    )
    return _message(models.UserTranscriptionMessage(data=data))


def _said(text: str) -> tuple[bytes, ...]:
    text = _clean(text)
    spoken = models.BotOutputMessageData(text=text, output_type="sentence", spoken=True, will_be_spoken=True)
    return (
        _message(models.BotTranscriptionMessage(data=models.TextMessageData(text=text))),
        _message(models.BotOutputMessage(data=spoken)),
    )


def _ours(kind: str, **fields: Any) -> bytes:
    return _message(models.ServerMessage(data=json.loads(json.dumps({"type": kind, **fields}, default=str))))


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # half of a surrogate pair fits no protobuf string
