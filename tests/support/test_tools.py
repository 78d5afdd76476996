"""A skip says for want of what, in the words that LEIBNIZ_CI uses."""

from __future__ import annotations

from tests.support.tools import is_here, needs


def test_what_is_missing_is_named_and_what_is_here_skips_nothing() -> None:
    assert needs("git").args == (not is_here("git"),)
    mark = needs("git", "no-such-tool")
    assert mark.args == (True,)
    assert mark.kwargs["reason"].endswith("no-such-tool")
