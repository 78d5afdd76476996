"""`TransitionCallbacks`: whom a state change concerns, beside the pipeline and without power over it."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from loguru import logger

from ..states import State
from .snapshot import ConversationFields

Callback = Callable[[ConversationFields], Awaitable[None] | None]
Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]

MAX_WAITING = 64  # async callbacks that may wait; past it a new one is dropped with a warning
CALLBACK_S = 5.0  # how long one async callback may take


class TransitionCallbacks:
    """Sync callbacks run in the step, async ones in a task, one after the other. One that raises is logged."""

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn  # starts the task that runs async callbacks
        self._callbacks: dict[State, list[Callback]] = {}  # state -> who wants to know that it is entered
        self._waiting: deque[Awaitable[None]] = deque()  # async calls not begun
        self._runner: asyncio.Task[None] | None = None  # runs them; None while none waits

    def register(self, *states: State) -> Callable[[Callback], Callback]:
        """Return a decorator that registers a callback for entering any of `states` (none given: all)."""

        def decorate(callback: Callback) -> Callback:
            for state in states or tuple(State):
                self._callbacks.setdefault(state, []).append(callback)
            return callback

        return decorate

    def call(self, state: State, fields: ConversationFields) -> None:
        """Call whoever wants to know of `state`; async ones later, in a task."""
        for callback in self._callbacks.get(state, ()):
            try:
                result = callback(fields)
            except Exception as error:  # a user's callback must stop nothing
                logger.error("a callback for {} failed: {!r}", state, error)
                continue
            if inspect.isawaitable(result):
                self._call_later(result)

    def close(self) -> None:
        """Give up what waits and what runs. Idempotent."""
        while self._waiting:
            _discard(self._waiting.popleft())
        if self._runner is not None:
            self._runner.cancel()
            self._runner = None

    def _call_later(self, call: Awaitable[None]) -> None:
        if len(self._waiting) >= MAX_WAITING:
            _discard(call)
            logger.warning("{} async callbacks wait; one more is dropped", MAX_WAITING)
            return
        self._waiting.append(call)
        if self._runner is None or self._runner.done():
            self._runner = self._spawn(self._run(), "callbacks")

    async def _run(self) -> None:
        while self._waiting:
            call = self._waiting.popleft()
            try:
                async with asyncio.timeout(CALLBACK_S):
                    await call
            except TimeoutError:
                logger.error("an async callback took more than {} s and is cancelled", CALLBACK_S)
            except Exception as error:  # a user's callback must stop nothing
                logger.error("an async callback failed: {!r}", error)


def _discard(call: Awaitable[None]) -> None:
    if inspect.iscoroutine(call):
        call.close()  # else Python warns that it was never awaited
