"""Pipecat's published JavaScript client, as it is, in a real browser: it connects, speaks, hears, interrupts, leaves.

    npm install --prefix tests/browser/pipecat_js --no-package-lock --ignore-scripts

installs it; package.json pins every version, packages.txt every content.
"""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from ..support.browser import CHROMIUM, flags, marks, serving_process, speak

FOLDER = Path(__file__).parent / "pipecat_js"
MODULES = FOLDER / "node_modules"
INSTALL = "npm install --prefix tests/browser/pipecat_js --no-package-lock --ignore-scripts"
QUESTION, SECOND = "what are your opening hours", "where is my order"
AT_S = 4.0  # from the microphone's opening to the second question: in the middle of the answer to the first
QUIET = 0.01  # peak below which nobody hears anything; speech is at 0.1 and more
WAIT_MS = 15_000

pytestmark = [
    *marks,
    pytest.mark.skipif(not (MODULES / "esbuild").exists(), reason=f"needs Pipecat's client from npm: {INSTALL}"),
]
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (its own browsers are not used)")


def installed() -> set[str]:
    """Name, version and integrity of each installed package, as in packages.txt."""
    packages = json.loads((MODULES / ".package-lock.json").read_text())["packages"]
    return {
        f"{place.removeprefix('node_modules/')} {package['version']} {package['integrity']}"
        for place, package in packages.items()
        if not package.get("optional")  # what only another system would install
    }


def test_exactly_the_pinned_packages_are_installed():
    assert installed() == set((FOLDER / "packages.txt").read_text().splitlines())


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> str:
    """page.js and all that it imports, in one file."""
    bundle = tmp_path_factory.mktemp("bundle") / "page.js"
    esbuild = MODULES / "esbuild" / "bin" / "esbuild"
    command = [esbuild, "page.js", "--bundle", "--format=iife", f"--outfile={bundle}", "--log-level=warning"]
    subprocess.run(["node", *command], cwd=FOLDER, check=True, timeout=60)
    return bundle.read_text()


@pytest.fixture(scope="module")
def microphone_wav(tmp_path_factory) -> Path:
    """Two questions, the second one over the answer to the first."""
    folder = tmp_path_factory.mktemp("speech")
    first = speak(QUESTION, folder / "first.wav", before_s=0.7)
    second = speak(SECOND, folder / "second.wav", after_s=20)
    both = folder / "both.wav"
    gap_s = AT_S - seconds(first)
    subprocess.run(["sox", first, second, both, "pad", f"{gap_s}@{seconds(first)}"], check=True)
    return both


def seconds(wav: Path) -> float:
    return float(subprocess.run(["soxi", "-D", wav], check=True, capture_output=True, text=True).stdout)


@pytest.fixture
def page(tmp_path, script, microphone_wav):
    """A page with Pipecat's client, beside an assistant that is served."""
    with serving_process(tmp_path) as address, sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags(microphone_wav))
        page = chromium.new_page(bypass_csp=True)  # the server's pages allow no scripts but their own
        page.goto(f"{address}ready")  # any page of that host; one that a test makes up counts as a stranger's
        page.add_script_tag(content=script)
        page.ws_url = f"{address.replace('http', 'ws')}pipecat?session_id=js"
        yield page
        chromium.close()


def diary(page) -> list[tuple[float, str, str]]:
    return [tuple(entry) for entry in page.evaluate("window.diary")]


def wait_for(page, what: str, *, count: int = 1) -> float:
    """Wait for the entry to be there `count` times; its time, in ms."""
    seen = f"window.diary.filter((entry) => entry[1] === '{what}')"
    try:
        page.wait_for_function(f"{seen}.length >= {count}", timeout=WAIT_MS)
    except sync_api.TimeoutError:
        pytest.fail(f"no {what!r} number {count} in:\n" + "\n".join(map(str, diary(page))))
    return page.evaluate(f"{seen}[{count - 1}][0]")


def loudest(page, from_ms: float, to_ms: float) -> float:
    return max((peak for at, peak in page.evaluate("window.loud") if from_ms <= at < to_ms), default=0.0)


def said(page, what: str) -> list[str]:
    return [detail for _, entry, detail in diary(page) if entry == what]


def test_pipecats_client_connects_speaks_hears_interrupts_and_leaves(page):
    page.evaluate("url => window.client.connect({ wsUrl: url })", page.ws_url)
    wait_for(page, "bot ready")

    wait_for(page, "user said")
    assert said(page, "user said") == [QUESTION]
    answering = wait_for(page, "bot started")
    assert "Monday to Friday" in said(page, "bot says")[0]
    cut = wait_for(page, "bot stopped")
    assert cut - answering > 500
    assert loudest(page, answering, cut) > 0.1, "the answer is heard"

    second = wait_for(page, "bot started", count=2)
    assert said(page, "user said")[1] == SECOND
    assert loudest(page, cut + 200, second) < QUIET, "nothing of the cut answer is heard"
    page.wait_for_timeout(500)
    assert loudest(page, second, second + 600) > 0.1, "the second answer is heard"

    page.evaluate("window.client.disconnect()")
    gone = wait_for(page, "disconnected")
    page.wait_for_timeout(400)
    assert loudest(page, gone + 200, gone + 400) < QUIET
    assert said(page, "error") == []
    steps = ["connected", "bot ready", "user said", "bot started", "bot stopped", "user said", "bot started"]
    entries = iter(entry for _, entry, _ in diary(page))
    assert all(step in entries for step in [*steps, "disconnected"]), "in this order"
    assert all(before <= after for (before, *_), (after, *_) in pairwise(diary(page)))
