"""What was heard of a reply that was cut: at random cuts right within one word."""

from __future__ import annotations

import pytest

from .heard import TellsWhatWasSent, errors

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("has_times", [True, False], ids=["word times", "proportion of the audio"])
def test_at_200_random_cuts_the_words_kept_are_those_heard_within_one(has_times: bool) -> None:
    found = errors(200, seed=3, has_times=has_times)
    assert len(found) == 200
    assert max(map(abs, found)) <= 1


def test_taking_what_was_sent_for_heard_is_caught() -> None:
    found = errors(20, seed=3, broken=TellsWhatWasSent)
    assert sum(abs(words) > 1 for words in found) > 10
