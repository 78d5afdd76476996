"""The splitter: sentences of the world's scripts, whatever the pieces in which the text comes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leibniz_voice.pipeline.text.sentences import (
    LOOK_AHEAD,
    MAX_CHARS,
    SentenceStream,
    has_sentence,
    spans,
    split_text,
    take_sentences,
)
from tests.support.work import calls_made

WHOLE = """
We open at 9 a.m. on Monday.
We open at 9 a.m. Monday and at 10 a.m. Sunday.
In the U.S. we ship free.
The U.S. Senate voted.
On Jan. 5 we are closed.
She has a Ph.D. in physics.
See Fig. 3 and vol. 2 there.
Ask for No. 5, pp. 3 and 4, or Sec. 2.
Mr. Hill, Mrs. Hill and Dr. No met Prof. Smith at St. Louis.
We sell parts, e.g. brakes, i.e. Shimano ones, etc. and more.
J. R. R. Tolkien and George W. Bush met J. Doe.
Ask Inc. owners of Acme Ltd. in the D.C. area.
It takes approx. 5 min. on foot.
Version 2.0.1 costs 3.50 or 1.000.000 at v. 2.
See https://a.example/b.html?c=1.5&d=e. or mail first.last@mail.example.org now.
Wait... what was that... again?
"Really?" he asked, and "Stop!" she said.
He (cf. above) left (approx. at nine) etc., as we know.
Das sind z.B. drei, d.h. wenige, z. B. Äpfel, u.a. Birnen bzw. Obst.
Am 3. Oktober und am 24. Dezember ist zu.
Im 19. Jahrhundert und der 2. Versuch, wie der 14. war.
Am 3. 10. 2024 und am 3.10. um acht.
Es ist Nr. 5 in der Hauptstr. 7, Tel. 030 12, Abb. 3, S. 12.
Das ist evtl. möglich, ggf. auch inkl. Versand für ca. 5 Mio. Euro.
Fr. Müller und Hr. Meier wohnen am Hbf. München.
El Sr. López y la Sra. Ruiz vienen con la Dra. Gil a las 9 a.m. mañana.
Está en la pág. 5, núm. 3, aprox. 2 km de Ud. y de EE.UU. también.
M. Dupont, Mme Petit et Mlle. Roux habitent bd. Voltaire, p. ex. ici, c.-à-d. au 3.
Le 5 janv. 2024 et l'art. 3, etc. ou non.
Il sig. Rossi, la sig.ra Verdi e il dott. Bianchi, ecc. sono qui.
O Sr. Silva e a Sra. Costa moram na Av. 5 com o Dr. Reis, p. ex. hoje.
Dhr. Jansen en mevr. de Vries komen bijv. morgen, d.w.z. niet nu, a.u.b. op tijd.
Mr Hill pays $3.50 (no. 7) in 2.5 h.
डॉ. शर्मा रु. 500 देते हैं।
В 2024 г. и т.д. на ул. Ленина, т.е. там.
""".strip().splitlines()

SPLIT = {
    "We open at 9 a.m. Please come early.": 2,
    "We open at 9 a.m.": 1,
    "She lives in the U.S. He does not.": 2,
    "We have bells, etc. Bikes cost 900. Ok?": 3,
    "Hello. It costs 3.50 at Dr. Hill's! Really?  Yes": 4,
    "He said no. I left. It was mine. Then 5 men came. So do I. We go.": 6,
    'He said "no." I left. (He stayed.) She did too.': 4,
    "It costs 5. The rest is free. 7 are left.": 3,
    "I am Sam. Nice to meet you, Max. Plan B. It works.": 4,
    "It weighs 5 kg. Lift it. Then 3 h. Rest.": 4,
    "hey there. we open at nine. come early": 3,
    "What?! Really!! Yes... No… Well.": 5,
    "The bike (see p. 5). The bell [new]. Ok": 3,
    "Wir haben 5. Das reicht. Er kam am 3. Wir nicht.": 4,
    "„Ja.“ Er ging. »Nein.« Sie blieb. ‚Gut.‘ Ende.": 6,
    "Il dit : « Oui. » Puis il part. Vraiment ? Oui !": 4,
    "« Oui ! » dit-il. L'hôtel est là, etc. L'addition.": 3,
    "¿Qué tal? ¡Hola! Adiós.": 3,
    "Это я. Мы тут. Он сказал «Да». Потом ушёл.": 4,
    "नमस्ते। हम खुले हैं। धन्यवाद।": 3,
    "আমরা খোলা। ধন্যবাদ॥ আসুন।": 3,
    "ہم کھلتے ہیں۔ شکریہ۔ کیا؟ جی۔": 4,
    "نحن هنا. هل أنت هنا؟ نعم!": 3,
    "אנחנו כאן. איפה אתה? בוא!": 3,
    "Բարեւ։ Լավ եմ։": 2,
    "Բարեւ: Լավ եմ:": 2,
    "សួស្តី។ អរគុណ។ ចប់៕": 3,
    "ሰላም። እንዴት ነህ፧ ደህና፡፡ ቻው።": 4,
    "မင်္ဂလာပါ။ ကျေးဇူး၊ ဟုတ်။": 2,
    "བཀྲ་ཤིས། བདེ་ལེགས། །": 2,
    "ᠮᠣᠩᠭᠣᠯ᠃ ᠦᠰᠦᠭ᠃": 2,
    "Τι κάνεις; Καλά. Εσύ;": 3,
    "他说：“好的。”然后走了。再见。": 2,
    "他说:\"好的。\"然后走了。再见。": 2,
    "“好的。”“再见。”完": 2,
    "我们开门。请进！真的吗？！好……吧｡完": 5,
    "你好!我们九点开门.请进.": 3,
    "（好。）再见。《书》。": 3,
    "「はい。」と言った。『次です！』ほんと？": 2,
    "３．５キロです。はい。": 2,
    "안녕하세요. 열려 있습니다. 네!": 3,
    "Here:\n1. Helmets\n2. Gloves\nThat is all.": 4,
    "Here:\r\n- Helmets\r\n- Gloves\r\n\r\nThat is all.": 4,
    "We have: 1. Helmets 2. Gloves 3. Bells": 4,
    "1) Helmets\n2) Gloves\n  with fur\n3) Bells": 3,
    "a) Helmets\nb) Gloves\n• Bells\n* Locks": 4,
    "A. Helmets\nB. Gloves\nC. J. Smith": 3,
    "We open\nat nine. Please\ncome": 2,
    "A heading\n\nA text\u2029Another": 3,
    "Hello.\nWorld etc.\nAgain": 3,
}  # fmt: skip


@pytest.mark.parametrize("text", WHOLE)
def test_abbreviations_initials_ordinals_and_addresses_end_no_sentence(text: str) -> None:
    assert split_text(text) == [text]


@pytest.mark.parametrize("text", SPLIT)
def test_a_sentence_ends_at_the_stops_of_its_script(text: str) -> None:
    found = split_text(text)
    assert len(found) == SPLIT[text], found
    assert not [part for part in found if part[0] in "”’」』）)]。.!?"]


def test_the_number_of_an_item_stays_with_it() -> None:
    text = "Here:\n1. Helmets\n2. Gloves\nThat is all."
    assert split_text(text) == ["Here:", "1. Helmets", "2. Gloves", "That is all."]


def test_the_first_sentence_comes_as_soon_as_it_is_known() -> None:
    for text, least in (("हम नौ बजे खुलते हैं। आइए।", 21), ("我们九点开门。请进。", 8), ("We open at nine. Come", 18)):
        stream = SentenceStream()
        assert next(number for number, letter in enumerate(text, 1) if stream.feed(letter)) == least


def test_words_without_any_stop_are_cut_at_a_blank() -> None:
    thai = "เราเปิดให้บริการทุกวันจันทร์ถึงวันศุกร์ตั้งแต่เก้าโมงเช้า ถึงหกโมงเย็น ปิดวันอาทิตย์"
    assert len(split_text(thai)) == 2


# -- too long --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("comma", [", ", "，", "、", "، ", "፣", "၊", "; ", "；", " – "])
def test_a_sentence_too_long_is_cut_behind_a_comma_of_its_script(comma: str) -> None:
    text = comma.join(["word" * 5] * 40)
    pieces = split_text(text)
    assert all(piece.endswith(comma.strip()) for piece in pieces[:-1])
    assert max(map(len, pieces)) <= MAX_CHARS


@pytest.mark.parametrize("unit", ["👨‍👩‍👧", "🇩🇪", "e\u0301\u0323", "👍🏽", "क्षि", "ที่", "각", "\ud83d\ude00"])
def test_no_character_is_cut_in_two(unit: str) -> None:
    for before in range(4):
        pieces = split_text("x" * before + unit * 60, max_chars=20)
        assert max(map(len, pieces)) <= 20
        assert all(piece.lstrip("x").replace(unit, "") == "" for piece in pieces)


def test_a_piece_is_never_longer_than_the_limit_and_no_word_is_lost() -> None:
    text = "one, two three four; five six seven eight nine ten eleven twelve " * 9 + "x" * 100
    pieces = split_text(text, max_chars=40)
    assert max(map(len, pieces)) <= 40
    assert "".join("".join(pieces).split()) == "".join(text.split())


# -- while it grows --------------------------------------------------------------------------------------------

MARKS = [
    *"abcAIM .!?…\n,;:\"'()«»“”„ 123-*\r\t", "。", "！", "「", "」", "，", "।", "៕", "Mr.", "e.g.", "a.m.", "No.", "3.",
    "Oktober", "the ", "We ", "Jan. ", "ก", "ข", "།", "\u1361", "α;", "Ա:", "\u0301", "👨‍👩‍👧", "🇩🇪", "1. ", "- ",
    "L'h", " " * 70, "\n\n\n", "x" * 25, "．", "क्ष", "a)", " 5 kg. ",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(MARKS), max_size=60).map("".join)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.lists(st.integers(1, 40), min_size=1, max_size=8), st.sampled_from([20, 33, 300]))
def test_in_whatever_pieces_it_comes_the_sentences_are_the_same(text: str, sizes: list[int], limit: int) -> None:
    whole, places = split_text(text, max_chars=limit), spans(text, max_chars=limit)
    stream, taken, given_out, rest, at, turn = SentenceStream(max_chars=limit), [], [], "", 0, 0
    while at < len(text):
        size, turn = sizes[turn % len(sizes)], turn + 1
        given_out += stream.feed_spans(text[at : at + size])
        sentences, rest = take_sentences(rest + text[at : at + size], max_chars=limit)
        taken, at = taken + sentences, at + size
        assert len(stream.rest) <= limit + 3 * LOOK_AHEAD + size
    assert given_out + stream.flush_spans() == places
    assert taken + split_text(rest, max_chars=limit) == whole
    assert [" ".join(text[start:end].split()) for start, end in places] == whole
    assert all(0 < len(sentence) <= limit for sentence in whole)
    edges = [0, *(edge for place in places for edge in place), len(text)]
    assert not any(text[start:end].strip() for start, end in list(pairwise(edges))[::2])  # nothing is lost


@pytest.mark.parametrize("kind", ["word ", "a sentence. ", "Dr. ", "。", "\n", " ", "!", "x", "1. "])
def test_the_work_grows_as_the_text_does(kind: str) -> None:
    short, long = (calls_made(SentenceStream().feed, (kind * 2000)[:size]) for size in (500, 2000))
    assert long < 5.5 * short
    assert long < 100 * 2000


def test_a_text_that_never_ends_is_not_held() -> None:
    for kind in ("word ", "x", " ", "!", "\n", "Dr. ", "\u0301", "a.b", "क्"):
        stream = SentenceStream()
        assert max(len(stream.rest) for _ in range(1500) if stream.feed(kind) or True) <= MAX_CHARS + 3 * LOOK_AHEAD


def test_a_growing_text_has_a_sentence_once_something_follows_it() -> None:
    assert not has_sentence("It costs 900.")
    assert not has_sentence("We saw Dr. Hill")
    assert has_sentence("It costs 900. Che")
    assert take_sentences("One. Two") == (["One."], " Two")
    assert split_text(" \n ") == []
