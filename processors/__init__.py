"""The processors a voice bot is made of; each also runs in a stock Pipecat pipeline."""

from .gate import InterruptionGate
from .intent import HttpIntent, KeywordIntent
from .responder import Responder
from .retrieval import HttpRetriever, SqliteRetriever
from .smart_turn import SmartTurn
from .spoken_text import SpokenText
from .stt import EmbeddedSTT
from .tracker import StateTracker
from .tts import EmbeddedTTS
from .turns import TurnAggregator
from .vad import SileroVAD
from .vad_analyzer import SileroAnalyzer

__all__ = [
    "EmbeddedSTT",
    "EmbeddedTTS",
    "HttpIntent",
    "HttpRetriever",
    "InterruptionGate",
    "KeywordIntent",
    "Responder",
    "SileroAnalyzer",
    "SileroVAD",
    "SmartTurn",
    "SpokenText",
    "SqliteRetriever",
    "StateTracker",
    "TurnAggregator",
]
