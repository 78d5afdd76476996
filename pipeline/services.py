"""What a turn's branches answer, and the two protocols they follow.

A user replaces either service with an object of about ten lines:

    class ShoutIntent:
        async def classify(self, text: str) -> IntentResult:
            return IntentResult("angry" if text.isupper() else "calm", 0.9)

To stand in a `Parallel` as it is, it is also called with the turn: `async def __call__(self, turn)`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

UNKNOWN = "unknown"  # the intent when nothing is known, or the service failed


@dataclass(frozen=True, slots=True)
class IntentResult:
    """What the user wants: a label, and a confidence of 0 to 1. Without arguments: the contract's fallback."""

    label: str = UNKNOWN
    confidence: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The contract's object: `{"intent": ..., "confidence": ...}`."""
        return {"intent": self.label, "confidence": self.confidence}


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of the bot's own text. `score` grows with relevance, comparable within one query only."""

    title: str
    text: str
    score: float
    source: str = ""  # the file it came from, relative to the folder


@dataclass(frozen=True, slots=True)
class RetrievalResult:
    """What was found, best first, and `context`, the text to answer with. Without arguments: the fallback.

    `results` holds `Passage`s, or the JSON values of a remote service as they came.
    """

    results: list[Any] = field(default_factory=list)
    context: str = ""

    def as_json(self) -> dict[str, Any]:
        """The contract's object: `{"results": [...], "context": ...}`, fit for `json.dumps`."""
        results = [asdict(result) if isinstance(result, Passage) else result for result in self.results]
        return {"results": results, "context": self.context}


@runtime_checkable
class IntentClassifier(Protocol):
    """Names the intent of a text. Answers a fallback rather than raise; may be cancelled at any await."""

    async def classify(self, text: str) -> IntentResult: ...


@runtime_checkable
class Retriever(Protocol):
    """Finds passages for a text. Answers a fallback rather than raise; may be cancelled at any await."""

    async def retrieve(self, text: str) -> RetrievalResult: ...
