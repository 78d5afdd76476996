"""Services that a bot may name in its environment, each with the embedded part behind it."""

from .cloud_services import ReplaceableRecogniser, ReplaceableVoice, chosen, prepare, recognisers, voices

__all__ = ["ReplaceableRecogniser", "ReplaceableVoice", "chosen", "prepare", "recognisers", "voices"]
