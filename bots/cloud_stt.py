"""Cloud recognisers whose Pipecat services want packages of their own: the extra `cloud`."""

import deepgram.listen.v1.client  # noqa: F401 - the SDK imports it when first connecting, in the middle of a call
from pipecat.services.deepgram.stt import DeepgramSTTService

from .cloud_services import STT, ReplaceableRecogniser


class Deepgram(ReplaceableRecogniser, DeepgramSTTService):
    """Deepgram, with the embedded recogniser behind it."""

    about = STT[0]
