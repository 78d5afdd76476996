"""What came of a call: for assertions during it and after it, and for whoever shows why a test failed."""

from __future__ import annotations

from ...lab.recording.recorder import Tape
from ...lab.recording.recording import Recording
from ...transports.memory import MemoryWire
from ..conversation.conversation_record import ConversationRecord
from ..errors import LeibnizError
from ..session import Session


class CallError(LeibnizError, AssertionError):
    """Something that the script waits for did not happen; the message draws what did."""


class CallOutcome:
    """What came of a call, during it and after it."""

    wire: MemoryWire  # what the client got
    record: ConversationRecord  # the live conversation
    session: Session  # its host
    tape: Tape  # its recording

    @property
    def recording(self) -> Recording:
        """What happened so far: states, turns, latencies, what was heard, frames by processor and direction."""
        return self.tape.recording

    def timeline(self) -> str:
        """What happened so far, drawn as text."""
        return self.recording.timeline()

    @property
    def states(self) -> list[str]:
        """Every state so far, in order, beginning with idle."""
        updates = self.wire.of_type("state_update")
        return ["idle", *(u["state"] for u in updates if u["trigger"] != "stt_fragment")]

    @property
    def replies(self) -> list[str]:
        """The text of every reply, as far as it was known when it began, in order."""
        return [message["text"] for message in self.wire.of_type("response_ready")]

    def reply_text(self, turn_id: int) -> str:
        """All that was said in reply to a turn, or is about to be."""
        said = ("response_ready", "response_text")
        return " ".join(m["text"] for _, m in self.wire.messages if m["type"] in said and m["turn"] == turn_id).strip()


def timelines_in(error: BaseException) -> list[tuple[str, str]]:
    """Title and timeline of each call among the variables of a failed test, for a test runner to show.

    None for a `CallError`, which brings its own.
    """
    calls: dict[int, tuple[str, CallOutcome]] = {}
    trace = None if isinstance(error, CallError) else error.__traceback__
    while trace is not None:
        for name, value in trace.tb_frame.f_locals.items():
            if isinstance(value, CallOutcome) and hasattr(value, "tape"):  # a constructor may have raised before
                calls.setdefault(id(value.tape), (name, value))
        trace = trace.tb_next
    return [(f"timeline of {name}", call.timeline()) for name, call in calls.values() if call.recording.events]
