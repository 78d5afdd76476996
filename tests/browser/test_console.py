"""The console page in a real browser, against the real server, with speech as the microphone."""

from __future__ import annotations

import os
import re

import pytest

from leibniz_voice.lab.recording.recording import Recording
from leibniz_voice.pipeline.states import TABLE
from leibniz_voice.transports.access.token_key import TokenKey
from tests.support.tools import needs

from ..support.browser import CHROMIUM, INSECURE_HOST, conversation, flags, free_port, marks, serving_process
from ..support.console_checks import SHOW_ALL, low_contrast, out_of_reach, unnamed

QUESTION, ANSWER = "what are your opening hours", "We are open from Monday to Friday"
INTERRUPTION = "where is my order"
ANSWER_MS = 15_000
SECRET = "a secret of at least thirty-two bytes"
READY = '{"type":"ready","sample_rate":16000,"out_sample_rate":16000,"turn_number":0}'

pytestmark = [*marks, needs("flite")]
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (its own browsers are not used)")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The http address of `leibniz serve bots/assistant.py`, which may also be reached by a name."""
    port = free_port()
    environment = {**os.environ, "LEIBNIZ_ORIGINS": f"http://{INSECURE_HOST}:{port}"}
    with serving_process(tmp_path_factory.mktemp("server"), environment=environment, port=port) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, whose microphone asks the question, and another one into the answer."""
    spoken = conversation(tmp_path_factory.mktemp("speech") / "mic.wav", (0.7, QUESTION), (2.6, INTERRUPTION))
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags(spoken))
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, address):
    """Opens the page, connected, after `prepare(page)`. At the end no error may stand in the browser's console."""
    contexts, complaints = [], []

    def open_page(prepare=lambda page: None, *, at=address, **settings):
        settings = {"viewport": {"width": 1280, "height": 800}, **settings}
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        prepare(page)
        page.goto(at)
        page.wait_for_selector("#connection[data-status=open]")
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


def is_measured(page, turn: int) -> None:
    page.wait_for_selector(f"#latency-head th:nth-child(2):has-text('{turn}')", timeout=ANSWER_MS)


def spans(page) -> dict[str, list[str]]:
    """Row -> what the bars of the timeline say, as they stand."""
    rows: dict[str, list[str]] = {}
    for said in page.locator("#timeline .span").evaluate_all("all => all.map((s) => s.getAttribute('aria-label'))"):
        row, _, text = said.partition(": ")
        rows.setdefault(row, []).append(text)
    return rows


def test_a_conversation_aloud_and_typed_is_seen_heard_and_recorded(open_page, tmp_path):
    page = open_page(accept_downloads=True)
    page.check("#headphones")  # a file has no echo
    page.click("#mic")
    is_in(page, "speaking")
    assert QUESTION in page.inner_text(".entry.user .said").lower()
    assert ANSWER in page.inner_text(".entry.bot .said")
    page.wait_for_selector("#timeline .span.played")  # live
    page.wait_for_selector(".entry.bot.cut s.unheard", timeout=ANSWER_MS)  # cut by voice
    assert page.inner_text(".entry.bot.cut .said").startswith(ANSWER)
    page.wait_for_selector(f".entry.user .said:text-is('{INTERRUPTION}')", timeout=ANSWER_MS)
    is_in(page, "speaking")
    ask(page, QUESTION)  # a typed question cuts the bot too
    page.wait_for_selector(".entry.bot.cut >> nth=1")
    is_measured(page, 3)

    assert page.locator("#turns button").all_inner_texts() == ["1ϟ", "2ϟ", "3"]
    page.locator("#turns button").first.click()
    page.wait_for_selector("#timeline .mark.cut", state="attached")
    rows = spans(page)
    assert re.match(r"Speech.*, [\d.]+\u2013[\d.]+ s", rows["You"][0])
    assert QUESTION in rows["Words"][-1]
    assert "opening_hours" in rows["Intent"][0]
    assert "found" in rows["Retrieval"][0]
    assert any("Paused" in said for said in rows["Playback"])
    assert rows["Heard"][0].startswith("We are open")
    assert {"LLM", "TTS", "State"} <= set(rows)

    with page.expect_download() as downloading:
        page.click("#download")
    assert downloading.value.suggested_filename.endswith(".leibniz.gz")
    downloading.value.save_as(file := tmp_path / "call.leibniz.gz")
    recording = Recording.load(file)
    assert (recording.side, recording.is_whole) == ("client", True)
    assert recording.session_id == page.inner_text("#session")
    assert [(t.user, t.interrupted, t.complete) for t in recording.turns] == [
        (QUESTION, True, False), (INTERRUPTION, True, False), (QUESTION, False, True),
    ]  # fmt: skip
    assert recording.turns[0].reply.startswith(ANSWER)
    assert 0 < len(recording.turns[0].heard) < len(recording.turns[0].reply)
    assert {"Intent", "Retrieval", "LLM Wait"} <= set(recording.turns[0].latency_ms)
    for direction in ("to_bot", "to_user"):
        assert max(recording.audio(direction)) > 0
    sent = recording.frames("audio", direction="to_bot")
    assert sent[-1].at - sent[0].at == pytest.approx(0.02 * len(sent), rel=0.05)
    assert recording.frames("ack", direction="to_bot")
    assert INTERRUPTION in recording.timeline()


