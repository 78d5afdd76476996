"""`leibniz watch [SESSION]`: a live table of the conversations in a state store, of all processes that share it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .scripts import UsageError, set_up_log

MAX_KEYS = 20_000  # looked through at most in one round; SCAN gives no order, so past it some are missing
MAX_ROWS = 1_000  # read at most in one round
BATCH = 200
LOG_LINES = 20
FIELDS = ("state", "turn_number", "turn_id", "last_update", "timestamps", "latency_ms", "owner")
LATENCIES = ("End-of-Turn", "LLM Wait", "Response", "TTS Complete")
CLEAR = "\x1b[H\x1b[2J"

EPILOG = """\
The columns: REPLIES played to the end, TURN the newest turn's id, SINCE the seconds since the last move, then the
last finished turn's latencies in ms (End-of-Turn: the user had the floor; LLM Wait: until the first audio; Response:
from the user's last sample to the first audio heard; TTS Complete: the reply's playing).

environment:
  REDIS_URL   the store, where --url is not given: redis://, rediss://, unix://,
              redis+sentinel://host:port,host:port/NAME, redis+cluster://host:port,host:port

examples:
  leibniz watch                      the bot that runs in this folder
  leibniz watch caller-7 --once      one conversation and its last moves, then end
  leibniz watch --url redis://cache:6379/0 | head -40

