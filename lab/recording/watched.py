"""What stands in for a thing that is watched: whoever asks gets the thing's own answers, and finds it of the same kind.

A stand-in that answers for itself changes a conversation: a flag that it turned into a method was true in every
recorded call. So it knows the calls that are watched, and nothing else; the rest is asked of the thing, and set there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from types import MethodType
from typing import Any

from pipecat.frames.frames import Frame
from pipecat.processors.frame_processor import FrameDirection

Pushed = tuple[Frame | None, FrameDirection]


class Watched:
    """Looks through to `thing`; `calls` are those of its methods that are watched.

    Each is called with the method and the arguments, and answers for it.
    """

    def __init__(self, thing: Any, calls: Mapping[str, Callable[..., Any]]) -> None:
        object.__setattr__(self, "_thing", thing)  # whose attributes are shown
        object.__setattr__(self, "_calls", calls)  # name of a method -> what is called with it

    def __getattr__(self, name: str) -> Any:
        its = getattr(self._thing, name)
        call = self._calls.get(name)
        return its if call is None else in_place_of(its, lambda _, *args, **named: call(its, *args, **named))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._thing, name, value)

    def __dir__(self) -> list[str]:
        return dir(self._thing)

    @property
    def __class__(self) -> type:  # type: ignore[override] # as `isinstance` asks it
        return type(self._thing)


class WatchedFunction(Watched):
    """The same of what is awaited by calling it: a function, or an object."""

    def __init__(self, thing: Any, call: Callable[..., Any]) -> None:
        super().__init__(thing, {"": call})

    async def __call__(self, *args: Any, **named: Any) -> Any:
        return await self._calls[""](self._thing, *args, **named)


def in_place_of(its: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
    """Return what looks as the method or function `its`, and calls `call` with its owner (None) and the arguments."""
    if inspect.ismethod(its):
        return MethodType(wraps(its.__func__)(call), its.__self__)
    if inspect.iscoroutinefunction(its):

        async def waits(*args: Any, **named: Any) -> Any:
            return await call(None, *args, **named)

        return wraps(its)(waits)

    @wraps(its)
    def function(*args: Any, **named: Any) -> Any:
        return call(None, *args, **named)

    return function


def told_push(push: Callable[..., Any], tell: Callable[[Callable[[], Pushed]], None]) -> Callable[..., Any]:
    """Return what looks as a processor's `push_frame`, and calls it with the same arguments; `tell` can read them."""
    read = _reads(push)
    if not inspect.iscoroutinefunction(push):

        def push_at_once(_: Any, *args: Any, **named: Any) -> Any:
            tell(lambda: read(args, named))
            return push(*args, **named)

        return in_place_of(push, push_at_once)

    async def push_frame(_: Any, *args: Any, **named: Any) -> Any:
        tell(lambda: read(args, named))
        return await push(*args, **named)

    return in_place_of(push, push_frame)


def _reads(push: Callable[..., Any]) -> Callable[[tuple[Any, ...], dict[str, Any]], Pushed]:
    """Return what finds frame and direction among the arguments of a `push_frame`, whatever it calls them."""
    signature = inspect.signature(push)
    defaults = [parameter.default for parameter in signature.parameters.values()]
    default = next((each for each in defaults if isinstance(each, FrameDirection)), FrameDirection.DOWNSTREAM)

    def read(args: tuple[Any, ...], named: dict[str, Any]) -> Pushed:
        count = len(args) + len(named)
        if args and count <= 2 and isinstance(args[0], Frame):  # as nearly everybody calls it; binding costs ten times
            direction = default if count == 1 else args[1] if not named else named.get("direction")
            if isinstance(direction, FrameDirection):
                return args[0], direction
        bound = signature.bind(*args, **named)
        values: list[Any] = []
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            is_packed = kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            values += (value.values() if isinstance(value, dict) else value) if is_packed else (value,)
        frame = next((value for value in values if isinstance(value, Frame)), None)
        return frame, next((value for value in values if isinstance(value, FrameDirection)), default)

    return read
