"""What everybody who takes audio needs to know of it: pure."""

from __future__ import annotations

import numpy as np


def mono(audio: bytes, channels: int) -> bytes:
    """Return PCM16 with its channels averaged; an incomplete last sample is left out."""
    channels = max(channels, 1)
    size = len(audio) // (2 * channels) * 2 * channels
    if channels == 1:
        return audio if size == len(audio) else audio[:size]
    return np.frombuffer(audio[:size], np.int16).reshape(-1, channels).mean(axis=1).astype(np.int16).tobytes()
