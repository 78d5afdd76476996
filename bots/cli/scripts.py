"""Loads bot scripts, and sets the log up before anything heavy is imported."""

from __future__ import annotations

import argparse
import errno
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from loguru import logger

LEVELS = ("TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL")
MAX_ERROR_CHARS = 500  # of what a script's error says
FORMAT = "<dim>{time:HH:mm:ss.SSS}</dim> <level>{level: <7}</level> {message}"


class UsageError(Exception):
    """Wrong use of a command: one line for the user, exit status 2."""


def set_up_log(level: str = "INFO") -> None:
    """Log to stderr: ours from `level` on, Pipecat's warnings. Local variables (users' words) are never printed.

    Raises `UsageError` for a level that is none.
    """
    os.environ.setdefault("PIPECAT_LOG_LLM_CONTEXT", "off")
    if level.upper() not in LEVELS:
        raise UsageError(f"--log-level is {level}; give one of {', '.join(LEVELS)}")
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


def cannot_listen(options: argparse.Namespace, error: OSError) -> str:
    """Say why nobody can listen on --host and --port."""
    why = (error.strerror or str(error)).rpartition(": ")[2].lower()  # asyncio says the address, too, in Python's words
    told = "; end what listens there, or give another --port" if error.errno == errno.EADDRINUSE else ""
    return f"cannot listen on {options.host}:{options.port}: {why}{told}"


def counted(number: int, noun: str) -> str:
    """`1 turn`, `2 turns`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def check_script(path: str) -> Path:
    """Return the file of a bot script. Raises `UsageError` if it cannot be one."""
    file = Path(path)
    if file.is_dir():
        scripts = (file / "bot.py", *sorted(file.glob("[!_]*.py")))
        inside = [str(each) for each in scripts if each.is_file()]
        raise UsageError(f"{path}: is a folder; give a bot script, such as {(inside or ['bots/assistant.py'])[0]}")
    if not file.is_file():
        raise UsageError(f"{path}: no such file; give a bot script such as bots/assistant.py")
    if file.suffix != ".py":
        raise UsageError(f"{path}: a bot script is a Python file, ending in .py")
    return file


def load_bot(path: str) -> ModuleType:
    """Import a bot script. Raises `UsageError` if there is none, it fails, or it has no `build` of one argument."""
    file = check_script(path)
    name = f"leibniz_bot_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's script: whatever it raises is shown as its fault
        logger.opt(exception=error).debug("the bot script failed")
        raise UsageError(blame(path, error)) from error
    build = getattr(module, "build", None)
    if not callable(build):
        raise UsageError(f"{path}: defines no build(session); add one that returns the Pipeline of a conversation")
    try:
        inspect.signature(build).bind(None)
    except ValueError:
        pass  # made in C: nothing is known of its arguments
    except TypeError:
        told = inspect.signature(build)
        raise UsageError(
            f"{path}: build is called with one argument, but is build{told}; write build(session)"
        ) from None
    return module


def blame(path: str, error: BaseException) -> str:
    """Say in one line what a bot script's code raised, and where in it: the innermost line that is not a library's."""
    from leibniz_voice.pipeline.errors import LeibnizError

    if isinstance(error, SyntaxError) and error.filename:
        where, what = f"{_shown(error.filename, path)}:{error.lineno}", error.msg
    else:
        found = _place_of(path, error)
        where, what = f"{_shown(found[0], path)}:{found[1]}" if found else path, str(error)
    kind = (
        "" if isinstance(error, LeibnizError) else f"{type(error).__name__}: "
    )  # ours say what to do; the rest may not
    return f"{where}: {kind}{' '.join(what.split())[:MAX_ERROR_CHARS]}"


def _place_of(path: str, error: BaseException) -> tuple[str, int] | None:
    folder, place = Path(path).resolve().parent, None
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        is_library = "site-packages" in file.parts or frame.f_globals.get("__name__", "").startswith("leibniz_voice.")
        if not is_library and file.is_relative_to(folder):
            place = str(file), line
    return place


def _shown(file: str, path: str) -> str:
    """A file as the user would name it."""
    found = Path(file)
    if found == Path(path).resolve():
        return path
    return str(found.relative_to(Path.cwd())) if found.is_relative_to(Path.cwd()) else file


def checked_build(module: ModuleType, path: str) -> Callable[[Any], Any]:
    """Return the script's `build`, whose faults are `UsageError`s that name it: it raises, or returns no Pipeline."""
    from leibniz_voice.pipeline import Pipeline

    async def build(session: Any) -> Any:
        try:
            built = module.build(session)
            pipeline = await built if inspect.isawaitable(built) else built
        except Exception as error:  # the user's script: whatever it raises is shown as its fault
            logger.opt(exception=error).debug("build failed")
            raise UsageError(blame(path, error)) from error
        if not isinstance(pipeline, Pipeline):
            raise UsageError(f"{path}: build(session) must return a Pipeline, but returned {type(pipeline).__name__}")
        return pipeline

    return build


def check_writable(path: str) -> None:
    """Refuse a file that cannot be written, before there is something to write. Raises `UsageError`."""
    file = Path(path)
    if not file.absolute().parent.is_dir():
        raise UsageError(f"{path}: no such folder")
    is_new = not file.exists()
    try:
        file.open("ab").close()
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({(error.strerror or str(error)).lower()})") from None
    if is_new:
        file.unlink(missing_ok=True)


def lifespan_of(module: ModuleType) -> AbstractAsyncContextManager[Any]:
    """Return the script's own `lifespan()`, an async context manager around serving, if it has one."""
    make: Callable[[], AbstractAsyncContextManager[Any]] | None = getattr(module, "lifespan", None)
    return make() if make is not None else nullcontext()
