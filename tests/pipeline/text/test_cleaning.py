"""What of a model's text is said: no thoughts, no markup, whatever the pieces in which it comes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.pipeline.text.cleaning import AS_WRITTEN, Cleaning, TextCleaner, cleaned
from leibniz_voice.pipeline.text.sentences import split_text
from tests.support.work import calls_made

THOUGHTS = {
    "<think>He wants a price. </think>They cost 900.": "They cost 900.",
    "<think>\nHm.\n</think>\n\nThey cost 900.": "They cost 900.",
    "<thinking effort='3'>no</thinking> yes": "yes",
    "Wait. <THINK>no</THINK> They cost 900.": "Wait. They cost 900.",
    "Wait.<think>no</think>They cost 900.": "Wait. They cost 900.",
    "One <think>a < b, </b> `c` </think>two": "One two",
    "They cost 900. <think>open to the end": "They cost 900. ",
    "no opening</think> yes": "no opening yes",
    "[THINK]no[/THINK]yes": "yes",
    "◁think▷no◁/think▷yes": "yes",
    "<|channel|>analysis<|message|>no<|end|><|start|>assistant<|channel|>final<|message|>yes": "yes",
    "<thi": "<thi",
    "I <thinker> [THIN] 2 < 3": "I [THIN] 2 < 3",
}
MARKUP = {
    "## Prices\n\n**Bike:** 900 euros.": "Prices\n\nBike: 900 euros.",
    "# Head #\nText": "Head\n\nText",
    "Title\n=====\nText\n\n---\n\nMore": "Title\n\nText\n\nMore",
    "*Hi* _there_, ***all*** of __you__ and **this _one_**.": "Hi there, all of you and this one.",
    "这是**粗体**和*斜体*。": "这是粗体和斜体。",
    "**open bold": "open bold",
    "~~900~~ 800 euros": "800 euros",
    "See [our page](https://shop.example.com/p?id=1).": "See our page.",
    'A [b](<c d> "t"), [e][1], ![f](g.png), [![h](i)](j) and [k](l_(m)).': "A b, e, f, h and k.",
    "[text] and [1] and [a](b c) and [x": "[text] and [1] and [a](b c) and [x",
    "See https://www.shop.example:80/a_b/c?d=e&f=(g). Or www.foo.example, ok (http://a.example/b).": (
        "See shop.example. Or foo.example, ok (a.example)."
    ),
    "<https://a.example/b> or <x.y@a.example> or x_y@a.example": "a.example or x.y@a.example or x_y@a.example",
    "- One\n- [x] Two\n  more\n* Three\n\nText": "One\n\nTwo\n  more\n\nThree\n\nText",
    "1. **One**\n2. `two_x`\nText": "1. One\n2. two_x\nText",
    "> quoted\n> > twice": "quoted\ntwice",
    "| Bike | Price |\n|------|:-----:|\n| City | 900 |\n\nDone.": "Bike, Price\n\nCity, 900\n\nDone.",
    "Do:\n```python\nprint(1)\n```\nDone.": "Do:\n\nDone.",
    "Do:\n~~~\nopen to the end": "Do:",
    "Call `f(*a)` and ``g`h``.": "Call f(*a) and g`h.",
    '<b>Bold</b>, <a href="x">link</a><br/>line<!-- no --><|im_end|>': "Bold, link\nline",
    "<ul><li>One</li><li>Two</li></ul>": "One\n\nTwo",
    "AT&amp;T &lt;3&nbsp;x &copy;": "AT&T <3 x ©",
    "Great 😀. Hi😀there 👨‍👩‍👧 🇩🇪 👍🏽 ❤️!": "Great. Hi there!",
    "1️⃣ ✓ done ★★★ C♯ ©": "1 done ★★★ C♯ ©",
    r"\*not\* \# a \[b\](c)": "*not* # a [b](c)",
}  # fmt: skip
KEPT = """
3 * 4 = 12, 5*3 and 2**3, x**2
snake_case_name, a_b and __ or ___
900* euros (* with taxes), 5* hotels and 4* ones
#1, C#, $5, 50 %, 2 < 3, a<b and c>d, I <3 you, List<String>
AT&T, R&D, ~5, a|b, a || b, it`s, 1. one, 2) two
-5 degrees, >5, +49 30 1234, 5 > 3, 10-20, :) ;-)
x@y.example, shop.example, C:\\Users, and/or, "quoted", 'so', [sic]
Wir öffnen – ja! – um 9 Uhr… नमस्ते। क्‍ष می‌خواهم 我们（好）。 สวัสดี
""".strip().splitlines()


@pytest.mark.parametrize("text", THOUGHTS)
def test_thoughts_are_left_out(text: str) -> None:
    assert cleaned(text) == THOUGHTS[text]


@pytest.mark.parametrize("text", MARKUP)
def test_markup_is_left_out(text: str) -> None:
    assert cleaned(text) == MARKUP[text]


@pytest.mark.parametrize("text", KEPT)
def test_what_only_looks_like_markup_stays(text: str) -> None:
    assert cleaned(text) == text
    assert cleaned(f"{text}\n{text} ") == f"{text}\n{text} "


def test_items_headings_and_rows_are_sentences() -> None:
    text = "## Ours\nWe have:\n- Helmets\n- Gloves\n\n| A | B |\n|--|--|\n| 1 | 2 |\nThat is all."
    assert split_text(cleaned(text)) == ["Ours", "We have:", "Helmets", "Gloves", "A, B", "1, 2", "That is all."]


def test_what_is_left_out_can_be_chosen() -> None:
    text = "<think>no</think>**Hi** 😀 https://a.example/b <break/>"
    assert cleaned(text, Cleaning(urls="keep")) == "Hi https://a.example/b"
    assert cleaned(text, Cleaning(urls="a link")) == "Hi a link"
    assert cleaned(text, Cleaning(urls="")) == "Hi"
    assert cleaned(text, Cleaning(keeps_emoji=True)) == "Hi 😀 a.example"
    assert cleaned(text, Cleaning(kept_tags=("break",))) == "Hi a.example <break/>"
    assert cleaned(text, Cleaning(markup=False)) == "**Hi** 😀 https://a.example/b <break/>"
    assert cleaned(text, Cleaning(thoughts=False)) == "noHi a.example"
    assert cleaned(text, AS_WRITTEN) == text
    with pytest.raises(ConfigurationError, match="no name of a tag"):
        Cleaning(kept_tags=("<break/>",))


def test_one_text_after_the_other_may_be_cleaned() -> None:
    cleaner = TextCleaner()
    assert cleaner.feed("**Hi <think>") + cleaner.flush() == "Hi "
    assert cleaner.feed("**you**") + cleaner.flush() == "you"


@pytest.mark.parametrize("kind", ["word ", "*", "[", "<a ", "`x", "<think>", "https://a.", "| a ", "- [", "~~", "&a"])
def test_the_work_grows_as_the_text_does(kind: str) -> None:
    short, long = (calls_made(TextCleaner().feed, (kind * 4000)[:size]) for size in (1000, 4000))
    assert long < 6 * short
    assert long < 200 * 4000


