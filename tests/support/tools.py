"""What a test needs of the machine: `@needs("sox")`; where that is missing, the test is skipped and says so.

LEIBNIZ_CI names tools by the same words, and tests/conftest.py makes such a skip a failure.
"""

from __future__ import annotations

import importlib.util
import shutil
from functools import cache

import pytest

OTHER_NAMES = {"chromium": ("chromium", "chromium-browser", "google-chrome")}  # tool -> what its command may be called
PACKAGES = {  # tool -> the package that is imported for it
    "cloud": "deepgram",  # of the extra `cloud` what the tests use
    "espeakng_loader": "espeakng_loader",
    "playwright": "playwright",
    "pocketsphinx": "pocketsphinx",
}

HINTS = {"redis": "install leibniz-voice[embedded], or redis-server", "cloud": "install leibniz-voice[cloud]"}


@cache
def command_of(tool: str) -> str | None:
    """Return the path of a tool's command, if it is here."""
    return next(filter(None, map(shutil.which, OTHER_NAMES.get(tool, (tool,)))), None)


@cache
def is_here(tool: str) -> bool:
    """Say whether this machine has a tool: a command on the PATH, a package, or "redis", a server of our own."""
    if tool == "redis":
        from leibniz_voice.transports.state.embedded_redis import find_server

        return find_server() is not None
    if tool in PACKAGES:
        return importlib.util.find_spec(PACKAGES[tool]) is not None
    return command_of(tool) is not None


def needs(*tools: str) -> pytest.MarkDecorator:
    """Return the marker that skips a test where one of these is missing."""
    missing = [tool for tool in tools if not is_here(tool)]
    named = [f"{tool} ({HINTS[tool]})" if tool in HINTS else tool for tool in missing]
    return pytest.mark.skipif(bool(missing), reason=f"needs {' and '.join(named)}")
