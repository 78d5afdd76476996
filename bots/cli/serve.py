"""`leibniz serve BOT`: serve a bot script over a WebSocket."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
from types import ModuleType
from typing import Any

from .loading import UsageError, lifespan_of, load_bot, set_up_log
from .workers import WORKER, die_with_parent, place_in, supervise

EPILOG = """\
environment:
  REDIS_URL          where conversations are kept (redis://, rediss://, unix://);
                     unset: a Redis of its own in --data
  LEIBNIZ_SECRET     at least 32 bytes: clients need a token signed with it (leibniz token)
  LEIBNIZ_ORIGINS    browser origins allowed besides loopback, separated by spaces; * for all
  PORT               the port, where --port is not given

SIGTERM: conversations finish their turn, clients are told to reconnect, exit 0. A second one: at once.
A bot script defines build(session) -> Pipeline. See bots/echo.py for the smallest.
"""


def add_parser(commands: Any) -> None:
    """Add this command's parser."""
    parser = commands.add_parser(
        "serve",
        help="serve a bot script over a WebSocket",
        description="Serve a bot: its console page, its WebSocket endpoint, /health and /metrics on one port.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bot", metavar="BOT", help="a bot script, such as bots/assistant.py")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=int_of("PORT", 8004), help="port; 0: any (default: %(default)s)")
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
    parser.add_argument("--log-level", default="INFO", metavar="LEVEL", help="DEBUG shows texts (default: %(default)s)")
    parser.set_defaults(run=run)


def int_of(name: str, default: int) -> int:
    """Return an environment variable's whole number; the default if it is unset or none."""
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else default


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    set_up_log(options.log_level)
    try:
        if not 0 <= options.port <= 65535:
            raise UsageError(f"--port is {options.port}; give one from 0 to 65535")
        if options.workers < 1:
            raise UsageError(f"--workers is {options.workers}; give at least 1")
        if options.idle is not None:
            options.limit.append(f"idle_s={options.idle}")
        check(options)
        if options.workers > 1:
            return asyncio.run(supervise(options))
        bot = load_bot(options.bot)
        return asyncio.run(serve(bot, options))
    except UsageError as error:
        print(f"leibniz serve: {error}", file=sys.stderr)
        return 2


def check(options: argparse.Namespace) -> None:
    """Refuse what no server could be made with; raises `UsageError`."""
    from leibniz_voice.pipeline.errors import ConfigurationError
    from leibniz_voice.transports import WebSocketServer

    try:
        WebSocketServer(lambda session: None, **settings_of(options))  # type: ignore[arg-type] # never called
    except ConfigurationError as error:
        raise UsageError(str(error)) from error


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The server's settings from options and environment. Raises `UsageError`."""
    from leibniz_voice.pipeline.errors import ConfigurationError
    from leibniz_voice.transports.limits import Limits

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


async def serve(bot: ModuleType, options: argparse.Namespace) -> int:
    """Serve `bot`; print one line when ready."""
    from leibniz_voice.pipeline.errors import ConfigurationError
    from leibniz_voice.transports import WebSocketServer, open_store
    from leibniz_voice.transports.peers import Peers

    place = place_in(os.environ.get(WORKER))
    peers = None
    if place is not None:
        die_with_parent()
        peers = Peers(place[1], number=place[0])
    store = await open_store(os.environ.get("REDIS_URL"), directory=options.data)
    try:
        async with lifespan_of(bot):
            server = WebSocketServer(bot.build, store=store, peers=peers, **settings_of(options))
            try:
                await server.start()
            except OSError as error:
                raise UsageError(f"cannot listen on {options.host}:{options.port}: {error.strerror}") from error
            gc.collect()
            gc.freeze()  # what is there now stays: a full collection would stop the loop for 50 ms, again and again
            try:
                await _until_stopped(server)
            finally:
                await server.stop(drain_s=options.drain)
    except ConfigurationError as error:  # of the bot's content or settings, found when its parts start
        raise UsageError(str(error)) from error
    finally:
        await store.close()
    return 0


async def _until_stopped(server: Any) -> None:
    """Return at the first SIGINT or SIGTERM; the second one ends the process there and then."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopped.is_set():
            os._exit(1)
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    page = server.address.replace("ws://", "http://").replace("/orchestrate", "/")
    print(f"Ready: {server.address}?session_id=ID (console: {page})", flush=True)
    await stopped.wait()
    print("Stopping.", flush=True)
