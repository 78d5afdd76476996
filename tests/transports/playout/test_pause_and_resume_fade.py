"""A pause, a resume and a cut do not click, and move no sample: in the console's player and in the Python client's."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from leibniz_voice.transports.client.playback import FADE_MS, Playback
from tests.support import ROOT
from tests.support.tools import needs

RATE = 16_000
LOUD = 12_000  # the bot's level: a constant, so that any step is an edge
MOST = LOUD * 0.07  # between two samples; a cut without a fade would be LOUD
WORKLET = ROOT / "transports" / "console" / "player.worklet.js"


def steps(heard: np.ndarray) -> float:
    """The largest step between two samples."""
    return float(np.abs(np.diff(heard.astype(np.float64))).max())


def played(*acts: tuple[float, str]) -> np.ndarray:
    """What the Python client plays of two seconds that rise in a ramp of 0.1 s, with acts at times."""
    playback = Playback(sample_rate=RATE)
    playback.start(0.0)
    ramp = np.minimum(np.arange(2 * RATE) / (0.1 * RATE), 1.0)
    playback.begin(1, 0.0)
    playback.push((ramp * LOUD).astype("<i2").tobytes(), 0.0)
    for at, act in acts:
        getattr(playback, act)(at)
    playback.advance(3.0)
    return np.frombuffer(bytes(playback.heard), np.int16)


@pytest.mark.parametrize("acts", [((0.5, "pause"), (0.9, "resume")), ((0.5, "drop"),), ((0.5, "pause"), (0.8, "drop"))])
def test_the_python_client_does_not_click(acts: tuple[tuple[float, str], ...]) -> None:
    heard = played(*acts)[: round(1.5 * RATE)]
    assert steps(heard) <= MOST
    silent_from = round((0.5 + FADE_MS / 1000) * RATE)
    assert not heard[silent_from : silent_from + RATE // 4].any()


def test_a_pause_moves_no_sample_of_the_python_client() -> None:
    whole, paused = played(), played((0.5, "pause"), (0.9, "resume"))
    fade = round(FADE_MS / 1000 * RATE)
    assert np.array_equal(paused[: RATE // 2], whole[: RATE // 2])
    assert np.array_equal(paused[round(0.9 * RATE) + fade : 2 * RATE], whole[RATE // 2 + fade : round(1.6 * RATE)])


def test_a_pause_before_anything_sounds_leaves_no_trace() -> None:
    playback = Playback(sample_rate=RATE)
    playback.start(0.0)
    playback.pause(0.1)
    playback.resume(0.2)
    playback.push(b"\x10\x27" * 100, 0.2)
    playback.advance(0.3)
    assert bytes(playback.heard).count(b"\x10\x27") == 100


@pytest.mark.slow
@needs("node")
def test_the_consoles_player_does_not_click_and_moves_no_sample() -> None:
    script = f"""
        globalThis.sampleRate = {RATE};
        globalThis.AudioWorkletProcessor = class {{ constructor() {{ this.port = {{ postMessage() {{}} }}; }} }};
        let Player; globalThis.registerProcessor = (_, made) => {{ Player = made; }};
        require({json.dumps(str(WORKLET))});
        const run = (acts) => {{
            const player = new Player(), heard = [];
            player.begin();
            const ramp = Int16Array.from({{ length: 2 * sampleRate }}, (_, n) => Math.min(n / 1600, 1) * {LOUD});
            player.write(ramp);
            for (let block = 0; block < 187; block++) {{
                if (acts[block]) player[acts[block]]();
                const out = new Float32Array(128);
                player.process([], [[out]]);
                heard.push(...out);
            }}
            return heard.map((sample) => Math.round(sample * 32768));
        }};
        console.log(JSON.stringify([run({{}}), run({{ 60: "pause", 100: "resume" }}), run({{ 60: "drop" }})]));
    """
    made = subprocess.run(["node", "-e", script], capture_output=True, check=True, timeout=30).stdout
    whole, paused, dropped = (np.array(heard) for heard in json.loads(made))
    assert steps(paused) <= MOST
    assert steps(dropped) <= MOST
    at, again, fade = 60 * 128, 100 * 128, round(0.005 * RATE)
    assert np.array_equal(paused[again + fade : 180 * 128], whole[at + fade : at + 180 * 128 - again])
    assert not dropped[at + 400 :].any()
