"""Words of a text, as intent and retrieval look at them."""

from __future__ import annotations

import re
import unicodedata

MAX_TEXT = 2000  # characters looked at; what comes after them changes no answer
_REMARK = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")  # "(unclear)": a recogniser's remark, not speech
_NO_WORD = re.compile(r"[^\w\s]|_")

# Words that say how something is asked, hardly what about. Without the apostrophe, as `normalised` leaves them.
FUNCTION_WORDS = frozenset(
    # As a text, because a list of 150 quoted words reads worse.
    """
    a about also am an and any anything are arent as at be been but buy by can cant could did do does doesnt doing
    dont else for from get give got had has have having he her here hers him his how i id if ill im in into is isnt
    it its ive just let like long many may me might mine much must my need no not of off oh ok okay on onto or our
    ours out over own please sell shall she should so some something such tell than that thats the their them then
    there theres these they this those to too uh um upon us very want was we well were what whats when whens where
    wheres which while who whom whose why will with wont would yes yet you youd your youre yours
    """.split()  # noqa: SIM905
)


def normalised(text: str) -> str:
    """`text` as its bare words: lower case, no punctuation, no remarks of the recogniser, single spaces."""
    text = unicodedata.normalize("NFKC", text[:MAX_TEXT]).casefold().replace("\u2019", "'")
    text = _REMARK.sub(" ", text).replace("'", "")
    return " ".join(_NO_WORD.sub(" ", text).split())
