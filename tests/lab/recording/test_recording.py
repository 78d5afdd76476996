"""Recordings: what they tell of a conversation, their file, and files that are none."""

import base64
import gzip
import json
import re
from typing import Any

import pytest

from leibniz_voice.pipeline.testing import RecordedEvent, Recording, RecordingError

PCM = base64.b64encode(bytes(range(64)) * 10).decode()  # 320 samples
CALL = (
    RecordedEvent(0.02, "ClientInput", "downstream", "InputAudioRawFrame", {"rate": 16000, "samples": 320, "pcm": PCM}),
    RecordedEvent(0.5, "SileroVAD", "downstream", "VADUserStartedSpeakingFrame", {"speech_ms": 100.0}),
    RecordedEvent(0.5, "StateTracker", "downstream", "StateChangedFrame",
          {"previous": "idle", "state": "listening", "trigger": "stt_start", "turn_id": 0}),
    RecordedEvent(1.5, "SileroVAD", "downstream", "VADUserStoppedSpeakingFrame", {"silence_ms": 300.0}),
    RecordedEvent(1.5, "TurnAggregator", "downstream", "TextBufferFrame",
          {"fragments": ["where is it"], "is_final": True}),
    RecordedEvent(1.51, "TurnAggregator", "downstream", "UserTurnFrame", {"turn_id": 1, "text": "where is it"}),
    RecordedEvent(1.51, "StateTracker", "downstream", "StateChangedFrame",
          {"previous": "listening", "state": "thinking", "trigger": "vad_end", "turn_id": 1}),
    RecordedEvent(1.6, "Responder", "downstream", "ReplyTextFrame", {"turn_id": 1, "text": "It is on its way."}),
    RecordedEvent(1.7, "InterruptionGate", "downstream", "ReplyAudibleFrame", {"turn_id": 1}),
    RecordedEvent(1.7, "StateTracker", "downstream", "StateChangedFrame",
          {"previous": "thinking", "state": "speaking", "trigger": "response_ready", "turn_id": 1}),
    RecordedEvent(1.7, "wire", "to_user", "audio", {"rate": 16000, "samples": 320, "pcm": PCM}),
    RecordedEvent(2.0, "InterruptionGate", "upstream", "BargeInFrame", {"turn_id": 1}),
    RecordedEvent(2.0, "wire", "to_user", "interrupted", {"turn": 1}),
    RecordedEvent(2.0, "ClientOutput", "upstream", "ReplyPlayedFrame",
          {"turn_id": 1, "complete": False, "heard": "It is"}),
    RecordedEvent(2.0, "StateTracker", "downstream", "StateChangedFrame",
          {"previous": "speaking", "state": "interrupt", "trigger": "barge_in", "turn_id": 1}),
    RecordedEvent(2.0, "StateTracker", "downstream", "StateChangedFrame",
          {"previous": "interrupt", "state": "listening", "trigger": "resume_listening", "turn_id": 1}),
)  # fmt: skip
SEEN = (
    RecordedEvent(0.3, "client", "to_user", "state_update", {"state": "listening", "turn": 0, "trigger": "stt_start"}),
    RecordedEvent(0.9, "client", "to_user", "state_update",
          {"state": "thinking", "turn": 1, "trigger": "vad_end", "text_buffer": ["hello"]}),
    RecordedEvent(1.1, "client", "to_user", "state_update",
          {"state": "speaking", "turn": 1, "trigger": "response_ready"}),
    RecordedEvent(1.1, "client", "to_user", "response_ready", {"turn": 1, "text": "Good day."}),
    RecordedEvent(1.12, "client", "to_user", "audio", {"rate": 16000, "samples": 320}),
    RecordedEvent(2.1, "client", "to_user", "state_update", {"state": "idle", "turn": 1, "trigger": "tts_complete"}),
)  # fmt: skip


def test_a_recording_tells_states_turns_and_latencies():
    recording = Recording(CALL)
    assert recording.states == ["idle", "listening", "thinking", "speaking", "interrupt", "listening"]
    (turn,) = recording.turns
    assert (turn.user, turn.reply, turn.heard, turn.interrupted) == ("where is it", "It is on its way.", "It is", True)
    assert turn.instants["user_silent"] == pytest.approx(1.2)
    assert recording.latencies[1]["LLM Wait"] == pytest.approx(190)
    assert recording.frames("StateChangedFrame", processor="StateTracker")[0].at == 0.5
    assert len(recording.frames(direction="upstream")) == 2


