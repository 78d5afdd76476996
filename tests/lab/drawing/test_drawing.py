"""A recording drawn: as text, as a picture, as a page that stands alone and obeys nothing that was said."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

import pytest

from leibniz_voice.lab.drawing.page import MAX_ROWS, page
from leibniz_voice.lab.drawing.svg import MAX_WIDTH, draw
from leibniz_voice.lab.recording.spans import spans_of
from leibniz_voice.pipeline.testing import RecordedEvent, Recording
from tests.lab.recording.test_recording import CALL


def texts_of(picture: str) -> list[str]:
    """Return what is written in a picture, tooltips too. Raises `ParseError` if it is no XML."""
    return [text.strip() for text in ElementTree.fromstring(picture).itertext() if text.strip()]


def asked(text: str) -> Recording:
    turn = RecordedEvent(1.0, "TurnAggregator", "downstream", "UserTurnFrame", {"turn_id": 1, "text": text})
    return Recording((turn, RecordedEvent(2.0, "wire", "to_user", "response_ready", {"turn": 1})), session_id=text)


def test_the_timeline_is_drawn_to_scale():
    lines = Recording(CALL).timeline(width=108).splitlines()
    by_name = {line[:7].strip(): line[8:] for line in lines}
    scale = 100 / Recording(CALL).length_s
    assert by_name["state"].index("|thinking"[:3]) == int(1.51 * scale)
    assert by_name["marks"].index("✂") == min(99, int(2.0 * scale))
    assert lines[-1].endswith("bot  It is on its way. [cut after: It is]")
    assert Recording(CALL).timeline(plain=True).isascii()


def test_a_call_in_which_the_user_said_nothing_is_drawn():
    assert "<svg" in draw(
        Recording(session_id="s", events=(RecordedEvent(0.1, "wire", "to_user", "response_ready", {}),))
    )


def test_the_bot_speaks_where_its_audio_was_sent_and_the_user_where_the_detector_says():
    assert spans_of(Recording(CALL), "to_user") == [pytest.approx((1.7, 1.72), abs=0.001)]
    assert spans_of(Recording(tuple(event for event in CALL if event.kind != "audio")), "to_bot") == [
        pytest.approx((0.4, 1.2))
    ]


def test_the_picture_holds_the_words_the_states_and_what_the_cut_lost():
    texts = texts_of(draw(Recording(CALL)))
    assert {"where is it", "It is", "cut, not heard: on its way."} <= set(texts)
    states = ["idle 0.00 to 0.50 s", "listening 0.50 to 1.51 s", "thinking 1.51 to 1.70 s", "speaking 1.70 to 2.00 s"]
    assert [text for text in texts if text in states] == states


def test_a_long_call_is_drawn_no_wider_than_a_browser_likes():
    late = RecordedEvent(3600.0, "wire", "to_user", "pong", {})
    width = float(ElementTree.fromstring(draw(Recording((*CALL, late)))).get("width", "0"))
    assert width == MAX_WIDTH


@pytest.mark.parametrize("said", ["<script>alert(1)</script>", "a & b", "]]></svg>", '"onload="x'])
def test_what_was_said_is_never_markup(said):
    assert said in texts_of(draw(asked(said)))
    assert said not in page(asked(said))


def test_the_page_loads_nothing_and_holds_both_voices():
    whole = page(Recording(CALL))
    assert re.findall(r"(?:https?:)?//[a-z][^ \"'<]*", whole.replace("http://www.w3.org/2000/svg", "")) == []
    assert "default-src 'none'" in whole
    (sound,) = re.findall(r'src="data:audio/wav;base64,([^"]+)"', whole)
    assert base64.b64decode(sound).startswith(b"RIFF")
    assert "cut after: It is" in whole


@pytest.mark.parametrize(("has_audio", "told"), [(False, "Recorded without audio."), (True, "No audio was kept.")])
def test_a_page_without_audio_says_so_and_a_long_table_is_cut(has_audio, told):
    many = tuple(RecordedEvent(at / 100, "wire", "to_bot", "ping", {}) for at in range(MAX_ROWS + 10))
    whole = page(Recording(many, has_audio=has_audio))
    assert told in whole
    assert "<audio" not in whole
    assert f"The first {MAX_ROWS} are shown." in whole