Status 1: the store does not answer (with --once), or there is no such SESSION.
"""


def add_parser(commands: Any) -> None:
    """Add this command's parser."""
    parser = commands.add_parser(
        "watch",
        help="show the conversations of all processes, live",
        description="Show sessions, states, turns and latencies out of the state store. Reads only. Ctrl-C ends it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("session", metavar="SESSION", nargs="?", help="only this one, with its last moves")
    parser.add_argument("--url", help="the store's URL (default: REDIS_URL, else the embedded Redis in --data)")
    parser.add_argument("--data", default=".leibniz", help="folder of the embedded Redis (default: %(default)s)")
    parser.add_argument("--once", action="store_true", help="print once and end")
    parser.add_argument("--interval", type=float, default=0.5, metavar="S", help="seconds between two looks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Watch until Ctrl-C."""
    set_up_log("ERROR")
    try:
        if not 0.05 <= options.interval <= 3600:
            raise UsageError(f"--interval is {options.interval:g}; give 0.05 to 3600 seconds")
        return asyncio.run(watch(options))
    except UsageError as error:
        print(f"leibniz watch: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0


def _store_url(options: argparse.Namespace) -> str:
    """Return the URL to look at. Raises `UsageError` if nothing says one and no embedded Redis runs in the folder."""
    from leibniz_voice.transports.state.embedded_redis import EmbeddedRedis

    url = options.url or os.environ.get("REDIS_URL")
    if url:
        return url
    server = EmbeddedRedis(directory=options.data)
    if not Path(server.socket).exists():
        raise UsageError(f"no bot has a store in {options.data}; start one, or give --url, --data or REDIS_URL")
    return server.url


async def watch(options: argparse.Namespace) -> int:
    """Look, print, wait, until cancelled or `--once`."""
    from redis.exceptions import RedisError

    from leibniz_voice.pipeline.conversation.store import SESSION_ID
    from leibniz_voice.pipeline.errors import ConfigurationError
    from leibniz_voice.transports.state.redis_url import close, connect, without_password

    if options.session and SESSION_ID.fullmatch(options.session) is None:
        raise UsageError("a session id is 1 to 64 letters, digits, '_' or '-'")
    url = _store_url(options)
    try:
        client = connect(url, timeout_s=2.0, max_connections=4)
    except ConfigurationError as error:
        raise UsageError(str(error)) from error
    is_live = sys.stdout.isatty() and not options.once
    try:
        while True:
            status = 0
            try:
                lines = await look(client, options.session)
                if options.session and not lines:
                    status, lines = 1, [f"no session {options.session}"]
            except (RedisError, OSError, TimeoutError) as error:
                status, lines = 1, [f"the store does not answer: {type(error).__name__}: {error}"]
            head = f"{without_password(url)}  {time.strftime('%H:%M:%S')}"
            print((CLEAR if is_live else "") + "\n".join(fit([head, "", *lines], is_live)), flush=True)
            if options.once:
                return status
            await asyncio.sleep(options.interval)
    finally:
        await close(client)


async def look(client: Any, session: str | None) -> list[str]:
    """Read the store once; return the lines to show, none for a session that is not there."""
    if session:
        fields = _texts(await client.hgetall(f"session:{session}"))
        if not fields:
            return []
        log = await client.xrevrange(f"{{session:{session}}}:log", count=LOG_LINES)
        return [*table({session: fields}, time.time()), "", *moves([_texts(entry) for _, entry in reversed(log)])]
    names: list[str] = []
    seen = 0
    async for key in client.scan_iter(match="session:*", count=1000, _type="hash"):
        names.append(_text(key).removeprefix("session:"))
        seen += 1
        if seen >= MAX_KEYS:
            break
    sessions: dict[str, dict[str, str]] = {}
    chosen = names[:MAX_ROWS]
    for start in range(0, len(chosen), BATCH):
        batch = chosen[start : start + BATCH]
        async with client.pipeline(transaction=False) as pipe:
            for name in batch:
                pipe.hmget(f"session:{name}", *FIELDS)
            for name, values in zip(batch, await pipe.execute(), strict=True):
                sessions[name] = _texts({f.encode(): value for f, value in zip(FIELDS, values, strict=True) if value})
    lines = table(sessions, time.time())
    if len(names) > len(chosen):
        lines.append(f"... and {len(names) - len(chosen)} more, not read")
    return lines


def table(sessions: dict[str, dict[str, str]], now: float) -> list[str]:
    """Return the table's lines, the session that changed last first."""
    rows = [("SESSION", "STATE", "TURN", "REPLIES", "SINCE", *(name.upper() for name in LATENCIES), "OWNER")]
    rows += [_row(name, fields, now) for name, fields in sorted(sessions.items(), key=lambda item: -_update(item[1]))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    counts: dict[str, int] = {}
    for fields in sessions.values():
        counts[fields.get("state", "?")] = counts.get(fields.get("state", "?"), 0) + 1
    summary = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    total = f"{len(sessions)} session{'' if len(sessions) == 1 else 's'}"
    return [*lines, "", f"{total}: {summary}" if summary else total]


def moves(log: Sequence[dict[str, str]]) -> list[str]:
    """Return one line for each transition, oldest first, with the seconds since the one before it."""
    lines = [f"last {len(log)} moves:"]
    before: float | None = None
    for entry in log:
        at = _number(entry.get("at", ""))
        clock = time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at * 1000) % 1000:03d}"
        after = "" if before is None else f"+{at - before:.3f} s"
        move = f"{entry.get('from', '?')} -> {entry.get('to', '?')}"
        lines.append(
            f"  {clock}  {after:>11}  turn {entry.get('turn_id', '?'):<4}  {move:24}  {entry.get('trigger', '?')}"
        )
        before = at
    return lines


def fit(lines: Sequence[str], is_live: bool) -> list[str]:
    """Cut the lines to the terminal, where there is one."""
    if not is_live:
        return list(lines)
    columns, rows = shutil.get_terminal_size()
    cut = [line[: columns - 1] for line in lines]
    return cut if len(cut) < rows else [*cut[: rows - 3], "...", cut[-1]]


def _row(name: str, fields: dict[str, str], now: float) -> tuple[str, ...]:
    moved = max(_object(fields.get("timestamps", "")).values(), default=_update(fields))
    latency = _object(fields.get("latency_ms", ""))
    figures = (f"{latency[label]:.0f}" if label in latency else "-" for label in LATENCIES)
    since = f"{max(0.0, now - moved):.1f}" if moved else "-"
    state, turn, replies = (fields.get(field, "?") for field in ("state", "turn_id", "turn_number"))
    return (name, state, turn, replies, since, *figures, fields.get("owner", "-")[:8])


def _texts(fields: dict[bytes, bytes]) -> dict[str, str]:
    """Decode; somebody else may have put anything there, and control characters must not reach the terminal."""
    return {_text(name): _text(value) for name, value in fields.items()}


def _text(raw: bytes) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in raw.decode(errors="replace"))


def _update(fields: dict[str, str]) -> float:
    return _number(fields.get("last_update", ""))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _object(text: str) -> dict[str, float]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(value, dict):
        return {}
    return {name: number for name, number in value.items() if isinstance(number, int | float)}
