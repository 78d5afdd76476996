"""`SphinxRecogniser`: which of its phrases an utterance is, or none, from a worker process."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ....pipeline.errors import ConfigurationError
from ....pipeline.listening.backchannel import SPOKEN
from ..workers.shared import release_worker, shared_worker
from ..workers.worker import WorkerProcess
from .phrases import beginnings_of, dictionary_of, model_folder, phrase_book

MAX_UTTERANCE_S = 15.0  # of audio in one request
# 90 listed questions (3 voices) in silence and in noise scored above -0.0015, 88 to 90 of them above -0.0013; 30 that
# are not listed scored below -0.0015. What differs from a phrase in its last word only may score -0.0005.
REJECT_BELOW = -0.0013
# Beginnings of listed phrases (30, 2 voices) scored above -0.0020 in silence and above -0.0024 in 15 dB of noise; what
# an unlisted question was taken for scored below -0.0022 (27 of 31), so between these the hangover grows by degrees.
UNFINISHED_ABOVE, UNFINISHED_BELOW = -0.0020, -0.0028
# "okay" and "mhm" of eight voices at three speeds scored above -0.0029. The grammar takes whatever surrounds a phrase
# for silence, so a longer interruption may come nearest to a backchannel: it leaves 140 ms of its sounds outside of it.
BACKCHANNEL_BELOW = -0.0029
INTERJECTION_BELOW = -0.0020
MOST_STRAY_MS = 130.0

# Short words that interrupt. In the grammar beside "okay" and "um", they keep it from taking every short word for one
# of those: without them 69 of 176 interruptions counted as backchannels, with them 3, but every other "uh huh" is lost.
INTERJECTIONS = (
    *"stop stawp wait wate no nao hey but listen sorry what why actually hello please help now".split(),  # noqa: SIM905
    *("hold on", "excuse me", "never mind", "who", "where", "how", "it's", "i have", "that's not", "can i"),
)
# What CMUdict lacks, and how British and other voices say the same
PRONOUNCED = {"mmm": "M M", "stawp": "S T AO P", "wate": "W EH T", "nao": "N AO"}


@dataclass(frozen=True)
class Recognition:
    """What was heard. `text` is the phrase as it was listed, "" if the speech was none of them."""

    text: str  # listed phrase, or ""
    score: float  # log-likelihood ratio per frame; 0 is perfect, a listed phrase about -0.0005
    best_guess: str = ""  # the phrase that came nearest, rejected or not; for logs at DEBUG and for tuning
    likeness: str = ""  # of what is no phrase: "backchannel", "interjection", or "" for neither
    completeness: float = 0.0  # 1: all of a phrase that none goes on from; -1: surely the beginning of one; 0: unknown


class SphinxRecogniser:
    """Hears listed phrases and nothing else. All conversations with the same phrases share one worker process.

    `threshold` is the score below which speech is rejected. `pronunciations` are phones ("L AY B N IH T S", those of
    CMUdict) for words that the dictionary lacks. Raises `ConfigurationError` for phrases it cannot take, naming the
    word, and without pocketsphinx. `backchannels` and `interjections` are heard too, more leniently, and told apart
    from the phrases: a phrase that is one of them stays a phrase.
    """

    def __init__(
        self,
        *,
        phrases: Sequence[str],
        pronunciations: Mapping[str, str] | None = None,
        threshold: float = REJECT_BELOW,
        backchannels: Sequence[str] = SPOKEN,
        interjections: Sequence[str] = INTERJECTIONS,
    ) -> None:
        self._book = phrase_book(phrases)  # normalised phrase -> as listed
        self._beginnings = beginnings_of(self._book)  # what is not all of a phrase, or may not be
        self._others = dict.fromkeys(interjections, "interjection") | dict.fromkeys(backchannels, "backchannel")
        for phrase in self._book.keys() & self._others:
            del self._others[phrase]  # normalised -> likeness; none of them a phrase
        heard = self._book | self._others  # by the grammar
        self._threshold = threshold  # score below which nothing was said
        folder = model_folder()
        lines = dictionary_of(heard, PRONOUNCED | dict(pronunciations or {}), folder / "cmudict-en-us.dict")
        self.options: dict[str, Any] = {  # of the shared worker
            "model": str(folder),
            "phrases": list(heard),
            "dictionary": lines,
        }
        self._worker: WorkerProcess | None = None  # shared; None until `open` or the first utterance

    def open(self) -> None:
        """Take hold of the running loop's worker. Its process starts with the first utterance, or with `warm_up`."""
        if self._worker is None:
            self._worker = shared_worker("sphinx", self.options)

    async def warm_up(self) -> None:
        """Start the process and load the model now (about 0.3 s), so that the first utterance need not wait."""
        if self.pid is None:  # else started for another conversation
            await self.recognise(bytes(3200), 16000)

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None before it is started."""
        return self._worker.pid if self._worker else None

    def close(self) -> None:
        """Let go of the worker; it stays warm for others. Harmless twice."""
        worker, self._worker = self._worker, None
        if worker is not None:
            release_worker(worker)

    async def recognise(self, pcm: bytes, sample_rate: int) -> Recognition:
        """Return what the utterance `pcm` (int16 mono) is. Being cancelled cancels the request.

        Raises `WorkerCrashed`, `ServiceError`, and `ConfigurationError` for more than MAX_UTTERANCE_S of audio.
        """
        if len(pcm) % 2 or len(pcm) > MAX_UTTERANCE_S * sample_rate * 2:
            raise ConfigurationError(f"{len(pcm)} bytes are not an utterance of at most {MAX_UTTERANCE_S:g} s")
        if not pcm:
            return Recognition("", -1.0)
        self.open()
        assert self._worker is not None
        answer = json.loads(await self._worker.call(struct.pack("!I", sample_rate) + pcm))
        words, score, completeness = answer["text"], answer["score"], self._completeness(answer)
        if words in self._others:
            likeness = _likeness(self._others[words], score, answer["stray_ms"])
            return Recognition("", score, words, likeness=likeness, completeness=completeness)
        guess = self._book.get(words, "")
        text = guess if score >= self._threshold else ""
        return Recognition(text, score, guess, completeness=completeness)

    def _completeness(self, answer: Mapping[str, Any]) -> float:
        so_far, score = answer["so_far"], answer["so_far_score"]
        if so_far == answer["text"] and so_far in self._book:
            return float(score >= self._threshold and so_far not in self._beginnings)
        if so_far not in self._beginnings:
            return 0.0
        doubt = (UNFINISHED_ABOVE - score) / (UNFINISHED_ABOVE - UNFINISHED_BELOW)
        return -1.0 + min(1.0, max(0.0, doubt))


def _likeness(nearest: str, score: float, stray_ms: float) -> str:
    """What an utterance counts as that came nearest to a backchannel or an interjection."""
    below = BACKCHANNEL_BELOW if nearest == "backchannel" else INTERJECTION_BELOW
    return nearest if score >= below and stray_ms <= MOST_STRAY_MS else ""
