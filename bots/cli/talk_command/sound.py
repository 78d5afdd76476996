"""What is said in a call and what was heard: WAV files in and out, and the embedded voice."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np

from ..scripts import UsageError

RATE = 16_000  # Hz of everything here
MAX_S = 600.0  # of a file that is played
AUDIBLE = 200  # |sample| from which audio is heard: -44 dB, under any speech and over resampling noise
AUDIO_SUFFIXES = (".wav", ".wave", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac")
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE  # RIFF format tags


def is_file_name(text: str) -> bool:
    """Whether `text` means a file rather than words to speak."""
    if text.lower().endswith(AUDIO_SUFFIXES):
        return True
    try:
        return Path(text).is_file()
    except OSError:  # a long text is no file name
        return False


def read_wav(path: str) -> bytes:
    """Return a WAV file of any rate, width and number of channels as PCM16 mono at RATE. Raises `UsageError`."""
    import soxr

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    try:
        samples, rate = _parse(data)
    except struct.error:
        raise UsageError(f"{path}: a WAV file whose header is cut short; make it again") from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    if len(samples) > MAX_S * rate:
        raise UsageError(f"{path}: longer than {MAX_S:.0f} s")
    if rate != RATE:
        samples = soxr.resample(samples, rate, RATE)
    pcm = (np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16)
    if not np.any(np.abs(pcm.astype(np.int32)) > AUDIBLE):
        raise UsageError(f"{path}: nothing can be heard in it")
    return pcm.tobytes()


def _parse(data: bytes) -> tuple[np.ndarray, int]:
    """Return ((n,) float32 mono in [-1, 1], Hz) of a RIFF/WAVE file; the wave module refuses many."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise ValueError("no WAV file; convert it first, for example with ffmpeg or sox")
    form: tuple[int, int, int, int] | None = None  # tag, channels, Hz, bits
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        body = data[at + 8 : at + 8 + size]  # a size too large, as streaming tools write, ends at the end of the file
        if name == b"fmt ":
            tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
            if tag == _EXTENSIBLE:
                tag = struct.unpack_from("<H", body, 24)[0]
            form = tag, channels, rate, bits
        elif name == b"data" and form is not None:
            tag, channels, rate, bits = form
            if not 1 <= channels <= 64 or not 1000 <= rate <= 768_000:
                raise ValueError(f"a WAV file of {channels} channels at {rate} Hz is not understood")
            samples = _samples(body, tag, bits)
            return samples[: len(samples) // channels * channels].reshape(-1, channels).mean(axis=1), rate
        at += 8 + size + (size & 1)
    raise ValueError("a WAV file without audio")


def _samples(body: bytes, tag: int, bits: int) -> np.ndarray:
    body = body[: len(body) // max(1, bits // 8) * max(1, bits // 8)]
    match tag, bits:
        case (_, 8) if tag == _PCM:
            return (np.frombuffer(body, np.uint8).astype(np.float32) - 128) / 128
        case (_, 16) if tag == _PCM:
            return np.frombuffer(body, "<i2").astype(np.float32) / 2**15
        case (_, 24) if tag == _PCM:
            padded = np.zeros((len(body) // 3, 4), np.uint8)
            padded[:, 1:] = np.frombuffer(body, np.uint8).reshape(-1, 3)
            return padded.view("<i4").ravel().astype(np.float32) / 2**31
        case (_, 32) if tag == _PCM:
            return np.frombuffer(body, "<i4").astype(np.float32) / 2**31
        case (_, 32 | 64) if tag == _FLOAT:
            return np.nan_to_num(np.frombuffer(body, f"<f{bits // 8}")).astype(np.float32)
    raise ValueError(f"a WAV file in format {tag} with {bits} bits is not understood; convert it to 16-bit PCM")


async def synthesise(texts: list[str], *, voice: str) -> list[bytes]:
    """Speak texts with the embedded voice: PCM16 mono at RATE each. Raises `UsageError`."""
    from leibniz_voice.pipeline.errors import ConfigurationError, ServiceError
    from leibniz_voice.processors.embedded.voice.espeak import EspeakVoice
    from leibniz_voice.processors.embedded.workers.shared import close_all

    speaker = EspeakVoice(voice=voice, sample_rate=RATE)
    try:
        spoken = [b"".join([pcm async for pcm, _ in speaker.speak(text)]) for text in texts]
    except (ConfigurationError, ServiceError) as error:
        raise UsageError(str(error)) from error
    finally:
        speaker.close()
        await close_all()
    for text, pcm in zip(texts, spoken, strict=True):
        if audible_span(pcm) is None:
            raise UsageError(f"there is nothing to say in {text!r}")
    return spoken


def audible_span(pcm: bytes | bytearray, *, from_s: float = 0.0) -> tuple[float, float] | None:
    """Return when the first and the last audible sample sound, in s, looking from `from_s` on; None if none does."""
    first = int(from_s * RATE)
    loud = np.flatnonzero(np.abs(np.frombuffer(bytes(pcm), np.int16)[first:].astype(np.int32)) > AUDIBLE)
    return ((first + int(loud[0])) / RATE, (first + int(loud[-1]) + 1) / RATE) if len(loud) else None


def write_wav(path: str, heard: bytes | bytearray, said: bytes | bytearray | None = None) -> None:
    """Write what was heard, 16 kHz mono; with `said`, stereo with the user on the left. Raises `UsageError`."""
    frames = bytes(heard)
    if said is not None:
        both = np.zeros((max(len(heard), len(said)) // 2, 2), np.int16)
        both[: len(said) // 2, 0] = np.frombuffer(bytes(said), np.int16)
        both[: len(heard) // 2, 1] = np.frombuffer(frames, np.int16)
        frames = both.tobytes()
    try:
        with wave.open(path, "wb") as file:
            file.setnchannels(1 if said is None else 2)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(frames)
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
