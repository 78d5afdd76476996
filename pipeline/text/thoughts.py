"""Takes what a model thinks aloud out of its text, while that grows: `<think>A price.</think> They cost 900.`"""

from __future__ import annotations

import re

_NAMES = r"(?:think|thinking|thoughts?|reasoning|reason|reflection|scratchpad|seed:think)"
_OPEN = re.compile(
    rf"<{_NAMES}(?:\s[^<>]{{0,100}})?(?<!/)>|\[THINK\]|◁think▷|<\|begin_of_thought\|>"
    r"|(?:<\|start\|>assistant)?<\|channel\|>analysis<\|message\|>",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    rf"</{_NAMES}\s{{0,8}}>|<{_NAMES}\s{{0,8}}/>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|end\|>"
    r"|(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>",
    re.IGNORECASE,
)
_NAME_LIST = [
    "think",
    "thinking",
    "thought",
    "thoughts",
    "reasoning",
    "reason",
    "reflection",
    "scratchpad",
    "seed:think",
]
_BEGINNINGS = (
    *(f"{mark}{name}" for name in _NAME_LIST for mark in ("<", "</")),
    "[think]", "[/think]", "◁think▷", "◁/think▷", "<|begin_of_thought|>", "<|end_of_thought|>",
    "<|channel|>analysis<|message|>", "<|start|>assistant<|channel|>analysis<|message|>", "<|end|>",
    "<|channel|>final<|message|>", "<|start|>assistant<|channel|>final<|message|>",
)  # fmt: skip
_PARTS = frozenset(whole[:size] for whole in _BEGINNINGS for size in range(1, len(whole) + 1))
_IN_TAG = re.compile(rf"</?{_NAMES}(?:\s[^<>]{{0,100}}|/)", re.IGNORECASE)
_FIRST = re.compile(r"[<\[◁]")


class Thoughts:
    """The filter, fed in any pieces. What is never closed is a thought to the end of the text."""

    def __init__(self) -> None:
        self._text = ""  # fed and not decided on
        self._is_thinking = False
        self._has_left_out = False  # a thought, since the last character that was given out
        self._last = ""  # that character

    def feed(self, text: str) -> str:
        """Take more of the text; return what of it is no thought."""
        if not self._text and not self._is_thinking and not self._has_left_out and not _FIRST.search(text):
            self._last = text[-1:] or self._last
            return text
        return self._filtered(text, is_final=False)

    def flush(self) -> str:
        """The text is over: return what was held. Afterwards the next one may be fed."""
        rest = self._filtered("", is_final=True)
        self._is_thinking, self._has_left_out, self._last = False, False, ""
        return rest

    def _filtered(self, text: str, *, is_final: bool) -> str:
        out: list[str] = []
        text, at = self._text + text, 0
        while at < len(text):
            mark = _FIRST.search(text, at)
            begin = mark.start() if mark else len(text)
            if not self._is_thinking:
                self._say(text[at:begin], out)
            at = begin
            if mark is None:
                break
            closed = _CLOSE.match(text, at)
            found = closed or _OPEN.match(text, at)
            if found is not None:
                self._is_thinking, self._has_left_out, at = closed is None, True, found.end()
            elif not is_final and _is_part(text[at:]):
                break
            else:
                if not self._is_thinking:
                    self._say(text[at], out)
                at += 1
        self._text = text[at:]  # the beginning of a mark: at most 120 characters
        return "".join(out)

    def _say(self, text: str, out: list[str]) -> None:
        if not text:
            return
        if self._has_left_out:
            is_apart = not self._last or self._last.isspace()  # one blank stays between the words around a thought
            text = text.lstrip() if is_apart else text
            if not text:
                return
            if not is_apart and not text[0].isspace():
                text = " " + text
            self._has_left_out = False
        self._last = text[-1]
        out.append(text)


def _is_part(text: str) -> bool:
    """Whether a text may go on as a mark of thoughts."""
    small = text.lower()
    return small in _PARTS or bool(_IN_TAG.fullmatch(text))
