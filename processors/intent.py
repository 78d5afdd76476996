"""What the user wants: a label and a confidence, from the bot's own examples or from a service.

Both are `IntentClassifier`s, and may stand in a `Parallel` as they are.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..pipeline.errors import ConfigurationError
from ..pipeline.frames import SpeculativeTurnFrame, UserTurnFrame
from ..pipeline.services import IntentResult
from .embedded.http_client import HttpClient, service_url
from .embedded.retrieval.stop_words import FUNCTION_WORDS, normalised

INTENT_URL = "http://intent-service:8002"
FUNCTION_WEIGHT = 0.5  # of "how", "do", "you": two questions are not alike because both are questions


class KeywordIntent:
    """The intent of the example that is most like the text.

    The words of an example, in any case and punctuation: its intent, with confidence 1.0. Anything else is compared
    with all examples by the cosine of two vectors, TF-IDF over words and over the letter trigrams of each word (so that
    "returning" is like "return"; all trigrams of a word weigh about as much as the word): see Manning et al.,
    Introduction to Information Retrieval, 6.2 to 6.4. Below `threshold` the answer is ("unknown", 0.0). What no
    example contains makes a text less like all of them. tests/bots/test_assistant_content.py shows what 0.5 lets by.

    `examples` is label -> phrases. Raises `ConfigurationError` if there is none, if two labels share a phrase, or for
    a threshold outside 0 to 1. Takes 0.03 ms for 70 examples; thread-safe; holds nothing between calls.
    """

    has_side_effects = False  # so it may be asked about a guess

    def __init__(self, *, examples: Mapping[str, Iterable[str]], threshold: float = 0.5) -> None:
        if not 0.0 < threshold <= 1.0:
            raise ConfigurationError(f"threshold is {threshold}; it is a similarity above 0, at most 1")
        self._threshold = threshold
        self._exact = _owners(examples)  # normalised phrase -> label
        self._labels = list(self._exact.values())  # label of each row
        documents = [_features(phrase) for phrase in self._exact]
        seen = Counter(feature for document in documents for feature in document)
        self._column = {feature: column for column, feature in enumerate(seen)}  # feature -> column
        self._idf = np.array([_idf(len(documents), n) for n in seen.values()])  # (columns,) float64
        self._new_idf = _idf(len(documents), 0)  # of a feature that no example has
        self._rows = np.stack([self._vector(document) for document in documents])  # (examples, columns), unit length

    async def __call__(self, turn: UserTurnFrame | SpeculativeTurnFrame) -> IntentResult:
        return await self.classify(turn.text)

    async def classify(self, text: str) -> IntentResult:
        """The intent of `text`. Never suspends, never raises."""
        words = normalised(text)
        if words in self._exact:
            return IntentResult(self._exact[words], 1.0)
        likeness = self._rows @ self._vector(_features(words))
        best = int(likeness.argmax())
        if likeness[best] < self._threshold:
            return IntentResult()
        return IntentResult(self._labels[best], min(0.99, round(float(likeness[best]), 4)))

    def _vector(self, features: Mapping[str, float]) -> np.ndarray:
        vector, outside = np.zeros(len(self._column)), 0.0
        for feature, count in features.items():
            column = self._column.get(feature)
            if column is None:
                outside += (count * self._new_idf) ** 2
            else:
                vector[column] = count * self._idf[column]
        length = math.sqrt(float(vector @ vector) + outside)
        return vector / length if length else vector


class HttpIntent:
    """An intent service: `POST {base_url}/api/v1/classify {"text": ...}` -> `{"intent": str, "confidence": 0..1}`.

    Any failure, or `timeout_s` for the whole call, answers ("unknown", 0.0). All share the loop's pooled client and
    its circuit breaker unless `client` is given. Cancelling closes the connection. Raises `ConfigurationError` for a
    bad address or timeout.
    """

    has_side_effects = False  # so it may be asked about a guess

    def __init__(self, *, base_url: str = INTENT_URL, timeout_s: float = 5.0, client: HttpClient | None = None) -> None:
        if not timeout_s > 0:
            raise ConfigurationError(f"timeout_s is {timeout_s}; give the service a time above 0 seconds")
        self.url = service_url(base_url, "/api/v1/classify")
        self._timeout_s = timeout_s
        self._client = client  # None: the running loop's shared one

    async def __call__(self, turn: UserTurnFrame | SpeculativeTurnFrame) -> IntentResult:
        return await self.classify(turn.text)

    async def classify(self, text: str) -> IntentResult:
        """The service's answer, or the fallback. Never raises but for cancellation."""
        client = self._client or HttpClient.shared()
        answer = await client.ask(self.url, {"text": text}, timeout_s=self._timeout_s, check=_checked)
        return answer or IntentResult()


def _owners(examples: Mapping[str, Iterable[str]]) -> dict[str, str]:
    owner: dict[str, str] = {}
    for label, phrases in examples.items():
        for phrase in phrases:
            words = normalised(phrase)
            if not words:
                raise ConfigurationError(f"intent {label!r}: example {phrase!r} has no words")
            if owner.setdefault(words, label) != label:
                raise ConfigurationError(f"{phrase!r} is an example of {owner[words]!r} and {label!r}; keep it in one")
    if not owner:
        raise ConfigurationError("KeywordIntent needs examples: {'greeting': ['hello there']}")
    return owner


def _features(words: str) -> dict[str, float]:
    """Feature -> how often it occurs, weighed. A feature is a word, or "#" and three letters of one."""
    features: dict[str, float] = defaultdict(float)
    for word in words.split():
        weight = FUNCTION_WEIGHT if word in FUNCTION_WORDS else 1.0
        features[word] += weight
        padded = f"<{word}>"
        share = weight / math.sqrt(len(word))  # as much for all trigrams of a word, however long it is
        for start in range(len(word)):
            features["#" + padded[start : start + 3]] += share
    return features


def _idf(documents: int, containing: int) -> float:
    return math.log((1 + documents) / (1 + containing)) + 1.0


def _checked(answer: Any) -> IntentResult | None:
    if not isinstance(answer, dict):
        return None
    label, confidence = answer.get("intent"), answer.get("confidence")
    if not isinstance(label, str) or not label:
        return None
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0.0 <= confidence <= 1.0:
        return None  # NaN fails both comparisons
    return IntentResult(label, float(confidence))