def test_escape_interrupts_and_the_microphone_asks_for_echo_cancellation(open_page):
    page = open_page()
    ask(page, QUESTION)
    is_in(page, "speaking")
    page.wait_for_selector(".entry.bot .who :text('heard')")
    page.keyboard.press("Escape")
    is_in(page, "listening")
    page.wait_for_selector(".entry.bot.cut .who :text('interrupted after')")
    assert page.is_disabled("#stop")
    assert page.inner_text("#move").startswith("interrupt → listening")
    assert page.locator("#machine .edge.last").evaluate_all("all => all.map((e) => e.dataset.trigger)") == [
        "barge_in", "resume_listening",
    ]  # fmt: skip
    page.evaluate(
        """() => { navigator.mediaDevices.getUserMedia = (asked) => {
             window.asked = asked.audio;
             return Promise.reject(new DOMException("Permission denied", "NotAllowedError")); } }"""
    )
    page.click("#mic")
    page.wait_for_selector("#notice:has-text('blocked')")
    assert page.get_attribute("#mic", "aria-pressed") == "false"
    assert page.evaluate("window.asked.echoCancellation") is True
    assert page.evaluate("window.asked.noiseSuppression") is False
    page.click("#notice-close")
    assert page.is_hidden("#notice")
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
            route.send(READY)
            route.close(code=code)

    return lambda page: page.route_web_socket(re.compile("/orchestrate"), on_connection)


def test_a_session_taken_over_elsewhere_is_taken_back_only_when_asked(browser, address):
    page = browser.new_page()
    closes_first_with(4409)(page)
    page.goto(address)
    page.wait_for_selector("#notice:has-text('opened elsewhere')")
    page.wait_for_timeout(700)  # a real browser's clock: longer than the first retry would take
    assert page.inner_text("#connection") == "Disconnected"
    page.click("#reconnect")
    page.wait_for_selector("#connection[data-status=open]")
    assert page.is_hidden("#notice")
    page.close()


def test_a_token_is_asked_for_and_a_restarted_server_is_found_again(browser, tmp_path):
    port, page = free_port(), browser.new_page()
    environment = {**os.environ, "LEIBNIZ_SECRET": SECRET}
    with serving_process(tmp_path, environment=environment, port=port) as address:
        page.goto(address)
        page.wait_for_selector("#notice:has-text('asks for a token')")
        assert page.locator("#machine .node.on").count() == 0  # not known
        session = page.inner_text("#session")
        assert f"leibniz token {session}" in page.inner_text("#token-form")
        page.fill("#token", "lv1.wrong")
        page.press("#token", "Enter")
        page.wait_for_selector("#notice-text:has-text('malformed')")
        page.fill("#token", TokenKey(SECRET).mint(session, now=page.evaluate("Date.now()") / 1000))
        page.click("#token-send")
        page.wait_for_selector("#connection[data-status=open]")
        assert page.is_hidden("#notice")
    page.wait_for_selector("#events .wrong:has-text('restarts')")
    page.wait_for_selector("#notice:has-text('cannot be reached')")
    with serving_process(tmp_path, environment=environment, port=port):
        page.wait_for_selector("#connection[data-status=open]", timeout=ANSWER_MS)
        page.wait_for_selector("#events :text('resumed')")
        ask(page, QUESTION)
        is_in(page, "speaking")
        told = page.evaluate("[...document.querySelectorAll('.event')].map((event) => event.json).join()")
        assert '"token": "…"' in told
        assert "lv1." not in told  # a token opens the session: it is not shown
        page.close()


def test_an_insecure_page_says_so_and_can_be_typed_to(open_page, address):
    page = open_page(at=address.replace("127.0.0.1", INSECURE_HOST))
    page.wait_for_selector("#notice:has-text('secure context')")
    ask(page, QUESTION)
    is_in(page, "speaking")
    page.click("#mic")
    page.wait_for_selector("#notice:has-text('127.0.0.1')")
    assert page.get_attribute("#mic", "aria-pressed") == "false"


