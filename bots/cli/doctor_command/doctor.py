"""`leibniz doctor [BOT]`: what is configured, what is missing, whether each answers, and how fast."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from ..scripts import set_up_log
from ..serve import default_port, port

if TYPE_CHECKING:  # takes time to import
    from .checks import Finding

SIGNS = {"ok": "✔", "off": "-", "warn": "!", "bad": "✘"}
PLAIN = {"ok": "ok", "off": "--", "warn": "! ", "bad": "XX"}
COLOURS = {"ok": "32", "off": "2", "warn": "33", "bad": "1;31"}
MIN_SECRET_CHARS = 4  # shorter ones are no secret, and stand in many words
_SECRET = re.compile(r"_KEY$|_TOKEN$|SECRET|PASSWORD")

EPILOG = """\
It looks at what the environment configures (docs/cloud.md, leibniz serve --help), and asks each service something
small. Nothing that it asks costs more than a word of speech or a token. No key is printed.

status:
  0  whatever is configured works    1  something does not: the line says what to do    2  wrong use
"""


def add_parser(commands: Any) -> None:
    """Add this command's parser."""
    parser = commands.add_parser(
        "doctor",
        help="tell what is configured and whether it answers",
        description="Check the machine, the embedded parts and every configured service, each within a few seconds.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bot", metavar="BOT", nargs="?", help="a bot script, which is loaded, but not served")
    parser.add_argument("--port", type=port, default=default_port(), help="port to be free (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check everything."""
    set_up_log("CRITICAL")  # what is wrong is said in the findings
    secrets = secrets_of(os.environ.items())
    findings = asyncio.run(check_all(os.environ, bot=options.bot, port=options.port))
    findings = [finding.without(secrets) for finding in findings]
    is_well = all(finding.status != "bad" for finding in findings)
    if options.json:
        print(json.dumps({"ok": is_well, "checks": [finding.as_json() for finding in findings]}, indent=1))
    else:
        show(findings, sys.stdout)
    return 0 if is_well else 1


async def check_all(environment: Mapping[str, str], *, bot: str | None, port: int) -> list[Finding]:
    """Everything, in the order in which it is read. The embedded parts one by one, as they share the machine."""
    from . import checks, cloud_checks  # they take time to import

    findings = [checks.python(), checks.packages(), *([checks.script(bot)] if bot else []), checks.port_of(port)]
    findings += [checks.secret(environment), checks.tools()]
    embedded = {
        "Speech detector": checks.vad,
        "Embedded voice": checks.voice,
        "Embedded recogniser": checks.recogniser,
    }
    for name, check in embedded.items():
        findings.append(await checks.bounded(name, check, environment))
    asked = {"State store": checks.state, **cloud_checks.CHECKS}
    answers = await asyncio.gather(*(checks.bounded(name, check, environment) for name, check in asked.items()))
    return [*findings, *answers]


def secrets_of(variables: Iterable[tuple[str, str]]) -> list[str]:
    """What must not be printed: the values of keys, tokens and secrets, and passwords in addresses; longest first."""
    found = set()
    for name, value in variables:
        if _SECRET.search(name) and len(value.strip()) >= MIN_SECRET_CHARS:
            found.add(value.strip())
        if login := re.search(r"://[^/@]*:([^/@]+)@", value):
            found.add(login[1])
    return sorted(found, key=len, reverse=True)


def show(findings: Sequence[Finding], stream: TextIO) -> None:
    """Print a line per finding, and what to do under those that want it."""
    from ..talk_command.view import can_draw

    signs = SIGNS if can_draw(stream) else PLAIN
    has_colour = stream.isatty() and "NO_COLOR" not in os.environ
    name_width = max(len(finding.name) for finding in findings)
    for finding in findings:
        sign = signs[finding.status]
        if has_colour:
            sign = f"\033[{COLOURS[finding.status]}m{sign}\033[0m"
        took = f"  {finding.ms:,.0f} ms" if finding.ms is not None else ""
        print(f"  {sign}  {finding.name:<{name_width}}  {finding.detail}{took}", file=stream)
        if finding.fix:
            print(f"  {' ' * len(signs['ok'])}  {'':<{name_width}}  -> {finding.fix}", file=stream)
    bad = [finding.name for finding in findings if finding.status == "bad"]
    print(f"\n{', '.join(bad)}: see above." if bad else "\nWhatever is configured works.", file=stream, flush=True)
