"""`Connection`: one client from its first message to its last. Reads, guards, and hosts the session."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from loguru import logger
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from ..pipeline.errors import LeibnizError, ProtocolError
from ..pipeline.record import ConversationRecord
from ..pipeline.session import Build, Session
from ..pipeline.states import State
from ..pipeline.store import LogLine
from . import protocol
from .endpoints import PIPELINE_RATE, ClientInput, ClientOutput
from .flood import FloodGuard
from .mirror import Mirror, MirroredSession
from .protocol import CloseCode
from .socket_wire import SocketWire

HELLO_S = 0.2  # how long `ready` waits for a `hello`, which is optional


class Connection:
    """Serves one WebSocket. `run` returns when the conversation is over and nothing of it is left."""

    def __init__(
        self, socket: ServerConnection, session_id: str, *, mirror: Mirror, build: Build, idle_s: float, lead_ms: float
    ) -> None:
        self.session_id = session_id
        self.is_resumed = False  # whether an earlier conversation goes on
        self._socket = socket
        self._mirror = mirror  # keeps the conversation
        self._build = build
        self._idle_s = idle_s  # silence that ends the session
        self._wire = SocketWire(socket)
        self._input = ClientInput()
        self._output = ClientOutput(wire=self._wire, lead_ms=lead_ms)
        self._guard = FloodGuard()  # refuses floods
        self._mirrored: MirroredSession | None = None  # None before the claim
        self._record: ConversationRecord | None = None  # None before the claim
        self._reason = "client left"  # why it ended, for the log
        self._done = asyncio.Event()  # set when `run` has cleaned up

    async def run(self) -> None:
        """Host the conversation until the client leaves, falls silent, or is closed."""
        session: Session | None = None
        try:
            record = await self._claim()
            first = await self._first_message()
            session = Session(
                self.session_id, input=self._input, output=self._output, record=record, resumed=self.is_resumed
            )
            await session.start(self._build)
            self._wire.start()
            self._wire.send_text(self._ready(record, first))
            if first is not None and not isinstance(first, protocol.Hello):
                await self._take(first)
            await self._read(record)
        except ConnectionClosed:
            pass
        except LeibnizError as error:
            self._reason = "failed"
            logger.error("session {}: {}", self.session_id, error)
            await self._socket.close(CloseCode.OUR_FAULT, "the conversation could not be started")
        except Exception:  # top of the connection's task: a factory's bug must not show at the client
            self._reason = "failed"
            logger.exception("session {} failed", self.session_id)
            await self._socket.close(CloseCode.OUR_FAULT, "internal error")
        finally:
            await self._clean_up(session)

    async def close(self, code: CloseCode, reason: str) -> None:
        """Close the client's connection and wait until its conversation has ended."""
        self._reason = reason
        await self._socket.close(code, reason)
        await self._done.wait()

    async def _claim(self) -> ConversationRecord:
        claim = await self._mirror.claim(self.session_id)
        self.is_resumed = claim.resumed
        self._record = record = ConversationRecord(self.session_id, fields=claim.fields, on_change=self._changed)
        self._mirrored = self._mirror.open(claim, record, on_fenced=self._on_fenced)
        logger.info("{} connected ({})", self.session_id, "resumed" if self.is_resumed else "new")
        return record

    def _changed(self, line: LogLine | None, is_urgent: bool) -> None:
        if self._mirrored is not None:
            self._mirrored.update(line)
            if is_urgent:
                self._mirrored.flush()

    def _on_fenced(self, session_id: str) -> None:
        self._reason = "taken over by another process"
        self._wire.send_text(protocol.error("bad_field", "This session goes on at another server."))
        task = asyncio.get_running_loop().create_task(self._socket.close(CloseCode.TAKEN_OVER, self._reason))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _first_message(self) -> protocol.ClientMessage | bytes | None:
        """Wait shortly for a `hello`; another first message counts as none and is taken later."""
        try:
            async with asyncio.timeout(HELLO_S):
                message = await self._socket.recv()
        except TimeoutError:
            return None
        if isinstance(message, bytes):
            return message
        try:
            decoded = protocol.decode_text(message)
        except ProtocolError as error:
            await self._socket.send(protocol.error(error.code, error.message))
            return None
        if isinstance(decoded, protocol.Hello):
            self._input.set_rate(decoded.sample_rate)
            self._output.set_rate(decoded.out_sample_rate)
            self._guard = FloodGuard(sample_rate=decoded.sample_rate)
        return decoded

    def _ready(self, record: ConversationRecord, first: protocol.ClientMessage | bytes | None) -> str:
        is_hello = isinstance(first, protocol.Hello)
        return protocol.ready(
            session_id=self.session_id,
            sample_rate=first.sample_rate if is_hello else PIPELINE_RATE,
            out_sample_rate=first.out_sample_rate if is_hello else PIPELINE_RATE,
            resumed=self.is_resumed,
            turn_number=record.fields.turn_number,
        )

    async def _read(self, record: ConversationRecord) -> None:
        while True:
            try:
                async with asyncio.timeout(self._idle_s):
                    message = await self._socket.recv()
            except TimeoutError:
                if record.fields.state in (State.THINKING, State.SPEAKING):
                    continue  # the clock stands still while the bot has the floor
                self._reason = "idle"
                await self._socket.close(CloseCode.END, "idle")
                return
            try:
                await self._take(message)
            except ProtocolError as error:
                if error.code != "too_fast" or self._guard.may_report(asyncio.get_running_loop().time()):
                    self._wire.send_text(protocol.error(error.code, error.message))

    async def _take(self, message: protocol.ClientMessage | bytes | str) -> None:
        now = asyncio.get_running_loop().time()
        if isinstance(message, bytes):
            self._guard.on_audio(len(message), now)
            protocol.check_audio(message)
            await self._input.receive_audio(message)
            return
        if isinstance(message, str):
            self._guard.on_control(now)
            message = protocol.decode_text(message)
        if isinstance(message, protocol.Ping):
            self._wire.send_text(protocol.pong())
        elif isinstance(message, protocol.Hello):
            raise ProtocolError("bad_field", "`hello` is only good as the first message.")
        else:
            await self._input.receive(message)

    async def _clean_up(self, session: Session | None) -> None:
        try:
            if session is not None:
                await session.cancel()
            await self._wire.close()
            if self._mirrored is not None:
                self._mirrored.close()
            with suppress(ConnectionClosed):
                await self._socket.close()
            logger.info("{} disconnected ({})", self.session_id, self._reason)
        finally:
            self._done.set()
