"""Recording conversations, live and offline, and replaying them to the same decisions."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import time
from argparse import Namespace
from unittest.mock import Mock

import numpy as np
import pytest
from loguru import logger
from pipecat.frames.frames import TranscriptionFrame, VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame

from leibniz_voice.bots.cli.serve import recording_of
from leibniz_voice.lab.recording.recording_folder import RecordingFolder
from leibniz_voice.lab.recording.settings import changed, settings_of
from leibniz_voice.lab.replay.decisions import decisions_of, differences, drift_s
from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, Processor, RetrievalResult, Session
from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.frames import SpeechChunkFrame
from leibniz_voice.pipeline.listening.endpointing import Endpointing
from leibniz_voice.pipeline.testing import (
    AsyncCall,
    RecordedEvent,
    Recording,
    RecordingError,
    ScriptedIntent,
    ScriptedLLM,
    ScriptedRetriever,
    ScriptedTTS,
    ScriptedVoice,
    Tape,
    replay,
    run_offline,
)
from leibniz_voice.processors import EmbeddedSTT, InterruptionGate, Responder, SileroVAD, StateTracker, TurnAggregator
from leibniz_voice.transports.client.client import WebSocketClient
from leibniz_voice.transports.dialects.protocol import UserSpeaking
from tests.support.serving import bot, served
from tests.support.speech import spoken
from tests.support.tools import needs

ASSISTANT = bot("assistant.py")
NONE = {"intent": IntentResult(), "retrieval": RetrievalResult()}


def build(session: Session) -> Pipeline:
    """A bot with real decisions and scripted answers."""
    branches = {"intent": ScriptedIntent(), "retrieval": ScriptedRetriever()}
    voice = ScriptedVoice(chunks_per_sentence=60)
    chain = [Parallel(branches, fallback=NONE), Responder(), voice, InterruptionGate()]
    return Pipeline(
        [session.input, SileroVAD(), TurnAggregator(), *chain, StateTracker(record=session.record), session.output]
    )


async def speaks(call: AsyncCall, text: str) -> None:
    await call.pushes(VADUserStartedSpeakingFrame(start_secs=0.064))
    for chunk in range(1, 11):
        await call.pushes(SpeechChunkFrame(confidence=0.95, speech_ms=chunk * 32))
        await asyncio.sleep(0.032)
    await call.pushes(TranscriptionFrame(text=text, user_id="", timestamp="", finalized=True))
    await call.pushes(SpeechChunkFrame(), VADUserStoppedSpeakingFrame(stop_secs=0.3))


async def interrupts(call: AsyncCall) -> None:
    await speaks(call, "where is my order")
    await call.until_heard(300)
    await speaks(call, "stop it")
    await call.until_state("idle")


def taped(script=interrupts, build=build) -> Recording:
    tape = Tape()
    run_offline(tape.records(build), script)
    return tape.recording


def test_a_recording_holds_each_frame_once_where_it_was_made():
    recording = taped()
    assert recording.states == [
        "idle",
        "listening",
        "thinking",
        "speaking",
        "interrupt",
        "listening",
        "thinking",
        "speaking",
        "idle",
    ]
    assert [turn.user for turn in recording.turns] == ["where is my order", "stop it"]
    assert recording.turns[0].interrupted
    assert {event.processor for event in recording.frames("UserTurnFrame")} == {"TurnAggregator"}
    assert len(recording.frames("BranchAnswer", processor="Parallel")) == 4
    assert recording.frames("audio", direction="to_user")
    assert recording.settings["SileroVAD"]["hangover_ms"] == 300
    assert recording.is_whole


def test_recording_changes_nothing_in_the_conversation():
    plain = run_offline(build, interrupts)
    tape = Tape()
    watched = run_offline(tape.records(build), interrupts)
    assert watched.wire.log == plain.wire.log


def test_a_replay_decides_the_same():
    recording = taped()
    after = replay(recording, build)
    assert differences(recording, after.recording) == []
    assert len(decisions_of(recording)) > 20
    assert drift_s(recording, after.recording) < 0.001
    assert after.counts == {"branches recorded": 4, "voice recorded": 2}


def test_a_bot_with_a_language_model_and_a_voice_of_pipecats_kind_replays_too():
    def streaming(session: Session) -> Pipeline:
        async def intent(turn: object) -> IntentResult:
            await asyncio.sleep(0.05)
            return IntentResult("complex_query", 1.0)

        asked = Parallel({"intent": intent, "retrieval": ScriptedRetriever()}, fallback=NONE)
        voiced = [Responder(), ScriptedLLM(), ScriptedTTS(), InterruptionGate(), StateTracker(record=session.record)]
        chain = [session.input, SileroVAD(), TurnAggregator(), asked, *voiced, session.output]
        return Pipeline(chain, trust_late_audio=True)

    async def script(call: AsyncCall) -> None:
        await call.types("one question")
        await call.until_heard(200)
        await call.sends(UserSpeaking())
        await call.types("another question")
        await call.until_state("idle")

    recording = taped(script, streaming)
    assert [turn.interrupted for turn in recording.turns] == [True, False]
    after = replay(recording, streaming)
    assert differences(recording, after.recording) == []
    assert after.counts["voice recorded"] == 2


def test_a_replay_with_another_setting_says_what_differs_first():
    recording = taped()
    after = replay(recording, build, changes={"gate.confirm_ms": "5000"})  # only the words interrupt now
    found = {difference.kind: difference for difference in differences(recording, after.recording, tolerance_s=0.02)}
    late = found["BargeInFrame"]
    assert late.before is not None
    assert late.after is None or late.after.at > late.before.at
    assert "turn_id 1" in str(late)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"vad.hangover": "1"}, "there is no setting vad.hangover; there are vad.hangover_ms"),
        ({"ears.on": "1"}, "this bot has settings of"),
        ({"vad.hangover_ms": "soon"}, "vad.hangover_ms is 'soon'; give a number, such as 300"),
        ({"gate.confidence": "7"}, "gate.confidence=7: confidence is 7.0"),
    ],
)
def test_a_wrong_setting_gets_an_error_that_helps(changes, reason):
    with pytest.raises(ConfigurationError, match=reason):
        replay(Recording(processors=("ClientInput",)), build, changes=changes)


def test_settings_that_bind_each_other_change_together():
    changes = {"stt.unknown_ms": "1500", "stt.unfinished_ms": "2000", "stt.threshold": "-90"}
    (after,) = changed([EmbeddedSTT(phrases=["hello"])], changes)
    assert after.given["endpointing"] == Endpointing(unknown_ms=1500, unfinished_ms=2000)
    assert after.given["threshold"] == -90
    with pytest.raises(ConfigurationError, match=r"stt\.unknown_ms=1500: need 0 <= complete_ms"):
        changed([EmbeddedSTT(phrases=["hello"])], {"stt.unknown_ms": "1500"})
    with pytest.raises(ConfigurationError, match=r"there is no setting stt\.unknown_ms"):
        changed([EmbeddedSTT(phrases=["hello"], endpointing=None)], {"stt.unknown_ms": "1500"})


def test_without_text_no_word_is_kept_and_replay_says_so(tmp_path):
    folder = RecordingFolder(tmp_path, audio=False, text=False)
    run_offline(folder.records(build), interrupts)
    folder.close()
    (file,) = tmp_path.iterdir()
    recording = Recording.load(file)
    told = json.dumps([event.fields for event in recording.events])
    assert not {"order", "stop it", "where"} & set(told.replace('"', " ").split())
    assert "pcm" not in told
    assert recording.states[-1] == "idle"
    with pytest.raises(RecordingError, match="without text"):
        replay(recording, build)


def test_a_full_recording_ends_and_the_conversation_goes_on(tmp_path):
    folder = RecordingFolder(tmp_path, max_mb=0.02)
    call = run_offline(folder.records(build), interrupts)
    folder.close()
    assert call.states[-1] == "idle"
    recording = Recording.load(next(tmp_path.iterdir()))
    assert recording.end == "full"
    assert recording.lost > 50


def test_what_the_writer_cannot_keep_up_with_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("leibniz_voice.lab.recording.recording_folder.MAX_WAITING", 40)
    folder = RecordingFolder(tmp_path)
    monkeypatch.setattr(folder, "_run", lambda: None)  # a disk that takes nothing
    run_offline(folder.records(build), interrupts)
    assert folder._queue.full()  # and nobody has waited for it


@pytest.mark.parametrize("method", ["write", "flush", "close"])
def test_a_disk_error_ends_that_recording_only(tmp_path, monkeypatch, method):
    """The thread lives on, the next conversation is recorded, and `close` returns."""
    folder = RecordingFolder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("leibniz_voice.lab.recording.recording_folder.FLUSH_S", 0.0)
        patch.setattr(gzip.GzipFile, method, Mock(side_effect=OSError(28, "No space left on device")))
        assert run_offline(folder.records(build), interrupts).states[-1] == "idle"
        folder.close()
    run_offline(folder.records(build), interrupts)
    folder.close()
    assert Recording.load(max(tmp_path.iterdir())).end == "over"
    assert (folder.written, folder.lost) == (1, 1)


def test_an_end_that_finds_no_room_is_written_all_the_same(tmp_path, monkeypatch):
    folder = RecordingFolder(tmp_path)
    put = folder.put
    monkeypatch.setattr(folder, "put", lambda file, what: what is not None and put(file, what))
    monkeypatch.setattr("leibniz_voice.lab.recording.recording_folder.FLUSH_S", 0.01)
    run_offline(folder.records(build), interrupts)
    deadline = time.monotonic() + 20
    while not folder.written and time.monotonic() < deadline:
        time.sleep(0.01)
    folder.close()
    assert Recording.load(next(tmp_path.iterdir())).end == "over"


def test_a_lost_end_is_written_while_others_keep_the_writer_busy(tmp_path, monkeypatch):
    monkeypatch.setattr("leibniz_voice.lab.recording.recording_folder.FLUSH_S", 0.1)
    folder = RecordingFolder(tmp_path)
    put = folder.put
    monkeypatch.setattr(folder, "put", lambda file, what: what is not None and put(file, what))
    run_offline(folder.records(build), interrupts)
    monkeypatch.undo()
    monkeypatch.setattr("leibniz_voice.lab.recording.recording_folder.FLUSH_S", 0.1)
    other = folder._open(Recording(session_id="other"))
    deadline = time.monotonic() + 20
    while not folder.written and time.monotonic() < deadline:
        other.put(RecordedEvent(0.0, "p", "downstream", "k", {}))
        time.sleep(0.01)
    assert folder.written == 1
    folder.close()


def test_an_event_that_is_no_json_ends_that_recording_only(tmp_path):
    folder = RecordingFolder(tmp_path)
    file = folder._open(Recording(session_id="s"))
    file.put(RecordedEvent(0.0, "p", "downstream", "k", {"what": object()}))
    run_offline(folder.records(build), interrupts)
    folder.close()
    assert Recording.load(next(tmp_path.glob("offline-*"))).end == "over"


class Caller(Processor):
    """Asks a service, as a user's own processor may."""

    def __init__(self, *, auth: str = "", passwd: str = "", header: str = "", host: str = "", bypass: str = "") -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("setting", "is_told"),
    [
        ({"auth": "hunter2"}, False),
        ({"passwd": "hunter2"}, False),
        ({"header": "Bearer hunter2"}, False),
        ({"header": "Authorization: basic aHVudGVyMg=="}, False),
        ({"host": "redis://me:hunter2@db.example:6379/0"}, False),
        ({"host": "https://db.example/search?limit=3&api_key=hunter2"}, False),
        ({"host": "https://db.example/search?limit=3"}, True),
        ({"header": "the bearer of this mail"}, True),
        ({"bypass": "no"}, True),
    ],
)
def test_a_setting_that_is_a_credential_is_not_recorded(setting, is_told):
    told = settings_of([Caller(**setting)])["Caller"]
    assert (next(iter(setting.items())) in told.items()) is is_told
    assert is_told or "hunter2" not in str(told)


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot record into"):
        RecordingFolder(tmp_path / "file" / "below")


