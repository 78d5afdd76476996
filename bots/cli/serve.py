"""`leibniz serve BOT`: serve a bot script over a WebSocket."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from types import ModuleType
from typing import Any

from .loading import UsageError, lifespan_of, load_bot, set_up_log

EPILOG = """\
environment:
  REDIS_URL          where conversations are kept (redis://, rediss://, unix://);
                     unset: a Redis of its own in --data
  LEIBNIZ_ORIGINS    browser origins allowed besides loopback, separated by spaces; * for all
  PORT               the port, where --port is not given

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
    parser.add_argument("--idle", type=float, default=30.0, metavar="S", help="end a silent session after S seconds")
    parser.add_argument("--insecure", action="store_true", help="allow an address others can reach, without tokens")
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
        bot = load_bot(options.bot)
        return asyncio.run(serve(bot, options))
    except UsageError as error:
        print(f"leibniz serve: {error}", file=sys.stderr)
        return 2


async def serve(bot: ModuleType, options: argparse.Namespace) -> int:
    """Serve `bot`; print one line when ready."""
    from leibniz_voice.pipeline.errors import ConfigurationError
    from leibniz_voice.transports import WebSocketServer, open_store

    store = await open_store(os.environ.get("REDIS_URL"), directory=options.data)
    try:
        async with lifespan_of(bot):
            try:
                server = WebSocketServer(
                    bot.build,
                    host=options.host,
                    port=options.port,
                    store=store,
                    origins=os.environ.get("LEIBNIZ_ORIGINS", "").split(),
                    insecure=options.insecure,
                    idle_s=options.idle,
                )
                await server.start()
            except ConfigurationError as error:
                raise UsageError(str(error)) from error
            except OSError as error:
                raise UsageError(f"cannot listen on {options.host}:{options.port}: {error.strerror}") from error
            try:
                await _until_stopped(server, options)
            finally:
                await server.stop()
    finally:
        await store.close()
    return 0


async def _until_stopped(server: Any, options: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    page = server.address.replace("ws://", "http://").replace("/orchestrate", "/")
    print(f"Ready: {server.address}?session_id=ID (console: {page})", flush=True)
    await stopped.wait()
    print("Stopping.", flush=True)
