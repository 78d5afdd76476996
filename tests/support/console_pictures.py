"""Makes the pictures of docs/images by a conversation with the assistant in a real browser. By hand:

    .uv/bin/uv run --extra browser python -m tests.support.console_pictures [FOLDER]

Somebody asks aloud, interrupts aloud, and asks by text; the page is pictured meanwhile.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support import ROOT

from .browser import CHROMIUM, conversation, flags, serving_process

IMAGES = ROOT / "docs" / "images"
QUESTION, INTERRUPTION = "what are your opening hours", "where is my order"
ANSWER_MS = 15_000


def is_in(page: Page, state: str) -> None:
    page.wait_for_selector(f"body[data-state={state}]", timeout=ANSWER_MS)


def converse(page: Page, picture: Callable[[str], None]) -> None:
    """The conversation; `picture(name)` is called at its moments."""
    page.wait_for_selector("#connection[data-status=open]")
    picture("idle")
    page.check("#headphones")  # a file has no echo
    page.click("#mic")
    is_in(page, "speaking")
    page.wait_for_timeout(1200)
    picture("speaking")
    page.wait_for_selector(".entry.bot.cut s.unheard", timeout=ANSWER_MS)
    is_in(page, "speaking")
    is_in(page, "idle")
    page.fill("#question", "and on Sundays?")
    page.press("#question", "Enter")
    is_in(page, "speaking")
    page.wait_for_timeout(1500)
    page.keyboard.press("Escape")
    is_in(page, "listening")
    page.locator("#turns button").first.click()
    page.wait_for_timeout(300)
    page.focus("#timeline .span.paused")
    picture("interrupted")


def pictures(browser: Browser, address: str, wanted: dict[str, Path], **settings: Any) -> None:
    """Moment -> file."""
    context = browser.new_context(**settings)
    page = context.new_page()
    page.goto(address)
    is_phone = settings["viewport"]["width"] < 500

    def picture(moment: str) -> None:
        if moment in wanted:
            page.screenshot(path=wanted[moment], full_page=is_phone)
            print(wanted[moment])

    converse(page, picture)
    context.close()


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    light = {name: folder / f"console-{name}.png" for name in ("idle", "speaking")}
    desk, phone = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
    with tempfile.TemporaryDirectory() as home, serving_process(Path(home)) as address, sync_playwright() as playwright:
        spoken = conversation(Path(home) / "microphone.wav", (0.7, QUESTION), (2.6, INTERRUPTION))
        for wanted, settings in (
            ({**light, "interrupted": folder / "console.png"}, {"viewport": desk}),
            ({"interrupted": folder / "console-dark.png"}, {"viewport": desk, "color_scheme": "dark"}),
            ({"interrupted": folder / "console-390.png"}, {"viewport": phone}),
        ):
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags(spoken))
            pictures(browser, address, wanted, **settings)
            browser.close()


if __name__ == "__main__":
    main()
