"""The wire codec: what is accepted, what is refused with which code, and that nothing else can come out of it."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leibniz_voice.pipeline.errors import ProtocolError
from leibniz_voice.pipeline.frames import TurnMeasuredFrame
from leibniz_voice.transports.access.flood import WAITING_S, Flooded, FloodGuard
from leibniz_voice.transports.access.limits import Limits
from leibniz_voice.transports.dialects import protocol
from leibniz_voice.transports.dialects.protocol import (
    Ack,
    Hello,
    Ping,
    SttFragment,
    UserSpeaking,
    VadEnd,
    check_audio,
    decode_text,
    is_session_id,
)
from tests.support import ROOT

DOCS = ROOT / "docs" / "protocol.md"

ACCEPTED = [
    ('{"type":"hello"}', Hello()),
    ('{"type":"hello","v":1,"sample_rate":8000,"out_sample_rate":24000,"token":"t"}', Hello(8000, 24000, "t")),
    ('{"type":"hello","token":null,"sample_rate":null}', Hello()),
    ('{"type":"stt_fragment","text":"hi","is_final":true}', SttFragment("hi", True)),
    ('{"type":"stt_fragment","text":""}', SttFragment("", False)),
    ('{"type":"stt_fragment","text":"\\ud83d\\ude00"}', SttFragment("\U0001f600", False)),
    ('{"type":"vad_end"}', VadEnd()),
    ('{"type":"vad_end","unknown":1}', VadEnd()),
    ('{"type":"user_speaking"}', UserSpeaking(1.0)),
    ('{"type":"user_speaking","confidence":0}', UserSpeaking(0.0)),
    ('{"type":"ack","turn":3,"played_ms":120.5}', Ack(3, 120.5)),
    (' {"type" : "ping"} ', Ping()),
]

REFUSED = [
    ("", "bad_json"),
    ("nonsense", "bad_json"),
    ("{", "bad_json"),
    ("[]", "bad_json"),
    ("null", "bad_json"),
    ("17", "bad_json"),
    ('"ping"', "bad_json"),
    ('\ufeff{"type":"ping"}', "bad_json"),
    ("[" * 60_000, "bad_json"),
    ('{"a":' * 12_000, "bad_json"),
    ('{"type":"ack","turn":1,"played_ms":NaN}', "bad_json"),
    ('{"type":"ack","turn":1,"played_ms":-Infinity}', "bad_json"),
    ('{"type":"ack","turn":' + "9" * 5000 + ',"played_ms":0}', "bad_json"),
    ("{}", "missing_field"),
    ('{"type":null}', "missing_field"),
    ('{"type":7}', "bad_field"),
    ('{"type":["ping"]}', "bad_field"),
    ('{"type":"dance"}', "unknown_type"),
    ('{"type":"\\ud800"}', "unknown_type"),
    ('{"type":"PING"}', "unknown_type"),
    ('{"type":"stt_fragment"}', "missing_field"),
    ('{"type":"stt_fragment","text":null}', "bad_field"),
    ('{"type":"stt_fragment","text":5}', "bad_field"),
    ('{"type":"stt_fragment","text":"a","is_final":1}', "bad_field"),
    ('{"type":"stt_fragment","text":"\\ud800"}', "bad_field"),
    ('{"type":"stt_fragment","text":"' + "a" * 4001 + '"}', "bad_field"),
    ('{"type":"user_speaking","confidence":"0.9"}', "bad_field"),
    ('{"type":"user_speaking","confidence":true}', "bad_field"),
    ('{"type":"user_speaking","confidence":1.01}', "bad_field"),
    ('{"type":"user_speaking","confidence":-0.1}', "bad_field"),
    ('{"type":"user_speaking","confidence":1e999}', "bad_field"),
    ('{"type":"ack","played_ms":1}', "missing_field"),
    ('{"type":"ack","turn":1}', "missing_field"),
    ('{"type":"ack","turn":true,"played_ms":1}', "bad_field"),
    ('{"type":"ack","turn":1.5,"played_ms":1}', "bad_field"),
    ('{"type":"ack","turn":-1,"played_ms":1}', "bad_field"),
    ('{"type":"ack","turn":1,"played_ms":1' + "0" * 400 + "}", "bad_field"),
    ('{"type":"hello","v":2}', "bad_field"),
    ('{"type":"hello","v":true}', "bad_field"),
    ('{"type":"hello","token":7}', "bad_field"),
    ('{"type":"hello","token":"' + "a" * 2049 + '"}', "bad_field"),
    ('{"type":"hello","sample_rate":"16000"}', "bad_field"),
    ('{"type":"hello","sample_rate":16000.0}', "bad_field"),
    ('{"type":"hello","sample_rate":true}', "bad_field"),
    ('{"type":"hello","sample_rate":-8000}', "bad_field"),
    ('{"type":"hello","sample_rate":44100}', "rate_mismatch"),
    ('{"type":"hello","out_sample_rate":12345}', "rate_mismatch"),
]


def code_of(text: str) -> str:
    with pytest.raises(ProtocolError) as caught:
        decode_text(text)
    return caught.value.code


@pytest.mark.parametrize(("text", "message"), ACCEPTED, ids=[text[:50] for text, _ in ACCEPTED])
def test_a_message_decodes(text, message):
    assert decode_text(text) == message


@pytest.mark.parametrize(("text", "code"), REFUSED, ids=[text[:50] for text, _ in REFUSED])
def test_a_broken_message_is_refused_with_its_code(text, code):
    assert code_of(text) == code


@pytest.mark.parametrize(("pcm", "good"), [(b"", False), (b"\0", False), (b"\0" * 641, False), (b"\0" * 640, True)])
def test_audio_must_be_whole_samples(pcm, good):
    if good:
        check_audio(pcm)
        return
    with pytest.raises(ProtocolError) as caught:
        check_audio(pcm)
    assert caught.value.code == "bad_audio"


def test_every_code_has_a_case():
    covered = {code for _, code in REFUSED} | {"bad_audio", "too_fast", "voice_failed"}  # these have tests of their own
    assert covered == set(protocol.ERROR_CODES)


def test_a_refusal_can_always_be_sent_back():
    for text, _ in REFUSED:
        with pytest.raises(ProtocolError) as caught:
            decode_text(text)
        sent = protocol.error(caught.value.code, caught.value.message)
        assert len(sent.encode()) < 300


@pytest.mark.parametrize("name", ["a", "A-z_09", "x" * 64])
def test_session_ids_that_are_taken(name):
    assert is_session_id(name)


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "a\n", "{a}", "ä", "٣", "a\0"])
def test_session_ids_that_are_refused(name):
    assert not is_session_id(name)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)
almost_messages = st.fixed_dictionaries(
    {"type": st.sampled_from([*protocol.CLIENT_TYPES, "other"]) | anything},
    optional=dict.fromkeys(
        ("v", "text", "is_final", "confidence", "turn", "played_ms", "token", "sample_rate"), anything
    ),
)


def decodes_or_is_refused(text: str) -> None:
    try:
        message = decode_text(text)
    except ProtocolError as error:
        refusal = error
    else:
        assert isinstance(message, protocol.ClientMessage)
        return
    assert refusal.code in protocol.ERROR_CODES
    protocol.error(refusal.code, refusal.message).encode()


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_decodes_or_is_refused(text):
    decodes_or_is_refused(text)


@given(almost_messages)
def test_anything_shaped_like_a_message_decodes_or_is_refused(fields):
    decodes_or_is_refused(json.dumps(fields))


@given(almost_messages, st.integers(0, 400), st.text(max_size=3))
def test_a_damaged_message_decodes_or_is_refused(fields, at, junk):
    text = json.dumps(fields)
    decodes_or_is_refused(text[:at] + junk + text[at + 1 :])


ENCODED = {
    "ready": protocol.ready(session_id="s", resumed=True, turn_number=4, token="t"),
    "state_update": protocol.state_update(state="listening", text_buffer=("hi",), turn=2, trigger="stt_start"),
    "response_ready": protocol.response_ready(turn=2, text="Yes.", thinking_ms=12.345, final=False),
    "response_text": protocol.response_text(turn=2, text="We do.", final=True),
    "pause": protocol.pause(2),
    "resume": protocol.resume(2),
    "interrupted": protocol.interrupted(2),
    "turn": protocol.turn(2, waterfall=TurnMeasuredFrame(2, {"STT Wait": 1.23456, "LLM Wait": math.inf}).as_json()),
    "pong": protocol.pong(),
    "error": protocol.error("bad_json", "No."),
}


def test_there_is_an_encoder_for_every_server_message():
    assert {name: json.loads(text)["type"] for name, text in ENCODED.items()} == {n: n for n in protocol.SERVER_TYPES}


def test_encoded_fields_are_the_contracts():
    fields = {name: set(json.loads(text)) - {"type"} for name, text in ENCODED.items()}
    assert fields == {
        "ready": {"v", "session_id", "sample_rate", "out_sample_rate", "resumed", "turn_number", "token"},
        "state_update": {"state", "text_buffer", "turn", "trigger"},
        "response_ready": {"turn", "text", "thinking_ms", "final"},
        "response_text": {"turn", "text", "final"},
        "pause": {"turn"},
        "resume": {"turn"},
        "interrupted": {"turn", "message"},
        "turn": {"turn", "latency_ms", "instants_ms", "interrupted", "heard", "intent", "results"},
        "pong": set(),
        "error": {"code", "message"},
    }
    assert "token" not in json.loads(protocol.ready(session_id="s"))


def test_what_is_not_finite_is_sent_as_null():
    assert json.loads(ENCODED["turn"])["latency_ms"] == {"STT Wait": 1.235, "LLM Wait": None}
    assert '"thinking_ms":null' in protocol.response_ready(turn=1, text="", thinking_ms=math.nan, final=True)


@given(st.text(st.characters(exclude_categories=())))
def test_any_reply_text_can_be_sent(text):
    sent = protocol.response_text(turn=1, text=text, final=True)
    sent.encode("utf-8")
    assert json.loads(sent)["text"] == text or not text.isprintable()  # halves of a pair may join into one character


def refused(call) -> bool:
    try:
        call()
    except ProtocolError as refusal:
        return refusal.code == "too_fast"
    return False


CHUNK = bytes(640)  # 20 ms


def test_audio_at_real_time_is_never_too_fast():
    guard = FloodGuard()
    assert all(guard.on_audio(CHUNK, n * 0.02) is CHUNK for n in range(3000))


def test_audio_at_a_sound_cards_pace_is_never_too_fast():
    guard = FloodGuard()
    assert all(guard.on_audio(CHUNK, n * 0.02 / 1.19) is CHUNK for n in range(3000))


def test_of_an_audio_burst_the_newest_is_kept_and_heard_a_little_later():
    guard = FloodGuard()
    chunks = [n.to_bytes(2, "little") * 320 for n in range(200)]  # 4 s at once
    taken, dropped = [], 0
    for chunk in chunks:
        try:
            taken.append(guard.on_audio(chunk, 0.0))
        except ProtocolError:
            dropped += 1
    at_once = int(Limits().audio_burst_s / 0.02)
    assert [chunk for chunk in taken if chunk] == chunks[:at_once]
    assert dropped == 200 - at_once - WAITING_S / 0.02
    later = guard.release(5.0)  # the bucket is empty again
    assert later == b"".join(chunks[-int(WAITING_S / 0.02) :])
    assert guard.on_audio(CHUNK, 6.0) is CHUNK


def test_audio_that_never_slows_down_ends_the_connection():
    guard = FloodGuard()
    closed_at = None
    for n in range(2000):  # 40 s of audio in 1 s
        try:
            guard.on_audio(CHUNK, n / 2000)
        except Flooded:
            closed_at = closed_at or n * 0.02
        except ProtocolError:
            pass
    limits = Limits()
    assert closed_at == pytest.approx(limits.audio_burst_s + WAITING_S + limits.audio_dropped_s, abs=1)


def test_a_control_flood_is_dropped_and_then_ends_the_connection():
    guard, limits = FloodGuard(), Limits()
    outcomes = []
    for _ in range(500):
        try:
            guard.on_control(5.0)
            outcomes.append("taken")
        except Flooded:
            outcomes.append("closed")
        except ProtocolError:
            outcomes.append("dropped")
    assert outcomes.count("taken") == limits.control_burst
    assert outcomes.index("closed") == limits.control_burst + limits.control_dropped
    assert not refused(lambda: guard.on_control(8.0))


def test_a_flood_is_not_answered_by_a_flood():
    guard = FloodGuard()
    assert sum(guard.may_report(n / 1000) for n in range(1000)) <= 25


def test_the_docs_list_the_same_messages_codes_and_close_codes():
    text = DOCS.read_text()
    headings = re.findall(r"^### `(\w+)`", text, re.M)
    assert sorted(headings) == sorted([*protocol.CLIENT_TYPES, *protocol.SERVER_TYPES])
    assert re.findall(r"^\| `([a-z_]+)` \|", text.split("## Errors")[1].split("\n## ")[0], re.M) == list(
        protocol.ERROR_CODES
    )
    closes = re.findall(r"^\| (\d{4}) \|", text.split("## Close codes")[1].split("\n## ")[0], re.M)
    assert [int(code) for code in closes] == [int(code) for code in protocol.CloseCode]


def test_the_examples_in_the_docs_are_true():
    examples = re.findall(r"^```json\n(.+?)\n```", DOCS.read_text(), re.M | re.S)
    kinds = [json.loads(example)["type"] for example in examples]
    assert set(kinds) == {*protocol.CLIENT_TYPES, *protocol.SERVER_TYPES}
    for example, kind in zip(examples, kinds, strict=True):
        if kind in protocol.CLIENT_TYPES:
            decode_text(example)
        else:
            assert set(json.loads(example)) == set(json.loads(ENCODED[kind]))
