"""G.711 mu-law, the sound of telephones: 16 bits to 8 and back, by table. (`audioop` is gone in Python 3.13.)

Reference: ITU-T G.711: 14 bits, a bias of 33, a clip of 8,191 with it. The two lowest of 16 bits are dropped.
"""

from __future__ import annotations

import numpy as np

_BIAS, _CLIP = 33, 8_191


def _decoding() -> np.ndarray:
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    size = ((mantissa << 1) + _BIAS << exponent) - _BIAS
    return (np.where(code & 0x80, -size, size) << 2).astype(np.int16)


def _encoding() -> np.ndarray:
    sample = np.arange(65_536, dtype=np.uint16).view(np.int16).astype(np.int32)  # indexed by the sample's bits
    size = np.minimum(np.abs(sample >> 2) + _BIAS, _CLIP)
    exponent = np.frexp(size.astype(np.float64))[1] - 6  # 0 where bit 5 is the highest, which the bias sees to
    code = np.where(sample < 0, 0x80, 0) | exponent << 4 | (size >> exponent + 1) & 15
    return ~code.astype(np.uint8)


_DECODED, _ENCODED = _decoding(), _encoding()


def decode_mulaw(coded: bytes) -> bytes:
    """PCM16 of mu-law bytes."""
    return _DECODED[np.frombuffer(coded, np.uint8)].tobytes()


def encode_mulaw(pcm: bytes) -> bytes:
    """Mu-law bytes of PCM16; an odd byte at the end is an error of the caller's."""
    return _ENCODED[np.frombuffer(pcm, np.uint16)].tobytes()
