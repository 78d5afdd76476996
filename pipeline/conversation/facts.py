"""`ConversationFacts`: what the processors of one conversation know in common.

Everybody reads; each fact has one writer, which writes it through one method:

    turn_id                 given out here, by `mint_turn_id` and `commit_turn_id`
    session_id, resumption  the state tracker            open_conversation
    prepares                the responder                say_prepares
    prepared                the responder's preparation  hold_prepared
    voiced_turn, voiced_at  the gate                     audio_passed
    closed_turn             the gate                     reply_closed
    cut turn                the gate                     gate_saw
    what ends a stuck one   the session                  when_stuck
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from loguru import logger

from ..listening.words import key_of
from .prepared import Prepared
from .resume import Resumption

STUCK_S = 5.0  # from sending an interruption until the gate has seen it; Pipecat's processors take a second at most


class ConversationFacts:
    """The facts of one conversation."""

    def __init__(self) -> None:
        self._turn_id = 0
        self._session_id = ""
        self._resumption: Resumption | None = None
        self._prepares = False
        self._prepared: Prepared | None = None
        self._settled_upto = 0  # the newest turn whose prepared reply a commit has decided about
        self._voiced_turn = 0
        self._voiced_at = 0.0
        self._closed_turn = 0
        self._cut_turn: int | None = None  # the newest turn whose interruption the gate has seen; None: no gate
        self._on_stuck: Callable[[str], None] | None = None  # ends a conversation that cannot be saved; None: nobody
        self._awaited: set[asyncio.TimerHandle] = set()  # when an interruption that was sent is too late at the gate

    # -- turns -------------------------------------------------------------------------------------------------

    @property
    def turn_id(self) -> int:
        """The newest turn id given out; 0: none."""
        return self._turn_id

    def mint_turn_id(self) -> int:
        """Return a turn id that was never used in this conversation."""
        self._turn_id += 1
        return self._turn_id

    def commit_turn_id(self, text: str) -> int:
        """Return the id of a new turn with these words: that of the reply prepared for them, else a new one."""
        prepared = self.prepared
        if prepared is not None:
            self._settled_upto = prepared.turn_id
            if prepared.turn_id == self._turn_id and prepared.key == key_of(text):
                return prepared.turn_id
        return self.mint_turn_id()

    # -- the conversation: the state tracker -------------------------------------------------------------------

    @property
    def session_id(self) -> str:
        """The conversation's id; "" where no state tracker says."""
        return self._session_id

    @property
    def resumption(self) -> Resumption | None:
        """Where an earlier conversation goes on; None for a new one."""
        return self._resumption

    def open_conversation(self, *, session_id: str, turn_id: int, resumption: Resumption | None) -> None:
        """Say which conversation it is, with the newest turn id that it has used before."""
        self._session_id = session_id
        self._turn_id = max(self._turn_id, turn_id)
        self._resumption = resumption

    # -- replies before their turn: the responder --------------------------------------------------------------

    @property
    def prepares(self) -> bool:
        """Whether replies are prepared, so that branches tell their answers to a guess."""
        return self._prepares

    def say_prepares(self, prepares: bool) -> None:
        """Say whether replies are prepared."""
        self._prepares = prepares

    @property
    def prepared(self) -> Prepared | None:
        """A reply whose turn is not committed; None: there is none, or a commit has decided about it."""
        prepared = self._prepared
        return None if prepared is None or prepared.turn_id <= self._settled_upto else prepared

    def hold_prepared(self, prepared: Prepared | None) -> None:
        """Hold a reply for the commit of its words; None: not any more."""
        self._prepared = prepared

    # -- what is heard: the gate -------------------------------------------------------------------------------

    @property
    def voiced_turn(self) -> int:
        """The newest turn whose audio has passed the gate; 0: none."""
        return self._voiced_turn

    @property
    def voiced_at(self) -> float:
        """When that audio passed last, in loop seconds."""
        return self._voiced_at

    def audio_passed(self, turn_id: int, at: float) -> None:
        """Audio of a turn has passed the gate, at a loop time."""
        self._voiced_turn, self._voiced_at = turn_id, at

    @property
    def closed_turn(self) -> int:
        """The newest turn whose end marker has passed the gate; 0: none."""
        return self._closed_turn

    def reply_closed(self, turn_id: int) -> None:
        """The end marker of a turn has passed the gate."""
        self._closed_turn = turn_id

    def gate_saw(self, turn_id: int) -> None:
        """The gate is there (0), or the interruption of a turn has come to it."""
        self._cut_turn = max(self._cut_turn or 0, turn_id)

    # -- a conversation that is stuck: the session ends it -----------------------------------------------------

    @property
    def on_stuck(self) -> Callable[[str], None] | None:
        """Who ends a conversation that cannot go on; None: nobody."""
        return self._on_stuck

    def when_stuck(self, end: Callable[[str], None] | None) -> None:
        """Have `end(reason)` called for a conversation that cannot go on; None: nobody."""
        self._on_stuck = end

    def await_gate(self, turn_id: int) -> None:
        """The interruption of a turn was sent: where a guest holds it up for good, the conversation is ended."""
        if self._cut_turn is not None and self._cut_turn < turn_id:
            late = asyncio.get_running_loop().call_later(STUCK_S, lambda: self._is_late(late, turn_id))
            self._awaited.add(late)

    def await_nothing(self) -> None:
        """The conversation is over."""
        while self._awaited:
            self._awaited.pop().cancel()

    def _is_late(self, timer: asyncio.TimerHandle, turn_id: int) -> None:
        self._awaited.discard(timer)
        if (self._cut_turn or 0) < turn_id:
            reason = f"a processor has held up the interruption of turn {turn_id} for {STUCK_S:g} s"
            logger.error(f"{reason}: the conversation is ended")
            if self._on_stuck is not None:
                self._on_stuck(reason)
