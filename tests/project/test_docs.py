"""What the docs show is what runs, and every link leads somewhere.

The Python blocks of a page run in order, in one namespace. A block after `<!-- not run: REASON -->` is only compiled.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/results/*.md")])
BLOCK = re.compile(r"(?:<!-- not run: (?P<why>[^>]+) -->\n+)?```python\n(?P<code>.*?)```", re.S)
LINK = re.compile(r"\]\((?!https?:|mailto:)(?P<target>[^)\s]+)\)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[tuple[str, str]]:
    """(reason not to run it or "", code) of each Python block."""
    return [(found["why"] or "", found["code"]) for found in BLOCK.finditer(page.read_text())]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page) and page.name != "README.md"], ids=name)
def test_the_snippets_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "snippet"}
    for number, (why, code) in enumerate(blocks(page), 1):
        compiled = compile(code, f"{name(page)}, Python block {number}", "exec")
        if not why:
            exec(compiled, names)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    dead = []
    for target in LINK.findall(re.sub(r"```.*?```", "", page.read_text(), flags=re.S)):
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            dead.append(target)
    assert dead == []


def test_the_index_names_every_page_and_the_numbers_every_result() -> None:
    index = (ROOT / "docs/index.md").read_text()
    pages = {page.name for page in ROOT.glob("docs/*.md")} - {"index.md"}
    assert {page for page in pages if f"({page})" not in index or f"\n{page[:-3]}\n" not in index} == set()
    numbers = (ROOT / "docs/results/README.md").read_text()
    results = {file.name for file in ROOT.glob("docs/results/*") if file.suffix != ".md"}
    assert {name for name in results if f"({name})" not in numbers} == set()


def test_every_test_that_the_contract_names_exists() -> None:
    rows = [row for row in (ROOT / "docs/contract.md").read_text().splitlines() if row.startswith("| ")]
    named = [re.findall(r"`(test_\w+\.py)::(test_\w+)`", row) for row in rows if not row.startswith("| What")]
    assert len(named) > 50
    assert all(named), "a row without a test"
    files = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    missing = {
        f"{file}::{test}"
        for file, test in (found for row in named for found in row)
        if not re.search(rf"^(async )?def {test}\(", files.get(file, ""), re.M)
    }
    assert missing == set()
