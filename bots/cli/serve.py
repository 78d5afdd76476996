"""`leibniz serve BOT`: serve a bot script over a WebSocket."""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from .scripts import UsageError, cannot_listen, counted, lifespan_of, load_bot, set_up_log
from .supervisor import USAGE, WORKER, is_first_to_refuse, on_stop, place_in, supervise

WORKERS_PER_CORE = 8  # one is enough; services that a bot waits for cost no core

EPILOG = """\
environment:
  REDIS_URL          where conversations are kept (redis://, rediss://, unix://);
                     unset: a Redis of its own in --data
  LEIBNIZ_SECRET     at least 32 bytes: clients need a token signed with it (leibniz token)
  LEIBNIZ_ORIGINS    browser origins allowed besides loopback, separated by spaces; * for all
  PORT               the port, where --port is not given

SIGTERM or Ctrl-C: conversations finish their turn, clients are told to reconnect, exit 0. A second one: at once.
A bot script defines build(session) -> Pipeline. See bots/echo.py for the smallest.
"""


def add_parser(
    commands: Any,
    *,
    name: str = "serve",
    help: str = "serve a bot script over a WebSocket",
    description: str = "Serve a bot: its console page, its WebSocket endpoint, /health and /metrics on one port.",
    record: str | None = None,
) -> None:
    """Add this command's parser; `record`: the folder that conversations are recorded into, None: only if asked to."""
    parser = commands.add_parser(
        name,
        help=help,
        description=description,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bot", metavar="BOT", help="a bot script, such as bots/assistant.py")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=port, default=default_port(), help="port; 0: any (default: %(default)s)")
    parser.add_argument("--data", default=".leibniz", help="folder of the embedded Redis (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes on the port (default: 1)")
    parser.add_argument("--idle", type=float, metavar="S", help="the same as --limit idle_s=S (default: 30)")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=VALUE", help="set a limit; docs/operations.md lists them"
    )
    parser.add_argument(
        "--drain", type=float, default=10.0, metavar="S", help="time for turns at the end (default: 10)"
    )
    parser.add_argument(
        "--insecure", action="store_true", help="allow an address that others can reach, without tokens"
    )
    parser.add_argument("--trust-proxy", action="store_true", help="count addresses by the last of X-Forwarded-For")
    _add_recording(parser, default=record)
    parser.add_argument("--log-level", default="INFO", metavar="LEVEL", help="DEBUG shows texts (default: %(default)s)")
    parser.set_defaults(run=run)


def _add_recording(parser: argparse.ArgumentParser, *, default: str | None) -> None:
    """Add the options of recording; `default`: the folder where none is given, None: nothing is recorded."""
    group = parser.add_argument_group("recording (leibniz show, replay and compare read it)")
    told = f" (default: {default})" if default else ""
    flags = ("--record",) if default is None else ("-o", "--record")
    group.add_argument(*flags, metavar="DIR", default=default, help=f"record each conversation into this folder{told}")
    group.add_argument("--no-audio", action="store_true", help="keep no sample of anybody's voice, only levels")
    group.add_argument("--no-text", action="store_true", help="keep no word; such a recording cannot be replayed")


def default_port() -> str:
    """Return what stands for a port that is not given: PORT, whatever it is, else 8004."""
    return os.environ.get("PORT") or "8004"


