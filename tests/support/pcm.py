"""Audio that can be told from silence."""

import numpy as np

CHUNK = b"\x00\x10" * 320  # 20 ms at 16 kHz, loud enough to be told from silence


def tone(seconds: float) -> bytes:
    return (8000 * np.sin(np.arange(int(16000 * seconds)) / 10)).astype(np.int16).tobytes()


def loud(pcm: bytes | bytearray) -> np.ndarray:
    return np.flatnonzero(np.abs(np.frombuffer(bytes(pcm), np.int16).astype(int)) > 200)
