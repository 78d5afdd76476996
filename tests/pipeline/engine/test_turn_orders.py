"""Generated orders of partials, finals, VAD events and interruptions, through the whole pipeline in virtual time."""

from __future__ import annotations

import asyncio
import random

import pytest
from pipecat.frames.frames import (
    Frame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection

from leibniz_voice.pipeline import (
    IntentResult,
    Parallel,
    Pipeline,
    Processor,
    RetrievalResult,
    Session,
    UserTurnFrame,
    consumes,
)
from leibniz_voice.pipeline.frames import SpeechChunkFrame
from leibniz_voice.pipeline.testing import AsyncCall, run_offline
from leibniz_voice.pipeline.testing.scripted.scripted_services import ScriptedVoice
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator
from leibniz_voice.transports.dialects.protocol import UserSpeaking

PER_TEST = 50
KINDS = ("start", "stop", "stop", "interim", "final", "final", "late", "speech", "client", "wait")


class Notes(Processor):
    """Remembers the turns that come by."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[list[str]] = []

    @consumes(UserTurnFrame)
    async def _on_turn(self, frame: UserTurnFrame, direction: FrameDirection) -> None:
        if direction is FrameDirection.DOWNSTREAM:
            self.turns.append(frame.text.split())
        await self.push_frame(frame, direction)

    @property
    def final(self) -> list[str]:
        """All words of the turns that were not asked again, longer, by the next one."""
        words: list[str] = []
        for turn, after in zip(self.turns, [*self.turns[1:], []], strict=True):
            if after[: len(turn)] != turn:
                words += turn
        return words


class User:
    """Does something at random, and knows what was said."""

    def __init__(self, call: AsyncCall, dice: random.Random) -> None:
        self.call, self.dice = call, dice
        self.said: list[str] = []
        self.pending = ""  # a word that was not final yet
        self.unsure: set[str] = set()  # words that never were: the next fragment replaces them, or silence keeps them

    async def act(self) -> None:
        kind = self.dice.choice(KINDS)
        if kind == "wait":
            await asyncio.sleep(self.dice.choice([0.05, 0.3, 1.5]))
        elif kind == "client":
            await self.call.sends(UserSpeaking(confidence=self.dice.random()))
        elif kind == "late":
            await asyncio.sleep(0.01)
            await self._says(is_final=True)
        elif kind in ("interim", "final"):
            await self._says(is_final=kind == "final")
        else:
            await self.call.pushes(*self._vad(kind))

    def _vad(self, kind: str) -> list[Frame]:
        if kind == "start":
            self._gives_up()  # a final after a new onset is that of a new word
            return [VADUserStartedSpeakingFrame(start_secs=0.064)]
        if kind == "stop":
            return [SpeechChunkFrame(), VADUserStoppedSpeakingFrame(stop_secs=0.3)]
        return [SpeechChunkFrame(confidence=0.9, speech_ms=ms) for ms in range(32, 32 * self.dice.randrange(2, 12), 32)]

    def _gives_up(self) -> None:
        if self.pending:
            self.unsure.add(self.pending)
            self.said.remove(self.pending)
            self.said.append("")  # so that no word comes twice
            self.pending = ""

    async def _says(self, *, is_final: bool) -> None:
        word = self.pending or f"w{len(self.said)}"
        self.pending = "" if is_final else word
        if word not in self.said:
            self.said.append(word)
        frame_type = TranscriptionFrame if is_final else InterimTranscriptionFrame
        await self.call.pushes(frame_type(word, "", ""))


def converse(seed: int) -> tuple[list[str], list[str], str]:
    """One conversation: (words said, words in final turns and the buffer, the state in the end)."""
    dice = random.Random(seed)
    notes = Notes()
    branch_s = dice.choice([0.0, 0.05, 0.4])

    async def intent(turn: UserTurnFrame) -> IntentResult:
        await asyncio.sleep(branch_s)
        return IntentResult("say", 1.0)

    async def retrieval(turn: UserTurnFrame) -> RetrievalResult:
        return RetrievalResult([], "Something to say.")

    def build(session: Session) -> Pipeline:
        fallback = {"intent": IntentResult(), "retrieval": RetrievalResult()}
        return Pipeline(
            [
                session.input,
                TurnAggregator(),
                notes,
                Parallel({"intent": intent, "retrieval": retrieval}, fallback=fallback),
                Responder(templates={"say": "{context}"}),
                ScriptedVoice(chunks_per_sentence=dice.choice([2, 20])),
                InterruptionGate(),
                StateTracker(record=session.record),
                session.output,
            ]
        )

    users: list[User] = []

    async def script(call: AsyncCall) -> None:
        user = User(call, dice)
        users.append(user)
        for _ in range(dice.randrange(3, 25)):
            await user.act()
            await asyncio.sleep(dice.choice([0.0, 0.001, 0.02, 0.3]))
        await call.pushes(VADUserStartedSpeakingFrame(start_secs=0.064), TranscriptionFrame("end", "", ""))
        user.said += ["end"]
        await call.pushes(SpeechChunkFrame(), VADUserStoppedSpeakingFrame(stop_secs=0.3))
        await asyncio.sleep(20)

    call = run_offline(build, script)
    user = users[0]
    user._gives_up()
    kept = [word for word in notes.final if word not in user.unsure]
    return [word for word in user.said if word], kept, call.record.fields.state


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_every_word_is_in_exactly_one_turn_whatever_the_order(block: int):
    """1,000 orders in 20 tests."""
    for seed in range(block * PER_TEST, (block + 1) * PER_TEST):
        said, kept, state = converse(seed)
        assert sorted(kept) == sorted(said), f"seed {seed}"
        assert state == "idle", f"seed {seed}"