def port(text: str) -> int:
    """Read a port. Raises `ArgumentTypeError`, which argparse shows."""
    if not (text.isascii() and text.isdigit() and int(text[:6]) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give 0 to 65535, by --port or the variable PORT")
    return int(text)


def _max_workers() -> int:
    """How many processes may be asked for: more is a slip, and thousands would take the machine along."""
    return WORKERS_PER_CORE * (os.cpu_count() or 1)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    try:
        set_up_log(options.log_level)
        if not 1 <= options.workers <= _max_workers():
            raise UsageError(f"--workers is {options.workers}; give 1 to {_max_workers()}, as each takes a core")
        if not 0 <= options.drain < math.inf:
            raise UsageError(f"--drain is {options.drain:g}; give seconds, 0 or more")
        if options.idle is not None:
            options.limit.append(f"idle_s={options.idle}")
        check(options)
        if options.workers > 1:
            return asyncio.run(supervise(options))
        bot = load_bot(options.bot)
        with recording_of(bot.build, options) as build:
            return asyncio.run(serve(bot, build, options))
    except UsageError as error:
        if is_first_to_refuse(os.environ.get(WORKER)):
            print(f"leibniz serve: {error}", file=sys.stderr)
        return USAGE


def check(options: argparse.Namespace) -> None:
    """Refuse what no server could be made with; raises `UsageError`."""
    from leibniz_voice.pipeline.errors import ConfigurationError
    from leibniz_voice.transports import WebSocketServer

    if options.record is None and (options.no_audio or options.no_text):
        raise UsageError("--no-audio and --no-text say what --record DIR leaves out; give it too")
    try:
        WebSocketServer(lambda session: None, **settings_of(options))  # type: ignore[arg-type] # never called
    except ConfigurationError as error:
        raise UsageError(str(error)) from error


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The server's settings from options and environment. Raises `UsageError`."""
    from leibniz_voice.pipeline.errors import ConfigurationError
    from leibniz_voice.transports.access.limits import Limits

    limits = dict(limit.partition("=")[::2] for limit in options.limit)
    try:
        return {
            "host": options.host,
            "port": options.port,
            "secret": os.environ.get("LEIBNIZ_SECRET") or None,
            "origins": os.environ.get("LEIBNIZ_ORIGINS", "").split(),
            "insecure": options.insecure,
            "trust_proxy": options.trust_proxy,
            "limits": Limits.parse(limits),
        }
    except ConfigurationError as error:
        raise UsageError(f"--limit: {error}") from error


@contextmanager
def recording_of(build: Any, options: argparse.Namespace) -> Iterator[Any]:
    """Give the `build` that serves: the bot's own, or one that records. Raises `UsageError`."""
    if options.record is None:
        yield build
        return
    from leibniz_voice.lab.recording.recording_folder import RecordingFolder
    from leibniz_voice.pipeline.errors import ConfigurationError

    try:
        folder = RecordingFolder(options.record, audio=not options.no_audio, text=not options.no_text)
    except ConfigurationError as error:
        raise UsageError(str(error)) from error
    try:
        yield folder.records(build, bot=options.bot)
    finally:
        folder.close()
        lost = f"; {counted(folder.lost, 'recording')} lost or cut short" if folder.lost else ""
        print(f"{counted(folder.written, 'conversation')} recorded in {options.record}{lost}", flush=True)


async def serve(bot: ModuleType, build: Any, options: argparse.Namespace) -> int:
    """Serve what `build` makes while `bot` lives; print one line when ready."""
    from leibniz_voice.pipeline.engine.child_process import die_with_parent
    from leibniz_voice.pipeline.errors import ConfigurationError
    from leibniz_voice.transports import WebSocketServer, open_store
    from leibniz_voice.transports.server.peers import Peers

    place = place_in(os.environ.get(WORKER))
    peers = None
    if place is not None:
        die_with_parent(place.supervisor)
        peers = Peers(place.folder, number=place.number)
    try:
        store = await open_store(os.environ.get("REDIS_URL"), directory=options.data)
    except ConfigurationError as error:
        raise UsageError(f"REDIS_URL: {error}") from error
    try:
        async with lifespan_of(bot):
            server = WebSocketServer(build, store=store, peers=peers, **settings_of(options))
            gc.collect()  # before the first client, and before the watchdog looks
            gc.freeze()  # what is there now stays: a full collection would stop the loop for 50 ms, again and again
            try:
                await server.start()
            except OSError as error:
                raise UsageError(cannot_listen(options, error)) from error
            try:
                await _until_stopped(server, is_worker=place is not None)
            finally:
                await server.stop(drain_s=options.drain)
    except ConfigurationError as error:  # of the bot's content or settings, found when its parts start
        raise UsageError(str(error)) from error
    finally:
        await store.close()
    return 0


async def _until_stopped(server: Any, *, is_worker: bool) -> None:
    """Return at the first SIGINT or SIGTERM; the second one ends the process there and then.

    Not a worker: a service manager tells it, too, what its supervisor tells it, and only that one knows what is a
    second one.
    """
    stopped = asyncio.Event()

    def stop() -> None:
        if stopped.is_set() and not is_worker:
            os._exit(1)
        stopped.set()

    on_stop(stop)
    page = server.address.replace("ws://", "http://").replace("/orchestrate", "/")
    print(f"Ready: {server.address}?session_id=ID (console: {page})", flush=True)
    await stopped.wait()
    if not is_worker:  # the supervisor says it once
        print("Stopping.", flush=True)
