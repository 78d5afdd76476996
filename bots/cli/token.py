"""`leibniz token SESSION`: a token that opens one session once."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

from .scripts import set_up_log

EPILOG = """\
environment:
  LEIBNIZ_SECRET     the server's secret, at least 32 bytes (openssl rand -hex 32)

The token goes into the Authorization header (Bearer TOKEN), the subprotocols of a browser's
WebSocket (["orchestrate", "token.TOKEN"]), or the field `token` of `hello`.
"""


def add_parser(commands: Any) -> None:
    """Add this command's parser."""
    parser = commands.add_parser(
        "token",
        help="make a token that opens a session",
        description="Print a signed token: good for one connection of one session, for a short time.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("session", metavar="SESSION", help="the session id: 1 to 64 letters, digits, '_' or '-'")
    parser.add_argument("--lifetime", type=float, default=300.0, metavar="S", help="seconds (default: %(default)g)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the token."""
    set_up_log("ERROR")
    from leibniz_voice.pipeline.errors import ConfigurationError
    from leibniz_voice.transports.access.token_key import TokenKey

    secret = os.environ.get("LEIBNIZ_SECRET", "")
    if not secret:
        print("leibniz token: set LEIBNIZ_SECRET to the server's secret", file=sys.stderr)
        return 2
    if not 0 < options.lifetime <= 7 * 86400:
        print("leibniz token: --lifetime must be positive and at most a week", file=sys.stderr)
        return 2
    try:
        print(TokenKey(secret).mint(options.session, now=time.time(), lifetime_s=options.lifetime))
    except ConfigurationError as error:
        print(f"leibniz token: {error}", file=sys.stderr)
        return 2
    return 0
