"""The pytest plugin, as a user's tests see it: pytest runs inside pytest."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import hypothesis  # noqa: F401 - the inner pytest forgets what it was the first to import, and imports it again
import pytest
from redis import Redis

import leibniz_voice.bots.cli.pytest_plugin as plugin
import leibniz_voice.bots.cli.scripts  # noqa: F401 - as above
import leibniz_voice.transports.state.embedded_redis as store
from leibniz_voice.pipeline.testing import VirtualTime
from tests.support.tools import needs

BOT = """
from leibniz_voice.pipeline import IntentResult, Parallel, Pipeline, RetrievalResult
from leibniz_voice.pipeline.testing import ScriptedIntent, ScriptedRetriever, ScriptedVoice
from leibniz_voice.processors import InterruptionGate, Responder, StateTracker, TurnAggregator

def build(session):
    return Pipeline([
        session.input,
        TurnAggregator(),
        Parallel({"intent": ScriptedIntent("hours"), "retrieval": ScriptedRetriever("Open from nine to five.")},
                 fallback={"intent": IntentResult(), "retrieval": RetrievalResult()}),
        Responder(),
        ScriptedVoice(chunks_per_sentence=100),
        InterruptionGate(),
        StateTracker(record=session.record),
        session.output,
    ])
"""


@pytest.fixture
def user(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A user's folder with a bot."""
    for name in ("CI", "BUILD_NUMBER"):  # where one is set, pytest's summary repeats whole messages
        monkeypatch.delenv(name, raising=False)
    pytester.makepyfile(my_bot=BOT)
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    return pytester


@pytest.mark.slow
def test_it_is_installed_with_the_package_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import leibniz_voice.bots.cli.pytest_plugin;"
        "print(sorted(name for name in set(sys.modules) - before if not name.startswith('leibniz_voice')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_a_barge_in_is_a_plain_function_of_a_few_lines(user: pytest.Pytester) -> None:
    user.makeini("[pytest]\nleibniz_bot = my_bot.py\nfilterwarnings = error\n")
    user.makepyfile(
        """
        def test_a_barge_in_is_answered(call):
            call.user_says("when are you open")
            call.user_interrupts("on sundays", after_s=0.6)
            call.wait_for_reply(contains="nine to five")
            assert call.states.count("interrupt") == 1
        """
    )
    user.runpytest_inprocess().assert_outcomes(passed=1)


def test_a_marker_names_the_bot_and_its_options_and_a_fixture_overrides_both(user: pytest.Pytester) -> None:
    user.makepyfile(
        """
        import pytest
        from my_bot import build

        @pytest.mark.bot(build=build, session_id="mine")
        def test_by_function(call):
            assert call.session.id == "mine"

        @pytest.mark.bot("my_bot.py", speech="audio")
        def test_by_file(call):
            assert call.user.why == "the test asks for it"

        class TestOverridden:
            @pytest.fixture
            def bot(self):
                return build

            def test_by_fixture(self, call):
                call.user_says("when are you open")
                call.wait_for_reply(contains="nine")
        """
    )
    user.syspathinsert()
    user.runpytest_inprocess("--strict-markers").assert_outcomes(passed=3)


def test_without_a_bot_it_says_how_to_name_one(user: pytest.Pytester) -> None:
    user.makepyfile("def test_nothing(call): pass")
    result = user.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no bot to call: mark the test with @pytest.mark.bot(build=...)*"])


def test_options_of_the_command_line_go_before_those_of_the_file(user: pytest.Pytester) -> None:
    user.makeini("[pytest]\nleibniz_bot = nowhere.py\nleibniz_speech = loud\n")
    user.makepyfile("def test_it(call): assert call.user.way == 'words'")
    user.runpytest_inprocess("--leibniz-bot=my_bot.py", "--leibniz-speech=words").assert_outcomes(passed=1)
    result = user.runpytest_inprocess("--leibniz-bot=my_bot.py")
    result.stdout.fnmatch_lines(["*speech is 'loud'; it is one of auto, audio, words*"])


def test_the_recording_is_that_of_the_call_and_a_failure_draws_its_timeline(user: pytest.Pytester) -> None:
    user.makeini("[pytest]\nleibniz_bot = my_bot.py\n")
    user.makepyfile(
        """
        def test_it(call, recording):
            call.user_says("when are you open")
            call.wait_for_reply()
            assert recording.states[-1] == "idle"
            assert recording.turns[0].user == "when are you open"
            assert recording.states == ["asleep"]

        def test_an_error_of_the_call_itself_draws_it_once(call):
            call.user_says("when are you open")
            call.wait_for_reply(contains="Saturday")
        """
    )
    result = user.runpytest_inprocess()
    result.assert_outcomes(failed=2)
    drawn = "\n".join(result.outlines)
    assert ">       assert recording.states == ['asleep']" in drawn.replace('"', "'")
    assert drawn.count("timeline of call") == 1
    assert drawn.count("time    |0 s") == 2
    assert drawn.count("you  when are you open") == 2


def test_virtual_time_runs_coroutines_one_after_the_other(virtual_time: VirtualTime) -> None:
    async def sleep() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(sleep()) == 3600
    assert virtual_time.run(sleep()) == virtual_time.now == 7200


@needs("redis")
@pytest.mark.parametrize("key", ["one", "two"])
def test_each_test_gets_a_real_redis_without_data(real_redis: str, key: str) -> None:
    with Redis.from_url(real_redis) as client:
        assert client.keys() == []
        client.set(key, 1)


def test_without_a_server_the_redis_fixture_skips_and_says_what_to_install(
    user: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "find_server", lambda: None)
    user.makepyfile("def test_it(real_redis): pass")
    result = user.runpytest_inprocess("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*no redis-server: install leibniz-voice[[]embedded[]]*"])


def test_its_marker_is_the_one_that_is_documented() -> None:
    assert plugin.MARKER.startswith("bot(file, build=None, **options): ")
