"""The bots that benchmarks/barge_in.py compares; each runs alone in a process: `barge_in_servers.py KIND PORT`.

ours    WebSocketServer, real Silero, all processors of a bot; branches and voice stubbed, words from the client
stock   Pipecat's websocket server transport, protobuf, Silero and the start of turns by default, the same stubbed
        voice, and a stubbed STT that hears something at every end of speech, 0.1 s after which the turn is over
quick   the same with `start_secs` of 0.1 instead of 0.2, as its users tune it

Both voices hand over a long answer at once, as a fast TTS does. "ours" writes the instants of what happens inside to
stdout as JSON lines, in s of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

import numpy as np
from loguru import logger

RATE = 16_000
ANSWER_S = 12.0
MEASURED = "measured"  # the session whose instants are noted
PART = 2560  # bytes of 80 ms


def answer_pcm() -> bytes:
    """What the bot says: a hum without a single zero sample, so that silence at the client is silence."""
    t = np.arange(int(ANSWER_S * RATE)) / RATE
    return (np.sin(2 * np.pi * 220 * t) * 4000 + 5000).astype(np.int16).tobytes()


ANSWER = answer_pcm()
PARTS = [ANSWER[at : at + PART] for at in range(0, len(ANSWER), PART)]


async def ours(port: int) -> None:
    """See the top."""
    from pipecat.frames.frames import Frame, InputAudioRawFrame
    from pipecat.processors.frame_processor import FrameDirection

    from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, Processor, RetrievalResult, Session, consumes
    from leibniz_voice.pipeline.frames import (
        BargeInFrame,
        PlaybackPauseFrame,
        PlaybackResumeFrame,
        ReplyAudioFrame,
        ReplyInterruptedFrame,
        ReplySpeechFrame,
        SpeechChunkFrame,
    )
    from leibniz_voice.processors import InterruptionGate, Responder, SileroVAD, StateTracker, TurnAggregator
    from leibniz_voice.transports import WebSocketServer
    from leibniz_voice.transports.access.limits import Limits

    def note(what: str, **more: Any) -> None:
        print(json.dumps({"at": time.monotonic(), "what": what, **more}))

    class BeforeVAD(Processor):
        """Notes when the audio comes, and how much there was so far."""

        samples = 0

        @consumes(InputAudioRawFrame)
        async def _on_audio(self, frame: InputAudioRawFrame, direction: FrameDirection) -> None:
            self.samples += len(frame.audio) // 2
            note("audio", samples=self.samples)
            await self.push_frame(frame, direction)

    class AfterVAD(Processor):
        """Notes what the detector says."""

        @consumes(SpeechChunkFrame)
        async def _on_chunk(self, frame: SpeechChunkFrame, direction: FrameDirection) -> None:
            note("chunk", confidence=frame.confidence, speech_ms=frame.speech_ms)
            await self.push_frame(frame, direction)

    class AfterGate(Processor):
        """Notes what passes the gate."""

        @consumes(PlaybackPauseFrame, PlaybackResumeFrame, ReplyInterruptedFrame)
        async def _on_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if direction is FrameDirection.DOWNSTREAM:
                note(type(frame).__name__)
            await self.push_frame(frame, direction)

    class BeforeGate(Processor):
        """Notes the cut on its way to the owner of the reply."""

        @consumes(BargeInFrame)
        async def _on_barge_in(self, frame: Frame, direction: FrameDirection) -> None:
            note("BargeInFrame")
            await self.push_frame(frame, direction)

    class Voice(Processor):
        """Hands over the whole answer at once."""

        @consumes(ReplySpeechFrame)
        async def _on_speech(self, frame: ReplySpeechFrame, direction: FrameDirection) -> None:
            for pcm in PARTS:
                await self.push_frame(ReplyAudioFrame(pcm, RATE, 1, turn_id=frame.turn_id))

    async def intent(turn: Any) -> IntentResult:
        return IntentResult("order_status", 1.0)

    async def retrieval(turn: Any) -> RetrievalResult:
        return RetrievalResult(context="It is on its way.")

    def build(session: Session) -> Pipeline:
        is_noted = session.id == MEASURED
        return Pipeline(
            [
                session.input,
                *([BeforeVAD()] if is_noted else []),
                SileroVAD(),
                *([AfterVAD()] if is_noted else []),
                TurnAggregator(),
                Parallel(
                    {"intent": intent, "retrieval": retrieval},
                    fallback={"intent": IntentResult(), "retrieval": RetrievalResult()},
                ),
                Responder(),
                Voice(),
                *([BeforeGate()] if is_noted else []),
                InterruptionGate(),
                *([AfterGate()] if is_noted else []),
                StateTracker(record=session.record),
                session.output,
            ]
        )

    async with WebSocketServer(build, port=port, limits=Limits(connections=500, connections_per_address=500)):
        print("up", flush=True)
        await asyncio.Event().wait()


async def stock(port: int, *, start_s: float | None = None) -> None:
    """See the top."""
    from pipecat.audio.vad.silero import SileroVADAnalyzer
    from pipecat.audio.vad.vad_analyzer import VADParams
    from pipecat.frames.frames import (
        Frame,
        TextFrame,
        TranscriptionFrame,
        TTSAudioRawFrame,
        TTSStartedFrame,
        TTSStoppedFrame,
        VADUserStoppedSpeakingFrame,
    )
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineParams, PipelineWorker
    from pipecat.processors.aggregators.llm_context import LLMContext
    from pipecat.processors.aggregators.llm_response_universal import (
        LLMContextAggregatorPair,
        LLMUserAggregatorParams,
    )
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
    from pipecat.serializers.protobuf import ProtobufFrameSerializer
    from pipecat.transports.websocket.server import (
        SingleClientWebsocketServerParams,
        SingleClientWebsocketServerTransport,
    )
    from pipecat.turns.user_stop.speech_timeout_user_turn_stop_strategy import SpeechTimeoutUserTurnStopStrategy
    from pipecat.turns.user_turn_strategies import UserTurnStrategies
    from pipecat.workers.runner import WorkerRunner

    class STT(FrameProcessor):
        """Hears something at every end of speech, which the aggregator tells upstream."""

        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            await self.push_frame(frame, direction)
            if isinstance(frame, VADUserStoppedSpeakingFrame) and direction is FrameDirection.UPSTREAM:
                await self.push_frame(TranscriptionFrame("stop", "", "", finalized=True))

    class Voice(FrameProcessor):
        """Hands over the whole answer at once."""

        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if type(frame) is not TextFrame:
                await self.push_frame(frame, direction)
                return
            await self.push_frame(TTSStartedFrame())
            for pcm in PARTS:
                await self.push_frame(TTSAudioRawFrame(pcm, RATE, 1))
            await self.push_frame(TTSStoppedFrame())

    transport = SingleClientWebsocketServerTransport(
        SingleClientWebsocketServerParams(
            serializer=ProtobufFrameSerializer(), audio_in_enabled=True, audio_out_enabled=True
        ),
        host="127.0.0.1",
        port=port,
    )
    vad = SileroVADAnalyzer(params=VADParams(start_secs=start_s) if start_s else VADParams())
    turns = UserTurnStrategies(stop=[SpeechTimeoutUserTurnStopStrategy(user_speech_timeout=0.1)])
    aggregators = LLMContextAggregatorPair(
        LLMContext(), user_params=LLMUserAggregatorParams(vad_analyzer=vad, user_turn_strategies=turns)
    )
    worker = PipelineWorker(
        Pipeline([transport.input(), STT(), aggregators.user(), Voice(), transport.output(), aggregators.assistant()]),
        params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    asyncio.get_running_loop().call_later(2.0, lambda: print("up", flush=True))
    await runner.run()


async def main() -> None:
    """Serve until killed."""
    kind, port = sys.argv[1], int(sys.argv[2])
    logger.remove()
    logger.add(sys.stderr, level=os.environ.get("LEVEL", "ERROR"))
    if kind == "ours":
        await ours(port)
    else:
        await stock(port, start_s=0.1 if kind == "quick" else None)


if __name__ == "__main__":
    asyncio.run(main())