@pytest.mark.parametrize("width", [390, 900, 1280])
def test_the_page_fits_its_width(open_page, width):
    page = open_page(viewport={"width": width, "height": 844})
    ask(page, "a" * 300)
    page.wait_for_selector(".entry.user")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_can_be_read_named_and_reached(open_page, scheme):
    page = open_page(color_scheme=scheme)
    ask(page, QUESTION)
    page.wait_for_selector(".entry.bot .who :text('heard')")
    page.keyboard.press("Escape")
    page.wait_for_selector("s.unheard")
    page.locator("#turns button").first.click()
    page.wait_for_selector("#timeline .said")
    page.evaluate(SHOW_ALL)
    assert low_contrast(page) == []
    assert unnamed(page) == []
    assert out_of_reach(page) == []
    # The checks can fail:
    page.evaluate(
        """() => { const pale = new CSSStyleSheet();
             pale.replaceSync(".readout { color: #888b } #machine .name { fill: #7f8a99 }");
             document.adoptedStyleSheets = [...document.adoptedStyleSheets, pale];
             document.querySelector("label[for=question]").remove();
             document.getElementById("question").placeholder = "";
             document.getElementById("send").tabIndex = -1; }"""
    )
    assert {said.split()[0] for said in low_contrast(page)} == {"P.readout", "text.name"}
    assert unnamed(page) == ["textbox"]
    assert out_of_reach(page) == ["send"]


def test_the_picture_of_the_states_is_the_table(open_page):
    page = open_page()
    drawn = page.locator("#machine .edge[data-from]").evaluate_all(
        "all => all.map(({ dataset: d }) => [d.from, d.trigger, d.to])"
    )
    table = [(state.value, event.value, target.value) for state, row in TABLE.items() for event, target in row.items()]
    assert sorted(map(tuple, drawn)) == sorted(table)


def test_times_are_read_by_keyboard_and_in_a_table_and_events_are_filtered(open_page):
    page = open_page()
    ask(page, QUESTION)
    is_in(page, "speaking")
    page.keyboard.press("Escape")
    is_measured(page, 1)
    page.locator("#turns button").first.click()
    page.focus("#timeline .span[tabindex='0']")
    first = page.inner_text("#readout")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#readout") != first
    assert page.inner_text("#readout") == page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.click("#zoom-response")
    assert page.get_attribute("#zoom-turn", "aria-pressed") == "false"
    page.focus("#timeline-table summary")
    page.keyboard.press("Enter")
    page.wait_for_selector("#timeline-rows tr:nth-child(6)")
    rows = page.locator("#timeline-rows tr").evaluate_all(
        "all => all.map((r) => [...r.cells].map((c) => c.textContent))"
    )
    assert {row[0] for row in rows} == set(spans(page))
    assert all(float(start) <= float(end) for _, _, start, end, _ in rows)

    page.fill("#filter", "state_update barge")
    assert page.locator(".event:visible").count() == 1
    page.focus(".event:visible")
    page.keyboard.press("Enter")
    assert '"trigger": "barge_in"' in page.inner_text(".event:visible pre")
    page.fill("#filter", "")
    page.select_option("#filter-way", "out")
    assert set(page.locator(".event:visible b").all_inner_texts()) == {
        "hello",
        "stt_fragment",
        "vad_end",
        "user_speaking",
    }


FLOOD = """async () => {  // as hours of talk would
  const { Recording } = await import("./recording.js");
  const { Turns } = await import("./turns.js");
  const { Events } = await import("./events.js");
  const events = new Events(), turns = new Turns(() => {});
  let at = 0;
  const recording = new Recording(() => at);
  const update = (state, trigger, turn) => ({ type: "state_update", state, trigger, turn, text_buffer: ["a"] });
  for (let turn = 1; turn <= 2000; turn++) {
    for (const message of [update("listening", "stt_start", turn - 1), update("thinking", "vad_end", turn),
        update("speaking", "response_ready", turn), update("idle", "tts_complete", turn)]) {
      at += 1000;
      turns.message(message, at);
      events.add("in", message);
      for (let n = 0; n < 5; n++) recording.audio("to_bot", new ArrayBuffer(640), 16000), turns.level(0.1, at);
    }
  }
  const loud = Math.max(...turns.records.map((record) => record.loud.values.length));
  return { turns: turns.records.length, rows: document.querySelectorAll(".event").length, loud,
    minutes: recording.lengthMs / 60000, held: recording.events.length, lost: recording.lost };
}"""


def test_memory_stays_bounded_however_long_the_page_is_open(open_page):
    page = open_page()
    held = page.evaluate(FLOOD)
    assert held["turns"] == 12
    assert held["rows"] <= 1000  # 500 of the page's own log, and of the one made here
    assert 9 < held["minutes"] <= 10
    assert held["held"] < 8000
    assert held["held"] + held["lost"] >= 40_000
    assert held["loud"] <= 3000


def test_nothing_is_fetched_from_another_host_and_the_policy_is_strict(browser, address):
    page = browser.new_page()
    requested = []
    page.on("request", lambda request: requested.append(request.url))
    policy = page.goto(address).headers["content-security-policy"]
    page.wait_for_selector("#connection[data-status=open]")
    page.wait_for_load_state("networkidle")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.evaluate(
        """() => { const script = document.createElement("script"); script.type = "x";
             try { document.body.innerHTML = "<p>"; return "allowed"; } catch { return "refused"; } }"""
    ) == "refused"  # fmt: skip
    page.close()
    assert len(requested) > 10
    assert {url for url in requested if not url.startswith(address)} == set()
