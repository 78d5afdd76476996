"""`leibniz talk "TEXT"`: call a bot, say something aloud, show what happens and what it answers."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from ..scripts import UsageError, check_script, check_writable, set_up_log
from ..serve import default_port, port
from .plot import check_plot, write_plot
from .sound_card import PLAYERS, RECORDERS, Line, find

if TYPE_CHECKING:  # each takes time to import; done while the bot starts
    from leibniz_voice.transports.client.client import WebSocketClient

    from .report import Report
    from .view import View

TIMEOUT_S = 60.0  # of a call, besides what is said in it
MAX_CALL_S = 3600.0  # of one by microphone
SETTLE_S = 0.3  # quiet in front of the first word: the room that a VAD hears first
MARGIN_S = 0.3  # after the last sample of the answer
QUIET_S = 1.5  # of a bot without states: it is done when it has been quiet for so long
PATIENCE_S = 5.0  # after the last sign of a bot that went back to `idle` without an answer
BOTLESS = "start one with `leibniz serve bots/assistant.py`, or give --bot bots/assistant.py"

EPILOG = """\
examples:
  leibniz talk "what are your opening hours"                  to the bot on port 8004
  leibniz talk --microphone --bot bots/assistant.py           talk to it yourself
  leibniz talk question.wav --bot bots/assistant.py           to a bot started for this call
  leibniz talk "what are your opening hours" --out call.wav --stereo
  leibniz talk "what are your opening hours" --interrupt-after 1.5 "when do you open"
  leibniz talk "what are your opening hours" --plot call.svg  a picture of the call, drawn to scale
  leibniz talk "what are your opening hours" --json | tail -n 1

status:
  0  an answer was heard    1  none was    2  wrong use, or no bot; one line on stderr says which

