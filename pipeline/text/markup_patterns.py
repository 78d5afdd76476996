"""The patterns of Markdown, HTML, web addresses and emoji, and of their beginnings: data.

Each bound (`{0,200}`) is how much of a text is held at most until it is known what it is.
"""

from __future__ import annotations

import re

# -- at the beginning of a line --------------------------------------------------------------------------------

FENCE = re.compile(r"(`{3,64}|~{3,64})[^`~\n\r]{0,60}(?:\r?\n|\Z)")
HEADING = re.compile(r"#{1,6}(?:[ \t]+|(?=[\r\n])|\Z)")
QUOTE = re.compile(r">(?:[ \t]|(?=[>\r\n])|\Z)")
BULLET = re.compile(r"[-*+•‣◦▪●][ \t]{1,8}(?:\[[ xX]\][ \t]{1,8})?")
RULE = re.compile(r"(?=(?:[^-*_=|\r\n]*[-*_=|]){3})[-*_=|:+ \t]{3,300}(?:\r?\n|\Z)")  # a table's, too
LINE_MAY_BE = re.compile(  # what a line may go on as, when no more of it is there
    r"`{1,2}|~{1,2}|(?:`{3,64}|~{3,64})[^`~\n\r]{0,60}\r?|#{1,6}|>"
    r"|[-*+•‣◦▪●](?:[ \t]{1,8}(?:\[(?:[ xX]\]?[ \t]{0,8})?)?)?"
    r"|[-*_=|:+ \t]{1,300}\r?"
)
LINE_MARKS = "`~#>-*+•‣◦▪●_=|:"

# -- within a line ---------------------------------------------------------------------------------------------

LABEL = re.compile(r"\[((?:[^\[\]\\\n]|\\[^\n]|!?\[(?:[^\[\]\\\n]|\\[^\n])*\](?:\([^()\s]*\))?)*)\]")
_ADDRESS = r"(?:[^\s<>()]|\([^\s<>()]*\))*"
_TITLE = r"\"[^\"\n]*\"|'[^'\n]*'|\([^()\n]*\)"
TARGET = re.compile(
    rf"\([ \t]*(?:<[^<>\n]*>|{_ADDRESS})(?:[ \t]+(?:{_TITLE}))?[ \t]*\)"
    r"|\[[^\[\]\n]{0,80}\]"
)
TARGET_MAY_BE = re.compile(
    rf"\([ \t]*(?:<[^<>\n]*>?|{_ADDRESS}(?:\([^\s<>()]*)?)"
    rf"(?:[ \t]+(?:\"[^\"\n]*\"?|'[^'\n]*'?|\([^()\n]*\)?)?)?[ \t]*"
    r"|\[[^\[\]\n]{0,80}"
)
MAX_LABEL, MAX_TARGET = 300, 2048

_NAME = r"[a-zA-Z][\w:-]{0,40}"
_ATTRIBUTE = r"\s+[\w:@.-]+\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>=`]+)"
TAG = re.compile(rf"<(/?)({_NAME})(?:{_ATTRIBUTE})*\s*/?>|<!--.*?-->|<![a-zA-Z][^<>]*>|<\|[\w ]{{1,40}}\|>", re.DOTALL)
TAG_MAY_BE = re.compile(
    rf"</?(?:{_NAME}(?:{_ATTRIBUTE})*"
    r"(?:\s+(?:[\w:@.-]+(?:\s*(?:=\s*(?:\"[^\"<>]*|'[^'<>]*|[^\s\"'<>=`]*)?)?)?)?)?/?)?"
    r"|<!-?|<!--.*|<![a-zA-Z][^<>]*|<\|[\w ]{0,40}\|?",
    re.DOTALL,
)
MAX_TAG = 400
AUTOLINK = re.compile(r"<([a-zA-Z][a-zA-Z0-9+.-]{1,20}:[^\s<>]{1,2000}|[\w.+-]{1,64}@[\w.-]{1,200})>")
AUTOLINK_MAY_BE = re.compile(r"<(?:[a-zA-Z][a-zA-Z0-9+.-]{0,20}(?::[^\s<>]{0,2000})?|[\w.+-]{1,64}(?:@[\w.-]{0,200})?)")
_BREAKING = "br p div li ul ol tr table h1 h2 h3 h4 h5 h6 hr section article header footer dt dd"
_INLINE = """
    a abbr b bdi bdo big cite code del dfn em font i img ins kbd mark q s samp small span strike strong sub sup time u
    var td th tbody thead button label speak break emphasis prosody phoneme voice audio
"""
BREAKING_TAGS = frozenset(_BREAKING.split())  # what is behind one is another line
KNOWN_TAGS = frozenset(_INLINE.split()) | BREAKING_TAGS

ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
ENTITY_MAY_BE = re.compile(r"&(?:#[xX]?[0-9a-fA-F]{0,7}|[a-zA-Z][a-zA-Z0-9]{0,31})?")

URL = re.compile(r"(?:(?:https?|ftp)://|www\.)[A-Za-z0-9À-ɏͰ-ӿ._~:/?#@!$&'()+,;=%\[\]-]*", re.IGNORECASE)
URL_BEGINS = re.compile(r"(?:(?:https?|ftp)://|www\.)", re.IGNORECASE)
URL_MAY_BE = re.compile(r"https?:?/?|htt?|h|ftp:?/?|ft?|www?|w", re.IGNORECASE)  # may be nothing of the kind, too
URL_TAIL = re.compile(r"[.,;:!?'\"_~\]]+\Z")
HOST = re.compile(r"(?:[a-zA-Z]+://)?(?:[^/@\s]*@)?(?:www\.)?([^/:?#\s]*)", re.IGNORECASE)
MAX_URL = 2048

STAR = re.compile(r"\*(?=\S)(?:[^*\n]|\*\*){1,200}?(?<=\S)\*(?![A-Za-z0-9*])")
UNDERSCORE = re.compile(r"_(?=\S)(?:[^_\n]|(?<=\w)_(?=\w)){1,200}?(?<=\S)_(?!\w)")
UNDERSCORES = re.compile(r"__(?=\S)(?:[^_\n]|(?<!_)_(?!_)){1,200}?(?<=\S)__(?!\w)")
STRUCK = re.compile(r"~~(?=\S)[^~\n]{1,200}(?<=\S)~~")
MAX_EMPHASIS = 204

# Emoji, with the signs that only a picture font shows. Stars stay, as they rate; sharps and flats; numbers in circles.
EMOJI = (
    "\u2139\u2194-\u2199\u21a9\u21aa\u231a\u231b\u23e9-\u23f3\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u2604\u2607-\u266c\u2670-\u2775\u2794-\u27bf\u2934\u2935\u2b05-\u2b07"
    "\u2b1b\u2b1c\u2b50\u2b55\ufe0f\u20e3\U0001f000-\U0001f0ff\U0001f170-\U0001f1ff\U0001f201-\U0001faff"
    "\U000e0020-\U000e007f"
)
EMOJIS = re.compile(f"[{EMOJI}]+")

_ANYWHERE = r"[\\`*_~\[!<&|#\n\r\u200d"
WITH_EMOJI = re.compile(rf"{_ANYWHERE}{EMOJI}]|(?<![\w@/.]){URL_BEGINS.pattern}", re.IGNORECASE)
WITHOUT_EMOJI = re.compile(rf"{_ANYWHERE}]|(?<![\w@/.]){URL_BEGINS.pattern}", re.IGNORECASE)
URL_END = re.compile(rf"(?<![\w@/.])(?:{URL_MAY_BE.pattern})\Z", re.IGNORECASE)
