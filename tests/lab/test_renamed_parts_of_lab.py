"""What the lab and the test kit hand out: every name is there, and so are the names of the first releases."""

import pytest

from leibniz_voice import lab
from leibniz_voice.pipeline import testing

OLD_NAMES = {"Event": "RecordedEvent", "Move": "StateMove", "Script": "ServiceScript", "Step": "ServiceStep"}


@pytest.mark.parametrize("package", [lab, testing], ids=["lab", "testing"])
def test_every_public_name_is_there(package):
    assert [name for name in package.__all__ if getattr(package, name, None) is None] == []


@pytest.mark.parametrize("package", [lab, testing], ids=["lab", "testing"])
def test_the_names_of_the_first_releases_mean_the_same(package):
    old = [name for name in OLD_NAMES if name in package.__all__]
    assert old
    assert [name for name in old if getattr(package, name) is not getattr(package, OLD_NAMES[name])] == []


def test_the_kit_hands_out_what_the_lab_does():
    assert [name for name in lab.__all__ if getattr(testing, name) is not getattr(lab, name)] == []
