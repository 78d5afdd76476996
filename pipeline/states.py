"""The conversation's state machine: one literal table, a machine that refuses what is not in it, and its diagram.

    idle --stt_start--> listening --vad_end--> thinking --response_ready--> speaking --tts_complete--> idle
                            ^                      |                            |
                            +--- resume_listening -+- interrupt <- barge_in ----+

`interrupt` is passed in the same step, so nobody ever waits in it. `python -m leibniz_voice.pipeline.states` prints
the whole diagram (Mermaid). Whoever feeds the machine asks `can` first, so late and repeated signals are no errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from .errors import TransitionError


class State(StrEnum):
    """Where the conversation stands."""

    IDLE = "idle"
    LISTENING = "listening"
    THINKING = "thinking"
    SPEAKING = "speaking"
    INTERRUPT = "interrupt"

    @property
    def emoji(self) -> str:
        """One sign for a container's console."""
        return _EMOJI[self]


class Event(StrEnum):
    """What moves the conversation; the values are the trigger names in logs, messages and the transition log."""

    STT_START = "stt_start"
    GREETING = "greeting"
    VAD_END = "vad_end"
    UTTERANCE_DISCARDED = "utterance_discarded"
    RESPONSE_READY = "response_ready"
    REPLY_ABANDONED = "reply_abandoned"
    BARGE_IN = "barge_in"
    RESUME_LISTENING = "resume_listening"
    TTS_COMPLETE = "tts_complete"


_EMOJI = {
    State.IDLE: "\N{LARGE GREEN CIRCLE}",
    State.LISTENING: "\N{LARGE BLUE CIRCLE}",
    State.THINKING: "\N{LARGE YELLOW CIRCLE}",
    State.SPEAKING: "\N{LARGE RED CIRCLE}",
    State.INTERRUPT: "\N{HIGH VOLTAGE SIGN}",
}

TABLE: Mapping[State, Mapping[Event, State]] = MappingProxyType(
    {
        State.IDLE: {Event.STT_START: State.LISTENING, Event.GREETING: State.SPEAKING},
        State.LISTENING: {Event.VAD_END: State.THINKING, Event.UTTERANCE_DISCARDED: State.IDLE},
        State.THINKING: {
            Event.RESPONSE_READY: State.SPEAKING,
            Event.REPLY_ABANDONED: State.IDLE,
            Event.BARGE_IN: State.INTERRUPT,
        },
        State.SPEAKING: {
            Event.TTS_COMPLETE: State.IDLE,
            Event.REPLY_ABANDONED: State.IDLE,
            Event.BARGE_IN: State.INTERRUPT,
        },
        State.INTERRUPT: {Event.RESUME_LISTENING: State.LISTENING},
    }
)


class TurnMachine:
    """The state of one conversation. Pure and synchronous."""

    def __init__(self, state: State = State.IDLE) -> None:
        self.state = state  # where the conversation stands

    def can(self, event: Event) -> bool:
        """Whether `event` moves the machine now."""
        return event in TABLE[self.state]

    def feed(self, event: Event) -> State:
        """Make the move and return the new state. Raises `TransitionError`, and stays, if the table has none."""
        try:
            self.state = TABLE[self.state][event]
        except KeyError:
            allowed = ", ".join(TABLE[self.state])
            raise TransitionError(
                f"{event} does not move a conversation that is {self.state}; {allowed} would"
            ) from None
        return self.state


def diagram() -> str:
    """Return the table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.IDLE}"]
    lines += [f"    {state} --> {target}: {event}" for state, row in TABLE.items() for event, target in row.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(diagram())
