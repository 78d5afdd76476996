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
