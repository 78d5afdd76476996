"""Every name that the first release offered, or that its documentation and bots imported, can still be imported."""

import importlib

import pytest

NAMES = {
    "pipeline": """
        BargeInFrame BargeInPolicy Conductor ConversationRecord Event IntentResult Parallel Passage Pipeline
        Processor ReplyBounds ReplyEndedFrame ReplyStartedFrame RetrievalResult Session SpeculativeTurnFrame
        Stage State StateChangedFrame TurnContextFrame TurnMachine UserTurnFrame consumes
    """,
    "processors": """
        EmbeddedSTT EmbeddedTTS HttpIntent HttpRetriever InterruptionGate KeywordIntent Responder
        SileroAnalyzer SileroVAD SmartTurn SqliteRetriever StateTracker TurnAggregator
    """,
    "transports": """
        AsgiApp ClientInput ClientOutput ConnectionFailed EmbeddedRedis Limits MemoryStore MemoryTransport
        Mirror OrchestrateSerializer RedisStore TokenKey WebSocketClient WebSocketServer Wire open_store
    """,
    "pipeline.testing": """
        AsyncCall Bench Call CallError CheckFailed ConversationFailed Event Heard Manner Measures
        MemoryTransport Move Recording RecordingError Schedule Script ScriptedIntent ScriptedLLM
        ScriptedRetriever ScriptedSTT ScriptedSTTGuest ScriptedTTS ScriptedVoice Step StuckError Tape Turn
        VirtualLoop VirtualTime check_conversation check_processor generate measures_of replay run_offline
        run_virtual schedules
    """,
    "pipeline.errors": """
        LeibnizError ConfigurationError PipelineOrderError TransitionError ServiceError WorkerCrashed
        StoreError OwnershipLost ProtocolError
    """,
    "pipeline.frames": """
        UtteranceStartedFrame UtteranceDiscardedFrame TextBufferFrame SpeechChunkFrame
        UnrecognizedSpeechFrame EarlyWordsFrame HangoverFrame TurnPredictionFrame UserSpeakingFrame
        ClientFragmentFrame ClientTurnEndFrame SpeculativeTurnFrame UserTurnFrame BranchAnswerFrame
        TurnContextFrame SpeculativeContextFrame ReplyPreparingFrame ReplyStartedFrame ReplyEndedFrame
        ReplyTextFrame ReplySpeechFrame PassageFrame ProtectionFrame SecondVoiceFrame ReplyUnspokenFrame
        GenerationStopFrame ReplyAudioFrame ReplyAudibleFrame ReplyProgressFrame ReplyPlayedFrame
        PlaybackPauseFrame PlaybackResumeFrame BargeInFrame ReplyInterruptedFrame StateChangedFrame
        TurnMeasuredFrame
    """,
    "pipeline.services": "IntentResult Passage RetrievalResult IntentClassifier Retriever UNKNOWN",
    "pipeline.states": "State Event TurnMachine diagram",
    "pipeline.record": "ConversationRecord",
    "transports.tokens": "TokenKey",
    "processors.intent": "INTENT_URL",
    "processors.retrieval": "RETRIEVAL_URL",
    "processors.embedded.silero": "SileroModel SpeechModel SpeechStream shared_model",
    "bots.assistant": "CONTENT INTENT build retrieve",
    "bots.content": "BotContent",
    "bots.parts": "embedded_parts llm_from",
    "bots.services": "ReplaceableRecogniser ReplaceableVoice chosen prepare recognisers voices",
    "bots.cli.main": "main run_file",
    "bots.cli.loading": "set_up_log",
    "bots.fastapi_app": "app",
}


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in NAMES.items() for name in names.split()]
)
def test_a_public_name_can_be_imported(module, name):
    assert hasattr(importlib.import_module(f"leibniz_voice.{module}"), name)


@pytest.mark.parametrize("package", ["pipeline", "pipeline.testing", "processors", "transports", "lab"])
def test_what_a_package_lists_is_there(package):
    listed = importlib.import_module(f"leibniz_voice.{package}")
    assert [name for name in listed.__all__ if not hasattr(listed, name)] == []
