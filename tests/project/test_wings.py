"""The rooms of the house: which wing imports which, how many modules stand side by side, what they are called."""

import re
from collections import Counter

import pytest

from tests.support.imports import LIBRARY, MODULES, ROOT, circles, graph, imports_of

MOST_SIDE_BY_SIDE = 14
MOST_SMALL = 10  # modules below SMALL lines that a single other module imports
SMALL = 60

# wing -> the wings that it may import besides itself; none of them imports bots
MAY = {
    "pipeline.listening": "pipeline.conversation",
    "pipeline.text": "",
    "pipeline.conversation": "pipeline.listening pipeline.text",
    "pipeline.interruption": "pipeline.listening pipeline.engine.pipecat_seam",
    "pipeline.engine": "pipeline.listening pipeline.conversation",
    "pipeline.reply": "pipeline.listening pipeline.interruption pipeline.conversation pipeline.engine pipeline.text",
    "lab.recording": "pipeline processors transports",
    "lab.replay": "pipeline processors transports lab.recording",
    "lab.drawing": "pipeline lab.recording lab.replay",
    "transports.access": "pipeline",
    "transports.dialects": "pipeline",
    "transports.state": "pipeline",
    "transports.client": "pipeline transports.dialects",
    "transports.playout": "pipeline transports.dialects",
    "transports.server": "pipeline transports.access transports.dialects transports.playout transports.state",
    "processors.embedded.workers": "pipeline",
    "processors.embedded.voice": "pipeline processors.embedded.workers",
    "processors.embedded.recogniser": "pipeline processors.embedded.workers",
    "processors.embedded.silero": "pipeline",
    "processors.embedded.retrieval": "pipeline",
}
NEVER = {"lab.recording": "pipeline.testing"}  # what the line above would let through
# The words of whoever writes a pipeline: every wing of it may use them
WORDS = re.compile(r"pipeline\.(errors|frames|services|states|reconfigurable)")
SOCKETS = ("socket", "websockets", "asyncio", "aiohttp", "ssl")  # what a wing that knows no socket does not import


def is_in(module: str, wing: str) -> bool:
    return module == wing or module.startswith(f"{wing}.")


def may(wing: str, other: str) -> bool:
    if is_in(other, wing) or (wing.startswith("pipeline.") and WORDS.fullmatch(other)):
        return True
    return any(is_in(other, each) for each in MAY[wing].split()) and not is_in(other, NEVER.get(wing, "none"))


@pytest.mark.parametrize("wing", MAY)
def test_a_wing_imports_only_what_is_below_it(wing):
    inside = [module for module in MODULES if is_in(module, wing)]
    assert len(inside) > 1, f"there is no {wing}"
    assert {f"{module} -> {other}" for module in inside for other in graph()[module] if not may(wing, other)} == set()


@pytest.mark.parametrize(
    ("wing", "other"),
    [
        ("pipeline.listening", "pipeline.engine.processor"),
        ("pipeline.conversation", "pipeline.reply.cuts"),
        ("pipeline.interruption", "pipeline.engine.processor"),
        ("pipeline.engine", "pipeline.reply.downstream"),
        ("lab.recording", "pipeline.testing.call"),
        ("lab.recording", "lab.replay.measures"),
        ("transports.dialects", "transports.server.client_socket"),
        ("transports.state", "bots.content"),
    ],
)
def test_the_check_of_wings_notices(wing, other):
    assert not may(wing, other)


def test_every_folder_of_more_than_two_storeys_is_a_wing():
    folders = {module.rpartition(".")[0] for module, path in MODULES.items() if path.stem != "__init__"}
    wings = {folder for folder in folders if "." in folder} - {"processors.embedded"}
    left = {w for w in wings if not any(is_in(w, each) for each in (*MAY, "pipeline.testing", "bots"))}
    assert left == set()


@pytest.mark.parametrize("wing", ["transports.access", "transports.dialects"])
def test_a_pure_wing_knows_no_socket(wing):
    tops = {
        f"{module}: {name}"
        for module, path in MODULES.items()
        if is_in(module, wing)
        for name in imports_of(path, module, typing_too=False)
        if name.split(".")[0] in SOCKETS
    }
    assert tops == set()


def test_no_module_imports_itself_round_a_circle():
    assert circles(graph()) == []


def test_the_check_of_circles_notices():
    arrows = {"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("a"), "d": frozenset("a")}
    assert circles(arrows) == [["a", "b", "c"]]


def test_a_folder_holds_no_more_than_one_takes_in_at_a_glance():
    count = Counter(str(path.parent.relative_to(ROOT)) for path in LIBRARY if path.stem != "__init__")
    assert {folder: n for folder, n in count.items() if n > MOST_SIDE_BY_SIDE} == {}


def test_a_modules_name_says_which_one_is_meant():
    count = Counter(path.stem for path in LIBRARY if path.stem != "__init__")
    assert [name for name, n in count.items() if n > 1] == []


def test_few_modules_are_crumbs():
    """A small file that one other imports is a detail of that one, unless something else speaks for it."""
    importers = Counter(other for others in graph().values() for other in others)
    crumbs = [
        module
        for module, path in MODULES.items()
        if path.stem != "__init__" and importers[module] == 1
        if len(path.read_text(encoding="utf-8").splitlines()) < SMALL
    ]
    assert len(crumbs) <= MOST_SMALL, crumbs


# Who imports by a string, which the graph does not see, and why it may
BY_STRING = {
    "lab": "what replays and measures, when it is asked for: a server that records needs none of it",
    "lab.recording.recording": "the drawing of a timeline, when it is asked for",
    "pipeline.testing": "the replay, which runs on this kit, when it is asked for",
}


def test_imports_by_a_string_are_few_and_known():
    named = {m for m, path in MODULES.items() if re.search(r"\b(import_module|__import__)\(", path.read_text("utf-8"))}
    assert named == set(BY_STRING)