@pytest.mark.parametrize("is_early", [True, False], ids=["before", "during"])
def test_a_folder_that_is_removed_is_made_again_and_a_lost_recording_is_told(tmp_path, is_early):
    folder, lines = RecordingFolder(tmp_path / "calls"), []
    files = tmp_path / "calls"

    async def script(call: AsyncCall) -> None:
        deadline = time.monotonic() + 20
        while not list(files.glob("*")) and time.monotonic() < deadline:
            time.sleep(0.01)  # noqa: ASYNC251 - until the writer's thread, which is in no virtual time, has begun
        shutil.rmtree(files)
        await interrupts(call)

    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", filter="leibniz_voice.lab")
    try:
        if is_early:
            shutil.rmtree(files)
        else:
            run_offline(folder.records(build), script)
        run_offline(folder.records(build), interrupts)
        folder.close()
    finally:
        logger.remove(sink)
    assert [Recording.load(file).end for file in files.iterdir()] == ["over"]
    assert (folder.written, folder.lost) == (1, 0 if is_early else 1)
    assert len(lines) == folder.lost
    assert not lines or "offline: the recording" in lines[0]


def test_serve_says_how_many_recordings_are_there(tmp_path, capsys):
    options = Namespace(record=str(tmp_path), no_audio=False, no_text=False, bot="")
    with recording_of(build, options) as recorded:
        run_offline(recorded, interrupts)
    assert capsys.readouterr().out == f"1 conversation recorded in {tmp_path}\n"
    options.record = str(tmp_path / "calls")
    with recording_of(build, options) as recorded:
        shutil.rmtree(options.record)
        (tmp_path / "calls").write_text("")  # nothing can be made here
        run_offline(recorded, interrupts)
    out = capsys.readouterr().out
    assert out == f"0 conversations recorded in {options.record}; 1 recording lost or cut short\n"


