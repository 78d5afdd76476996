"""`Connection`: one client from its first message to its last. Reads, guards, and hosts the session.

socket -> [token] -> the client reads -> claim -> session starts -> `ready` -> messages ... -> closed: by the client, a
limit, or `close`
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from traceback import format_exception

from loguru import logger

from ...pipeline.conversation.conversation_record import ConversationRecord
from ...pipeline.conversation.store import LogLine
from ...pipeline.errors import LeibnizError, ProtocolError
from ...pipeline.session import Build, Session
from ...pipeline.states import State
from ..access.flood import Flooded, FloodGuard
from ..access.limits import REFUSED, Limits
from ..access.token_gate import TokenGate
from ..access.token_key import TokenRefused
from ..dialects import protocol
from ..dialects.dialect import Dialect, JsonDialect
from ..dialects.protocol import CloseCode
from ..playout.input import ClientInput
from ..playout.output import ClientOutput
from ..playout.resampler import PIPELINE_RATE
from ..playout.ticker import shared_ticker
from ..state.mirror import Mirror, MirroredSession
from .client_socket import ClientGone, ClientSocket
from .load_shaping import LoadShaping
from .send_queue import SendQueue

HELLO_S = 0.2  # how long `ready` waits for a `hello` that is optional
LOOK_S = 0.5  # how often silence and the session's time are looked at
LAST_TURN_S = 60.0  # a turn may go on for when the session's time is over; its client may never end it
MAX_EARLY = 512 * 1024  # bytes, 16 s of audio, that a client may send before it has read anything; then it has to wait
DRAIN_S = 0.5  # for messages on their way when the server closes

First = str | bytes | None


class Connection:
    """Serves one client. `run` returns when the conversation is over and nothing of it is left.

    `tokens` is None for a client whose token was taken already; else its `hello` must bring one. `on_admitted` is
    awaited before the conversation is touched. `load_shaping` spaces out what costs most.
    """

    def __init__(
        self,
        socket: ClientSocket,
        session_id: str,
        *,
        mirror: Mirror,
        build: Build,
        limits: Limits | None = None,
        lead_ms: float = 60.0,
        dialect: Dialect | None = None,
        tokens: TokenGate | None = None,
        next_token: Callable[[str], str | None] = lambda session_id: None,
        on_admitted: Callable[[Connection], Awaitable[None]] | None = None,
        load_shaping: LoadShaping | None = None,
    ) -> None:
        self.session_id = session_id
        self.is_resumed = False  # whether an earlier conversation goes on
        self.is_admitted = tokens is None or tokens.is_open  # whether the client may talk
        self._socket = socket
        self._mirror = mirror  # keeps the conversation
        self._build = build
        self._limits = limits or Limits()
        self._dialect: Dialect = dialect or JsonDialect()
        self._tokens = tokens
        self._next_token = next_token  # the token in `ready`
        self._on_admitted = on_admitted
        self._load_shaping = load_shaping
        self._wire = SendQueue(socket, send_s=self._limits.send_s)
        self._input = ClientInput()
        self._output = ClientOutput(wire=self._wire, dialect=self._dialect, lead_ms=lead_ms)
        self._guard = FloodGuard(limits=self._limits)  # refuses floods
        self._rates = (PIPELINE_RATE, PIPELINE_RATE)  # of the client's microphone and of what it plays, Hz
        self._ticker = shared_ticker()  # the voices of all: they come before what a client says
        self._mirrored: MirroredSession | None = None  # None before the claim
        self._record: ConversationRecord | None = None  # None before the claim
        self._has_words = False  # a fragment has come since the last end of a turn
        self._turn_at = -math.inf  # loop time of that
        self._loop = asyncio.get_running_loop()
        self.began = self._heard = self._loop.time()  # when it came, and when the last message did
        self._watch: asyncio.TimerHandle | None = None  # looks at silence and time; None before the session
        self._leaving: tuple[CloseCode, str] | None = None  # to be closed at the end of the turn, and why
        self._closing: asyncio.Task[None] | None = None  # closes the socket; None until somebody wants it
        self._early: deque[str | bytes] = deque()  # what came before the client had read anything
        self._early_size = 0  # its bytes, about; at most MAX_EARLY
        self._reason = "client left"  # why it ended, for the log
        self._done = asyncio.Event()  # set when `run` has cleaned up

    async def run(self) -> None:
        """Host the conversation until the client leaves, falls silent, or is closed."""
        session: Session | None = None
        reading = self._loop.create_task(self._socket.is_reading(), name=f"ping {self.session_id}")
        try:
            first = await self._first_message()
            await self._until_reading(reading)
            if self._on_admitted is not None:
                await self._on_admitted(self)
            if self._load_shaping is not None:
                await self._load_shaping.begin.pass_through()
            record = await self._claim()
            session = Session(
                self.session_id, input=self._input, output=self._output, record=record, resumed=self.is_resumed
            )
            await session.start(self._build)
            session.on_over = self._on_over
            if session.is_over:
                self._on_over(session.stuck)
            self._greet()
            self._look()
            await self._handle(first)  # a first message that was no `hello`
            while True:
                message = self._early.popleft() if self._early else await self._socket.receive()
                self._heard = self._loop.time()
                self._ticker.catch_up()
                if self._closing is None:
                    await self._handle(message)
                else:  # what a flood still holds is not even read
                    await asyncio.wait({self._closing})
        except ClientGone:
            pass
        except TokenRefused as refusal:
            self._reason = "no token"
            await self._socket.close(CloseCode.BAD_TOKEN, str(refusal))
        except LeibnizError as error:
            self._reason = "failed"
            logger.error("session {}: {}", self.session_id, error)
            await self._socket.close(CloseCode.OUR_FAULT, "the conversation could not be started")
        except Exception:  # top of the connection's task: a factory's bug must not show at the client
            self._reason = "failed"
            logger.exception("session {} failed", self.session_id)
            await self._socket.close(CloseCode.OUR_FAULT, "internal error")
        finally:
            reading.cancel()
            await self._clean_up(session)

    async def close(self, code: CloseCode, reason: str) -> None:
        """Close the client's connection and wait until its conversation has ended."""
        self._close_soon(code, reason)
        await self.wait()

    async def wait(self) -> None:
        """Return when the conversation has ended."""
        await self._done.wait()

    def leave(self, code: CloseCode, reason: str) -> None:
        """Close at the end of the turn: now, if the conversation is idle."""
        self._leaving = self._leaving or (code, reason)
        if self._record is None or self._record.fields.state == State.IDLE:
            self._close_soon(*self._leaving)

    @property
    def has_begun(self) -> bool:
        """Whether there is a conversation: the client was let in, and reads."""
        return self._record is not None

    # -- beginning -----------------------------------------------------------------------------------------------

    async def _first_message(self) -> First:
        """Wait shortly for a `hello`; another first message counts as none and is taken later.

        Where a token is asked for, it is waited for longer, and anything else raises `TokenRefused`.
        """
        try:
            async with asyncio.timeout(HELLO_S if self.is_admitted else self._limits.hello_s):
                message = await self._socket.receive()
        except TimeoutError:
            if not self.is_admitted:
                REFUSED.labels("hello").inc()
                raise TokenRefused("No `hello` with a token came in time.") from None
            return None
        try:
            first = self._dialect.decode(message)
        except ProtocolError as error:
            self._report(error)
            first = None
        if isinstance(first, protocol.Hello):
            self._input.set_rate(first.sample_rate)
            self._output.set_rate(first.out_sample_rate)
            self._rates = (first.sample_rate, first.out_sample_rate)
            self._guard = FloodGuard(sample_rate=first.sample_rate, limits=self._limits)
        if not self.is_admitted and self._tokens is not None:
            token = first.token if isinstance(first, protocol.Hello) else None
            await self._tokens.admit(token, self.session_id)
            self.is_admitted = True
        return None if first is None or isinstance(first, protocol.Hello) else message

    async def _until_reading(self, reading: asyncio.Task[bool]) -> None:
        """Wait until the client has shown that it reads: for one that does not, nothing more is done.

        What it says meanwhile is kept. Raises `ClientGone` if it shows nothing in `send_s`, and closes.
        """
        try:
            async with asyncio.timeout(self._limits.send_s):
                while not reading.done() and self._early_size < MAX_EARLY:
                    await self._receive_early(reading)
                is_reading = await reading
        except TimeoutError:
            REFUSED.labels("not_reading").inc()
            self._reason, is_reading = "does not read", False
            await self._socket.close(CloseCode.POLICY, "the first ping was not answered: you do not read")
        if not is_reading:
            raise ClientGone

    async def _receive_early(self, reading: asyncio.Task[bool]) -> None:
        coming = asyncio.ensure_future(self._socket.receive())
        try:
            await asyncio.wait({coming, reading}, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                self._early.append(coming.result())
                self._early_size += sys.getsizeof(coming.result())
        finally:
            coming.cancel()
            await asyncio.wait({coming})  # it may not read beside the next one
            if not coming.cancelled():
                coming.exception()  # seen, whatever it is

    async def _claim(self) -> ConversationRecord:
        claim = await self._mirror.claim(self.session_id)
        self.is_resumed = claim.resumed
        self._record = record = ConversationRecord(
            self.session_id, fields=claim.fields, last_turn_id=claim.last_turn_id, on_change=self._changed
        )
        self._mirrored = self._mirror.open(claim, record, on_fenced=self._on_fenced, on_found=record.adopt)
        logger.info("{} connected ({})", self.session_id, "resumed" if self.is_resumed else "new")
        return record

    def _greet(self, *, again: bool = False) -> None:
        """Send `ready`, ahead of everything else."""
        assert self._record is not None
        spelled = self._dialect.ready(
            again=again,
            session_id=self.session_id,
            sample_rate=self._rates[0],
            out_sample_rate=self._rates[1],
            resumed=self.is_resumed,
            turn_number=self._record.fields.turn_number,
            token=None if again else self._next_token(self.session_id),
        )
        if again:
            self._output.say(spelled)
        else:
            self._wire.start(*(spelled if isinstance(spelled, tuple) else (spelled,)))

    # -- messages ------------------------------------------------------------------------------------------------

    async def _handle(self, message: First) -> None:
        if message is None:
            return
        try:
            await self._take(message)
        except Flooded as error:
            REFUSED.labels("flood").inc()
            self._close_soon(CloseCode.POLICY, error.message)
        except ProtocolError as error:
            self._report(error)

    async def _take(self, raw: str | bytes) -> None:
        now = self._heard
        may_be_audio = isinstance(raw, self._dialect.audio_type)
        if not may_be_audio:
            self._guard.on_control(now)
        message = self._dialect.decode(raw)
        if isinstance(message, bytes):
            pcm = self._guard.on_audio(message, now)
            if pcm:
                await self._input.receive_audio(pcm)
            return
        if may_be_audio:  # a dialect that has one kind of message for everything
            self._guard.on_control(now)
        if isinstance(message, protocol.Ping):
            self._output.say(self._dialect.pong())
        elif isinstance(message, protocol.Hello):
            self._greet(again=True)
        elif isinstance(message, protocol.Ack):
            self._output.acknowledge(message.turn, message.played_ms)
        else:
            await self._wait_for_turn(message, now)
            await self._input.receive(message)

    async def _wait_for_turn(self, message: protocol.ClientMessage, now: float) -> None:
        """Before a turn that a message ends; the end of a turn without words costs nothing and waits for nobody."""
        self._has_words = self._has_words or isinstance(message, protocol.SttFragment | protocol.Typed)
        if self._has_words and isinstance(message, protocol.VadEnd | protocol.Typed):
            since_s, self._turn_at, self._has_words = now - self._turn_at, now, False
            if self._load_shaping is not None:
                await self._load_shaping.pass_turn(since_s)

    def _report(self, error: ProtocolError) -> None:
        """Tell the client of its mistake; of a flood, only now and then."""
        REFUSED.labels(error.code).inc()
        if error.code != "too_fast" or self._guard.may_report(self._loop.time()):
            self._output.say(self._dialect.error(error.code, error.message))

    # -- ending --------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Every now and then: has the client fallen silent, is its time over?"""
        assert self._record is not None
        now = self._loop.time()
        self._watch = self._loop.call_later(min(LOOK_S, self._limits.idle_s / 4), self._look)
        if self._record.fields.state in (State.THINKING, State.SPEAKING):
            self._heard = now  # the clock stands still while the bot has the floor
        elif now - self._heard > self._limits.idle_s:
            self._close_soon(CloseCode.END, "idle")
        if now - self.began > self._limits.session_s and self._leaving is None:
            REFUSED.labels("session_time").inc()
            self.leave(CloseCode.RESTART, "the connection's time is over; reconnect")
        if now - self.began > self._limits.session_s + LAST_TURN_S:
            self._close_soon(CloseCode.RESTART, "the connection's time is over; reconnect")

    def _changed(self, line: LogLine | None, is_urgent: bool) -> None:
        if self._mirrored is not None:
            self._mirrored.update(line)
            if is_urgent:
                self._mirrored.flush()
        if self._leaving is not None:
            self.leave(*self._leaving)

    def _on_fenced(self, session_id: str) -> None:
        self._output.say(self._dialect.error("bad_field", "This session goes on at another server."))
        self._close_soon(CloseCode.TAKEN_OVER, "taken over by another process")

    def _on_over(self, reason: str) -> None:
        """The pipeline has ended, which is not the client's doing."""
        if reason:
            self._close_soon(CloseCode.OUR_FAULT, "the conversation was stuck; reconnect")
        else:
            self._close_soon(CloseCode.END, "the bot has ended the conversation")

    def _close_soon(self, code: CloseCode, reason: str) -> None:
        """Close, once: what was said before is still sent."""
        if self._closing is None:
            self._reason = reason
            self._closing = self._loop.create_task(self._close(code, reason), name=f"close {self.session_id}")

    async def _close(self, code: CloseCode, reason: str) -> None:
        await self._wire.close(drain_s=DRAIN_S)
        await self._socket.close(code, reason)

    async def _clean_up(self, session: Session | None) -> None:
        try:
            if self._watch is not None:
                self._watch.cancel()
            await self._wire.close()
            if session is not None:
                session.on_over = None
                if self._load_shaping is not None:
                    await self._load_shaping.end.pass_through()
                await session.cancel()
            if self._mirrored is not None:
                self._mirrored.close()
            if self._closing is not None:
                await asyncio.wait({self._closing})
            else:
                await self._socket.close(CloseCode.END, "")
            if (failure := self._socket.failure) is not None:
                self._reason = "connection failed"
                # Formatted here: the logger's own tracebacks can show local variables, and those hold what users said.
                why = "".join(format_exception(failure))
                logger.error("session {}: its connection failed: {}", self.session_id, why)
            logger.info("{} disconnected ({})", self.session_id, self._reason)
        finally:
            self._done.set()
