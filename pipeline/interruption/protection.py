"""Protected speech: parts of a reply that nobody interrupts, as a bot's author marks them in its text. Pure.

    "<protected>This call is recorded.</protected> How can I help you?"

In the pipeline a mark is a `ProtectedSpeechFrame`, in order with the audio, so any processor may send one. The output
tells upstream when such speech begins to sound and when it is over; until then the gate neither pauses nor cuts, and
the turn aggregator keeps what the user says. Then those words interrupt the rest, or begin the next turn.
"""

from __future__ import annotations

import re

from pipecat.frames.frames import Frame

from ..errors import ConfigurationError
from ..frames import ProtectedSpeechFrame, ReplySpeechFrame, ReplyTextFrame

_MARK = re.compile(r"</?protected>")
_PROTECTED = re.compile(r"<protected>(.*?)</protected>", re.DOTALL)


def check_marks(*texts: str) -> None:
    """Raise `ConfigurationError` if a mark has no partner, or stands within a pair."""
    for text in texts:
        marks = _MARK.findall(text)
        if marks != ["<protected>", "</protected>"] * (len(marks) // 2):
            raise ConfigurationError(f"{text!r}: write <protected>...</protected> in pairs, none within another")


def without_marks(text: str) -> str:
    """Return what is said."""
    return " ".join(_MARK.sub(" ", text).split()) if _MARK.search(text) else text


def speech_of(turn_id: int, text: str, *, is_rest: bool = False) -> list[Frame]:
    """Return the frames that tell the last words of a reply and have them spoken, protected ones between marks."""
    frames: list[Frame] = [ReplyTextFrame(turn_id=turn_id, text=without_marks(text), is_final=True, is_rest=is_rest)]
    for number, part in enumerate(_PROTECTED.split(text)):
        spoken = without_marks(part).strip() if number or _MARK.search(text) else part
        if not spoken:
            continue
        is_protected = number % 2 == 1
        if is_protected:
            frames.append(ProtectedSpeechFrame(turn_id=turn_id, is_protected=True))
        frames.append(ReplySpeechFrame(turn_id=turn_id, text=spoken))
        if is_protected:
            frames.append(ProtectedSpeechFrame(turn_id=turn_id, is_protected=False))
    return frames
