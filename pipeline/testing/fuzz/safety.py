"""What must hold of every conversation, whatever the user does and however slow the services are.

    stale      audio of a reply came after the client was told that it is cut
    lost       words reached no turn, and are not in the buffer
    wedged     the conversation is not idle within 90 s after the last thing that the user did
    illegal    a move that the table of states does not have
    unbounded  the end took more than 4 s, or left the pipeline behind

To know whose audio it hears, it overwrites what the voices bring with stamps (see `stamps`); length and order stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pipecat.frames.frames import Frame, OutputAudioRawFrame
from pipecat.processors.frame_processor import FrameProcessor

from ...engine.stages import Stage
from ...errors import LeibnizError
from ...frames import UserTurnFrame
from ...interruption.contexts import VoiceContexts, voices_in
from ...listening.backchannel import is_backchannel
from ...pipeline import Pipeline
from ...states import TABLE, State
from ..audio import RATE
from .stamps import stamped, turns_in_audio

if TYPE_CHECKING:
    from ..call import AsyncCall

IDLE_S = 90.0  # from the user's last act to idle: the longest reply is 60 s, an apology and its voice come on top
QUIET_S = 2.0  # how long it must stay idle; whatever would still come, comes in that time
END_S = 4.0  # a session is ended in this time, whatever a processor does


class ConversationFailed(LeibnizError, AssertionError):  # noqa: N818 - it reads as the event it is
    """A conversation was not safe. `violations`: a sentence each; `script`: Python that plays it again, if known."""

    def __init__(self, violations: Sequence[str], script: str = "") -> None:
        super().__init__("\n".join([*violations, *(["", "To see it again:", "", script] if script else [])]))
        self.violations = list(violations)  # at least one
        self.script = script


class Safety:
    """Watches one call from the start, and judges it in the end."""

    def __init__(self) -> None:
        self._said: list[tuple[float, str]] = []  # (loop time, words) that must not be lost
        self._pending: dict[str, float] = {}  # words that were not final yet -> loop time
        self._turns: list[tuple[float, str]] = []  # (loop time, words) of every turn that is to be answered
        self._sees_turns = False  # whether anything here answers turns
        self._seq = 0  # stamps so far

    def attach(self, pipeline: Pipeline) -> None:
        """Follow the voices and the turns of a pipeline that has not started."""
        chain, contexts = pipeline.processors, VoiceContexts()
        for service in voices_in(chain):
            contexts.bind(service)
            self._stamp(service, contexts)
        for processor in chain:
            if _stage(processor) is Stage.VOICE:
                self._stamp(processor, contexts)
        answers = next((p for p in chain if _stage(p) in (Stage.RESPONDER, Stage.TRACKER)), None)
        if answers is not None:
            self._sees_turns = True
            answers.add_event_handler("on_before_process_frame", self._note_turn)

    def said(self, text: str, *, is_final: bool = True) -> None:
        """Note what the user has said now; a backchannel may go unheard. What was pending may be in a turn by now."""
        now, text = asyncio.get_running_loop().time(), _plain(text)
        if not is_final:
            self._pending.setdefault(text, now)
        elif not is_backchannel(text):
            self._said.append((self._pending.pop(text, now), text))

    async def judge(self, call: AsyncCall, *, is_over: bool) -> None:
        """Let the bot finish, unless the line is gone already; hang up. Raises `ConversationFailed`."""
        problems = [] if is_over else await self._wedged(call)
        lost = [] if is_over or problems else self._lost(call)
        problems += [*_stale(call), *lost, *_illegal(call), *await _unbounded(call)]
        if problems:
            raise ConversationFailed(problems)

    def _stamp(self, voice: FrameProcessor, contexts: VoiceContexts) -> None:
        async def stamp(_: Any, frame: Frame) -> None:
            if not isinstance(frame, OutputAudioRawFrame):
                return
            minted = contexts.of(getattr(frame, "context_id", None) or "")
            turn_id = getattr(frame, "turn_id", None) or (minted.turn_id if minted else 0)
            if turn_id:
                self._seq += 1
                frame.num_frames = round(frame.num_frames * RATE / frame.sample_rate)
                frame.sample_rate, frame.num_channels = RATE, 1  # no stamp survives resampling
                size = 2 * frame.num_frames
                frame.audio = stamped(turn_id, self._seq, ms=size / 32 + 1)[:size]

        voice.add_event_handler("on_before_push_frame", stamp)

    async def _note_turn(self, _: Any, frame: Frame) -> None:
        if isinstance(frame, UserTurnFrame):
            self._turns.append((asyncio.get_running_loop().time(), _plain(frame.text)))

    async def _wedged(self, call: AsyncCall) -> list[str]:
        for _ in range(2):
            if not await call.comes_to(State.IDLE, timeout_s=IDLE_S):
                state = f"{IDLE_S:.0f} s after the user's last act the conversation is still {call.states[-1]}"
                return [f"wedged: {call.session.stuck or state}"]
            await asyncio.sleep(QUIET_S)
        return []

    def _lost(self, call: AsyncCall) -> list[str]:
        kept = _plain(" ".join(call.record.fields.text_buffer))
        return [
            f"lost: {text!r}, said at {at:.3f} s, is in no turn"
            for at, text in self._said
            if self._sees_turns and text not in kept and not any(text in t and at <= when for when, t in self._turns)
        ]


def _stale(call: AsyncCall) -> list[str]:
    """Audio of a cut reply, and any audio between a cut and the next reply."""
    cut_upto, is_cut, problems = 0, False, []
    for kind, value in call.wire.log:
        if kind == "interrupted":
            cut_upto, is_cut = max(cut_upto, value["turn"]), True
        elif kind == "response_ready":
            is_cut = False
        elif kind == "audio" and (is_cut or any(turn <= cut_upto for turn in turns_in_audio(value))):
            problems.append(f"stale: audio was heard after the reply to turn {cut_upto} was cut")
    return problems[:1]


def _illegal(call: AsyncCall) -> list[str]:
    moves = [(m["trigger"], m["state"]) for m in call.wire.of_type("state_update") if m["trigger"] != "stt_fragment"]
    table: Any = TABLE  # asked with what the client was told
    return [
        f"illegal: {trigger} moved the conversation from {before} to {after}"
        for (_, before), (trigger, after) in pairwise([("", State.IDLE), *moves])
        if trigger != "resumed" and table[before].get(trigger) != after
    ]


async def _unbounded(call: AsyncCall) -> list[str]:
    began = asyncio.get_running_loop().time()
    await call.disconnects()
    took_s = asyncio.get_running_loop().time() - began
    if call.session.abandoned or took_s > END_S:
        return [f"unbounded: the end of the call took {took_s:.1f} s{' and failed' * call.session.abandoned}"]
    return []


def _stage(processor: FrameProcessor) -> Stage | None:
    return getattr(processor, "stage", None)


def _plain(text: str) -> str:
    return " ".join(text.split())
