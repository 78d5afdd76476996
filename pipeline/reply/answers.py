"""What needs no LLM: the contract's answers to what the branches found, and what is said unasked."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from loguru import logger

from ..services import UNKNOWN, IntentResult, RetrievalResult
from ..states import State
from ..text.cleaning import CLEAN, Cleaning, cleaned

Answer = TypeVar("Answer", IntentResult, RetrievalResult)
MOST_PROMPTS = 8  # texts that wait for the floor; past it the oldest is dropped
NOT_UNDERSTOOD = "I didn't get that. Could you say it differently?"


def _direct_answer(
    intent: IntentResult, retrieval: RetrievalResult, templates: Mapping[str, str], not_understood: str = NOT_UNDERSTOOD
) -> str:
    """Return the answer that needs no LLM: the intent's template, else `<Intent In Title Case>: <context>`.

    `{context}` in a template is the best passage. Unknown intent and no context: `not_understood`. A template that
    needs a context which was not found is not understood either.
    """
    context = retrieval.context.strip()
    template = templates.get(intent.label)
    if template is not None and (context or "{context}" not in template):
        return template.replace("{context}", context)
    if not context:
        return not_understood
    if intent.label == UNKNOWN:
        return context
    return f"{intent.label.replace('_', ' ').title()}: {context}"


def answer_of(answers: Mapping[str, Any], name: str, fallback: Answer) -> Answer:
    """Return the answer of branch `name`; the fallback, with a warning, if it is of another type."""
    answer = answers.get(name)
    if isinstance(answer, type(fallback)):
        return answer
    if answer is not None:
        wrong, right = type(answer).__name__, type(fallback).__name__
        logger.warning(f"branch {name} answered with {wrong}, so the fallback stands in; let it return {right}")
    return fallback


def intent_in(answers: Mapping[str, Any]) -> IntentResult:
    """The intent among the branches' answers; an unknown one if there is none."""
    return answer_of(answers, "intent", IntentResult())


def passages_in(answers: Mapping[str, Any]) -> str:
    """What retrieval has found; "" for nothing."""
    return answer_of(answers, "retrieval", RetrievalResult()).context.strip()


def as_said(text: str, cleaning: Cleaning) -> str:
    """A text of the bot's author as it is said; the marks of protected passages stay."""
    return cleaned(text, replace(cleaning, kept_tags=(*cleaning.kept_tags, "protected")))


class Answers:
    """Says what needs no LLM; a bot's templates, and what it says when nothing is known."""

    def __init__(
        self,
        templates: Mapping[str, str],
        not_understood: str,
        unknown_is_not_understood: bool,
        cleaning: Cleaning = CLEAN,
    ) -> None:
        self._cleaning = cleaning  # what is left out of an answer
        self._templates = dict(templates)  # intent label -> answer
        self._not_understood = not_understood
        self._unknown_is_not_understood = unknown_is_not_understood  # an unknown intent is enough for that

    def to(self, answers: Mapping[str, Any]) -> str:
        """Return the answer to what the branches found, as it is said."""
        return as_said(self._found(answers), self._cleaning)

    def _found(self, answers: Mapping[str, Any]) -> str:
        intent = intent_in(answers)
        if intent.label == UNKNOWN and self._unknown_is_not_understood:
            return self._not_understood
        retrieval = answer_of(answers, "retrieval", RetrievalResult())
        return _direct_answer(intent, retrieval, self._templates, self._not_understood)


class Prompts:
    """What the bot is asked to say by itself (an idle prompt, a notice), until nobody has the floor.

    What is asked for in silence is said at once. Pure.
    """

    def __init__(self) -> None:
        self.state = State.IDLE  # the conversation's, as far as known
        self._waiting: deque[str] = deque()  # the oldest first, at most MOST_PROMPTS

    def ask(self, text: str) -> None:
        """Somebody wants this to be said."""
        if not text.strip():
            return
        if len(self._waiting) >= MOST_PROMPTS:
            lost = self._waiting.popleft()
            logger.warning(
                f"more than {MOST_PROMPTS} texts wait to be said; the oldest, of {len(lost)} letters, is dropped"
            )
        self._waiting.append(text)

    def take(self, *, is_reply_open: bool) -> str:
        """Return what is to be said now; "" for nothing."""
        is_free = self.state is State.IDLE and not is_reply_open
        return self._waiting.popleft() if is_free and self._waiting else ""
