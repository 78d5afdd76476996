"""Text into sentences, while it grows: the one splitter of voice, resume and retrieval. Pure.

    stream = SentenceStream()
    stream.feed("We open at 9 a.m. on Mon")     []
    stream.feed("day. Ple")                     ["We open at 9 a.m. on Monday."]
    stream.flush()                              ["Ple"]

Fed in any pieces it gives the same sentences, because a mark is judged only when enough of what follows is known: the
next letter for most, the next word behind an abbreviation or a number. What is held is at most one sentence of
`max_chars` and three times `LOOK_AHEAD` characters.

A sentence ends at a stop of any script, with the quotes and brackets that close behind it; at an empty line; at a line
break before or behind an item of a list, or behind a colon. Of the full stop see `full_stop`. Thai and Lao, which have
no stop, are cut at a blank from 40 characters on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .cutting import cut_before
from .full_stop import FullStop, Next
from .marks import (
    CLOSERS,
    LINE_BREAKS,
    NO_STOPS,
    OPENING_QUOTES,
    SPACED_STOPS,
    STOPS,
    STRAIGHT_QUOTES,
    UNSPACED,
    WIDE_DOTS,
)

MAX_CHARS = 300  # of a piece: about 20 s of speech, 20 ms of synthesis, 600 kB of audio
LOOK_AHEAD = 64  # characters that are awaited behind a mark
_UNSTOPPED = 40  # characters, from which on Thai is cut at a blank

_WORD_SPACE = "\u1361"  # Ethiopic; two of them are a full stop
_SHADS = "\u0f0d\u0f0e"  # Tibetan; often one, a blank, and another
_SHAD_AGAIN = re.compile(rf"\s[{_SHADS}]")
_WAIT, _NO = -1, 0  # verdicts: more must be known; no end. Else: where the sentence ends
_STOPS, _CLOSERS = re.escape(STOPS), re.escape(CLOSERS)
_CANDIDATE = re.compile(
    rf"[{_STOPS}{re.escape(SPACED_STOPS)}{LINE_BREAKS}{_WORD_SPACE}]"
    rf"|(?<=[\u0370-\u03ff\u1f00-\u1fff]);"  # the Greek question mark
    rf"|(?<=[\u0531-\u0587]):"  # as the Armenian full stop is often typed
    rf"|(?<=[{NO_STOPS}])[ \u00a0\u200b]"
)
_STOP_TAIL = re.compile(rf"[{_STOPS}{re.escape(SPACED_STOPS)}{_CLOSERS}{_WORD_SPACE}]*")
_SPACED_TAIL = re.compile(
    rf"[{_STOPS}{re.escape(SPACED_STOPS)};:]+[{_CLOSERS}{STRAIGHT_QUOTES}{OPENING_QUOTES}{re.escape(SPACED_STOPS)}]*"
)
_QUOTES = CLOSERS + STRAIGHT_QUOTES + OPENING_QUOTES
_SPEECH_ENDS = "”’»›」』\uff63" + STRAIGHT_QUOTES
_APOSTROPHES = ("'", "’")
_CONTENT = re.compile(r"[^\W_]")
_BLANKS = re.compile(r"\s*")
_BREAK = re.compile(rf"\r\n|[{LINE_BREAKS}]")
_OPENING = re.compile(r"[\s\"'“”„‚‘«»‹›(\[{¿¡*_]*")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_BULLETS = "-*+•‣◦▪●·○■□✓✔►➤–—"
_MARKER = re.compile(rf"(?:[{_BULLETS}]|\(?(?:\d{{1,3}}|[ivxIVX]{{1,4}})[.)]|\(?[a-zA-Z]\))[ \t\u00a0]+")
_MARKER_BEGINS = re.compile(rf"(?:[{_BULLETS}]|\(?(?:\d{{0,3}}|[ivxIVX]{{0,4}}|[a-zA-Z])[.)]?)[ \t\u00a0]*")
_LETTERED = re.compile(r"([a-zA-Z])\.[ \t\u00a0]")
_UNSPACED_LETTER = re.compile(rf"[{UNSPACED}]")
_THAI_BLANKS = re.compile(r"[ \u00a0\u200b]*")
_NO_STOP_LETTER = re.compile(rf"[{NO_STOPS}]")


def split_text(text: str, *, max_chars: int = MAX_CHARS) -> list[str]:
    """Return the sentences of `text`, stripped, none empty, none longer than `max_chars` (at least 20).

    A sentence that is too long is cut after a comma or the like, else at a blank, else hard.
    """
    return [plain(text[start:end]) for start, end in spans(text, max_chars=max_chars)]


def spans(text: str, *, max_chars: int = MAX_CHARS) -> list[tuple[int, int]]:
    """Where each sentence of `split_text` begins and ends in `text`; only blanks are between them."""
    stream = SentenceStream(max_chars=max_chars)
    return [*stream.feed_spans(text), *stream.flush_spans()]


def has_sentence(text: str) -> bool:
    """Whether a text that is still growing holds a whole sentence."""
    return bool(take_sentences(text)[0])


def take_sentences(text: str, *, max_chars: int = MAX_CHARS) -> tuple[list[str], str]:
    """Return the whole sentences at the front of a text that is still growing, and the rest with its blanks."""
    stream = SentenceStream(max_chars=max_chars)
    return stream.feed(text), stream.rest


def plain(text: str) -> str:
    """With single blanks between the words, none around them."""
    return " ".join(text.split())


class SentenceStream:
    """Cuts a text that grows; `max_chars` as for `split_text`."""

    def __init__(self, *, max_chars: int = MAX_CHARS) -> None:
        self._max_chars = max_chars
        self._text = ""  # fed and not given out
        self._offset = 0  # where that begins in all that was fed
        self._start = 0  # where the next sentence begins in it, blanks before it included
        self._at = 0  # judged up to here

    @property
    def rest(self) -> str:
        """What was fed and is not yet given out."""
        return self._text

    def feed(self, text: str) -> list[str]:
        """Take more of the text; return the sentences that are whole now."""
        return [sentence for _, _, sentence in self._take(text, is_final=False)]

    def flush(self) -> list[str]:
        """The text is over: return what is left of it. Afterwards the next one may be fed."""
        return [sentence for _, _, sentence in self._take("", is_final=True)]

    def feed_spans(self, text: str) -> list[tuple[int, int]]:
        """As `feed`, but where the sentences begin and end in all that was fed."""
        return [(start, end) for start, end, _ in self._take(text, is_final=False)]

    def flush_spans(self) -> list[tuple[int, int]]:
        """As `flush`, with places."""
        return [(start, end) for start, end, _ in self._take("", is_final=True)]

    def _take(self, text: str, *, is_final: bool) -> list[tuple[int, int, str]]:
        self._text += text
        found = [
            (self._offset + start, self._offset + end, plain(self._text[start:end]))
            for start, end in self._sentences(is_final)
        ]
        self._text, self._offset = self._text[self._start :], self._offset + self._start
        self._at, self._start = max(0, self._at - self._start), 0
        return found

    # -- the scan ----------------------------------------------------------------------------------------------

    def _sentences(self, is_final: bool) -> Iterator[tuple[int, int]]:
        """Where the sentences are that are known; afterwards `_start` is behind them."""
        text = self._text
        while True:
            begin = _end_of(_BLANKS, text, self._start)
            if begin == len(text):
                self._start = begin if is_final else max(self._start, begin - LOOK_AHEAD - 1)
                return
            self._at = max(self._at, begin)
            end = self._end(begin, is_final)
            if end == _WAIT and not is_final:
                return
            end = len(text) if end == _WAIT else end
            self._start = self._at = end  # what a cut has left is judged anew
            yield begin, begin + len(text[begin:end].rstrip())

    def _end(self, begin: int, is_final: bool) -> int:
        """Where the sentence that begins at `begin` ends, or `_WAIT`."""
        text, limit = self._text, begin + self._max_chars
        while True:
            found = _CANDIDATE.search(text, self._at, min(limit, len(text)))
            if found is None:
                if len(text) > limit:
                    return cut_before(text, begin, limit)
                self._at = len(text)
                return _WAIT
            self._at = at = found.start()
            verdict, after = self._judge(begin, at, is_final)
            if max(verdict, after) > limit:
                return cut_before(text, begin, limit)
            if verdict != _NO:
                return verdict
            self._at = after

    def _judge(self, begin: int, at: int, is_final: bool) -> tuple[int, int]:
        """(whether and where the sentence ends, where to look on) of the mark at `at`."""
        text, mark = self._text, self._text[at]
        if mark in LINE_BREAKS:
            return self._judge_line(begin, at, is_final)
        if mark in STOPS or mark == _WORD_SPACE:
            return self._judge_stop(begin, at, is_final)
        if mark not in SPACED_STOPS and mark not in ";:":
            return self._judge_blank(begin, at, is_final)
        tail = _end_of(_SPACED_TAIL, text, at)
        if tail == len(text):
            return (_NO if is_final else _WAIT), tail
        if not _CONTENT.search(text, begin, at):
            return _NO, tail
        if not text[tail].isspace():
            is_dot = tail == at + 1 and mark == "." and _UNSPACED_LETTER.match(text, at - 1)
            is_end = (is_dot or text[tail - 1] in "!?") and _UNSPACED_LETTER.match(text, tail)
            return (tail if is_end else _NO), tail
        return self._judge_spaced(begin, at, tail, is_final), tail

    def _judge_stop(self, begin: int, at: int, is_final: bool) -> tuple[int, int]:
        """A stop that needs no blank."""
        text = self._text
        tail = _end_of(_STOP_TAIL, text, at)
        while text[tail : tail + 1] and text[tail] in STRAIGHT_QUOTES and text.count(text[tail], begin, tail) % 2:
            tail = _end_of(_STOP_TAIL, text, tail + 1)
        if text[at] in _SHADS and _SHAD_AGAIN.match(text, tail):
            tail = _end_of(_STOP_TAIL, text, tail + 1)
        if tail == len(text) or (text[at] in _SHADS and tail + 1 == len(text)):
            return (_NO if is_final else _WAIT), tail
        is_one_space = text[at] == _WORD_SPACE and text[at : at + 2] != _WORD_SPACE * 2
        if is_one_space or not _CONTENT.search(text, begin, at):
            return _NO, at + 1
        is_decimal = text[at] in WIDE_DOTS and text[at - 1].isdigit() and text[tail].isdigit()
        is_told = text[tail - 1] in _SPEECH_ENDS and _UNSPACED_LETTER.match(text, tail)  # “好的。”他说
        return (_NO if is_decimal or is_told else tail), tail

    def _judge_spaced(self, begin: int, at: int, tail: int, is_final: bool) -> int:
        """A stop of ASCII that a blank follows, behind `tail`, the quotes and brackets that close."""
        text = self._text
        window = text[tail : tail + LOOK_AHEAD]
        is_whole = is_final or len(window) == LOOK_AHEAD
        blanks = _end_of(_BLANKS, window, 0)
        marks = text[at:tail].rstrip(_QUOTES)
        has_quote = len(marks) < tail - at
        is_loud = any(mark in "!?;:" or mark in STOPS for mark in marks)
        is_quoting = text.count("«", begin, tail) > text.count("»", begin, tail)
        if _is_paragraph(window[:blanks]) or (is_loud and not has_quote and not is_quoting):
            return tail
        if is_quoting and window[blanks : blanks + 1] == "»":
            return self._judge_spaced(begin, at, tail + blanks + 1, is_final)  # as in French, behind a blank
        opened = _end_of(_OPENING, window, blanks)
        if opened == len(window):
            return tail if is_whole else _WAIT
        word = _WORD.match(window, opened)
        word_end = word.end() if word else opened
        following = Next(word[0] if word else "", window[word_end : word_end + 1])
        stop = FullStop.at(text, begin, at)
        if has_quote or marks != ".":
            return _NO if following.is_small and (has_quote or not stop.is_small_style) else tail
        if stop.is_marker:
            return _NO
        is_cut_off = word_end + (following.rest in _APOSTROPHES) >= len(window)
        if stop.needs_word and word and is_cut_off and not is_whole:
            return _WAIT
        if stop.begins_item(text[begin:at]) and following.word and not following.is_number:
            return stop.start
        return tail if stop.ends(following) else _NO

    def _judge_line(self, begin: int, at: int, is_final: bool) -> tuple[int, int]:
        """The break behind a line."""
        text = self._text
        window = text[at : at + LOOK_AHEAD]
        blanks = _end_of(_BLANKS, window, 0)
        is_whole = is_final or len(window) == LOOK_AHEAD
        if _is_paragraph(window[:blanks]) or text[begin:at].rstrip().endswith((":", "\uff1a")):
            return at, at + 1
        if blanks == len(window):
            return (_WAIT if not is_whole else at if len(window) == LOOK_AHEAD else _NO), at + 1
        if _MARKER.match(window, blanks):
            return at, at + 1
        if not is_whole and _MARKER_BEGINS.fullmatch(window, blanks):
            return _WAIT, at + 1
        is_indented = window[blanks - 1] not in LINE_BREAKS
        is_end = self._is_item(begin, at, window[blanks:]) and not is_indented
        return (at if is_end else _NO), at + blanks

    def _is_item(self, begin: int, at: int, next_line: str) -> bool:
        """Whether the line that ends at `at` is an item of a list; one with a letter has another one behind it."""
        text, line = self._text, begin
        for found in _BREAK.finditer(text, begin, at):
            line = _end_of(_BLANKS, text, found.end())
        is_line = line > begin or not 0 < begin - self._start <= LOOK_AHEAD
        if not is_line and not _BREAK.search(text, self._start, begin):
            return False
        lettered, following = _LETTERED.match(text, line, at), _LETTERED.match(next_line)
        is_lettered = lettered and following and ord(following[1]) == ord(lettered[1]) + 1
        return bool(is_lettered or _MARKER.match(text, line, at))

    def _judge_blank(self, begin: int, at: int, is_final: bool) -> tuple[int, int]:
        """A blank behind a letter of Thai or Lao."""
        window = self._text[at : at + LOOK_AHEAD]
        blanks = _end_of(_THAI_BLANKS, window, 0)
        if blanks == len(window):
            return (_NO if is_final or blanks == LOOK_AHEAD else _WAIT), at + 1
        is_end = at - begin >= _UNSTOPPED and _NO_STOP_LETTER.match(window, blanks)
        return (at if is_end else _NO), at + blanks


def _end_of(pattern: re.Pattern[str], text: str, start: int) -> int:
    """Where the match of a pattern that always matches ends."""
    found = pattern.match(text, start)
    return found.end() if found else start


def _is_paragraph(blanks: str) -> bool:
    """Whether blanks hold an empty line."""
    return "\u2029" in blanks or len(_BREAK.findall(blanks)) > 1
