"""ARCHITECTURE.md: the files that it names exist, its wings are all of them, its journeys can be followed."""

import re

from tests.support.imports import LIBRARY, ROOT

TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
FILES = {str(path.relative_to(ROOT)) for path in LIBRARY}
MOST_STOPS = 12


def journeys() -> dict[str, list[str]]:
    """Title -> stops, each with the lines that continue it."""
    section = TEXT.partition("## Five journeys")[2].partition("\n## ")[0]
    found = {}
    for part in section.split("\n### ")[1:]:
        title, _, body = part.partition("\n")
        found[title] = re.split(r"^\d+\. ", body, flags=re.M)[1:]
    return found


def test_every_file_that_it_names_exists():
    named = re.findall(r"`([\w/]+\.py)`", TEXT)
    assert len(named) > 50
    lost = [
        n for n in named if n not in FILES and not (ROOT / n).is_file() and not any(f.endswith(f"/{n}") for f in FILES)
    ]
    assert lost == []


def test_every_folder_that_it_names_exists():
    named = re.findall(r"`((?:pipeline|lab|processors|transports|bots)/[\w/]*/)`", TEXT)
    assert [n for n in named if not (ROOT / n).is_dir()] == []


def test_every_wing_has_its_line():
    rows = TEXT.partition("## The house")[2].partition("\n## ")[0]
    wings = {path.parent for path in LIBRARY if path.parent.parent == ROOT or path.parent.parent.parent == ROOT}
    assert [str(w.relative_to(ROOT)) for w in wings if f"`{w.name}/`" not in rows and f"/{w.name}/`" not in rows] == []


def test_there_are_five_journeys_of_at_most_twelve_stops():
    found = journeys()
    assert len(found) == 5
    assert {title: len(stops) for title, stops in found.items() if not 3 < len(stops) <= MOST_STOPS} == {}


def test_nearly_every_stop_names_its_file():
    stops = [stop for stops in journeys().values() for stop in stops]
    assert sum(".py`" in stop for stop in stops) > 0.85 * len(stops)