def test_a_folder_is_where_it_was_when_the_process_goes_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    folder = RecordingFolder("calls")
    monkeypatch.chdir(tmp_path / "elsewhere")
    run_offline(folder.records(build), interrupts)
    folder.close()
    assert len(list((tmp_path / "calls").iterdir())) == folder.written == 1


@pytest.mark.slow
@needs("flite")
def test_a_live_conversation_replays_to_the_same_decisions(tmp_path):
    """Real sockets, real speech, the real model and recogniser; a cough, a spoken interruption, real time."""

    async def talk() -> None:
        folder = RecordingFolder(tmp_path)
        async with (
            served(folder.records(ASSISTANT.build)) as server,
            WebSocketClient(server.address, session_id="live") as client,
        ):
            await client.speak(spoken("where is my order").tobytes())
            assert await client.until(lambda: client.state == "speaking", timeout_s=20)
            await asyncio.sleep(0.3)
            await client.speak(np.random.default_rng(1).normal(0, 1500, 1600).astype(np.int16).tobytes())
            await asyncio.sleep(0.3)
            await client.speak(spoken("never mind").tobytes())
            await client.until(lambda: client.states.count("speaking") == 2, timeout_s=20)
            await client.until(lambda: client.state == "idle", timeout_s=20)
        folder.close()

    asyncio.run(talk())
    recording = Recording.load(next(tmp_path.iterdir()))
    assert [turn.user for turn in recording.turns] == ["where is my order", "never mind"]
    after = replay(recording, ASSISTANT.build).recording
    assert differences(recording, after) == []
    assert after.states == recording.states
