"""Services that a bot may name in its environment, each with the embedded part behind it."""

from .cloud_services import prepare, recognisers, voices

__all__ = ["prepare", "recognisers", "voices"]
