"""The servers that benchmarks/density.py compares; each runs alone in a process: `density_servers.py KIND PORT N`.

floor   bare `websockets`, Silero for all in one model, audio paced by one task each; knows nothing of turns
ours    WebSocketServer with all processors of a bot, its STT, branches and voice stubbed
stock   Pipecat's own websocket server transport (one per conversation, which is all that it serves), protobuf, Silero
tuned   the same with RTVI, turn tracking and idle monitor off, and processors in direct mode

All hear with Silero, and answer each stretch of speech with `ANSWER_S` seconds of audio. Stock and tuned have no turn
aggregators and no end-of-turn model, which a real bot of theirs has: what they would cost is not counted against them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from typing import Any

import numpy as np
from loguru import logger

RATE = 16_000
ANSWER_S = 3.5
CHUNK = 640  # bytes of 20 ms


def answer_pcm() -> bytes:
    """What the bot says: a hum."""
    t = np.arange(int(ANSWER_S * RATE)) / RATE
    return (np.sin(2 * np.pi * 220 * t) * 8000).astype(np.int16).tobytes()


ANSWER = answer_pcm()


def up() -> None:
    """Ready: as `leibniz serve`, all of them keep the garbage collector from what is there for good."""
    gc.collect()
    gc.freeze()
    print("up", flush=True)


# --------------------------------------------------------------------------------------------------- floor


async def floor(port: int, n: int) -> None:
    """See the top."""
    from websockets.asyncio.server import ServerConnection, serve
    from websockets.exceptions import ConnectionClosed

    from leibniz_voice.pipeline.listening.speech import Chunker, Offset, SpeechDetector
    from leibniz_voice.processors.embedded.silero.batching import shared_model

    async def say(socket: ServerConnection) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        with contextlib.suppress(ConnectionClosed):
            for number, at in enumerate(range(0, len(ANSWER), CHUNK)):
                await asyncio.sleep(begin + number * 0.02 - loop.time())
                await socket.send(ANSWER[at : at + CHUNK])

    async def handle(socket: ServerConnection) -> None:
        stream, chunker = shared_model().stream(RATE), Chunker(512)
        detector = SpeechDetector(
            sample_rate=RATE, start_threshold=0.6, stop_threshold=0.45, onset_ms=64, hangover_ms=300, preroll_ms=200
        )
        tasks: set[asyncio.Task[None]] = set()

        def hear(probability: float) -> None:
            if isinstance(detector.feed(probability, 512), Offset):
                tasks.add(task := asyncio.create_task(say(socket)))
                task.add_done_callback(tasks.discard)

        with contextlib.suppress(ConnectionClosed):
            while True:
                for chunk in chunker.push(np.frombuffer(await socket.recv(), np.int16)):
                    stream.submit(chunk, hear)
        stream.close()

    async with serve(handle, "127.0.0.1", port, compression=None):
        up()
        await asyncio.Event().wait()


# --------------------------------------------------------------------------------------------------- ours


async def ours(port: int, n: int, **limits_set: Any) -> None:
    """See the top; `limits_set` are further limits."""
    from pipecat.frames.frames import TranscriptionFrame, VADUserStoppedSpeakingFrame
    from pipecat.processors.frame_processor import FrameDirection

    from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, Processor, RetrievalResult, Session, consumes
    from leibniz_voice.pipeline.frames import ReplyAudioFrame, ReplySpeechFrame
    from leibniz_voice.processors import InterruptionGate, Responder, SileroVAD, StateTracker, TurnAggregator
    from leibniz_voice.transports import WebSocketServer
    from leibniz_voice.transports.access.limits import Limits

    class StubSTT(Processor):
        @consumes(VADUserStoppedSpeakingFrame)
        async def _on_stop(self, frame: Any, direction: FrameDirection) -> None:
            await self.push_frame(TranscriptionFrame("where is my order", "", "", finalized=True))
            await self.push_frame(frame, direction)

    class StubTTS(Processor):
        @consumes(ReplySpeechFrame)
        async def _on_speech(self, frame: ReplySpeechFrame, direction: FrameDirection) -> None:
            for at in range(0, len(ANSWER), 4 * CHUNK):
                pcm = ANSWER[at : at + 4 * CHUNK]
                await self.push_frame(ReplyAudioFrame(pcm, RATE, 1, turn_id=frame.turn_id))

    async def intent(turn: Any) -> IntentResult:
        return IntentResult("order_status", 1.0)

    async def retrieval(turn: Any) -> RetrievalResult:
        return RetrievalResult(context="It is on its way.")

    def build(session: Session) -> Pipeline:
        return Pipeline(
            [
                session.input,
                SileroVAD(),
                StubSTT(),
                TurnAggregator(),
                Parallel(
                    {"intent": intent, "retrieval": retrieval},
                    fallback={"intent": IntentResult(), "retrieval": RetrievalResult()},
                ),
                Responder(),
                StubTTS(),
                InterruptionGate(),
                StateTracker(record=session.record),
                session.output,
            ]
        )

    limits = Limits(**{"connections": n + 10, "connections_per_address": n + 10, **limits_set})
    async with WebSocketServer(build, port=port, limits=limits):
        up()
        await asyncio.Event().wait()


# --------------------------------------------------------------------------------------------------- stock


async def stock(port: int, n: int, *, tuned: bool = False) -> None:
    """See the top."""
    from pipecat.audio.vad.silero import SileroVADAnalyzer
    from pipecat.frames.frames import (
        Frame,
        TextFrame,
        TranscriptionFrame,
        TTSAudioRawFrame,
        VADUserStoppedSpeakingFrame,
    )
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineParams, PipelineWorker
    from pipecat.processors.audio.vad_processor import VADProcessor
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
    from pipecat.serializers.protobuf import ProtobufFrameSerializer
    from pipecat.transports.websocket.server import (
        SingleClientWebsocketServerParams,
        SingleClientWebsocketServerTransport,
    )
    from pipecat.workers.runner import WorkerRunner

    class Stub(FrameProcessor):
        """Answers one kind of frame."""

        def __init__(self, kind: type[Frame], answer: Any) -> None:
            super().__init__(enable_direct_mode=tuned)
            self._kind, self._answer = kind, answer

        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            await self.push_frame(frame, direction)
            if type(frame) is self._kind and direction is FrameDirection.DOWNSTREAM:
                for answer in self._answer():
                    await self.push_frame(answer)

    async def converse(number: int) -> None:
        transport = SingleClientWebsocketServerTransport(
            SingleClientWebsocketServerParams(
                serializer=ProtobufFrameSerializer(),
                audio_in_enabled=True,
                audio_out_enabled=True,
                audio_out_10ms_chunks=2,
            ),
            host="127.0.0.1",
            port=port + number,
        )
        chunks = [ANSWER[at : at + 4 * CHUNK] for at in range(0, len(ANSWER), 4 * CHUNK)]
        pipeline = Pipeline(
            [
                transport.input(),
                VADProcessor(vad_analyzer=SileroVADAnalyzer(), enable_direct_mode=tuned),
                Stub(VADUserStoppedSpeakingFrame, lambda: [TranscriptionFrame("where is my order", "", "")]),
                Stub(TranscriptionFrame, lambda: [TextFrame("It is on its way.")]),
                Stub(TextFrame, lambda: [TTSAudioRawFrame(pcm, RATE, 1) for pcm in chunks]),
                transport.output(),
            ]
        )
        lean: dict[str, Any] = {"enable_rtvi": False, "enable_turn_tracking": False} if tuned else {}
        worker = PipelineWorker(
            pipeline,
            params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
            idle_timeout_secs=None if tuned else 300,
            **lean,
        )
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await runner.run()

    tasks = [asyncio.create_task(converse(number)) for number in range(n)]
    await asyncio.sleep(1 + 0.1 * n)
    up()
    await asyncio.gather(*tasks)


async def main() -> None:
    """Serve until killed."""
    kind, port, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    if kind == "floor":
        await floor(port, n)
    elif kind == "ours":
        await ours(port, n)
    else:
        await stock(port, n, tuned=kind == "tuned")


if __name__ == "__main__":
    asyncio.run(main())
