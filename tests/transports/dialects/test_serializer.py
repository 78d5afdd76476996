"""Our protocol as a Pipecat serializer."""

from __future__ import annotations

import asyncio
import json

import pytest
from pipecat.frames.frames import Frame, InputAudioRawFrame, OutputAudioRawFrame, TextFrame

from leibniz_voice.pipeline.frames import (
    ClientFragmentFrame,
    ClientTurnEndFrame,
    PlaybackPauseFrame,
    ReplyAudibleFrame,
    ReplyInterruptedFrame,
    ReplyTextFrame,
    StateChangedFrame,
    UserSpeakingFrame,
)
from leibniz_voice.transports.dialects.serializer import OrchestrateSerializer


def serialized(*frames: Frame) -> list[str | bytes | None]:
    async def main() -> list[str | bytes | None]:
        serializer = OrchestrateSerializer()
        return [await serializer.serialize(frame) for frame in frames]

    return asyncio.run(main())


def test_frames_become_the_messages_of_the_protocol() -> None:
    state, text, audible, audio, cut, other, pause = serialized(
        StateChangedFrame(previous="idle", state="listening", trigger="stt_start", turn_id=1, text_buffer=("a",)),
        ReplyTextFrame(turn_id=1, text="Hello.", is_final=True),
        ReplyAudibleFrame(turn_id=1),
        OutputAudioRawFrame(b"\1\2", 16000, 1),
        ReplyInterruptedFrame(turn_id=1),
        TextFrame("x"),
        PlaybackPauseFrame(turn_id=1),
    )
    assert json.loads(state or "")["text_buffer"] == ["a"]
    assert (text, other) == (None, None)
    ready = json.loads(audible or "")
    assert (ready["type"], ready["text"], ready["final"]) == ("response_ready", "Hello.", True)
    assert audio == b"\1\2"
    assert json.loads(cut or "")["type"] == "interrupted"
    assert json.loads(pause or "") == {"type": "pause", "turn": 1}


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (b"\1\2", InputAudioRawFrame),
        ('{"type":"stt_fragment","text":"a"}', ClientFragmentFrame),
        ('{"type":"vad_end"}', ClientTurnEndFrame),
        ('{"type":"user_speaking"}', UserSpeakingFrame),
        ('{"type":"ping"}', type(None)),
        (b"odd", type(None)),
        ("{", type(None)),
    ],
)
def test_messages_become_frames_and_bad_ones_nothing(message: str | bytes, kind: type) -> None:
    assert type(asyncio.run(OrchestrateSerializer().deserialize(message))) is kind
