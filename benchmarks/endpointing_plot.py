"""Draws docs/images/endpointing.svg for endpointing.py; no plotting library."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

COLOURS = {"ours": "#1a73e8", "stock smart-turn": "#d93025", "stock timeout": "#f29900"}
W, H, TOP, LEFT, GAP = 270, 190, 44, 60, 90
Figures = Callable[[list[dict[str, Any]]], tuple[float, float]]


def _frame(title: str, x_name: str, left: int, most_x: float, most_y: float) -> list[str]:
    parts = [f'<text x="{left + W / 2}" y="24" text-anchor="middle" font-weight="bold">{title}</text>']
    parts.append(f'<path d="M{left} {TOP}V{TOP + H}H{left + W}" fill="none" stroke="#888"/>')
    for share in (0, 0.5, 1):
        y = TOP + H - share * H
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{most_y * share:.0f}</text>')
        parts.append(
            f'<text x="{left + share * W}" y="{TOP + H + 16}" text-anchor="middle">{most_x * share:.0f}</text>'
        )
    parts.append(f'<text x="{left + W / 2}" y="{TOP + H + 34}" text-anchor="middle">{x_name}</text>')
    return parts


def _place(left: int, x: float, y: float, most_x: float, most_y: float) -> str:
    return f"{left + x / most_x * W:.1f},{TOP + H - min(y / most_y, 1.05) * H:.1f}"


def draw(rows: list[dict[str, Any]], voices: Sequence[str], pauses: Sequence[int], figures: Figures) -> str:
    """Cut-offs over the pause, delay over the pause, and every setting in the plane of both."""
    rows = [row for row in rows if row["voice"] in voices]
    body: list[str] = []
    for number, (title, most) in enumerate((("false cut-offs, %", 100.0), ("median delay, ms", 3000.0))):
        left = LEFT + number * (W + GAP)
        body += _frame(title, "pause in the sentence, ms", left, max(pauses), most)
        for system, colour in COLOURS.items():
            found = [figures([r for r in rows if (r["system"], r["pause_ms"]) == (system, p)])[number] for p in pauses]
            line = [
                _place(left, p, y, max(pauses), most) for p, y in zip(pauses, found, strict=True) if not math.isnan(y)
            ]
            body.append(f'<polyline points="{" ".join(line)}" fill="none" stroke="{colour}" stroke-width="2"/>')
    left, most_delay = LEFT + 2 * (W + GAP), 1500.0
    body += _frame("every setting: false cut-offs, %", "delay of finished sentences, mean ms", left, most_delay, 100.0)
    for system in dict.fromkeys(row["system"] for row in rows):
        colour = next(colour for name, colour in COLOURS.items() if system.startswith(name))
        whole = [r["delay_ms"] for r in rows if r["system"] == system and not r["pause_ms"]]
        cut, _ = figures([r for r in rows if r["system"] == system and r["pause_ms"]])
        x, y = _place(left, sum(whole) / len(whole), cut, most_delay, 100.0).split(",")
        radius = 6 if system in COLOURS else 3
        body.append(f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{colour}"><title>{system}</title></circle>')
    for number, (system, colour) in enumerate(COLOURS.items()):
        x, y = LEFT + number * 200, TOP + H + 52
        body.append(f'<rect x="{x}" y="{y}" width="14" height="4" fill="{colour}"/>')
        body.append(f'<text x="{x + 20}" y="{y + 6}">{system}</text>')
    note = f"voices {', '.join(voices)} (settings chosen on others); large dots are the defaults"
    body.append(f'<text x="{LEFT}" y="{TOP + H + 76}" fill="#666">{note}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + 3 * (W + GAP)} {TOP + H + 92}" '
        'font-family="sans-serif" font-size="12">'
        f'<rect width="{LEFT + 3 * (W + GAP)}" height="{TOP + H + 92}" fill="#fff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )
