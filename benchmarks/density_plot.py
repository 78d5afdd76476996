"""Draws docs/images/density.svg from the results of density.py; no plotting library.

.venv/bin/python benchmarks/density_plot.py [docs/results/density.json] [docs/images/density.svg]
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

COLOURS = {"floor": "#9aa0a6", "ours": "#1a73e8", "tuned": "#f29900", "stock": "#d93025"}
NAMES = {"floor": "floor", "ours": "Leibniz", "tuned": "Pipecat, tuned", "stock": "Pipecat, default"}
W, H, PAD = 260, 180, 44


def panel(title: str, unit: str, lines: dict[str, list[tuple[float, float]]], left: int) -> str:
    """One diagram: conversations to the right, `unit` up."""
    most_x = max(x for line in lines.values() for x, _ in line)
    most_y = round_above(max(y for line in lines.values() for _, y in line))
    parts = [f'<text x="{left + W / 2}" y="24" text-anchor="middle" font-weight="bold">{title}, {unit}</text>']
    parts.append(f'<path d="M{left} {PAD}V{PAD + H}H{left + W}" fill="none" stroke="#888"/>')
    for share in (0, 0.5, 1):
        y = PAD + H - share * H
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{most_y * share:g}</text>')
        parts.append(
            f'<text x="{left + share * W}" y="{PAD + H + 16}" text-anchor="middle">{most_x * share:.0f}</text>'
        )
    parts.append(f'<text x="{left + W / 2}" y="{PAD + H + 34}" text-anchor="middle">conversations</text>')
    for kind, line in lines.items():
        points = [(left + x / most_x * W, PAD + H - y / most_y * H) for x, y in sorted(line)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[kind]}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[kind]}"/>' for x, y in points]
    return "\n".join(parts)


def round_above(value: float) -> float:
    """The least of 1, 2, 4, 5, 8 and 10 times a power of ten that is not below `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 8, 10) if step * power >= value)


def lines_of(results: list[dict[str, Any]], value: str) -> dict[str, list[tuple[float, float]]]:
    """Each kind's points, median of its runs."""
    out: dict[str, list[tuple[float, float]]] = {}
    for kind in COLOURS:
        good = [r for r in results if r["kind"] == kind and "failed" not in r]
        for n in sorted({r["n"] for r in good}):
            values = sorted(r["jitter_ms"]["99"] if value == "jitter" else r[value] for r in good if r["n"] == n)
            out.setdefault(kind, []).append((n, values[len(values) // 2]))
    return out


def main() -> None:
    """Draw."""
    source = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/results/density.json")
    target = Path(sys.argv[2] if len(sys.argv) > 2 else "docs/images/density.svg")
    report = json.loads(source.read_text())
    panels = (
        ("CPU of the process", "% of a core", "core_percent"),
        ("Memory of the process", "MB", "rss_mb"),
        ("p99 jitter of the bot's audio", "ms", "jitter"),
    )
    body = [
        panel(title, unit, lines_of(report["results"], value), 60 + number * (W + 90))
        for number, (title, unit, value) in enumerate(panels)
    ]
    for number, (kind, name) in enumerate(NAMES.items()):
        x = 60 + number * 200
        body.append(f'<rect x="{x}" y="{PAD + H + 50}" width="14" height="4" fill="{COLOURS[kind]}"/>')
        body.append(f'<text x="{x + 20}" y="{PAD + H + 56}">{name}</text>')
    note = f"{report['machine']}, {report['date']}; server on core 0, clients on core 1. "
    note += "Tuned and default Pipecat lie on each other in memory."
    body.append(f'<text x="60" y="{PAD + H + 78}" fill="#666">{note}</text>')
    width, height = 60 + 3 * (W + 90), PAD + H + 92
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


if __name__ == "__main__":
    main()