--json prints one object on the last line of stdout: session_id, transcript, reply, states, interrupted,
latency_ms (response: your last audible sample to the bot's first; thinking: as the server counts it; silenced: from
your first sample over the bot until it is quiet; and the server's own names), audio_ms.
"""


def add_parser(commands: Any) -> None:
    """Add this command's parser."""
    parser = commands.add_parser(
        "talk",
        help="say something to a bot and hear its answer",
        description="Speak TEXT with the embedded voice, or play FILE.wav, to a bot in real time, and show the call.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words", metavar="TEXT|FILE.wav", nargs="?", default="", help="what to say: words, or a WAV file of any rate"
    )
    parser.add_argument(
        "--microphone", action="store_true", help="speak yourself, with a headset, until Ctrl-C (instead of TEXT)"
    )
    parser.add_argument("--bot", metavar="BOT", help="start this bot script for the call, on a free port")
    default = f"ws://127.0.0.1:{default_port()}"
    parser.add_argument("--url", help=f"address of a running bot (default: {default})")
    parser.add_argument("--out", metavar="FILE.wav", help="write what was heard, 16 kHz mono")
    parser.add_argument("--stereo", action="store_true", help="in --out, also what was said, on the left")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout, the rest on stderr")
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="S",
        help=f"end the call after S seconds (default: {TIMEOUT_S:.0f} + what is said)",
    )
    parser.add_argument("--session", metavar="ID", help="session id; an earlier one is resumed (default: a new one)")
    parser.add_argument("--token", help="token of the session, where the server asks for one (default: $LEIBNIZ_TOKEN)")
    parser.add_argument("--voice", default="en", help="espeak-ng voice that speaks TEXT (default: %(default)s)")
    parser.add_argument(
        "--interrupt-after",
        nargs=2,
        metavar=("S", "TEXT"),
        help="after S seconds of the answer, say TEXT (or a WAV file) over it",
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the call: FILE.svg a picture, FILE.html a page with sound")
    parser.set_defaults(run=run, default_url=default)


@dataclass(slots=True)
class _TalkCall:
    """A call in progress, and when the user spoke in it (s of the call; None: not yet)."""

    client: WebSocketClient
    timeout_s: float
    user_end_s: float | None = None  # last audible sample of the first utterance
    barge_in_s: float | None = None  # first audible sample over the bot
    spoke_s: float = 0.0  # end of the last utterance
    mark: int = 0  # states before the last utterance began


def run(options: argparse.Namespace) -> int:
    """Make the call."""
    set_up_log("ERROR")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # type: ignore[attr-defined]  # a terminal without emoji
    try:
        _check(options)
        return asyncio.run(_run(options))
    except UsageError as error:
        print(f"leibniz talk: {error}", file=sys.stderr)
        return 2
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM


def _check(options: argparse.Namespace) -> None:
    """Refuse what can be refused before anything is started. Raises `UsageError`."""
    if options.bot is not None and options.url is not None:
        raise UsageError("give --bot to start a bot or --url for a running one, not both")
    if options.bot is not None:
        check_script(options.bot)
    if options.bot is None and options.url is None:
        try:
            port(default_port())
        except argparse.ArgumentTypeError as error:
            raise UsageError(str(error)) from None
    if options.timeout is not None and not 0 < options.timeout <= 3600:
        raise UsageError(f"--timeout is {options.timeout:g}; give seconds, more than 0 and at most 3600")
    if options.stereo and not options.out:
        raise UsageError("--stereo needs --out FILE.wav")
    if options.out:
        check_writable(options.out)
    if options.plot:
        check_plot(options.plot)
    if options.microphone:
        if options.words or options.interrupt_after:
            raise UsageError("--microphone is you speaking; leave out TEXT and --interrupt-after")
        find(RECORDERS, "record")
        find(PLAYERS, "play")
        return
    if options.interrupt_after is not None:
        try:
            options.interrupt_s = float(options.interrupt_after[0])
        except ValueError:
            options.interrupt_s = -1.0
        if not 0 <= options.interrupt_s <= 600:
            raise UsageError(f"--interrupt-after is {options.interrupt_after[0]!r}; give seconds, 0 to 600, then TEXT")
    for words in _utterances(options):
        if not words.strip():
            raise UsageError("there is nothing to say: give TEXT, a WAV file, or --microphone")


def _utterances(options: argparse.Namespace) -> list[str]:
    if options.microphone:
        return []
    return [options.words, *(options.interrupt_after or ())[1:]]


async def _run(options: argparse.Namespace) -> int:
    from .child_bot import ChildBot

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    async with AsyncExitStack() as stack:
        bot = await stack.enter_async_context(ChildBot(options.bot)) if options.bot else None
        sounds = await _sounds(_utterances(options), options.voice)
        url = await bot.ready() if bot is not None else options.url or options.default_url
        return await _call(url, sounds, options)


async def _sounds(utterances: list[str], voice: str) -> list[bytes]:
    """Return what is to be said, PCM16 mono at 16 kHz, in the order of `utterances`. Raises `UsageError`."""
    from . import sound as talk_sound

    texts = [words for words in utterances if not talk_sound.is_file_name(words)]
    files = {words: talk_sound.read_wav(words) for words in utterances if words not in texts}
    spoken = dict(zip(texts, await talk_sound.synthesise(texts, voice=voice), strict=True)) if texts else {}
    return [files[words] if words in files else spoken[words] for words in utterances]


async def _call(url: str, sounds: list[bytes], options: argparse.Namespace) -> int:
    from leibniz_voice.pipeline.errors import ConfigurationError
    from leibniz_voice.transports.client.client import WebSocketClient
    from leibniz_voice.transports.client.opening import ConnectionFailed

    from .sound import RATE
    from .view import View

    view = View(sys.stderr)
    try:
        token = options.token or os.environ.get("LEIBNIZ_TOKEN") or None
        client = WebSocketClient(url, session_id=options.session, token=token, on_event=view.on_event)
    except ConfigurationError as error:
        raise UsageError(str(error)) from error
    said_s = sum(map(len, sounds)) / 2 / RATE
    call = _TalkCall(client, options.timeout if options.timeout is not None else TIMEOUT_S + said_s)
    try:
        async with client:
            await (_speak(call, options, view) if options.microphone else _converse(call, sounds, options, view))
    except ConnectionFailed as error:
        if not client.events:
            hint = f"; {BOTLESS}" if options.bot is None and "nothing listens" in str(error) else ""
            raise UsageError(f"{error}{hint}") from error
        view.line(client.now_s, f"❗ {error}")
    finally:
        view.end()
    if options.out:
        from .sound import write_wav

        write_wav(options.out, client.playback.heard, client.microphone.said if options.stereo else None)
    if options.plot:
        write_plot(options.plot, client)
    return _show(call, options)


async def _speak(call: _TalkCall, options: argparse.Namespace, view: View) -> None:
    """Let the user speak until Ctrl-C, or until the time is up where --timeout sets one."""
    client, stopped = call.client, asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stopped.set)
    async with Line(client) as line:
        view.line(client.now_s, "🎤 speak; Ctrl-C ends the call")

        def look() -> bool:
            view.draw(client.now_s, client.microphone.said, client.playback.heard)
            return stopped.is_set() or bool(line.failure)

        await client.until(look, timeout_s=options.timeout or MAX_CALL_S)
        if line.failure:
            view.line(client.now_s, f"❗ the microphone: {line.failure}")


