"""What the bot does, in virtual time: no microphone, no server, no waiting. `pytest` runs it."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.bot(str(Path(__file__).with_name("bot.py")))


def test_a_question_is_answered_and_can_be_interrupted(call):
    call.user_says("what are your opening hours")
    call.user_interrupts("where is your shop", after_s=0.6)
    call.wait_for_reply(contains="Mill Lane")
    assert call.states.count("interrupt") == 1
