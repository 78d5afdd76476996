"""Which TTS services are sure whose audio they push. Pipecat's are judged without their vendors' SDKs."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import AsyncGenerator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from pipecat.frames.frames import Frame, TTSAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services import tts_service, websocket_service
from pipecat.services.cartesia.tts import CartesiaTTSService
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import InterruptibleTTSService, TTSService, WebsocketTTSService

from leibniz_voice.pipeline import Pipeline
from leibniz_voice.pipeline.errors import PipelineOrderError
from leibniz_voice.pipeline.interruption.labelled_services import KNOWN, PIPECAT, labels_are_sure

UNSURE = {  # read in their sources: audio comes without an id, and is labelled by what is playing
    "pipecat.services.bland.tts.BlandTTSService",
    "pipecat.services.deepgram.flux.sagemaker.tts.DeepgramFluxSageMakerTTSService",
    "pipecat.services.deepgram.flux.tts.DeepgramFluxTTSService",
    "pipecat.services.deepgram.flux.tts_base.DeepgramFluxTTSBase",
    "pipecat.services.deepgram.sagemaker.tts.DeepgramSageMakerTTSService",
    "pipecat.services.deepgram.tts.DeepgramTTSService",
    "pipecat.services.together.tts.TogetherTTSService",
    "pipecat.services.xai.tts.XAITTSService",
}
# A base that nobody uses alone: its sons are known, it is not.
BASES = {"pipecat.services.elevenlabs.tts_base.ElevenLabsTTSBase"}

# Until 0.1 a service was unsure if a receiver of its asked what is playing and named no "context_id". Where the sources
# say otherwise:
OTHERWISE = {
    "pipecat.services.bland.tts.BlandTTSService": "its messages carry an id, its audio is binary and carries none",
    "pipecat.services.deepgram.sagemaker.tts.DeepgramSageMakerTTSService": "its receiver has a name that nobody knew",
    "pipecat.services.elevenlabs.tts_base.ElevenLabsTTSBase": "it has no receiver; it is a base",
}


# -- Pipecat's, as their sources say -----------------------------------------------------------------------------


class Source:
    """A class of Pipecat's, as it stands in its file."""

    def __init__(self, name: str, node: ast.ClassDef, names: dict[str, str]) -> None:
        self.name = name  # qualified
        self.bases = [names.get(ast.unparse(base), ast.unparse(base)) for base in node.bases]
        self.methods = {
            each.name: each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        }


@cache
def sources() -> dict[str, Source]:
    """Return every class in Pipecat's files about TTS, by qualified name."""
    spec = importlib.util.find_spec("pipecat")
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    found = {}
    for path in sorted((root / "services").rglob("tts*.py")):
        module = ".".join(("pipecat", *path.relative_to(root).with_suffix("").parts))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        names = {alias.asname or alias.name: f"{node.module}.{alias.name}" for node in imports for alias in node.names}
        names |= {node.name: f"{module}.{node.name}" for node in classes}
        found |= {f"{module}.{node.name}": Source(f"{module}.{node.name}", node, names) for node in classes}
    return found


@cache
def made(name: str) -> type | None:
    """Return a class with the same bases and names of methods; None for one that is neither Pipecat's nor about TTS."""
    module, _, own = name.rpartition(".")
    for real in (tts_service, websocket_service):
        if module == real.__name__:
            return getattr(real, own)
    source = sources().get(name)
    if source is None:
        return None
    bases = tuple(base for base in map(made, source.bases) if base is not None)
    return type(own, bases, {"__module__": module, **dict.fromkeys(source.methods, lambda self: None)})


@cache
def services() -> dict[str, type[TTSService]]:
    """Return Pipecat's services, by qualified name."""
    classes = {name: made(name) for name in sources() if not name.startswith("pipecat.services.tts_service.")}
    return {name: cls for name, cls in classes.items() if cls is not None and issubclass(cls, TTSService)}