async def _converse(call: _TalkCall, sounds: list[bytes], options: argparse.Namespace, view: View) -> None:
    """Speak, wait for the answer, speak over it if asked to; until the bot is done or the time is up."""
    client = call.client

    def waits(condition: Any) -> Any:
        def look() -> bool:
            view.draw(client.now_s, client.microphone.said, client.playback.heard)
            return condition()

        return client.until(look, timeout_s=max(0.0, call.timeout_s - client.now_s))

    await waits(lambda: client.now_s >= SETTLE_S)
    await waits(lambda: client.state in ("idle", "listening"))  # a greeting is heard to its end
    await _say(call, sounds[0], waits)
    if options.interrupt_after is not None and await waits(
        lambda: _reply_ms(client) >= options.interrupt_s * 1000 or _is_over(call)
    ):
        if _is_over(call):
            view.line(client.now_s, "the answer was over before the time of --interrupt-after")
        else:
            await _say(call, sounds[1], waits)
    if not await waits(lambda: _is_over(call)):
        view.line(client.now_s, f"the time is up ({call.timeout_s:.3g} s)")
        return
    end_s = client.now_s + MARGIN_S
    await waits(lambda: client.now_s >= end_s)


async def _say(call: _TalkCall, pcm: bytes, waits: Any) -> None:
    from .sound import audible_span

    client = call.client
    first_s, last_s = audible_span(pcm) or (0.0, 0.0)
    call.mark = len(client.states)
    speech = asyncio.ensure_future(client.speak(pcm))
    try:
        await waits(speech.done)
    finally:
        speech.cancel()
    if not speech.done() or speech.cancelled():
        return  # the time is up
    begin_s, call.spoke_s = speech.result()
    if call.user_end_s is None:
        call.user_end_s = begin_s + last_s
    else:
        call.barge_in_s = begin_s + first_s


def _reply_ms(client: WebSocketClient) -> float:
    playback = client.playback
    return playback.played_ms if playback.turn is not None else playback.played / playback.sample_rate * 1000


def _is_over(call: _TalkCall) -> bool:
    """Whether the bot has answered what was said last and is quiet again, or has given up on it."""
    from .sound import RATE, audible_span

    client = call.client
    if len(client.states) == 1 and client.playback.played:  # a bot without states
        recent = client.playback.heard[-2 * int(QUIET_S * RATE) :]
        return client.now_s >= call.spoke_s + QUIET_S and audible_span(recent) is None
    if client.state != "idle":
        return False
    if "speaking" in client.states[call.mark :]:
        return not client.playback.held_ms
    if len(client.states) == 1:
        return False
    last_s = max(call.spoke_s, client.events[-1].at_s)
    return client.now_s >= last_s + PATIENCE_S


def _show(call: _TalkCall, options: argparse.Namespace) -> int:
    from .report import report_of

    client = call.client
    played_ms = client.playback.played / client.playback.sample_rate * 1000
    report = report_of(
        client.session_id,
        client.events,
        states=client.states,
        user_end_s=call.user_end_s,
        barge_in_s=call.barge_in_s,
        heard=client.playback.heard,
        played_ms=played_ms,
    )
    if options.microphone:  # nobody knows when the user was done: any sound of the bot is an answer
        report.is_heard = client.playback.played > 0
    _summarise(client, report, sys.stderr if options.json else sys.stdout)
    if options.json:
        print(json.dumps(report.as_json()), flush=True)
    return 0 if report.is_heard else 1


def _summarise(client: WebSocketClient, report: Report, stream: TextIO) -> None:
    from .report import timeline
    from .view import can_draw

    heard, said = client.playback.heard, client.microphone.said
    length_s = max(len(heard), len(said)) / 2 / client.playback.sample_rate
    drawn = timeline(
        client.events,
        said=said,
        heard=heard,
        length_s=length_s,
        width=shutil.get_terminal_size((100, 24)).columns,
        plain=not can_draw(stream),
    )
    lines = ["", drawn, ""]
    lines += [f"you    {line}" for line in report.transcript.splitlines()]
    lines += [f"bot    {line}" for line in report.reply.splitlines()]
    if not report.is_heard:
        lines.append("bot    (no answer was heard)")
    if report.latency_ms:
        lines.append("ms     " + ", ".join(f"{name} {ms:.0f}" for name, ms in report.latency_ms.items()))
    print("\n".join(lines), file=stream, flush=True)