def test_plain_text_is_not_held() -> None:
    cleaner = TextCleaner()
    assert [cleaner.feed(token) for token in ("We", " open", " at", " nine.", " Come")] == [
        "We", " open", " at", " nine.", " Come",
    ]  # fmt: skip


# -- in any pieces ---------------------------------------------------------------------------------------------

MARKS = [
    *"abcX .!?\n\n,*_`~[]()<>|#&;:\\-+=123\t", "**", "__", "```", "~~", "https://", "www.", "a.b", "](", "[x](y)",
    "<b>", "</b>", "<br/>", "| a | b |\n", "|---|\n", "- ", "1. ", "# ", "## A ##\n", "> ", "😀", "\ufe0f", "\u200d",
    "&amp;", "&nbsp;", "\r\n", "ht", "http", "<a href='", "<!--", "-->", "<|x|>", "x@y.z", "![", "* * *\n", "---\n",
    "中文", "    ", "w", "<think>", "</think>", "<thi", "nk>", "[THINK]", "◁", "\"", "'", "/>",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(MARKS), max_size=50).map("".join)
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=8)
CLEANINGS = st.sampled_from([Cleaning(), Cleaning(urls="keep", keeps_emoji=True), Cleaning(urls="", kept_tags=("b",))])


def in_pieces(text: str, sizes: list[int], cleaning: Cleaning) -> str:
    cleaner, out, at, turn = TextCleaner(cleaning), "", 0, 0
    while at < len(text):
        size, turn = sizes[turn % len(sizes)], turn + 1
        out, at = out + cleaner.feed(text[at : at + size]), at + size
    return out + cleaner.flush()


@settings(max_examples=80, deadline=None)
@given(TEXTS, SIZES, CLEANINGS)
def test_in_whatever_pieces_it_comes_the_same_is_said(text: str, sizes: list[int], cleaning: Cleaning) -> None:
    assert in_pieces(text, sizes, cleaning) == cleaned(text, cleaning)


@settings(max_examples=60, deadline=None)
@given(st.text("abcäß我ก .,!?:;'\"()%$€0123\n"), SIZES)
def test_text_without_markup_stays_as_it_is(text: str, sizes: list[int]) -> None:
    assert in_pieces(text, sizes, Cleaning()) == text


@settings(max_examples=60, deadline=None)
@given(
    TEXTS, TEXTS.filter(lambda text: "</think>" not in text.lower() and "◁/" not in text and "[/" not in text), SIZES
)
def test_no_thought_is_ever_said(before: str, thought: str, sizes: list[int]) -> None:
    said = in_pieces(f"{before}</think><think>SECRET{thought}SECRET</think>", sizes, Cleaning())
    assert "SECRET" not in said
