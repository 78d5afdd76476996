"""`WebSocketClient`: the other end of a conversation, in Python. For tests, tools and machines that call a bot.

It behaves as a person with a headset would: a microphone that never stops (20 ms of speech or silence, at real time),
a loudspeaker on paper (see playback.py) that obeys `pause`, `resume` and `interrupted`, a heartbeat, and word back to
the server of how far it has played. A connection that drops is opened again, and the session goes on.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ...pipeline.errors import ConfigurationError
from ..dialects.protocol import DEFAULT_RATE, IN_RATES, OUT_RATES, VERSION, CloseCode
from .opening import ConnectionFailed, address_of, closed, closed_with, decode, open_socket
from .playback import PaperMicrophone, Playback

__all__ = ["ClientEvent", "WebSocketClient"]

CHUNK_S = 0.02
PING_S = 5.0
ACK_S = 0.2
SEND_S = 2.0  # a send that takes longer is to a server that does not read
CATCH_UP_S = 0.5  # a late client makes up for this much microphone audio, and skips the rest
MAX_EVENTS = 20_000
FIRST_RETRY_S, LAST_RETRY_S = 0.1, 2.0  # back-off between two tries, doubled each time
STABLE_S = 10.0  # a connection that lasted so long starts the count of tries anew
FINAL = frozenset(
    {
        CloseCode.END,
        CloseCode.POLICY,
        CloseCode.TOO_LARGE,
        CloseCode.BAD_TOKEN,
        CloseCode.BAD_ORIGIN,
        CloseCode.TAKEN_OVER,
        CloseCode.TOO_MANY,
    }
)  # close codes after which trying again is of no use


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """Something that happened: a message of the server, or `connected`, `disconnected`, `speech_ended`."""

    at_s: float  # seconds from the start of the call
    kind: str  # the message's type
    fields: Mapping[str, Any] = field(default_factory=dict)  # the message


class WebSocketClient:
    """One conversation with a server, as an async context manager.

        async with WebSocketClient("ws://127.0.0.1:8004") as client:
            await client.speak(pcm)
            await client.until(lambda: client.state == "idle" and "speaking" in client.states, timeout_s=20)

    `url` is a server's address, with or without `/orchestrate` and `?session_id=`. Entering raises
    `ConfigurationError` for wrong values and `ConnectionFailed` if there is no server; it is tried once. A connection
    that drops later is tried again up to `retries` times, counted anew once one has lasted 10 s.
    """

    def __init__(
        self,
        url: str,
        *,
        session_id: str | None = None,
        sample_rate: int = DEFAULT_RATE,
        out_sample_rate: int = DEFAULT_RATE,
        token: str | None = None,
        retries: int = 8,
        on_event: Callable[[ClientEvent], None] | None = None,
        max_s: float = 600.0,
    ) -> None:
        if sample_rate not in IN_RATES or out_sample_rate not in OUT_RATES:
            raise ConfigurationError(f"sample_rate is one of {IN_RATES}, out_sample_rate one of {OUT_RATES}")
        self.url, self.session_id = address_of(url, session_id)  # what is connected to
        self.sample_rate = sample_rate  # Hz of what is said
        self.events: deque[ClientEvent] = deque(maxlen=MAX_EVENTS)  # what happened; the oldest fall out
        self.states: list[str] = ["idle"]  # the conversation's, in order
        self.playback = Playback(sample_rate=out_sample_rate, max_s=max_s)  # the loudspeaker
        self.microphone = PaperMicrophone(
            sample_rate=sample_rate, chunk=int(sample_rate * CHUNK_S), max_s=max_s
        )  # what is said
        self.is_resumed = False  # whether the server knew the session
        self._token = token  # for the next connection; None: none
        self._retries = retries  # tries after a drop
        self._tries = 0  # since the last connection that lasted
        self._opened_s = 0.0  # loop time of the last connection
        self._on_event = on_event  # told of each event, in the step; None: nobody
        self._socket: ClientConnection | None = None  # None while disconnected
        self._start_s = 0.0  # loop time of the start of the call
        self._tick = 0  # chunks of the microphone so far
        self._acked_ms = 0.0  # last position that the server was told
        self._next_ack_s = self._next_ping_s = 0.0  # loop times
        self._beat: asyncio.Future[None] | None = None  # done at the next tick or event; None outside the context
        self._tasks: list[asyncio.Task[None]] = []  # reads and reconnects; paces
        self._failure: ConnectionFailed | None = None  # why there is no connection any more

    async def __aenter__(self) -> WebSocketClient:
        loop = asyncio.get_running_loop()
        self._start_s = loop.time()
        self._beat = loop.create_future()
        self._socket = await self._open()
        self._start_s = self._next_ack_s = loop.time()
        self._next_ping_s = self._start_s + PING_S
        self.playback.start(self._start_s)
        self._note("connected", {"resumed": self.is_resumed})
        self._tasks = [asyncio.create_task(self._keep_reading()), asyncio.create_task(self._pace())]
        for task in self._tasks:
            task.add_done_callback(self._on_task_done)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self.playback.advance(asyncio.get_running_loop().time())
        if self._socket is not None:
            await self._socket.close()
            self._socket = None

    # -- what the caller does ----------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """The conversation's state, as the server said last."""
        return self.states[-1]

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._socket is not None

    @property
    def now_s(self) -> float:
        """Seconds from the start of the call."""
        return asyncio.get_running_loop().time() - self._start_s

    async def speak(self, pcm: bytes) -> tuple[float, float]:
        """Say PCM16 mono at `sample_rate`, in real time; returns when it began and ended, in s of the call.

        While disconnected the rest waits. Cancelling does not unsay what waits. Raises `ConnectionFailed`.
        """
        while not self.microphone.is_empty:
            await self._next_beat()
        begin_s = self._tick * CHUNK_S
        self.microphone.push(pcm)
        while not self.microphone.is_empty:
            await self._next_beat()
        end_s = self._tick * CHUNK_S
        self._note("speech_ended", {"began_s": begin_s})
        return begin_s, end_s

    async def send(self, kind: str, **fields: Any) -> None:
        """Send a message, such as `send("stt_fragment", text="hello", is_final=True)`; lost while disconnected."""
        await self._send(json.dumps({"type": kind, **fields}))

    async def until(self, condition: Callable[[], bool], *, timeout_s: float) -> bool:
        """Wait for a condition, looked at after every event and every 20 ms; whether it came true in time.

        Raises `ConnectionFailed` if the connection is lost for good.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not condition():
                    await self._next_beat()
        return condition()

    # -- connecting --------------------------------------------------------------------------------------------

    async def _open(self) -> ClientConnection:
        socket, message = await open_socket(self.url, self.session_id, self._hello())
        self.is_resumed = bool(message.get("resumed"))
        self._token = message.get("token", self._token)
        self._opened_s = asyncio.get_running_loop().time()
        return socket

    def _hello(self) -> str:
        hello: dict[str, Any] = {
            "type": "hello",
            "v": VERSION,
            "sample_rate": self.sample_rate,
            "out_sample_rate": self.playback.sample_rate,
        }
        if self._token is not None:
            hello["token"] = self._token
        return json.dumps(hello)

    async def _keep_reading(self) -> None:
        while self._socket is not None:
            try:
                async for message in self._socket:
                    self._on_message(message)
                failure = closed_with(self._socket.close_code, self._socket.close_reason)
            except ConnectionClosed as error:
                failure = closed(error)
            code = self._socket.close_code
            self._socket = None
            self._note("disconnected", {"code": code, "reason": str(failure)})
            if code in FINAL or not await self._reconnect(failure):
                return self._fail(failure)

    async def _reconnect(self, failure: ConnectionFailed) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._opened_s > STABLE_S:
            self._tries = 0
        while self._tries < self._retries:
            wait_s = min(FIRST_RETRY_S * 2**self._tries, LAST_RETRY_S)
            self._tries += 1
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # not all clients of a restarted server at once
            try:
                socket = await self._open()
            except ConnectionFailed as error:
                failure.add_note(str(error))
                continue
            self.playback.reopen()
            self._socket = socket
            self._note("connected", {"resumed": self.is_resumed})
            return True
        return False

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:  # a caller's `on_event`, or our bug
            failure = ConnectionFailed(f"the client failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            self._fail(failure)

    def _fail(self, failure: ConnectionFailed) -> None:
        self._failure = failure
        self._wake()

    # -- receiving ---------------------------------------------------------------------------------------------

    def _on_message(self, message: str | bytes) -> None:
        now = asyncio.get_running_loop().time()
        if isinstance(message, bytes):
            self.playback.push(message, now)
            return
        fields = decode(message)
        turn = fields.get("turn")
        match fields.get("type"):
            case "state_update" if isinstance(fields.get("state"), str):
                if fields["state"] != self.states[-1]:
                    self.states.append(fields["state"])
            case "response_ready" if isinstance(turn, int):
                self.playback.begin(turn, now)
                self._acked_ms = 0.0
            case "pause":
                self.playback.pause(now)
            case "resume":
                back_ms = fields.get("back_ms", 0.0)
                self.playback.resume(now, back_ms if isinstance(back_ms, int | float) else 0.0)
            case "interrupted":
                self.playback.drop(now)
            case "pong":
                return
        self._note(str(fields.get("type", "unreadable")), fields)

    def _note(self, kind: str, fields: Mapping[str, Any]) -> None:
        event = ClientEvent(self.now_s, kind, fields)
        self.events.append(event)
        if self._on_event is not None:
            self._on_event(event)
        self._wake()

    def _wake(self) -> None:
        if self._beat is not None and not self._beat.done():
            self._beat.set_result(None)

    async def _next_beat(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._beat is None:
            raise ConnectionFailed("the client is not connected; use it in `async with`")
        if self._beat.done():
            self._beat = asyncio.get_running_loop().create_future()
        await asyncio.wait({self._beat})
        if self._failure is not None:
            raise self._failure

    # -- sending -----------------------------------------------------------------------------------------------

    async def _pace(self) -> None:
        """Every 20 ms: microphone, loudspeaker, acknowledgement, heartbeat. Chunk n is due at start + (n+1) * 20 ms."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = self._start_s + (self._tick + 1) * CHUNK_S
            late_s = loop.time() - due_s
            if late_s < 0:
                await asyncio.sleep(-late_s)
            elif late_s > CATCH_UP_S:
                self._tick += int(late_s / CHUNK_S)
            self.playback.advance(loop.time())
            if self._socket is not None:
                await self._send(self.microphone.take(self._tick))
            self._tick += 1
            await self._send_control(loop.time())
            self._wake()

    async def _send_control(self, now: float) -> None:
        if now >= self._next_ack_s:
            self._next_ack_s = now + ACK_S
            played_ms = self.playback.played_ms
            if self.playback.turn is not None and self.playback.is_open and played_ms > self._acked_ms:
                self._acked_ms = played_ms
                await self.send("ack", turn=self.playback.turn, played_ms=round(played_ms, 1))
        if now >= self._next_ping_s:
            self._next_ping_s = now + PING_S
            await self.send("ping")

    async def _send(self, message: str | bytes) -> None:
        socket = self._socket
        if socket is None:
            return
        try:
            async with asyncio.timeout(SEND_S):
                await socket.send(message)
        except TimeoutError:
            socket.transport.abort()
        except ConnectionClosed:
            pass  # the reader sees it too, and connects again
