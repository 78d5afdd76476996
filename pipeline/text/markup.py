r"""Takes markup out of a text while it grows: Markdown, HTML, web addresses and emoji. Pure.

    in    ## Prices\n\n**Bike:** 900 euros, see [our page](https://shop.example/p). 😀
    out   Prices\n\nBike: 900 euros, see our page.

Fed in any pieces it gives the same text. What may be markup is held until it is known: how much of it, see
`markup_patterns`.
Items of a list without numbers, headings and rows of a table become paragraphs, so that each is a sentence. What only
looks like markup stays: 3 * 4, a_b, 900*, #1, C#, 2 < 3.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Collection

from . import markup_patterns as p
from .gaps import Gaps

_WAIT = -1  # more must be known
_MAX_RUN = 64  # of one character
_SLICE = 512  # characters that are looked at together
_ESCAPABLE = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_CLOSING_MARKS = re.compile(r"#+[ \t]*(?=\r?\n|\Z)")
_CELL_GAP = re.compile(r"[ \t]*")


class Markup:
    """The filter. `urls` as in `Cleaning`; tags named in `kept_tags` stay."""

    def __init__(self, *, urls: str = "host", keeps_emoji: bool = False, kept_tags: Collection[str] = ()) -> None:
        self._urls = urls
        self._kept_tags = frozenset(kept_tags)
        self._special = p.WITHOUT_EMOJI if keeps_emoji else p.WITH_EMOJI  # where anything may have to be done
        self._marks: dict[str, Callable[[str, int, bool], int]] = {
            "\\": self._escape,
            "`": self._code_mark,
            "*": self._emphasis,
            "_": self._emphasis,
            "~": self._struck,
            "[": self._link,
            "!": self._image,
            "<": self._tag,
            "&": self._entity,
            "|": self._cell,
            "#": self._heading_end,
            "\n": self._line_end,
            "\r": self._line_end,
        }
        self._reset()

    def _reset(self) -> None:
        self._text = ""  # fed and not decided on
        self._out = Gaps()  # what is given out, with the blanks between
        self._before = ""  # the character before `_text`
        self._is_line_start = True  # nothing but blanks and marks of lines was in this line
        self._indent = False  # blanks were
        self._line = ""  # what the line is: "item", "heading" or "row"; "" for text
        self._after_item = False  # the line before was an item
        self._fence = ""  # the mark that ends the block of code; "" outside of one
        self._code = 0  # length of the mark that ends the code in this line; 0 outside
        self._emphases: set[str] = set()  # "*", "**", "_", "__" that are open

    def feed(self, text: str) -> str:
        """Take more of the text; return what of it is said."""
        for start in range(0, len(text), _SLICE):
            self._text += text[start : start + _SLICE]
            self._scan(is_final=False)
        return self._out.taken()

    def flush(self) -> str:
        """The text is over: return what was held. Afterwards the next one may be fed."""
        self._scan(is_final=True)
        rest = self._out.taken(is_final=True)
        self._reset()
        return rest

    def _scan(self, *, is_final: bool) -> None:
        at = 0
        while at < len(self._text):
            if self._fence:
                after = self._in_fence(self._text, at, is_final)
            elif self._is_line_start:
                after = self._line_begin(self._text, at, is_final)
            else:
                after = self._in_line(at, is_final)
            if after == _WAIT:
                break
            if after > at:
                self._before = self._text[after - 1]
            at = after
        self._text = self._text[at:]

    # -- lines -------------------------------------------------------------------------------------------------

    def _in_fence(self, text: str, at: int, is_final: bool) -> int:
        """A line of a block of code is left out."""
        end = text.find("\n", at)
        if end < 0 and not is_final:
            return _WAIT if len(text) - at < 300 else len(text) - 100
        line = text[at : end if end >= 0 else len(text)].strip()
        if line and not line.strip(self._fence[0]) and len(line) >= len(self._fence):
            self._fence, self._is_line_start = "", True
            self._out.paragraph()
        return end + 1 if end >= 0 else len(text)

    def _line_begin(self, text: str, at: int, is_final: bool) -> int:
        mark = text[at]
        if mark in " \t\u00a0":
            self._out.blank(mark)
            self._indent = True
            return at + 1
        if mark in "\r\n":
            self._is_line_start = False
            return at
        if mark in p.LINE_MARKS:
            if not is_final and p.LINE_MAY_BE.fullmatch(text, at):
                return _WAIT
            if found := p.FENCE.match(text, at):
                self._fence = found[1]
                self._out.left_out()
                return found.end()
            if found := p.RULE.match(text, at):
                self._out.left_out()
                self._out.paragraph()
                self._indent, self._line = False, ""
                return found.end()
            if found := p.QUOTE.match(text, at):
                self._out.left_out()
                return found.end()
            after = self._block(text, at)
            if after != at:
                return after
        if self._after_item and not self._indent:
            self._out.paragraph()
        self._is_line_start, self._indent, self._after_item = False, False, False
        return at

    def _block(self, text: str, at: int) -> int:
        """Behind the mark of a heading, an item or a row; `at` if there is none."""
        if found := p.HEADING.match(text, at):
            kind = "heading"
        elif found := p.BULLET.match(text, at):
            kind = "item"
        elif text[at] == "|" and (found := _CELL_GAP.match(text, at + 1)):
            kind = "row"
        else:
            return at
        self._out.paragraph()
        self._line, self._is_line_start, self._indent, self._after_item = kind, False, False, False
        return found.end()

    def _line_end(self, text: str, at: int, is_final: bool) -> int:
        if text[at] == "\r" and at + 1 == len(text) and not is_final:
            return _WAIT
        after = at + 2 if text.startswith("\r\n", at) else at + 1
        if self._line in ("heading", "row"):
            self._out.paragraph()
        self._out.blank(text[at:after])
        if self._before in "\r\n":
            self._emphases.clear()
            self._after_item = False
        self._after_item = self._line == "item" or (self._after_item and self._indent)
        self._line, self._code, self._is_line_start, self._indent = "", 0, True, False
        return after

    # -- within a line -----------------------------------------------------------------------------------------

    def _in_line(self, at: int, is_final: bool) -> int:
        text = self._text
        found = self._special.search(text, at)
        if found is None:
            end = len(text)
            if not is_final and (part := p.URL_END.search(text, max(at, end - 8))) and not self._is_word(part.start()):
                end = part.start()
            self._out.say(text[at:end])
            return end if end > at else _WAIT
        begin = found.start()
        if begin > at:
            self._out.say(text[at:begin])
            return begin
        mark = text[at]
        if self._code and mark not in "`\r\n":
            self._out.say(mark)
            return at + 1
        act = self._marks.get(mark)
        if act is not None:
            return act(text, at, is_final)
        if len(found[0]) > 1:
            return self._literal(text, at) if self._is_word(at) else self._url(text, at, is_final)
        if mark == "\u200d":
            self._out.left_out() if p.EMOJIS.match(self._previous(at)) else self._out.say(mark)
            return at + 1
        self._out.left_out(divides=True)  # an emoji
        return p.EMOJIS.match(text, at).end()  # type: ignore[union-attr]

    def _previous(self, at: int) -> str:
        return self._text[at - 1] if at else self._before

    def _is_word(self, at: int) -> bool:
        """Whether the character before `at` makes an address impossible, if it is no longer in the text."""
        return at == 0 and bool(re.match(r"[\w@/.]", self._before))

    def _literal(self, text: str, at: int, size: int = 1) -> int:
        self._out.say(text[at : at + size])
        return at + size

    def _drop(self, after: int) -> int:
        self._out.left_out()
        return after

    def _escape(self, text: str, at: int, is_final: bool) -> int:
        if at + 1 == len(text):
            return self._literal(text, at) if is_final else _WAIT
        if text[at + 1] in "\r\n":
            return self._drop(at + 1)
        if text[at + 1] in _ESCAPABLE:
            return self._literal(text, at + 1)
        return self._literal(text, at)

    def _code_mark(self, text: str, at: int, is_final: bool) -> int:
        end = _run_end(text, at)
        if end == len(text) and end - at < _MAX_RUN and not is_final:
            return _WAIT
        size = end - at
        if self._code:
            if size != self._code:
                return self._literal(text, at, size)
            self._code = 0
            return self._drop(end)
        if size == 1 and self._previous(at).isalnum() and text[end : end + 1].isalnum():
            return self._literal(text, at)  # for an apostrophe
        self._code = size
        return self._drop(end)

    def _emphasis(self, text: str, at: int, is_final: bool) -> int:
        end = _run_end(text, at)
        if end == len(text) and end - at < _MAX_RUN and not is_final:
            return _WAIT
        run, before, after = text[at:end], self._previous(at), text[end : end + 1]
        may_open, may_close = bool(after.strip()), bool(before.strip())
        is_within = _is_ascii_word(before) and _is_ascii_word(after)
        if may_close and run in self._emphases and not (run[0] == "_" and after.isalnum()):
            self._emphases.discard(run)
            return self._drop(end)
        if run == "***" and may_close and {"*", "**"} & self._emphases:
            self._emphases -= {"*", "**"}
            return self._drop(end)
        if not may_open or is_within or len(run) > 3 or run == "___" or (run[0] == "_" and before.isalnum()):
            return self._literal(text, at, len(run))
        if len(run) > 1 and run[0] == "*":
            self._emphases |= {"**"} if run == "**" else {"*", "**"}
            return self._drop(end)
        return self._single(text, at, run, is_final)

    def _single(self, text: str, at: int, run: str, is_final: bool) -> int:
        """Emphasis that stands alone in many texts, so that its end must be there."""
        pattern = {"*": p.STAR, "_": p.UNDERSCORE, "__": p.UNDERSCORES}[run]
        window = text[at : at + p.MAX_EMPHASIS]
        found = pattern.match(window)
        is_known = "\n" in window or len(window) == p.MAX_EMPHASIS or is_final
        if not is_known and (found is None or found.end() == len(window)):
            return _WAIT
        if found is None or _is_ascii_word(self._previous(at)):
            return self._literal(text, at, len(run))
        self._emphases.add(run)
        return self._drop(at + len(run))

    def _struck(self, text: str, at: int, is_final: bool) -> int:
        """Text that is taken back is left out."""
        end = _run_end(text, at)
        if end == len(text) and end - at < _MAX_RUN and not is_final:
            return _WAIT
        window = text[at : at + p.MAX_EMPHASIS]
        if found := p.STRUCK.match(window):
            return self._drop(at + found.end())
        is_known = end - at != 2 or "\n" in window or len(window) == p.MAX_EMPHASIS or is_final
        return self._literal(text, at, end - at) if is_known else _WAIT

    def _link(self, text: str, at: int, is_final: bool) -> int:
        """A link is its label, which is looked at in turn."""
        label = p.LABEL.match(text, at, at + p.MAX_LABEL)
        if label is None:
            is_known = is_final or len(text) - at >= p.MAX_LABEL or "\n" in text[at:]
            return self._literal(text, at) if is_known else _WAIT
        end = label.end()
        if label[1].startswith("^"):
            return self._drop(end)  # a footnote
        target = p.TARGET.match(text, end, end + p.MAX_TARGET)
        if target is None:
            rest = text[end : end + p.MAX_TARGET]
            may_come = not rest or (len(rest) < p.MAX_TARGET and p.TARGET_MAY_BE.fullmatch(rest))
            return _WAIT if may_come and not is_final else self._literal(text, at)
        self._text = text[:at] + label[1] + text[target.end() :]
        if not label[1].strip():
            self._out.left_out()
        return at

    def _image(self, text: str, at: int, is_final: bool) -> int:
        if at + 1 == len(text) and not is_final:
            return _WAIT
        if not text.startswith("[", at + 1):
            return self._literal(text, at)
        size = len(text)
        after = self._link(text, at + 1, is_final)
        if after == at + 1 and len(self._text) < size:
            self._text = self._text[:at] + self._text[at + 1 :]
            return at
        return after if after == _WAIT else self._literal(text, at)

    def _tag(self, text: str, at: int, is_final: bool) -> int:
        window = text[at : at + p.MAX_URL]
        if found := p.AUTOLINK.match(window):
            address = found[1].removeprefix("mailto:")
            self._text = text[:at] + address + " " * (self._urls == "") + text[at + found.end() :]
            return at if "@" not in address else self._literal(self._text, at, len(address))
        if found := p.TAG.match(window[: p.MAX_TAG]):
            return self._tag_found(text, at, found)
        may_be = (len(window) < p.MAX_TAG and p.TAG_MAY_BE.fullmatch(window)) or p.AUTOLINK_MAY_BE.fullmatch(window)
        return _WAIT if may_be and not is_final else self._literal(text, at)

    def _tag_found(self, text: str, at: int, found: re.Match[str]) -> int:
        name, size = (found[2] or "").lower(), found.end()
        is_word = self._previous(at).isalnum() and not found[1] and name not in p.KNOWN_TAGS
        if name in self._kept_tags or (name and is_word and size == len(name) + 2):  # as in List<String>
            return self._literal(text, at, size)
        self._out.left_out()
        if name in p.BREAKING_TAGS:
            self._out.paragraph() if name != "br" else self._out.blank("\n")
        return at + size

    def _entity(self, text: str, at: int, is_final: bool) -> int:
        if found := p.ENTITY.match(text, at):
            character = html.unescape(found[0])
            if character.isspace():
                self._out.blank(" ")
            else:
                self._out.say(character)
            return found.end()
        return _WAIT if p.ENTITY_MAY_BE.fullmatch(text, at) and not is_final else self._literal(text, at)

    def _cell(self, text: str, at: int, is_final: bool) -> int:
        if self._line != "row":
            return self._literal(text, at)
        after = _CELL_GAP.match(text, at + 1).end()  # type: ignore[union-attr]
        if after == len(text) and not is_final:
            return _WAIT if after - at < 100 else at
        if after < len(text) and text[after] not in "|\r\n":
            self._out.comma()
        return self._drop(after)

    def _heading_end(self, text: str, at: int, is_final: bool) -> int:
        if self._line != "heading" or not self._previous(at).isspace():
            return self._literal(text, at)
        if not is_final and re.fullmatch(r"#+[ \t]*\r?", text[at:]):
            return _WAIT
        found = _CLOSING_MARKS.match(text, at)
        return self._drop(found.end()) if found else self._literal(text, at)

    def _url(self, text: str, at: int, is_final: bool) -> int:
        found = p.URL.match(text, at, at + p.MAX_URL)
        assert found is not None
        if found.end() == len(text) and not is_final and len(found[0]) < p.MAX_URL:
            return _WAIT
        address = _trimmed(found[0])
        host = p.HOST.match(address)
        said = {"host": host[1] if host else "", "keep": address}.get(self._urls, self._urls)
        if said:
            self._out.say(said)
        else:
            self._out.left_out()
        return at + len(address)


def _run_end(text: str, at: int) -> int:
    """Where the run of one character that begins at `at` ends, 64 at most."""
    end = at
    while end < min(len(text), at + _MAX_RUN) and text[end] == text[at]:
        end += 1
    return end


def _is_ascii_word(character: str) -> bool:
    return character.isascii() and character.isalnum()


def _trimmed(address: str) -> str:
    """Without the marks of the sentence that it stands in."""
    while True:
        trimmed = p.URL_TAIL.sub("", address)
        if trimmed.endswith(")") and trimmed.count(")") > trimmed.count("("):
            trimmed = trimmed[:-1]
        if trimmed == address:
            return address
        address = trimmed
