"""The contract's answers that need no LLM: pure."""

from __future__ import annotations

from collections.abc import Mapping

from .services import UNKNOWN, IntentResult, RetrievalResult

NOT_UNDERSTOOD = "I didn't get that. Could you say it differently?"


def direct_answer(
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
