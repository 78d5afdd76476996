"""A stock Pipecat bot with three parts of ours: the shared VAD model, the fence, and the state tracker.

    DEEPGRAM_API_KEY=... OPENAI_API_KEY=... CARTESIA_API_KEY=... CARTESIA_VOICE_ID=... python bots/stock_pipecat.py

Everything else is Pipecat's: its WebSocket transport with protobuf frames, its services, its turn strategies, its
worker. Three lines differ from a bot without us; they are marked.
"""

import asyncio
import os
import sys

from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.processors.frame_processor import FrameProcessor

from leibniz_voice.pipeline.record import ConversationRecord
from leibniz_voice.processors import InterruptionGate, SileroAnalyzer, StateTracker

SYSTEM = "You are a friendly voice assistant. Answer in one or two short sentences."


def chain(
    *,
    head: FrameProcessor,
    stt: FrameProcessor,
    llm: FrameProcessor,
    tts: FrameProcessor,
    tail: FrameProcessor,
    record: ConversationRecord,
) -> list[FrameProcessor]:
    """Return the processors of the bot, first to last; `record` is the conversation that the tracker keeps."""
    context = LLMContext([{"role": "system", "content": SYSTEM}])
    memory = LLMContextAggregatorPair(
        context,
        user_params=LLMUserAggregatorParams(vad_analyzer=SileroAnalyzer()),  # ours: one model for all conversations
    )
    return [
        head,
        stt,
        memory.user(),
        llm,
        tts,
        InterruptionGate(),  # ours: nothing of a cut reply passes
        StateTracker(record=record),  # ours: idle, listening, thinking, speaking, in one place
        tail,
        memory.assistant(),
    ]


async def main() -> None:
    """Serve one conversation at ws://127.0.0.1:8765."""
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineWorker
    from pipecat.serializers.protobuf import ProtobufFrameSerializer
    from pipecat.services.cartesia.tts import CartesiaTTSService
    from pipecat.services.deepgram.stt import DeepgramSTTService
    from pipecat.services.openai.llm import OpenAILLMService
    from pipecat.transports.websocket.server import WebsocketServerParams, WebsocketServerTransport
    from pipecat.workers.runner import WorkerRunner

    needed = ("DEEPGRAM_API_KEY", "OPENAI_API_KEY", "CARTESIA_API_KEY", "CARTESIA_VOICE_ID")
    missing = [name for name in needed if not os.environ.get(name)]
    if missing:
        sys.exit(f"set {', '.join(missing)} first; for a bot without keys see bots/assistant.py")
    transport = WebsocketServerTransport(
        params=WebsocketServerParams(
            audio_in_enabled=True, audio_out_enabled=True, serializer=ProtobufFrameSerializer()
        ),
        host="127.0.0.1",
        port=8765,
    )
    processors = chain(
        head=transport.input(),
        stt=DeepgramSTTService(api_key=os.environ["DEEPGRAM_API_KEY"]),
        llm=OpenAILLMService(api_key=os.environ["OPENAI_API_KEY"]),
        tts=CartesiaTTSService(
            api_key=os.environ["CARTESIA_API_KEY"],
            settings=CartesiaTTSService.Settings(voice=os.environ["CARTESIA_VOICE_ID"]),
        ),
        tail=transport.output(),
        record=ConversationRecord("stock"),
    )
    runner = WorkerRunner()
    await runner.add_workers(PipelineWorker(Pipeline(processors)))
    await runner.run()


if __name__ == "__main__":
    asyncio.run(main())
