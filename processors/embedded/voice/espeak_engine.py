"""espeak-ng by ctypes, in a worker process. It is GPL-3 and crashes under two threads, so it lives alone.

Imports nothing of the project, see child.py. The library writes 22,050 Hz and says at which sample each word begins;
what leaves here is resampled and cut into even chunks, each with the words that begin in it.
"""

from __future__ import annotations

import ctypes
import json
import re
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import soxr

CHUNK_MS = 40  # of audio in one chunk that leaves here
SHORTEST_MS = 20  # of the last chunk, filled up with silence
# From espeak-ng's speak_lib.h:
_SYNCHRONOUS, _BUFFER_MS, _DONT_EXIT = 2, 40, 0x8000  # output mode, length of a callback's audio, option
_UTF8, _END_PAUSE = 1, 0x1000  # flags of espeak_Synth
_EVENT_END, _EVENT_WORD = 0, 1
_RATE, _PITCH = 1, 3  # parameters

Emit = Callable[["bytes"], None]


class _EspeakEvent(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_EspeakEvent))


class _Espeak:
    """The library. One per process, one text at a time. Raises ValueError without espeakng-loader."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise ValueError("the embedded voice needs espeakng-loader; install leibniz-voice[embedded]") from error
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = str(espeakng_loader.get_data_path()).encode()
        self.sample_rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, data, _DONT_EXIT)  # Hz
        if self.sample_rate <= 0:
            raise ValueError(f"espeak-ng cannot read its data in {data.decode()}")
        self._callback = _Callback(self._on_audio)  # kept alive for the library
        self._library.espeak_SetSynthCallback(self._callback)
        self._voice = ""  # the one set last
        self._take: Callable[[np.ndarray, list[tuple[int, int, float]]], bool] | None = None  # of the text in work
        self._error: BaseException | None = None  # what `take` raised; a callback from C cannot raise

    def synthesise(
        self,
        text: str,
        *,
        rate_wpm: int,
        pitch: int,
        voice: str,
        take: Callable[[np.ndarray, list[tuple[int, int, float]]], bool],
    ) -> None:
        """Speak `text` into `take(pcm, words)`: (n,) int16 mono, and (first character, length, ms) of words.

        `take` returns False to abort. Raises ValueError for an unknown voice.
        """
        if voice != self._voice:
            if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
                raise ValueError(f"espeak-ng has no voice {voice!r}; `en`, `en-us` and `de` are some it has")
            self._voice = voice
        self._library.espeak_SetParameter(_RATE, rate_wpm, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        raw = text.replace("\0", " ").encode("utf-8", "replace") + b"\0"
        self._take, self._error = take, None
        status = self._library.espeak_Synth(raw, len(raw), 0, 0, 0, _UTF8 | _END_PAUSE, None, None)
        self._take = None
        if self._error is not None:
            raise self._error
        if status != 0:
            raise RuntimeError(f"espeak-ng failed with status {status}")

    def _on_audio(self, samples: Any, count: int, events: Any) -> int:
        try:
            words, i = [], 0
            while events and events[i].type != _EVENT_END:
                event = events[i]
                if event.type == _EVENT_WORD:
                    words.append((event.text_position - 1, event.length, float(event.audio_position)))
                i += 1
            pcm = np.empty(0, np.int16)
            if samples and count > 0:
                pcm = np.ctypeslib.as_array(samples, (count,)).copy()
            return 0 if self._take is not None and self._take(pcm, words) else 1
        except BaseException as error:
            self._error = error
            return 1


_REST = re.compile(r"(?:['\u2019]\w+)*")  # of a contraction


class Cutter:
    """Resamples one text's audio and cuts it into chunks of CHUNK_MS, with the words that begin in each."""

    def __init__(self, text: str, rate: int, wanted_rate: int, emit: Emit) -> None:
        self._text = text  # words are cut out of it
        self._rate = wanted_rate  # Hz
        self._size = wanted_rate * CHUNK_MS // 1000  # samples
        self._resample = soxr.ResampleStream(rate, wanted_rate, 1, "int16", "MQ")
        self._emit = emit  # takes a packed chunk
        self._pcm = np.empty(0, np.int16)  # resampled, not sent
        self._sent = 0  # samples
        self._words: deque[tuple[str, float]] = deque()  # (word, ms), not sent
        self._seen_upto = -1  # last character that belongs to a word so far
        self._last_ms = 0.0  # start of the newest word; they do not run backwards

    def push(self, pcm: np.ndarray, words: list[tuple[int, int, float]]) -> None:
        """Take what the library gave."""
        for first, length, ms in words:
            end = _REST.match(self._text, first + length).end()  # type: ignore[union-attr] # the library stops at it
            word = self._text[first:end].strip()
            if first <= self._seen_upto or not word:
                continue  # several events for one span, as in "$42.50"
            self._seen_upto = end - 1
            self._last_ms = max(self._last_ms, ms)
            self._words.append((word, self._last_ms))
        if len(pcm):
            self._pcm = np.concatenate([self._pcm, self._resample.resample_chunk(pcm)])
        while len(self._pcm) >= self._size:
            self._send(self._pcm[: self._size])
            self._pcm = self._pcm[self._size :]

    def finish(self) -> None:
        """Send the rest."""
        rest = np.concatenate([self._pcm, self._resample.resample_chunk(np.empty(0, np.int16), last=True)])
        for start in range(0, len(rest), self._size):
            part = rest[start : start + self._size]
            missing = self._rate * SHORTEST_MS // 1000 - len(part)
            self._send(np.pad(part, (0, missing)) if missing > 0 else part, is_last=start + self._size >= len(rest))

    def _send(self, pcm: np.ndarray, *, is_last: bool = False) -> None:
        self._sent += len(pcm)
        words = []
        while self._words and (is_last or self._words[0][1] * self._rate < self._sent * 1000):
            words.append(self._words.popleft())
        self._emit(pack(words, pcm.tobytes()))


def pack(words: list[tuple[str, float]], pcm: bytes) -> bytes:
    """Return one chunk as the parent's `unpack` reads it: length of the words, words as JSON, samples."""
    head = json.dumps(words).encode() if words else b""
    return struct.pack("!I", len(head)) + head + pcm


class Engine:
    """Answers {text, rate_wpm, pitch, voice, sample_rate} with packed chunks."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._espeak = _Espeak()  # the library

    def serve(self, payload: bytes, emit: Emit, is_wanted: Callable[[], bool]) -> None:
        """Speak one text; the library is stopped in the middle when it is not wanted any more."""
        asked = json.loads(payload)
        cutter = Cutter(asked["text"], self._espeak.sample_rate, asked["sample_rate"], emit)

        def take(pcm: np.ndarray, words: list[tuple[int, int, float]]) -> bool:
            cutter.push(pcm, words)
            return is_wanted()

        self._espeak.synthesise(
            asked["text"], rate_wpm=asked["rate_wpm"], pitch=asked["pitch"], voice=asked["voice"], take=take
        )
        if is_wanted():
            cutter.finish()
