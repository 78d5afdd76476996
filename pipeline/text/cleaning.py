"""What of a text is said and remembered: without the model's thoughts, without markup.

    cleaned("<think>He wants a price.</think> **Bikes** cost 900.")     "Bikes cost 900."

A text that grows goes through a `TextCleaner`, which gives the same in whatever pieces it comes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigurationError
from .markup import Markup
from .thoughts import Thoughts


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """What is left out. Raises `ConfigurationError` for a tag that is no name."""

    thoughts: bool = True  # <think>...</think> and the like, also one that is never closed
    markup: bool = True  # Markdown, HTML, emoji, and blocks of code with all that is in them
    urls: str = "host"  # of a web address the "host" is said, "keep": all of it, or else this word; "" for nothing
    keeps_emoji: bool = False
    kept_tags: tuple[str, ...] = ()  # names of tags that stay, such as a voice's own

    def __post_init__(self) -> None:
        for tag in self.kept_tags:
            if not tag.replace("-", "").replace("_", "").replace(":", "").isalnum():
                raise ConfigurationError(f"{tag!r} is no name of a tag; write it without < and >")


CLEAN = Cleaning()  # what is done where nothing else is wanted
AS_WRITTEN = Cleaning(thoughts=False, markup=False)  # nothing is
CLEANED = "leibniz_cleaned"  # in the metadata of a frame whose text is cleaned already


class TextCleaner:
    """Cleans one text after the other, each while it grows."""

    def __init__(self, cleaning: Cleaning = CLEAN) -> None:
        markup = Markup(urls=cleaning.urls, keeps_emoji=cleaning.keeps_emoji, kept_tags=cleaning.kept_tags)
        self._thoughts = Thoughts() if cleaning.thoughts else None
        self._markup = markup if cleaning.markup else None

    def feed(self, text: str) -> str:
        """Take more of the text; return what of it is said."""
        if self._thoughts is not None:
            text = self._thoughts.feed(text)
        return text if self._markup is None or not text else self._markup.feed(text)

    def flush(self) -> str:
        """The text is over: return what was held of it. Afterwards the next one may be fed."""
        rest = self._thoughts.flush() if self._thoughts is not None else ""
        return rest if self._markup is None else self._markup.feed(rest) + self._markup.flush()


def cleaned(text: str, cleaning: Cleaning = CLEAN) -> str:
    """Return what of a whole text is said."""
    cleaner = TextCleaner(cleaning)
    return cleaner.feed(text) + cleaner.flush()
