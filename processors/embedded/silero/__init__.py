"""Silero's network: the chunks of many conversations in one batch."""

from .batching import SileroModel, SpeechModel, SpeechStream, shared_model

__all__ = ["SileroModel", "SpeechModel", "SpeechStream", "shared_model"]
