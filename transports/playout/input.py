"""`ClientInput`: the head of a conversation's pipeline. It knows no socket; whoever reads one feeds it."""

from __future__ import annotations

from pipecat.frames.frames import InputAudioRawFrame

from ...pipeline.engine.processor import Processor
from ...pipeline.engine.stages import Stage
from ...pipeline.frames import ClientFragmentFrame, ClientTurnEndFrame, UserSpeakingFrame
from ..dialects import protocol
from .resampler import PIPELINE_RATE, Resampler


class ClientInput(Processor):
    """The head of the pipeline: turns the client's messages into frames.

    Consumes: nothing; `receive` and `receive_audio` feed it.
    Emits: `InputAudioRawFrame` (16 kHz), `ClientFragmentFrame`, `ClientTurnEndFrame`, `UserSpeakingFrame`.
    On barge-in: passes it on.
    """

    stage = Stage.INPUT

    def __init__(self) -> None:
        super().__init__()
        self._resample = Resampler(PIPELINE_RATE, PIPELINE_RATE)  # from the client's rate
        self.audio_s = 0.0  # microphone audio received, in seconds

    def set_rate(self, sample_rate: int) -> None:
        """Say at what rate the client's audio comes; 16 kHz until then."""
        self._resample = Resampler(sample_rate, PIPELINE_RATE)

    async def receive_audio(self, pcm: bytes) -> None:
        """Take microphone audio, PCM16 mono at the client's rate."""
        pcm = self._resample(pcm)
        if pcm:
            self.audio_s += len(pcm) / 2 / PIPELINE_RATE
            await self.push_frame(InputAudioRawFrame(audio=pcm, sample_rate=PIPELINE_RATE, num_channels=1))

    async def receive(self, message: protocol.ClientMessage) -> None:
        """Take a control message; those that concern the connection only are ignored here."""
        match message:
            case protocol.SttFragment(text=text, is_final=is_final):
                await self.push_frame(ClientFragmentFrame(text=text, is_final=is_final))
            case protocol.VadEnd():
                await self.push_frame(ClientTurnEndFrame())
            case protocol.Typed(text=text):
                await self.push_frame(UserSpeakingFrame())  # whoever types wants the floor
                await self.push_frame(ClientFragmentFrame(text=text, is_final=True))
                await self.push_frame(ClientTurnEndFrame())
            case protocol.UserSpeaking(confidence=confidence):
                await self.push_frame(UserSpeakingFrame(confidence=confidence))
