"""Loads bot scripts, and sets the log up before anything heavy is imported."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from loguru import logger

FORMAT = "<dim>{time:HH:mm:ss.SSS}</dim> <level>{level: <7}</level> {message}"


class UsageError(Exception):
    """Wrong use of a command: one line for the user, exit status 2."""


def set_up_log(level: str = "INFO") -> None:
    """Log to stderr: ours from `level` on, Pipecat's warnings. Local variables (users' words) are never printed."""
    os.environ.setdefault("PIPECAT_LOG_LLM_CONTEXT", "off")
    level = level.upper()
    logger.remove()
    logger.add(
        sys.stderr,
        level=level,
        format=FORMAT,
        diagnose=False,
        backtrace=False,
        filter={"": level, "pipecat": "WARNING" if level != "TRACE" else level},
    )


def load_bot(path: str) -> ModuleType:
    """Import a bot script. Raises `UsageError` if there is none, it fails, or it has no `build`."""
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"{path}: no such file; give a bot script such as bots/assistant.py")
    if file.suffix != ".py":
        raise UsageError(f"{path}: a bot script is a Python file, ending in .py")
    name = f"leibniz_bot_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's script: whatever it raises is shown as its fault
        logger.opt(exception=error).debug("the bot script failed")
        raise UsageError(f"{path}: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, "build", None)):
        raise UsageError(f"{path}: defines no build(session); add one that returns the Pipeline of a conversation")
    return module


def lifespan_of(module: ModuleType) -> AbstractAsyncContextManager[Any]:
    """Return the script's own `lifespan()`, an async context manager around serving, if it has one."""
    make: Callable[[], AbstractAsyncContextManager[Any]] | None = getattr(module, "lifespan", None)
    return make() if make is not None else nullcontext()