def test_a_clients_recording_tells_its_turns_too():
    recording = Recording(SEEN, side="client")
    assert recording.states == ["idle", "listening", "thinking", "speaking", "idle"]
    (turn,) = recording.turns
    assert (turn.user, turn.heard, turn.complete) == ("hello", "Good day.", True)
    assert turn.latency_ms["LLM Wait"] == pytest.approx(200)


def test_audio_is_put_at_its_place():
    heard = Recording(CALL).audio("to_user")
    assert heard.index(base64.b64decode(PCM)) == 2 * int(1.7 * 16000)
    assert Recording(CALL).audio("to_bot")[:640] == base64.b64decode(PCM)


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_file_holds_all_of_it(tmp_path, is_packed):
    path = tmp_path / "a.leibniz.gz"
    Recording(CALL, session_id="s1", settings={"SileroVAD": {"onset_ms": 64}}, versions={"x": "1"}).save(path)
    if not is_packed:
        path.write_bytes(gzip.decompress(path.read_bytes()))
    read = Recording.load(path)
    assert (read.events, read.session_id, read.settings) == (CALL, "s1", {"SileroVAD": {"onset_ms": 64}})
    assert read.is_whole


def test_what_a_crash_left_is_read(tmp_path):
    path = tmp_path / "a.leibniz.gz"
    Recording(CALL).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    read = Recording.load(path)
    assert 0 < len(read.events) <= len(CALL)
    assert not read.is_whole
    assert read.gap == "it has no end, as after a crash"


HEADER = b'{"leibniz":"recording","v":1}\n'
BAD = {
    "empty": (b"", "no recording"),
    "an array": (b"[1]\n", "no recording"),
    "deep": (b"[" * 100_000 + b"\n", "no recording"),
    "newer": (b'{"leibniz":"recording","v":99}\n', "format is 99, newer than"),
    "no version": (b'{"leibniz":"recording"}\n', "format is None"),
    "no JSON": (HEADER + b"[0.1,\n", "line 2 is damaged"),
    "not finite": (HEADER + b'[NaN,"a","to_bot","audio",{}]\n', "line 2 is damaged"),
    "time": (HEADER + b'[-1,"a","to_bot","audio",{}]\n', "its time is '-1'"),
    "direction": (HEADER + b'[1,"a","sideways","audio",{}]\n', "its direction is 'sideways'"),
    "fields": (HEADER + b'[1,"a","to_bot","audio",[]]\n', "its fields are no object"),
    "long line": (HEADER + b"[" + b" " * (5 << 20), "longer than 4 MiB"),
    "header": (b'{"leibniz":"recording","v":1,"settings":[]}\n', "header is damaged"),
    "packed": (b"\x1f\x8b" + b"nonsense" * 9, "it is damaged"),
}


@pytest.mark.parametrize(("content", "reason"), BAD.values(), ids=BAD)
def test_a_bad_file_gets_one_line_that_says_why(tmp_path, content, reason):
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=re.escape(reason)) as refusal:
        Recording.load(path)
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)


def test_no_file_is_said_so(tmp_path):
    with pytest.raises(RecordingError, match="no such file"):
        Recording.load(tmp_path / "none")


def test_a_small_file_that_unpacks_to_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("leibniz_voice.lab.recording.recording_file.MAX_BYTES", 1 << 20)
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(HEADER + (json.dumps(list(CALL[1])).encode() + b"\n") * 50_000))
    assert path.stat().st_size < 20_000
    with pytest.raises(RecordingError, match="unpacks to more than 1 MiB"):
        Recording.load(path)


def test_damaged_audio_is_told_when_it_is_asked_for():
    event = RecordedEvent(1.0, "wire", "to_user", "audio", {"rate": 16000, "samples": 2, "pcm": "%%%"})
    with pytest.raises(RecordingError, match=r"audio at 1\.000 s is damaged"):
        event.pcm()


