"""pocketsphinx in a worker process: which phrase was said, and how sure that it was one at all.

Imports nothing of the project, see child.py. Two decoders hear each utterance. One knows the phrases and always finds
one; the other, a loop of phones under a phone language model, finds the best string of sounds whatsoever. The first
can hardly be better than the second. How much worse it is, per frame of 10 ms, tells whether a phrase was said.
"""

from __future__ import annotations

import json
import math
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MODEL_RATE = 16000  # Hz that the acoustic model was trained on
Found = tuple[str, float]  # words, and their score
NOTHING: Found = ("", -math.inf)
DITHER = 0.003  # of the loudest sample; in digital silence it lifts 87 of 90 phrases above the threshold to 90
_GRAMMAR = {"beam": 1e-80, "pbeam": 1e-80, "wbeam": 1e-60}  # wide: with the default beams short words are lost
_PHONES = {"beam": 1e-10, "pbeam": 1e-10, "lw": 2.0}  # narrow: 30 % faster than 1e-20, and separates as well
_SILENT = frozenset({"<sil>", "(NULL)", "SIL", "+NSN+", "+SPN+", "<s>", "</s>"})  # no word, no sound of one


class Recogniser:
    """One utterance at a time. `phrases` are normalised, `dictionary` has a line for each word in them."""

    def __init__(self, *, model: str, phrases: list[str], dictionary: list[str]) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise ValueError("the embedded recogniser needs pocketsphinx; install leibniz-voice[embedded]") from error
        folder = Path(model)
        common = {
            "hmm": str(folder / "en-us"),
            "loglevel": "FATAL",
            "bestpath": False,  # with the default the last word is lost on digitally silent input
        }
        with tempfile.TemporaryDirectory() as scratch:
            words, grammar = Path(scratch, "words.dict"), Path(scratch, "phrases.jsgf")
            words.write_text("\n".join(dictionary) + "\n", encoding="utf-8")
            grammar.write_text(f"#JSGF V1.0;\ngrammar g;\npublic <p> = {' | '.join(phrases)};\n", encoding="utf-8")
            try:
                self._phrases = Decoder(jsgf=str(grammar), dict=str(words), **common, **_GRAMMAR)
                self._phones = Decoder(
                    allphone=str(folder / "en-us-phone.lm.bin"), lm=None, dict=str(words), **common, **_PHONES
                )
            except RuntimeError as error:
                raise ValueError(f"pocketsphinx refuses the phrases or their pronunciations: {error}") from error

    def recognise(self, pcm: np.ndarray, is_wanted: Callable[[], bool]) -> tuple[Found, Found, float]:
        """Return (phrase, words so far, stray ms) of (n,) int16 mono at MODEL_RATE; `NOTHING` twice for no words.

        Words so far may end in the middle of a phrase, and they are the phrase where the user has said all of it.
        A score is a log-likelihood ratio per frame in the decoder's own unit: about -0.0005 for a listed phrase.
        Stray are sounds outside of the phrase's words: the grammar takes whatever surrounds a phrase for silence.
        """
        audio = _dithered(pcm).tobytes()
        phrase, so_far = _decode(self._phrases, audio)
        if not (phrase[0] or so_far[0]) or not is_wanted():
            return NOTHING, NOTHING, 0.0
        (_, best), _ = _decode(self._phones, audio)
        stray_ms = self._stray_frames() * 10.0 if phrase[0] else 0.0
        return (phrase[0], phrase[1] - best), (so_far[0], so_far[1] - best), stray_ms

    def _stray_frames(self) -> int:
        heard = {at for part in self._phones.seg() if part.word not in _SILENT for at in _frames_of(part)}
        return len(heard.difference(*(_frames_of(part) for part in self._phrases.seg() if part.word not in _SILENT)))


def _frames_of(part: Any) -> range:
    return range(part.start_frame, part.end_frame + 1)


def _dithered(pcm: np.ndarray) -> np.ndarray:
    """Add faint noise in proportion to the speech: digital silence is unlike what the model was trained on."""
    sigma = DITHER * float(np.abs(pcm.astype(np.int32)).max(initial=0))
    noise = np.random.default_rng(1).normal(0.0, sigma, len(pcm)) if sigma else 0.0
    return np.clip(pcm + noise, -32768, 32767).astype(np.int16)


def _decode(decoder: Any, audio: bytes) -> tuple[Found, Found]:
    """The best that ends where the grammar ends, and the best wherever in the grammar it is now."""
    decoder.start_utt()
    try:  # an utterance that is left open would fail every later one, of every conversation
        decoder.process_raw(audio, no_search=False, full_utt=True)
        so_far = _found(decoder)
    finally:
        decoder.end_utt()
    return _found(decoder), so_far


def _found(decoder: Any) -> Found:
    found = decoder.hyp()
    if found is None or not found.hypstr:
        return NOTHING
    return found.hypstr, math.log(max(found.best_score, 1e-300)) / max(1, decoder.n_frames())


class Engine:
    """Answers (sample rate as uint32, int16 samples) with {text, score, so_far, so_far_score, stray_ms}."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._recogniser = Recogniser(**options)  # both decoders

    def serve(self, payload: bytes, emit: Callable[[bytes], None], is_wanted: Callable[[], bool]) -> None:
        """Recognise one utterance."""
        if not is_wanted():
            return
        (rate,) = struct.unpack_from("!I", payload)
        pcm = np.frombuffer(payload, np.int16, offset=4)
        if rate != MODEL_RATE:
            import soxr  # here, as most bots never need it

            pcm = soxr.resample(pcm, rate, MODEL_RATE)
        (text, score), (so_far, so_far_score), stray_ms = self._recogniser.recognise(pcm, is_wanted)
        answer = {"text": text, "score": max(score, -1.0), "so_far": so_far, "so_far_score": max(so_far_score, -1.0)}
        emit(json.dumps(answer | {"stray_ms": stray_ms}).encode())
