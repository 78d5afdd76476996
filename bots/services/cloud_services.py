"""Cloud recognisers and voices by environment, each with the embedded part behind it for when it fails.

A part of `bots/cloud.py`; docs/cloud.md has the table of variables. Pipecat's services do the work. What is added here:
starting never waits longer than `CONNECT_S` for one, a refused key is said once and in words, and none of it ends a
conversation.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from loguru import logger
from pipecat.frames.frames import ErrorFrame, Frame, InterimTranscriptionFrame, TranscriptionFrame, TTSStoppedFrame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from pipecat.utils.errors import ErrorCategory

from ...pipeline.errors import ConfigurationError
from ...pipeline.listening.standby import Standby
from ...processors import EmbeddedSTT, EmbeddedTTS

CONNECT_S = 3.0  # for a service to open its connection; the conversation begins without it after that
RATE = 16_000  # Hz of the voices; the pipeline's, so that nothing is resampled
EMBEDDED = "embedded"  # what STT and TTS may hold to have the embedded part in spite of a key


@dataclass(frozen=True, slots=True)
class Service:
    """A cloud service that is known here. `PREFIX_API_KEY` is its key, `PREFIX_URL` an address other than its own."""

    name: str  # as STT or TTS names it
    prefix: str  # of its variables
    url: str  # where it is by default
    model: str  # where PREFIX_MODEL is unset
    needs_voice: bool = False  # PREFIX_VOICE_ID

    def of(self, environment: Mapping[str, str], what: str, default: str = "") -> str:
        """The value of PREFIX_WHAT."""
        return environment.get(f"{self.prefix}_{what}", "").strip() or default


STT = (Service("deepgram", "DEEPGRAM", "wss://api.deepgram.com", "nova-3-general"),)
TTS = (
    Service("cartesia", "CARTESIA", "wss://api.cartesia.ai/tts/websocket", "sonic-3.6", needs_voice=True),
    Service("elevenlabs", "ELEVENLABS", "wss://api.elevenlabs.io", "eleven_flash_v2_5", needs_voice=True),
)


def chosen(environment: Mapping[str, str], kind: str) -> Service | None:
    """The service that STT or TTS (`kind`) names, else the one that has a key; None for the embedded part.

    Raises `ConfigurationError` for a name that is unknown, a key or voice that is missing, or two keys and no name.
    """
    services = {service.name: service for service in (STT if kind == "STT" else TTS)}
    name = environment.get(kind, "").strip().lower()
    if name == EMBEDDED:
        return None
    if name and name not in services:
        raise ConfigurationError(f"{kind} is {name!r}; give {', '.join(services)} or {EMBEDDED}")
    with_key = [service for service in services.values() if service.of(environment, "API_KEY")]
    if not name and len(with_key) > 1:
        keys = " and ".join(f"{service.prefix}_API_KEY" for service in with_key)
        raise ConfigurationError(f"{keys} are set; say which one by {kind}={with_key[0].name}, for example")
    service = services[name] if name else with_key[0] if with_key else None
    if service is None:
        return None
    needed = ("API_KEY", "VOICE_ID") if service.needs_voice else ("API_KEY",)
    if missing := [f"{service.prefix}_{what}" for what in needed if not service.of(environment, what)]:
        raise ConfigurationError(f"{kind} is {service.name}, but {' and '.join(missing)} is not set")
    return service


def prepare(environment: Mapping[str, str]) -> None:
    """Before serving: import what the chosen services need, so that no conversation waits for it.

    Raises `ConfigurationError` for what could not be served.
    """
    for kind in ("STT", "TTS"):
        if (service := chosen(environment, kind)) is not None:
            _processor_of(service)


def recognisers(environment: Mapping[str, str], *, phrases: Sequence[str]) -> list[FrameProcessor]:
    """What hears the user: the configured service, and the embedded recogniser. Raises `ConfigurationError`."""
    service = chosen(environment, "STT")
    if service is None:
        return [EmbeddedSTT(phrases=phrases)]
    recogniser = _processor_of(service)
    cloud = recogniser(
        api_key=service.of(environment, "API_KEY"),
        base_url=service.of(environment, "URL"),
        settings=recogniser.Settings(model=service.of(environment, "MODEL", service.model)),
    )
    return [cloud, EmbeddedSTT(phrases=phrases, standby=Standby(is_down=lambda: cloud.is_down))]


def voices(environment: Mapping[str, str]) -> list[FrameProcessor]:
    """What speaks: the configured service, and the embedded voice. Raises `ConfigurationError`."""
    service = chosen(environment, "TTS")
    if service is None:
        return [EmbeddedTTS()]
    voice = _processor_of(service)
    cloud = voice(
        api_key=service.of(environment, "API_KEY"),
        url=service.of(environment, "URL", service.url),
        sample_rate=RATE,
        settings=voice.Settings(
            voice=service.of(environment, "VOICE_ID"), model=service.of(environment, "MODEL", service.model)
        ),
    )
    return [cloud, EmbeddedTTS(is_standby=True)]


class _Replaceable(FrameProcessor):
    """Mixed into one of Pipecat's services: it may fail, as another part stands behind it."""

    about: Service  # whose name and key are told
    stand_in: str  # what takes over, in words

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.is_refused = False  # for good, in this conversation: its key or its settings are wrong
        self.is_down = False  # it has failed and has not shown itself since
        self._has_failed = asyncio.Event()  # once is enough
        self.add_event_handler("on_error", self._explain)

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Connect; not for longer than `CONNECT_S`. What is still connecting then goes on, or is tried when needed."""
        connecting, failed = (asyncio.ensure_future(what) for what in (super().setup(setup), self._has_failed.wait()))
        try:
            await asyncio.wait({connecting, failed}, timeout=CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            failed.cancel()
            connecting.cancel()
        if connecting.done():
            connecting.result()
        elif not self.is_down:
            self.is_down = True
            logger.error(f"{self.about.name} did not answer within {CONNECT_S:g} s; {self.stand_in}")

    async def set_usable(self, is_usable: bool) -> None:
        """Remember it, but stay in the pipeline: Pipecat would silence it, and our session would not begin."""
        self.is_refused = not is_usable

    async def _explain(self, _: Any, error: ErrorFrame) -> None:
        was_down, self.is_down = self.is_down, True
        self._has_failed.set()
        if was_down:
            return  # said once
        if error.category in (ErrorCategory.AUTHENTICATION, ErrorCategory.AUTHORIZATION):
            logger.error(f"{self.about.name} refuses the key: check {self.about.prefix}_API_KEY; {self.stand_in}")
        else:
            logger.error(f"{self.about.name} fails ({error.error}); {self.stand_in}")


class ReplaceableRecogniser(_Replaceable):
    """A recogniser that may fail. It is down from an error to its next words."""

    stand_in = "the embedded recogniser listens instead"

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        """Words of its own show that it works."""
        if isinstance(frame, TranscriptionFrame | InterimTranscriptionFrame):
            self.is_down = False
        await super().push_frame(frame, direction)


class ReplaceableVoice(_Replaceable):
    """A voice that may fail. Once its key was refused it is not tried again; else it is, with every reply."""

    stand_in = "the embedded voice speaks instead"
    run_tts: Callable[..., AsyncGenerator[Frame | None, None]]

    async def _attempt(
        self, context_id: str, frames: AsyncGenerator[Frame | None, None]
    ) -> AsyncGenerator[Frame | None, None]:
        """What `run_tts` of a service on a WebSocket yields: nothing, or why it failed; in bounded time."""
        try:  # nothing is yielded inside: the time would be the consumer's too, and its task be cancelled
            async with asyncio.timeout(0 if self.is_refused else CONNECT_S):
                made = [frame async for frame in frames]
        except TimeoutError:
            await self.push_error(f"{self.about.name} is not available")
            made = [TTSStoppedFrame(context_id=context_id)]
        for frame in made:
            yield frame


# -- the services themselves: each vendor's code is imported only when it is chosen ---------------------------------


@cache
def _processor_of(service: Service) -> Any:
    """The processor class of a service. Raises `ConfigurationError` where a package is missing."""
    return {"deepgram": _deepgram, "cartesia": _cartesia, "elevenlabs": _elevenlabs}[service.name](service)


def _deepgram(service: Service) -> Any:
    if importlib.util.find_spec("deepgram") is None:  # before Pipecat says at length what is missing
        raise ConfigurationError(f"STT is {service.name}, which needs pip install 'leibniz-voice[cloud]'")
    import deepgram.listen.v1.client  # noqa: F401 - the SDK does when first connecting, in the middle of a call
    from pipecat.services.deepgram.stt import DeepgramSTTService

    class Deepgram(ReplaceableRecogniser, DeepgramSTTService):
        """Deepgram, with the embedded recogniser behind it."""

        about = service

    return Deepgram


def _cartesia(service: Service) -> Any:
    from pipecat.services.cartesia.tts import CartesiaTTSService

    class Cartesia(ReplaceableVoice, CartesiaTTSService):
        """Cartesia's voice, over its WebSocket."""

        about = service

        async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
            """See Pipecat."""
            async for frame in self._attempt(context_id, super().run_tts(text, context_id)):
                yield frame

    return Cartesia


def _elevenlabs(service: Service) -> Any:
    from pipecat.services.elevenlabs.tts import ElevenLabsTTSService

    class ElevenLabs(ReplaceableVoice, ElevenLabsTTSService):
        """ElevenLabs' voice, over its multi-context WebSocket."""

        about = service

        async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
            """See Pipecat."""
            async for frame in self._attempt(context_id, super().run_tts(text, context_id)):
                yield frame

    return ElevenLabs
