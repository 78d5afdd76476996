"""`Call`: one conversation as a script, without a socket, in virtual time.

    with Call(build) as call:
        call.user_says("where is my order")
        call.user_interrupts("do you sell helmets", after_s=0.6)
        call.wait_for_reply(contains="helmets")
        assert call.states[-1] == "idle"

Each verb runs the conversation until it is done, so a plain test function is enough. In a coroutine the same verbs are
awaited: `async with AsyncCall(build) as call: await call.user_says(...)`; `run_offline(build, script)` does that, in
virtual time, and returns the finished call. How the words get in: see `user`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from pipecat.frames.frames import Frame, InterimTranscriptionFrame, TranscriptionFrame

from ...lab.recording.recorder import Tape
from ...transports.dialects import protocol
from ...transports.memory import MemoryTransport
from ...transports.playout.resampler import PIPELINE_RATE
from ..conversation.conversation_record import ConversationRecord
from ..conversation.snapshot import ConversationFields
from ..pipeline import Pipeline
from ..session import Build, Session
from ..states import Event
from .clock import VirtualTime, run_virtual
from .fuzz.safety import Safety
from .microphone import OfflineMicrophone
from .outcome import CallError, CallOutcome
from .user import VOICE, User, check_way

P = ParamSpec("P")
T = TypeVar("T")

WAIT_S = 30.0  # how long a script waits for something, in the loop's time
LOOK_S = 0.005  # between two looks at a condition, and from an event to the script's next step


class AsyncCall(CallOutcome):
    """A client on the line. All waiting is in the loop's time, so it costs nothing in virtual time.

    `speech` says how the user's words get in: "audio", "words", or "auto" (see `user`); `voice` is the user's, by
    espeak-ng's name. `fields`: an earlier conversation that goes on. `is_checked`: where the script comes to its end,
    the bot is let finish, and `ConversationFailed` is raised if the conversation was not safe (see `safety`).
    """

    def __init__(
        self,
        build: Build,
        *,
        session_id: str = "offline",
        fields: ConversationFields | None = None,
        speech: str = "auto",
        voice: str = VOICE,
        is_checked: bool = False,
    ) -> None:
        transport = MemoryTransport()
        self.wire = transport.wire
        self.input = transport.input  # the head of the pipeline
        self.record = ConversationRecord(session_id, fields=fields)
        self.session = Session(session_id, input=self.input, output=transport.output, record=self.record)
        self.tape = Tape()
        self._build = self.tape.records(build)
        self._safety = Safety() if is_checked else None  # None: nothing is judged
        self._is_over = False  # the line is gone
        self._way, self._voice = check_way(speech), voice  # of the user
        self._user: User | None = None  # None before the start
        self._microphone = OfflineMicrophone(self.input.receive_audio)  # silent until something is said aloud
        self._read = 0  # messages that `wait_for_reply` has seen
        self._replying: int | None = None  # turn of the reply among them that is not over; None between replies

    async def __aenter__(self) -> AsyncCall:
        await self.session.start(self._watched)
        assert self.session.pipeline is not None
        self._user = User(self.session.pipeline, self._microphone, way=self._way, voice=self._voice)
        return self

    async def __aexit__(self, error: type[BaseException] | None = None, *_: object) -> None:
        try:
            if self._safety is not None and error is None:
                await self._safety.judge(self, is_over=self._is_over)
        finally:
            await self.disconnects()

    async def _watched(self, session: Session) -> Pipeline:
        built = self._build(session)
        pipeline = await built if isinstance(built, Awaitable) else built
        if self._safety is not None and isinstance(pipeline, Pipeline):  # else the session refuses it
            self._safety.attach(pipeline)
        return pipeline

    def _notes(self, text: str, *, is_final: bool = True) -> None:
        if self._safety is not None:
            self._safety.said(text, is_final=is_final)

    @property
    def user(self) -> User:
        """Who speaks; `call.user.way` says how, `call.user.why` why so. Raises `CallError` before the start."""
        if self._user is None:
            raise CallError("the call has not begun: use it inside `with Call(build) as call:`")
        return self._user

    # -- what the user does ------------------------------------------------------------------------------------

    async def user_says(self, text: str, *, sound: bytes | str | Path | None = None) -> None:
        """Say something aloud, to the end; `sound`, 16 kHz PCM16 mono or a WAV file, instead of the user's voice."""
        if sound is None and self.user.way == "words":
            self._notes(text)
        await self.user.says(text, sound)

    async def user_interrupts(self, text: str, *, after_s: float, sound: bytes | str | Path | None = None) -> None:
        """Wait until `after_s` of the bot's reply were heard, then say something. Raises `CallError` if it is over."""
        await self.until_state("speaking")
        await self._until_event(
            lambda: self._reply_s >= after_s or self._state != "speaking", "sound of the reply", of_audio=True
        )
        if self._state != "speaking":
            self._fail(f"the reply was over after {self._reply_s:.2f} s; it cannot be cut after {after_s:g} s")
        await self.user_says(text, sound=sound)

    async def noise(
        self,
        sound: bytes | None = None,
        *,
        ms: float = 200.0,
        dbfs: float = -30.0,
        confidence: float = 0.9,
        wait: bool = True,
    ) -> None:
        """Let a sound be heard that is no speech: `sound`, or `ms` of white noise; `wait=False`: under what follows.

        Where words are pushed instead of audio, it is a blip of the speech detector, `confidence` sure.
        """
        await self.user.makes_noise(sound, ms=ms, dbfs=dbfs, confidence=confidence, wait=wait)

    async def disconnects(self) -> None:
        """Hang up: the conversation ends at once, as when the line is lost."""
        self._is_over = True
        await self._microphone.close()
        await self.session.cancel("the client has gone")

    async def says(self, pcm: bytes, *, then_silence_s: float = 1.0) -> None:
        """Let the microphone hear 16 kHz PCM16 mono at real time, then silence for a while."""
        await self._microphone.speak(pcm + bytes(int(then_silence_s * PIPELINE_RATE) * 2))

    async def is_silent(self, seconds: float) -> None:
        """Let the microphone hear silence at real time."""
        await self.says(b"", then_silence_s=seconds)

    async def types(self, text: str) -> None:
        """Do the client's own STT: one final fragment and the end of the turn."""
        await self.sends(protocol.SttFragment(text=text, is_final=True))
        await self.sends(protocol.VadEnd())

    async def sends(self, message: protocol.ClientMessage) -> None:
        """Send a protocol message."""
        if isinstance(message, protocol.SttFragment):
            self._notes(message.text, is_final=message.is_final)
        await self.input.receive(message)

    async def pushes(self, *frames: Frame) -> None:
        """Let synthetic frames enter the pipeline behind the input."""
        for frame in frames:
            await self.input.push_frame(frame)

    async def detects(self, *frames: Frame) -> None:
        """Let frames enter where speech detector and recogniser would push them, which do not see these."""
        for frame in frames:
            if isinstance(frame, (TranscriptionFrame, InterimTranscriptionFrame)):
                self._notes(frame.text, is_final=isinstance(frame, TranscriptionFrame))
            await self.user.place.push_frame(frame)

    # -- what came of it ---------------------------------------------------------------------------------------

    async def wait(self, seconds: float) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)

    async def wait_for_reply(self, *, contains: str = "", timeout_s: float = WAIT_S) -> str:
        """Wait until the next reply was heard to its end, and return its text; replies that are cut do not count.

        Raises `CallError` if none comes in time, or if its text does not hold `contains` (in any case of letters).
        """
        await self._until_event(self._has_reply, "reply that was heard to its end", timeout_s)
        assert self._replying is not None
        text, self._replying = self.reply_text(self._replying), None
        if contains.lower() not in text.lower():
            self._fail(f"the reply does not contain {contains!r}: {text!r}")
        return text

    async def until_state(self, state: str, *, timeout_s: float = WAIT_S) -> None:
        """Wait until the conversation is in `state`. Raises `CallError`."""
        await self._until_event(lambda: self._state == state, f"state {state}", timeout_s)

    async def until_heard(self, ms: float, *, timeout_s: float = WAIT_S) -> None:
        """Wait until the bot's audio sent so far is at least `ms` long. Raises `CallError`."""
        await self._until_event(lambda: self.wire.audio_ms >= ms, f"{ms:.0f} ms of audio", timeout_s, of_audio=True)

    async def comes_to(self, state: str, *, timeout_s: float = WAIT_S) -> bool:
        """The same, but tell whether it came."""
        try:
            await self.until_state(state, timeout_s=timeout_s)
        except CallError:
            return False
        return True

    async def until(self, condition: Callable[[], Any], what: str, *, timeout_s: float = WAIT_S) -> None:
        """Wait for a condition, looked at every 5 ms. Raises `CallError`."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not condition():
            if asyncio.get_running_loop().time() > deadline:
                self._fail(_missing(what, timeout_s))
            await asyncio.sleep(LOOK_S)

    async def _until_event(
        self, condition: Callable[[], Any], what: str, timeout_s: float = WAIT_S, *, of_audio: bool = False
    ) -> None:
        """The same for what the client gets, messages or audio too: looked at when something comes."""
        if condition():
            return
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    await self.wire.arrival(of_audio=of_audio)
        except TimeoutError:
            self._fail(_missing(what, timeout_s))
        await asyncio.sleep(LOOK_S)  # what belongs to the same step comes with it

    @property
    def _state(self) -> str:
        updates = (m for _, m in reversed(self.wire.messages) if m["type"] == "state_update")
        return next((m["state"] for m in updates if m["trigger"] != "stt_fragment"), "idle")

    @property
    def _reply_s(self) -> float:
        return (self.wire.audio_ms - self.wire.reply_from_ms) / 1000

    def _has_reply(self) -> bool:
        """Read on in the messages, up to the end of the next reply that was heard to its end."""
        while self._read < len(self.wire.messages):
            message = self.wire.messages[self._read][1]
            self._read += 1
            if message["type"] == "response_ready":
                self._replying = message["turn"]
            elif message["type"] == "state_update" and self._replying is not None:
                if message["trigger"] == Event.BARGE_IN:
                    self._replying = None
                elif message["trigger"] in (Event.TTS_COMPLETE, Event.REPLY_ABANDONED):
                    return True
        return False

    def _fail(self, text: str) -> None:
        raise CallError(f"{text}; states so far: {' '.join(self.states)}\n\n{self.timeline()}") from None


def _missing(what: str, timeout_s: float) -> str:
    return f"no {what} within {timeout_s:g} s"


def _plain(
    verb: Callable[Concatenate[AsyncCall, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Call, P], T]:
    """The verb of a `Call`: the same, and the conversation runs until it is done."""

    @functools.wraps(verb)
    def run(self: Call, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(verb(self._call, *args, **kwargs))

    return run


class Call(CallOutcome):
    """A client on the line of a conversation that runs, in virtual time, only while one of the verbs is at work.

    Options as for `AsyncCall`; `grace_s`: real time that sockets get that nobody counts (see `clock`).
    """

    def __init__(self, build: Build, *, grace_s: float = 0.0, **options: Any) -> None:
        self._call = AsyncCall(build, **options)  # the conversation, and the verbs
        self.wire, self.record, self.session = self._call.wire, self._call.record, self._call.session
        self.tape = self._call.tape
        self._grace_s = grace_s
        self._closing = ExitStack()  # ends virtual time
        self._time: VirtualTime | None = None  # None before the start and after the end

    def __enter__(self) -> Call:
        with ExitStack() as opened:
            self._time = opened.enter_context(VirtualTime(grace_s=self._grace_s))
            self._run(self._call.__aenter__())
            self._closing = opened.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        with self._closing:
            self._run(self._call.__aexit__(*error))
        self._time = None

    @property
    def user(self) -> User:
        """Who speaks; `call.user.way` says how, `call.user.why` why so."""
        return self._call.user

    user_says = _plain(AsyncCall.user_says)
    user_interrupts = _plain(AsyncCall.user_interrupts)
    noise = _plain(AsyncCall.noise)
    disconnects = _plain(AsyncCall.disconnects)
    says = _plain(AsyncCall.says)
    is_silent = _plain(AsyncCall.is_silent)
    types = _plain(AsyncCall.types)
    sends = _plain(AsyncCall.sends)
    pushes = _plain(AsyncCall.pushes)
    detects = _plain(AsyncCall.detects)
    wait = _plain(AsyncCall.wait)
    wait_for_reply = _plain(AsyncCall.wait_for_reply)
    until_state = _plain(AsyncCall.until_state)
    until_heard = _plain(AsyncCall.until_heard)
    until = _plain(AsyncCall.until)

    def _run(self, verb: Coroutine[Any, Any, T]) -> T:
        if self._time is None:
            verb.close()
            raise CallError("the call has not begun, or is over: use it inside `with Call(build) as call:`")
        return self._time.run(verb)


def run_offline(
    build: Build, script: Callable[[AsyncCall], Awaitable[None]], *, grace_s: float = 0.0, **options: Any
) -> AsyncCall:
    """Run `script` against a new conversation in virtual time; return the finished call. Options as for `Call`."""

    async def main() -> AsyncCall:
        async with AsyncCall(build, **options) as call:
            await script(call)
        return call

    return run_virtual(main(), grace_s=grace_s)
