"""docs/testing.md, run as the test module that it describes."""

from __future__ import annotations

import hypothesis  # noqa: F401 - the inner pytest forgets what it was the first to import, and imports it again
import pytest

import leibniz_voice.bots.assistant
import leibniz_voice.bots.cli.scripts
import leibniz_voice.pipeline.testing  # noqa: F401 - as above

from .test_docs import ROOT, blocks


@pytest.mark.slow
def test_every_snippet_of_testing_your_bot_is_a_test_that_passes(pytester: pytest.Pytester) -> None:
    code = "\n\n".join(code for _, code in blocks(ROOT / "docs" / "testing.md"))
    pytester.makepyfile(code)
    pytester.runpytest_inprocess("--durations=5").assert_outcomes(passed=code.count("\ndef test_"))
