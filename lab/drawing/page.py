"""A recording as one HTML page that needs nothing else: the picture, both voices to listen to, turns and events."""

from __future__ import annotations

import base64
import io
import time
import wave
from collections.abc import Iterator
from html import escape

import numpy as np

from ..recording.events import Turn
from ..recording.recording import Recording
from ..replay.measures import measures_of
from .svg import LEFT, RIGHT, draw

RATE = 16_000
MAX_AUDIO_S = 1_200  # of a page, which would be too heavy with more
MAX_ROWS = 2_000  # of the table of events
QUIET = (
    "audio",
    "InputAudioRawFrame",
    "ReplyAudioFrame",
    "TTSAudioRawFrame",
    "Probability",
    "Tick",
    "SpeechChunkFrame",
)
STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1d2433;--dim:#5c667a;--line:#d9dee7;--card:#f6f8fb;--cut:#be123c}
@media (prefers-color-scheme:dark){:root{--bg:#141821;--fg:#e6e9f0;--dim:#a3adbf;--line:#2f3747;--card:#1a202b;
--cut:#ff7a95}}
*{box-sizing:border-box}
body{margin:0 auto;padding:24px;max-width:1400px;background:var(--bg);color:var(--fg);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
h1{font-size:22px;margin:0 0 4px}h2{font-size:16px;margin:28px 0 8px}p{margin:0 0 12px;color:var(--dim)}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:8px;position:relative}
.pic{position:relative;width:max-content}#now{position:absolute;top:0;bottom:0;width:2px;background:var(--cut);
left:0;display:none;pointer-events:none}
svg{display:block}audio{width:100%;margin:12px 0}
table{border-collapse:collapse;width:100%;font-size:13px}
th,td{text-align:left;padding:5px 10px;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--dim);font-weight:600}td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.cut{color:var(--cut)}code{font:12px ui-monospace,Consolas,monospace;word-break:break-word}
summary{cursor:pointer;padding:6px 0}dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:0}
dt{color:var(--dim)}dd{margin:0}
"""
SCRIPT = """
const audio=document.querySelector("audio"),now=document.getElementById("now"),pic=document.querySelector(".pic");
if(audio){const k=pic.dataset,to=()=>{now.style.display="block";
now.style.left=(+k.left+audio.currentTime*+k.scale)+"px"};
audio.addEventListener("timeupdate",to);audio.addEventListener("seeked",to);
const step=()=>{if(!audio.paused){to();requestAnimationFrame(step)}};audio.addEventListener("play",step);
pic.addEventListener("click",e=>{audio.currentTime=Math.max(0,(e.clientX-pic.getBoundingClientRect().left-k.left)/k.scale)})}
"""


def page(recording: Recording) -> str:
    """Return the page."""
    svg = draw(recording)
    width = float(svg.split('width="', 1)[1].split('"', 1)[0])
    scale = (width - LEFT - RIGHT) / max(recording.length_s, 0.1)
    name = escape(recording.session_id or "a conversation")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; media-src data:\">"
        f"<title>{name}</title><style>{STYLE}</style></head><body>"
        f"<h1>{name}</h1><p>{_summary(recording)}</p>{_audio(recording)}"
        f'<div class="scroll"><div class="pic" data-left="{LEFT}" data-scale="{scale:.4f}">{svg}'
        f'<div id="now"></div></div></div>'
        f"<h2>Turns</h2>{_turns(recording)}<h2>Measures</h2>{_measures(recording)}"
        f"<h2>Settings</h2>{_settings(recording)}<h2>Events</h2>{_events(recording)}"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _summary(recording: Recording) -> str:
    turns = len(recording.turns)
    parts = [f"{recording.length_s:.1f} s", f"{turns} turn{'s' if turns != 1 else ''}"]
    cut = sum(turn.interrupted for turn in recording.turns)
    parts += [f"{cut} interrupted"] if cut else []
    if recording.began:
        parts.append(time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(recording.began)))
    parts += [f"recorded at the {'client' if recording.side == 'client' else 'bot'}"]
    parts += [recording.bot] if recording.bot else []
    if not recording.is_whole:
        parts.append(f"not whole: {recording.gap}")
    return escape(" · ".join(parts))


def _audio(recording: Recording) -> str:
    """Both voices, the user on the left and the bot on the right, at half the rate: for listening."""
    if not recording.has_audio:
        return "<p>Recorded without audio.</p>"
    if recording.length_s > MAX_AUDIO_S:
        return f"<p>The audio is left out: it lasts more than {MAX_AUDIO_S // 60} minutes.</p>"
    left, right = (np.frombuffer(recording.audio(way, rate=RATE // 2), np.int16) for way in ("to_bot", "to_user"))
    if not (left.any() or right.any()):
        return "<p>No audio was kept.</p>"
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(RATE // 2)
        out.writeframes(np.stack([left, right], axis=1).tobytes())
    sound = base64.b64encode(file.getvalue()).decode()
    return (
        f'<audio controls preload="auto" src="data:audio/wav;base64,{sound}" '
        'aria-label="The call: the user left, the bot right"></audio>'
    )


def _turns(recording: Recording) -> str:
    rows = "".join(_turn(turn) for turn in recording.turns)
    head = "".join(
        f"<th>{name}</th>" for name in ("turn", "the user said", "the bot answered", "waited", "latencies, ms")
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _turn(turn: Turn) -> str:
    reply = escape(turn.reply)
    if turn.interrupted:
        reply += f'<br><span class="cut">cut after: {escape(turn.heard or "nothing")}</span>'
    ms = turn.latency_ms
    parts = ", ".join(f"{name} {value:.0f}" for name, value in ms.items())
    response = f"{ms['Response']:.0f} ms" if "Response" in ms else ""
    return (
        f'<tr><td class="n">{turn.turn_id}</td><td>{escape(turn.user)}</td><td>{reply}</td>'
        f'<td class="n">{response}</td><td>{escape(parts)}</td></tr>'
    )


def _measures(recording: Recording) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in measures_of(recording).told())
    return f"<dl>{rows}</dl>"


def _settings(recording: Recording) -> str:
    rows = [f"<dt>{escape(name)}</dt><dd>{escape(version)}</dd>" for name, version in recording.versions.items()]
    for processor, settings in recording.settings.items():
        if isinstance(settings, dict) and settings:
            told = ", ".join(f"{key} {value}" for key, value in settings.items())
            rows.append(f"<dt>{escape(str(processor))}</dt><dd><code>{escape(told[:2000])}</code></dd>")
    return f"<dl>{''.join(rows)}</dl>" if rows else "<p>None are recorded.</p>"


def _events(recording: Recording) -> str:
    rows = list(_event_rows(recording))
    more = f"<p>The first {MAX_ROWS} are shown.</p>" if len(rows) == MAX_ROWS else ""
    head = "".join(f"<th>{name}</th>" for name in ("s", "who", "which way", "what", ""))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    summary = f"{len(rows)} events besides audio and probabilities"
    return f'<details><summary>{summary}</summary>{more}<div class="scroll">{table}</div></details>'


def _event_rows(recording: Recording) -> Iterator[str]:
    count = 0
    for event in recording.events:
        if event.kind in QUIET:
            continue
        count += 1
        if count > MAX_ROWS:
            return
        fields = ", ".join(f"{key} {value}" for key, value in event.fields.items() if value not in (None, "", [], {}))
        yield (
            f'<tr><td class="n">{event.at:.3f}</td><td>{escape(event.processor)}</td><td>{event.direction}</td>'
            f"<td>{escape(event.kind)}</td><td><code>{escape(fields[:400])}</code></td></tr>"
        )
