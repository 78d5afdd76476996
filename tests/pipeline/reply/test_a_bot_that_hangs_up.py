"""A bot that ends the conversation itself: heard to its last sample, and then the client's connection closes."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
from pipecat.frames.frames import EndWorkerFrame, Frame
from pipecat.processors.frame_processor import FrameDirection
from websockets import ConnectionClosed

from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, Processor, RetrievalResult, Session, consumes
from leibniz_voice.pipeline.frames import ReplyEndedFrame
from leibniz_voice.pipeline.session import Build
from leibniz_voice.pipeline.testing import (
    AsyncCall,
    Manner,
    Script,
    ScriptedIntent,
    ScriptedLLM,
    ScriptedRetriever,
    ScriptedTTS,
    ScriptedVoice,
    Step,
    run_virtual,
)
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator
from leibniz_voice.transports.dialects.protocol import SttFragment, UserSpeaking, VadEnd
from tests.support.serving import joined, served, types

CHUNKS = 50  # of 20 ms
FALLBACK = {"intent": IntentResult(), "retrieval": RetrievalResult()}


class HangsUp(Processor):
    """Ends the conversation behind its first reply, which nobody has heard yet."""

    @consumes(ReplyEndedFrame)
    async def _on_reply_ended(self, frame: Frame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)
        await self.push_frame(EndWorkerFrame(), FrameDirection.UPSTREAM)


def build(session: Session) -> Pipeline:
    branches = {"intent": ScriptedIntent("bye"), "retrieval": ScriptedRetriever("Goodbye.")}
    voice = [Responder(), ScriptedVoice(chunks_per_sentence=CHUNKS), HangsUp(), InterruptionGate()]
    chain = [TurnAggregator(), Parallel(branches, fallback=FALLBACK), *voice, StateTracker(record=session.record)]
    return Pipeline([session.input, *chain, session.output])


async def asks(call: AsyncCall) -> None:
    await call.sends(SttFragment(text="that is all", is_final=True))
    await call.sends(VadEnd())


def test_a_goodbye_is_heard_to_its_end() -> None:
    async def main() -> tuple[float, str, str]:
        async with AsyncCall(build) as call:
            await asks(call)
            await call.session.wait()
            return call.wire.audio_ms, call.states[-1], call.recording.turns[-1].heard

    assert run_virtual(main()) == (20 * CHUNKS, "idle", "Bye: Goodbye.")


def test_a_goodbye_that_is_cut_ends_at_once() -> None:
    async def main() -> tuple[float, float]:
        async with AsyncCall(build) as call:
            await asks(call)
            await call.until_heard(200)
            began = asyncio.get_running_loop().time()
            await call.sends(UserSpeaking(confidence=1.0))
            await call.session.wait()
            return call.wire.audio_ms, asyncio.get_running_loop().time() - began

    heard_ms, took_s = run_virtual(main())
    assert heard_ms <= 300
    assert took_s < 0.1


async def closed(build: Build, *, cuts: bool = False) -> tuple[int, int | None, str]:
    """Bytes heard, code and reason, of a real client that asks once, and perhaps cuts the answer."""
    async with served(build) as server, joined(server) as socket:
        await types(socket, "bye")
        heard = 0
        async with asyncio.timeout(15):
            with suppress(ConnectionClosed):
                async for message in socket:
                    heard += len(message) if isinstance(message, bytes) else 0
                    if cuts and heard:
                        await socket.send(json.dumps({"type": "user_speaking", "confidence": 1.0}))
                        cuts = False
        return heard, socket.close_code, socket.close_reason or ""


@pytest.mark.slow
def test_the_connection_of_a_bot_that_has_ended_is_closed() -> None:
    heard, code, reason = asyncio.run(closed(build))
    assert heard >= 2 * 16 * 20 * CHUNKS
    assert (code, reason) == (1000, "the bot has ended the conversation")


@pytest.mark.slow
def test_the_client_of_a_conversation_that_is_stuck_is_told_to_come_again() -> None:
    def build_stuck(session: Session) -> Pipeline:
        stuck = ScriptedTTS(Manner.LATE_CANCEL, swallow=True, script=Script(Step(hangs_at=5)))
        branches = {"intent": ScriptedIntent("complex_query"), "retrieval": ScriptedRetriever()}
        head = [session.input, TurnAggregator(), Parallel(branches, fallback=FALLBACK), Responder(), ScriptedLLM()]
        tail = [InterruptionGate(), StateTracker(record=session.record), session.output]
        return Pipeline([*head, stuck, *tail])

    _, code, reason = asyncio.run(closed(build_stuck, cuts=True))
    assert (code, reason) == (1011, "the conversation was stuck; reconnect")