def was_unsure(service: type[TTSService]) -> bool:
    """The rule until 0.1, on the sources."""
    if issubclass(service, InterruptibleTTSService):
        return False
    classes = [sources().get(f"{cls.__module__}.{cls.__qualname__}") for cls in service.__mro__]
    return any(
        name.startswith(("_receive", "_handle_audio", "_process_messages", "_on_audio")) and asks_what_plays(method)
        for source in classes
        if source is not None and not source.name.startswith("pipecat.services.tts_service.")
        for name, method in source.methods.items()
    )


def asks_what_plays(method: ast.AST) -> bool:
    nodes = list(ast.walk(method))
    asks = any(isinstance(node, ast.Attribute) and node.attr == "get_active_audio_context_id" for node in nodes)
    return asks and not any(isinstance(node, ast.Constant) and node.value == "context_id" for node in nodes)


def test_the_list_was_read_from_the_pipecat_that_is_installed():
    """A new Pipecat: read the receivers of what is new or changed in services/*/tts*.py, then set the version."""
    assert version("pipecat-ai") == PIPECAT


@pytest.mark.slow
def test_every_service_of_the_list_exists():
    assert KNOWN - services().keys() == set()
    assert len(services()) > 50


@pytest.mark.slow
def test_of_pipecats_services_these_are_unsure():
    assert {name for name, service in services().items() if not labels_are_sure(service)} == UNSURE | BASES


@pytest.mark.slow
def test_where_the_verdict_differs_from_that_of_the_rule_before_there_is_a_reason():
    changed = {name for name, service in services().items() if labels_are_sure(service) is was_unsure(service)}
    assert changed == OTHERWISE.keys()


# -- others ------------------------------------------------------------------------------------------------------


class Plain(TTSService):
    """A user's own, on HTTP: it yields what it gets."""

    def __init__(self) -> None:
        super().__init__(settings=TTSSettings(model=None, voice=None, language=None))

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        yield TTSAudioRawFrame(bytes(640), 16000, 1, context_id=context_id)

    async def start(self, frame: Any) -> None:
        await super().start(frame)


class OnASocket(Plain):
    """A user's own, with a connection that Pipecat's base class knows nothing of."""

    async def _receive_messages(self) -> None: ...


class OnASocketByAnotherName(Plain):
    async def _listen(self) -> None: ...


class WithHelpers(Plain):
    def _loud(self, text: str) -> str:
        return text.upper()


class Declared(OnASocket):
    labels_its_audio = True


class Confessed(Plain):
    labels_its_audio = False


class OfACutter(InterruptibleTTSService):
    async def _receive_messages(self) -> None: ...


class OfACutterThatDoesNotCut(OfACutter):
    async def _handle_interruption(self, frame: Any, direction: FrameDirection) -> None: ...


class OfAWebsocket(WebsocketTTSService):
    pass


class MyCartesia(CartesiaTTSService):
    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        async for frame in super().run_tts(text.upper(), context_id):
            yield frame

    async def _my_own(self) -> None: ...


class Receiving:
    async def _process_messages(self) -> None: ...


class MyOtherCartesia(Receiving, MyCartesia):
    pass


@pytest.mark.parametrize(
    ("service", "is_sure"),
    [
        (Plain, True),
        (OnASocket, False),
        (OnASocketByAnotherName, False),
        (WithHelpers, True),
        (Declared, True),
        (Confessed, False),
        (OfACutter, True),
        (OfACutterThatDoesNotCut, False),
        (OfAWebsocket, False),
        (CartesiaTTSService, True),
        (MyCartesia, True),
        (MyOtherCartesia, False),
    ],
)
def test_a_users_own_service_is_judged_by_its_base_and_by_what_it_says(service, is_sure):
    assert labels_are_sure(service) is is_sure


def test_a_pipeline_refuses_an_unsure_service_and_says_what_can_be_done():
    with pytest.raises(PipelineOrderError, match="OnASocket is not known to be sure whose audio") as refusal:
        Pipeline([OnASocket()])
    for way in ("InterruptibleTTSService", "labels_its_audio = True", "trust_late_audio=True"):
        assert way in str(refusal.value)


def test_a_pipeline_takes_an_unsure_service_whose_author_or_user_answers_for_it():
    Pipeline([OnASocket()], trust_late_audio=True)
    Pipeline([Declared()])
