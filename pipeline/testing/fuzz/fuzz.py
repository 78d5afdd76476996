"""`check_conversation`: any conversation, on your pipeline, must be safe; one that is not comes back as a script.

    @given(schedules())
    def test_any_conversation_is_safe(schedule):
        check_conversation(build, schedule)

What is safe: see `safety`. It plays the schedule in virtual time, with words in place of speech. Services are yours, at
your delays; to take the schedule's, build them with `scripts_for(schedule)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pipecat.frames.frames import Frame, InterimTranscriptionFrame, TranscriptionFrame

from ....transports.dialects.protocol import ClientMessage, SttFragment, UserSpeaking, VadEnd
from ...frames import SpeechChunkFrame
from ...session import Build
from ..call import AsyncCall, run_offline
from ..user import CHUNK_S, blip, started, stopped
from .generate import Do, Schedule, ScheduledAction
from .safety import ConversationFailed

Due = tuple[float, Frame | ClientMessage | None]  # when, and what: a frame, a message, or None for the line's end

_HEAD = """\
from pipecat.frames.frames import InterimTranscriptionFrame, TranscriptionFrame

from leibniz_voice.pipeline.frames import SpeechChunkFrame
from leibniz_voice.pipeline.testing import Call
from leibniz_voice.pipeline.testing.user import started, stopped
from leibniz_voice.transports.dialects.protocol import SttFragment, UserSpeaking, VadEnd

with Call(build, speech="words", is_checked=True) as call:
"""


def check_conversation(build: Build, schedule: Schedule, **options: Any) -> AsyncCall:
    """Play a schedule on the pipeline that `build` makes; return the finished call. Options as for `Call`.

    Raises `ConversationFailed`, whose `script` plays the same again.
    """

    async def script(call: AsyncCall) -> None:
        now = 0.0
        for at, what in _steps_of(schedule):
            if at > now:
                await call.wait(at - now)
                now = at
            await _do(call, what)

    try:
        return run_offline(build, script, **{"speech": "words", "is_checked": True, **options})
    except ConversationFailed as failed:
        raise ConversationFailed(failed.violations, _script_of(schedule)) from None


async def _do(call: AsyncCall, what: Frame | ClientMessage | None) -> None:
    if what is None:
        await call.disconnects()
    elif isinstance(what, Frame):
        await call.detects(what)
    else:
        await call.sends(what)


def _steps_of(schedule: Schedule) -> list[Due]:
    """What the ears and the client do, in order; in the end a client that decides about turns ends the last one."""
    steps = sorted((step for action in schedule.actions for step in _MEANING[action.do](action)), key=lambda s: s[0])
    kinds = [action.do for action in schedule.actions]
    gone = next((n for n, (_, what) in enumerate(steps) if what is None), None)
    if gone is not None:
        return steps[: gone + 1]
    if Do.FRAGMENT in kinds:
        steps.append((steps[-1][0] + 1.0, VadEnd()))
    return steps


def _script_of(schedule: Schedule) -> str:
    """Python that does the same with the verbs of a `Call`."""
    lines, now = [], 0.0
    for at, what in _steps_of(schedule):
        if at > now:
            lines.append(f"    call.wait({at - now!r})")
            now = at
        lines.append(f"    {_verb(what)}")
    return _HEAD + "\n".join(lines) + "\n"


def _verb(what: Frame | ClientMessage | None) -> str:
    match what:
        case None:
            return "call.disconnects()"
        case TranscriptionFrame() | InterimTranscriptionFrame():
            return f'call.detects({type(what).__name__}({what.text!r}, "", ""))'
        case SpeechChunkFrame():
            return f"call.detects(SpeechChunkFrame(confidence={what.confidence!r}, speech_ms={what.speech_ms!r}))"
        case Frame() if "confidence" in what.metadata:
            return f"call.detects(started({what.metadata['confidence']!r}))"
        case Frame():
            return "call.detects(stopped())"
        case _:
            return f"call.sends({what!r})"


def _of(make: Callable[[ScheduledAction], Any]) -> Callable[[ScheduledAction], list[Due]]:
    return lambda action: [(action.at_s, make(action))]


def _noise(action: ScheduledAction) -> Iterator[Due]:
    for number, frame in enumerate(blip(action.ms, action.value)):
        yield action.at_s + number * CHUNK_S, frame


def _silence(action: ScheduledAction) -> list[Due]:
    return [(action.at_s, stopped()), (action.at_s, SpeechChunkFrame())]


_MEANING: dict[Do, Callable[[ScheduledAction], Any]] = {  # what is done, with times
    Do.SPEECH_ON: _of(lambda a: started(a.value)),
    Do.SPEECH_OFF: _silence,
    Do.SPEECH_CHUNK: _of(lambda a: SpeechChunkFrame(confidence=a.value, speech_ms=a.ms)),
    Do.INTERIM: _of(lambda a: InterimTranscriptionFrame(a.text, "", "")),
    Do.FINAL: _of(lambda a: TranscriptionFrame(a.text, "", "")),
    Do.LATE_FINAL: _of(lambda a: TranscriptionFrame(a.text, "", "")),
    Do.FRAGMENT: _of(lambda a: SttFragment(text=a.text, is_final=a.value >= 0.5)),
    Do.TURN_END: _of(lambda a: VadEnd()),
    Do.USER_SPEAKING: _of(lambda a: UserSpeaking(confidence=a.value)),
    Do.NOISE: _noise,
    Do.DISCONNECT: _of(lambda a: None),
}
