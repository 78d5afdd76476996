"""Replies that are prepared before their turn is committed: which one, for which words, what it saved.

 the user falls silent                    the turn is committed
        |--- guess --- branches ---|             |
                                   |-- LLM -- voice ... held at the gate
                                   prepared      |--> heard (hit: the same words), or dropped (miss)

A prepared reply has a turn id of its own from the start. The commit of the same words takes that id over, so nothing
that LLM and voice have labelled needs another label; any other words take the next one, and the id is burnt.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from loguru import logger
from pipecat.services.tts_service import TTSService
from prometheus_client import Counter as Metric

from ..conversation.prepared import Prepared
from ..engine.conductor import Conductor
from ..frames import SpeculativeContextFrame, TurnContextFrame
from ..interruption.labelled_services import labels_are_sure
from ..listening.words import key_of
from .answers import passages_in
from .chat_memory import ChatMemory
from .downstream import Downstream
from .reply_watch import ReplyWatch

PREPARED = Metric("leibniz_prepared_replies", "Replies prepared before the commit, by what became of them", ["outcome"])
PREPARED_SAVED = Metric("leibniz_prepared_saved_seconds", "Waiting for the first audio that prepared replies saved")

HOLD_S = 5.0  # a reply is held no longer: the longest honest wait is `Utterance.no_words_s`


class Preparation:
    """The replies that one responder prepares, one at a time. `counts`: see `Responder.counts`."""

    def __init__(self, counts: Counter[str], *, is_wanted: bool) -> None:
        self.current: Prepared | None = None  # the one that is held; None: none
        self.burnt_upto = 0  # newest turn id whose reply was dropped; a commit that got it even so needs another
        self._is_wanted = is_wanted  # whoever built the bot asks for it
        self._counts = counts
        self._timer: asyncio.TimerHandle | None = None  # ends the wait for the commit
        self._conductor: Conductor | None = None  # tells the turn aggregator which id goes with which words

    def can_work(self, downstream: Downstream) -> bool:
        """Whether replies are prepared here; logs an error if that is wanted and cannot be."""
        if self._is_wanted and not downstream.has_gate:
            logger.error(
                "Responder(prepare=True) prepares nothing: no InterruptionGate follows, which would hold a reply until "
                "its turn is committed. Put one behind the voice"
            )
        services = [type(voice) for voice in downstream.voices if isinstance(voice, TTSService)]
        unsure = [service.__name__ for service in services if not labels_are_sure(service)]
        if self._is_wanted and unsure:
            logger.error(
                f"Responder(prepare=True) prepares nothing: {unsure[0]} is not known to be sure whose audio it pushes, "
                "so a wrong reply could be heard in the next one. Use a voice with context ids"
            )
        return self._is_wanted and downstream.has_gate and not unsure

    def begin(
        self, frame: SpeculativeContextFrame, conductor: Conductor, now: float, give_up: Callable[[str], None]
    ) -> Prepared | None:
        """Take the id that the guess foresaw; None if another turn has taken it meanwhile."""
        if frame.turn_id != conductor.turn_id + 1:
            return None
        conductor.mint_turn_id()
        self._conductor, self.current = conductor, Prepared(frame, key_of(frame.text), now, give_up)
        conductor.hold_prepared(self.current)
        self._timer = asyncio.get_running_loop().call_later(HOLD_S, give_up, f"no commit within {HOLD_S:g} s")
        logger.debug(f"turn {frame.turn_id} is prepared, for: {frame.text}")
        return self.current

    def is_of(self, turn_id: int) -> bool:
        """Whether this turn's reply is the one that is held."""
        return self.current is not None and self.current.turn_id == turn_id

    def is_for(self, text: str) -> bool:
        """Whether the held reply answers these words."""
        return self.current is not None and self.current.key == key_of(text)

    def adopt(self, frame: TurnContextFrame, watch: ReplyWatch | None, memory: ChatMemory, now: float) -> bool:
        """The turn is committed, with these answers of its branches: the held reply is the turn's, or False."""
        if self.current is None or self.current.frame.answers != frame.answers or watch is None or watch.is_failing:
            return False
        saved_s = self.current.saved_s(now)
        self._end()
        self._counts["prepared_hits"] += 1
        self._counts["replies"] += 1
        self._counts["prepared_saved_ms"] += round(saved_s * 1000)
        PREPARED.labels("hit").inc()
        PREPARED_SAVED.inc(saved_s)
        logger.debug(f"turn {frame.turn_id} was prepared, which saved {saved_s * 1000:.0f} ms")
        memory.ask(frame.turn_id, frame.text, passages_in(frame.answers) if watch.is_generated else "")
        watch.committed(now)
        return True

    def drop(self, reason: str) -> int:
        """Nobody will hear it. Returns its turn id, 0 if nothing was held."""
        prepared = self._end()
        if prepared is None:
            return 0
        self.burnt_upto = prepared.turn_id
        self._counts["prepared_misses"] += 1
        PREPARED.labels("miss").inc()
        logger.debug(f"turn {prepared.turn_id} was prepared for nothing: {reason}")
        return prepared.turn_id

    def _end(self) -> Prepared | None:
        prepared, self.current = self.current, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if prepared is not None and self._conductor is not None and self._conductor.prepared is prepared:
            self._conductor.hold_prepared(None)
        return prepared
