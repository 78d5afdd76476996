"""Which TTS services are sure whose audio they push: Pipecat's by a list, others by how they are built.

A service labels its audio with a context id. One that gets audio on a connection of its own, without ids, can only
label it by what is playing *now*: late audio of a cut reply gets the next reply's id and would be heard.

    says so itself             `labels_its_audio` of the class           -> as it says
    in KNOWN                   the id comes back with the audio          -> sure
    reconnects when cut        `InterruptibleTTSService`                 -> sure: late audio has no way to come
    yields from `run_tts`      a plain `TTSService` without a connection -> sure: the id is an argument; one of its own
                               has no coroutine that is not Pipecat's too
    anything else                                                        -> not sure

A subclass of a known one counts as that one while it overrides none of its private methods, as all receivers are; one
of `InterruptibleTTSService` while it leaves `_handle_interruption` alone. Nobody looks into a method's code.
"""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import Any

from pipecat.services.tts_service import InterruptibleTTSService, TTSService
from pipecat.services.websocket_service import WebsocketService

from ..engine.pipecat_seam import OF_A_CONNECTION, reconnects_when_interrupted

_OF_A_CONNECTION = (*OF_A_CONNECTION, "_on_audio")  # and as others like to call it
PIPECAT = "1.14.0"  # whose sources KNOWN was read from

# Audio on a connection of their own, and the id that it belongs to comes with each message or is the connection's.
KNOWN = frozenset(
    {
        "pipecat.services.asyncai.tts.AsyncAITTSService",  # context_id
        "pipecat.services.azure.tts.AzureTTSService",  # one request at a time; an interruption waits for its end
        "pipecat.services.cartesia.tts.CartesiaTTSService",  # context_id
        "pipecat.services.elevenlabs.dialogue.tts.ElevenLabsDialogueTTSService",  # context_id
        "pipecat.services.elevenlabs.tts.ElevenLabsTTSService",  # contextId
        "pipecat.services.gradium.tts.GradiumTTSService",  # client_req_id
        "pipecat.services.inworld.tts.InworldTTSService",  # contextId
        "pipecat.services.nvidia.sagemaker.tts.NvidiaSageMakerTTSService",  # reconnects when cut, in a way of its own
        "pipecat.services.nvidia.tts.NvidiaTTSService",  # a stream and a queue for each id
        "pipecat.services.resembleai.tts.ResembleAITTSService",  # request_id
        "pipecat.services.rime.tts.RimeTTSService",  # contextId
        "pipecat.services.rime.tts_v1.RimeV1TTSService",  # context_id
        "pipecat.services.soniox.tts.SonioxTTSService",  # stream_id
    }
)


def labels_are_sure(service: type[TTSService]) -> bool:
    """Whether late audio of this service is sure to carry the id of the reply that it was made for, or not to come."""
    says = getattr(service, "labels_its_audio", None)
    if says is not None:
        return bool(says)
    known = next((cls for cls in service.__mro__ if _name(cls) in KNOWN), None)
    if known is not None:
        return not any(_is_private(name) and hasattr(known, name) for name in _methods(service, known))
    if issubclass(service, InterruptibleTTSService):
        return reconnects_when_interrupted(service)
    if issubclass(service, WebsocketService):
        return False
    return not any(_may_receive(name, member) for name, member in _methods(service, TTSService).items())


def _methods(service: type, base: type) -> dict[str, Any]:
    """The methods that make `service` another class than `base`."""
    between = [cls for cls in service.__mro__ if cls not in base.__mro__]
    return {name: member for cls in between for name, member in vars(cls).items() if callable(member)}


def _may_receive(name: str, member: Any) -> bool:
    """Whether a method could take audio off a connection: by its name, or, of a class that is not Pipecat's, any
    coroutine that nobody but the class itself can call, whatever it is called.
    """
    if name.startswith(_OF_A_CONNECTION):
        return True
    is_foreign = not getattr(member, "__module__", "").startswith("pipecat.")
    return is_foreign and iscoroutinefunction(member) and not hasattr(TTSService, name)


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
