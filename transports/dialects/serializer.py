"""`OrchestrateSerializer`: our JSON + PCM protocol as a Pipecat `FrameSerializer`, for Pipecat's own transports.

`WebSocketServer` does not need it: there the output spells messages itself, in the step that knows them. With it, a
stock Pipecat bot behind a stock WebSocket transport can be talked to by clients of docs/protocol.md.
"""

from __future__ import annotations

from loguru import logger
from pipecat.frames.frames import Frame, InputAudioRawFrame, InterruptionFrame, OutputAudioRawFrame
from pipecat.serializers.base_serializer import FrameSerializer

from ...pipeline.errors import ProtocolError
from ...pipeline.frames import (
    ClientFragmentFrame,
    ClientTurnEndFrame,
    PlaybackPauseFrame,
    PlaybackResumeFrame,
    ReplyAudibleFrame,
    ReplyInterruptedFrame,
    ReplyTextFrame,
    StateChangedFrame,
    TurnMeasuredFrame,
    UserSpeakingFrame,
)
from . import protocol


class OrchestrateSerializer(FrameSerializer):
    """Frames to messages and back; audio is PCM16 mono at `sample_rate`. A message that breaks the protocol is dropped.

    The transport's own protocol has no way to answer, so `ready` and `error` are not sent.
    """

    def __init__(self, *, sample_rate: int = protocol.DEFAULT_RATE) -> None:
        super().__init__()
        self._sample_rate = sample_rate  # Hz, both ways
        self._texts: dict[int, list[ReplyTextFrame]] = {}  # of replies that are not audible yet; the newest 8

    async def serialize(self, frame: Frame) -> str | bytes | None:
        """The message for a frame, None for one that no client need know of."""
        match frame:
            case OutputAudioRawFrame():
                return frame.audio
            case StateChangedFrame():
                return protocol.state_update(
                    state=frame.state, text_buffer=frame.text_buffer, turn=frame.turn_id, trigger=frame.trigger
                )
            case ReplyTextFrame():
                self._texts.setdefault(frame.turn_id, []).append(frame)
                while len(self._texts) > 8:
                    del self._texts[next(iter(self._texts))]
                return None
            case ReplyAudibleFrame():
                known = self._texts.pop(frame.turn_id, [])
                text = " ".join(part.text for part in known)
                final = any(part.is_final for part in known)
                return protocol.response_ready(turn=frame.turn_id, text=text, thinking_ms=0.0, final=final)
            case PlaybackPauseFrame():
                return protocol.pause(frame.turn_id)
            case PlaybackResumeFrame():
                return protocol.resume(frame.turn_id)
            case InterruptionFrame():
                return protocol.interrupted(frame.turn_id if isinstance(frame, ReplyInterruptedFrame) else 0)
            case TurnMeasuredFrame():
                return protocol.turn(frame.turn_id, waterfall=frame.as_json())
        return None

    async def deserialize(self, data: str | bytes) -> Frame | None:
        """The frame for a message; None for one that concerns the connection only, or breaks the protocol."""
        try:
            if isinstance(data, bytes):
                protocol.check_audio(data)
                return InputAudioRawFrame(audio=data, sample_rate=self._sample_rate, num_channels=1)
            message = protocol.decode_text(data)
        except ProtocolError as error:
            logger.warning("a client's message is dropped: {}", error)
            return None
        match message:
            case protocol.SttFragment(text=text, is_final=is_final):
                return ClientFragmentFrame(text=text, is_final=is_final)
            case protocol.VadEnd():
                return ClientTurnEndFrame()
            case protocol.UserSpeaking(confidence=confidence):
                return UserSpeakingFrame(confidence=confidence)
        return None
