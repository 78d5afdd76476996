"""The console page in a real browser, against the real server, with speech as the microphone."""

from __future__ import annotations

import re

import pytest

from .browser import CHROMIUM, flags, marks, served, speak

QUESTION = "what are your opening hours"
ANSWER_MS = 15_000

pytestmark = marks
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (its own browsers are not used)")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The http address of `leibniz serve bots/assistant.py`."""
    with served(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(scope="module")
def microphone_wav(tmp_path_factory):
    """The question; half a second of quiet before it, much after it."""
    return speak(QUESTION, tmp_path_factory.mktemp("speech") / "microphone.wav", before_s=0.7, after_s=20)


@pytest.fixture(scope="module")
def browser(microphone_wav):
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags(microphone_wav))
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, address):
    """Opens the page, connected, after `prepare(page)`. At the end no error may stand in the browser's console."""
    contexts, complaints = [], []

    def open_page(prepare=lambda page: None, **settings):
        settings = {"viewport": {"width": 1280, "height": 800}, **settings}
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        prepare(page)
        page.goto(address)
        page.wait_for_selector("#events .what:text-matches('^ready')")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def ask(page, text: str) -> None:
    page.fill("#question", text)
    page.press("#question", "Enter")


def is_in(page, state: str) -> None:
    page.wait_for_selector(f"body[data-state={state}]", timeout=ANSWER_MS)


def states(page) -> list[str]:
    """The states of all `state_update` events, oldest first, repetitions removed."""
    rows = page.locator("#events .what").all_inner_texts()
    seen = [match[1] for row in reversed(rows) if (match := re.match(r"state_update (\w+)", row))]
    return [state for n, state in enumerate(seen) if n == 0 or state != seen[n - 1]]


def test_a_spoken_question_is_answered_aloud(open_page):
    page = open_page()
    page.click("#mic")
    is_in(page, "speaking")
    assert QUESTION in page.inner_text(".entry.user .said").lower()
    assert "Monday to Friday" in page.inner_text(".entry.bot .said")
    is_in(page, "idle")
    assert states(page) == ["listening", "thinking", "speaking", "idle"]
    heard = page.inner_text(".entry.bot .who")
    assert re.search(r"heard [\d.]+ s", heard), heard


def test_a_typed_question_is_answered_and_the_key_escape_interrupts(open_page):
    page = open_page()
    ask(page, QUESTION)
    is_in(page, "speaking")
    page.wait_for_selector(".entry.bot .who :text('heard')")
    page.keyboard.press("Escape")
    is_in(page, "listening")
    page.wait_for_selector(".entry.bot.cut .who :text('interrupted after')")
    assert page.is_disabled("#stop")
    ask(page, QUESTION)
    is_in(page, "speaking")
    assert page.locator(".entry.bot").count() == 2


def test_the_latency_of_a_turn_is_shown(open_page):
    page = open_page()
    ask(page, QUESTION)
    is_in(page, "speaking")
    is_in(page, "idle")
    page.wait_for_selector("#latency dd")
    assert "LLM Wait" in page.inner_text("#latency")


def test_reloading_the_page_resumes_the_session(open_page):
    page = open_page()
    session = page.inner_text("#session")
    page.reload()
    page.wait_for_selector("#events :text('resumed')")
    assert page.inner_text("#session") == session


def closes_first_with(code: int):
    """The first connection is closed with `code`, later ones reach the server."""
    seen = []

    def on_connection(route):
        seen.append(route)
        if len(seen) > 1:
            route.connect_to_server()
        else:
            route.send('{"type":"ready","sample_rate":16000,"out_sample_rate":16000,"turn_number":0}')
            route.close(code=code)

    return lambda page: page.route_web_socket(re.compile("/orchestrate"), on_connection)


def test_a_restarted_server_is_found_again(open_page):
    page = open_page(closes_first_with(1012))
    page.wait_for_selector("#connection[data-status=open]")
    page.wait_for_selector("#events .wrong:has-text('restarts')")
    ask(page, QUESTION)
    is_in(page, "speaking")


def test_a_session_taken_over_elsewhere_is_taken_back_only_when_asked(open_page):
    page = open_page(closes_first_with(4409))
    page.wait_for_selector("#notice:has-text('opened elsewhere')")
    page.wait_for_selector("#connection[data-status=failed]")
    page.wait_for_timeout(700)  # a real browser's clock: longer than the first retry would take
    assert page.inner_text("#connection") == "Disconnected"
    page.click("#reconnect")
    page.wait_for_selector("#connection[data-status=open]")
    assert page.is_hidden("#notice")


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_the_page_fits_its_width(open_page, width):
    page = open_page(viewport={"width": width, "height": 844})
    ask(page, "a" * 300)
    page.wait_for_selector(".entry.user")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_control_is_labelled_and_reached_by_keyboard(open_page):
    page = open_page()
    controls = page.locator("button:visible:enabled, input:visible")
    wanted = {controls.nth(n).get_attribute("id") for n in range(controls.count())}
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert wanted <= reached
    unlabelled = page.evaluate(
        """() => [...document.querySelectorAll("button, input")].filter(
             (c) => !(c.textContent.trim() || c.labels?.[0]?.textContent.trim())).map((c) => c.id)"""
    )
    assert unlabelled == []


LOW_CONTRAST = """() => {
  const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    pixel.clearRect(0, 0, 1, 1); pixel.fillStyle = colour; pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const chip of document.querySelectorAll("#states li")) {
    chip.style.transition = "none";
    chip.classList.add("on");
  }
  document.getElementById("notice").hidden = false;
  document.getElementById("notice-text").textContent = "A notice.";
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!(text || element.placeholder) || !element.checkVisibility() || element.closest(".hidden")) continue;
    const style = getComputedStyle(element, element.placeholder ? "::placeholder" : null);
    const [a, b] = [light(rgba(style.color)), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low.push([element.tagName, element.className, element.textContent.slice(0, 20), ratio.toFixed(2)]);
  }
  return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(open_page, scheme):
    page = open_page(color_scheme=scheme)
    ask(page, QUESTION)
    page.wait_for_selector(".entry.bot")
    assert page.evaluate(LOW_CONTRAST) == []


def test_a_blocked_microphone_is_explained(open_page):
    page = open_page()
    page.evaluate(
        """() => { navigator.mediaDevices.getUserMedia = () =>
             Promise.reject(new DOMException("Permission denied", "NotAllowedError")); }"""
    )
    page.click("#mic")
    page.wait_for_selector("#notice:has-text('blocked')")
    assert page.get_attribute("#mic", "aria-pressed") == "false"
    page.click("#notice-close")
    assert page.is_hidden("#notice")


def test_nothing_is_fetched_from_another_host(browser, address):
    context = browser.new_context()
    page = context.new_page()
    requested = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(address)
    page.wait_for_selector("#connection[data-status=open]")
    page.wait_for_load_state("networkidle")
    context.close()
    assert len(requested) > 5
    assert {url for url in requested if not url.startswith(address)} == set()
