"""Words that keep the speaker company instead of taking the floor."""

from __future__ import annotations

import re

# Listed from the "backchannel" and "continuer" inventories of the Switchboard dialogue-act manual (SWBD-DAMSL, tag b).
_LISTED = "mhm mm hm hmm uh huh uh-huh um umm ah oh okay ok k yeah yep yes right sure aha alright well good great"
BACKCHANNELS = frozenset(_LISTED.split())
_HEARD = "mhm mmm hmm okay yeah yep yes right sure alright oh ah aha um"
SPOKEN = (*_HEARD.split(), "uh huh")  # what a recogniser is to listen for
_WORD = re.compile(r"[\w'-]+")


def words_of(text: str) -> list[str]:
    """Return the lower-case words of `text`."""
    return _WORD.findall(text.lower())


def is_backchannel(text: str, backchannels: frozenset[str] = BACKCHANNELS, most: int = 3) -> bool:
    """Whether `text` has words, at most `most` of them, and all of them are backchannels."""
    words = words_of(text)
    return 0 < len(words) <= most and all(word in backchannels for word in words)