def line(*events: list[Any]) -> bytes:
    header = {"leibniz": "recording", "v": 1, "session_id": "s", "began": 1.0}
    return b"".join(json.dumps(part).encode() + b"\n" for part in (header, *events))


def test_a_small_file_that_unpacks_to_many_values_is_refused(tmp_path):
    bomb = tmp_path / "bomb.leibniz.gz"
    events = line(*([0.0, "p", "downstream", "k", {"a": [0] * 50_000}] for _ in range(30)))
    bomb.write_bytes(gzip.compress(events))
    assert bomb.stat().st_size < 20_000
    with pytest.raises(RecordingError, match="far more values"):
        Recording.load(bomb)


@pytest.mark.parametrize("began", ["1" + "0" * 400, "true", "-1"])
def test_a_beginning_that_is_no_time_is_refused(tmp_path, began):
    file = tmp_path / "call.leibniz"
    file.write_bytes(line().replace(b'"began": 1.0', f'"began": {began}'.encode()))
    with pytest.raises(RecordingError, match="`began` is no time"):
        Recording.load(file)


def test_what_a_terminal_would_obey_is_replaced(tmp_path):
    file = tmp_path / "call.leibniz"
    event = line([0.0, "A\x1b]0;OWNED\x07", "downstream", "k\x9b2J", {"text": "a\x1b[2Jb\nc"}])
    file.write_bytes(event.replace(b"\\u009b", b"\xc2\x9b"))
    (event,) = Recording.load(file).events
    assert (event.processor, event.kind, event.fields["text"]) == ("A?]0;OWNED?", "k?2J", "a?[2Jb\nc")


@pytest.mark.parametrize("spelling", ["utf-16-le", "utf-16-be"])
def test_what_is_not_utf8_is_refused(tmp_path, spelling):
    """Python's JSON reads it too, and what is looked for byte by byte would not be found in it."""
    file = tmp_path / "call.leibniz"
    event = json.dumps([0.0, "A\x1b", "downstream", "k", {}]).encode(spelling)
    file.write_bytes(line() + event + b"\n")
    with pytest.raises(RecordingError, match="it is no JSON"):
        Recording.load(file)


@pytest.mark.parametrize(
    ("spelled", "read"),
    [
        (r'"a\bb\rc\fd"', "a?b?c?d"),
        (r'"\\u001b \\b"', r"\u001b \b"),  # a backslash and letters: nothing to obey
        (r'"\\\u001b"', "\\?"),
        (
            r'"\ud83d\ude00 \ud83d"',
            "\U0001f600 ?",
        ),  # a letter in two halves, and half a letter, which cannot be printed
        (r'"\t\n\u00e9"', "\t\n\u00e9"),
    ],
)
def test_only_what_a_terminal_would_obey_is_replaced(tmp_path, spelled, read):
    file = tmp_path / "call.leibniz"
    file.write_bytes(
        line([0.0, "p", "downstream", "k", {"text": 0}]).replace(b'"text": 0', b'"text": ' + spelled.encode())
    )
    (event,) = Recording.load(file).events
    assert event.fields["text"] == read


def test_a_name_stays_on_its_line(tmp_path):
    file = tmp_path / "call.leibniz"
    file.write_bytes(line([0.0, "p\nq", "downstream", "k\tl", {}]))
    (event,) = Recording.load(file).events
    assert (event.processor, event.kind) == ("p?q", "k?l")


@pytest.mark.parametrize("wide", ["\U0001f600", r"\ud83d\ude00"])
def test_a_small_file_that_unpacks_to_wide_texts_is_refused(tmp_path, monkeypatch, wide):
    """One letter of an emoji makes a text of Latin letters four times as large in memory."""
    monkeypatch.setattr("leibniz_voice.lab.recording.recording_file.MAX_BYTES", 1 << 20)
    bomb = tmp_path / "bomb.leibniz.gz"
    event = line([0.0, "p", "downstream", "k", {"text": "a" * 300_000 + "@"}]).replace(b"@", wide.encode())
    bomb.write_bytes(gzip.compress(event))
    with pytest.raises(RecordingError, match="it unpacks to more than 1 MiB"):
        Recording.load(bomb)
