"""Cloud voices, with the embedded one behind them."""

from collections.abc import AsyncGenerator

from pipecat.frames.frames import Frame
from pipecat.services.cartesia.tts import CartesiaTTSService
from pipecat.services.elevenlabs.tts import ElevenLabsTTSService

from .cloud_services import TTS, ReplaceableVoice


class Cartesia(ReplaceableVoice, CartesiaTTSService):
    """Cartesia's voice, over its WebSocket."""

    about = TTS[0]

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """See Pipecat."""
        async for frame in self._attempt(context_id, super().run_tts(text, context_id)):
            yield frame


class ElevenLabs(ReplaceableVoice, ElevenLabsTTSService):
    """ElevenLabs' voice, over its multi-context WebSocket."""

    about = TTS[1]

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """See Pipecat."""
        async for frame in self._attempt(context_id, super().run_tts(text, context_id)):
            yield frame


VOICES = {voice.about.name: voice for voice in (Cartesia, ElevenLabs)}
