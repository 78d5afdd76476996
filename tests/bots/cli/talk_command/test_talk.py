"""`leibniz talk`: real bots, real speech, in real time; and what it makes of files and of a call."""

import json
import os
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from leibniz_voice.bots.cli.scripts import UsageError
from leibniz_voice.bots.cli.talk_command.report import report_of, timeline
from leibniz_voice.bots.cli.talk_command.sound import audible_span, read_wav, write_wav
from tests.support import ROOT

ECHO = str(ROOT / "bots" / "echo.py")
ASSISTANT = str(ROOT / "bots" / "assistant.py")
COMMAND = (sys.executable, "-m", "leibniz_voice.bots.cli.main")
KEYS = ["session_id", "transcript", "reply", "states", "interrupted", "latency_ms", "audio_ms"]
QUESTION = "what are your opening hours"


def talk(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, "talk", *arguments], capture_output=True, text=True, timeout=120)


def tone(seconds: float, rate: int = 16000) -> np.ndarray:
    return np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)


@pytest.fixture(scope="module")
def assistant(tmp_path_factory) -> Iterator[str]:
    """The address of a running assistant."""
    command = [*COMMAND, "serve", ASSISTANT, "--port", "0", "--data", str(tmp_path_factory.mktemp("data"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Ready: "), line
        yield line.split()[1].partition("?")[0]
        process.terminate()
        assert process.wait(20) == 0


# ---------------------------------------------------------------------------------------------- calls


@pytest.mark.slow
def test_a_spoken_question_is_answered_aloud(assistant, tmp_path):
    out = tmp_path / "heard.wav"
    done = talk(QUESTION, "--url", assistant, "--json", "--session", "asked-1", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    call = json.loads(done.stdout)
    assert list(call) == KEYS
    assert call["session_id"] == "asked-1"
    assert call["transcript"] == QUESTION
    assert "Monday" in call["reply"]
    assert call["states"] == ["idle", "listening", "thinking", "speaking", "idle"]
    assert call["interrupted"] is False
    assert 1000 < call["audio_ms"] < 10_000
    assert {"response", "thinking", "End-of-Turn", "LLM Wait"} <= set(call["latency_ms"])
    assert all(ms >= 0 for ms in call["latency_ms"].values())
    with wave.open(str(out)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (1, 16000, 2)
        heard = file.readframes(file.getnframes())
    first_s, last_s = audible_span(heard)
    assert (last_s - first_s) * 1000 == pytest.approx(call["audio_ms"], abs=500)


@pytest.mark.slow
def test_the_plain_form_shows_states_words_and_a_timeline(assistant):
    done = talk(QUESTION, "--url", assistant)
    assert done.returncode == 0, done.stderr
    for part in ("🔵 listening (stt_start)", "🟡 thinking (vad_end)", "🔴 speaking", "🟢 idle (tts_complete)"):
        assert part in done.stderr
    rows = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    assert rows == ["time", "user", "state", "bot", "you", "bot", "ms"]


@pytest.mark.slow
def test_words_over_the_answer_interrupt_it_and_are_answered(assistant, tmp_path):
    out = tmp_path / "call.wav"
    done = talk(
        "do you have gift cards", "--url", assistant, "--json", "--interrupt-after", "1.0", QUESTION,
        "--out", str(out), "--stereo", "--plot", str(tmp_path / "call.svg"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    call = json.loads(done.stdout)
    assert call["interrupted"] is True
    picture = (tmp_path / "call.svg").read_text()
    for part in ("do you have gift cards", QUESTION, "cut, not heard: ", 'class="cut"', 'class="interrupt"'):
        assert part in picture
    assert call["states"][:6] == ["idle", "listening", "thinking", "speaking", "interrupt", "listening"]
    assert call["states"][-2:] == ["speaking", "idle"]
    assert call["transcript"].splitlines()[-1] == QUESTION
    assert "Monday" in call["reply"].splitlines()[-1]
    assert call["latency_ms"]["silenced"] > 0
    with wave.open(str(out)) as file:
        assert file.getnchannels() == 2


@pytest.mark.slow
def test_an_earlier_session_is_resumed(assistant):
    first = talk(QUESTION, "--url", assistant, "--session", "again")
    second = talk(QUESTION, "--url", assistant, "--session", "again")
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert "📞 connected" in first.stderr
    assert "📞 resumed" in second.stderr


@pytest.mark.slow
def test_a_file_is_played_to_a_bot_that_is_started_for_the_call(tmp_path):
    path = tmp_path / "tone.wav"
    write_wav(str(path), (tone(0.7) * 8000).astype(np.int16).tobytes())
    done = talk(str(path), "--bot", ECHO, "--json")
    assert done.returncode == 0, done.stderr
    call = json.loads(done.stdout)
    assert call["states"] == ["idle"]
    assert (call["transcript"], call["reply"]) == ("", "")
    assert call["audio_ms"] > 700


@pytest.mark.slow
def test_a_bot_that_says_nothing_is_status_1(tmp_path):
    bot = tmp_path / "mute.py"
    bot.write_text(
        "from leibniz_voice.pipeline import Pipeline\n"
        "def build(session):\n    return Pipeline([session.input, session.output])\n"
    )
    done = talk("hello", "--bot", str(bot), "--json", "--timeout", "2")
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["audio_ms"] == 0
    assert "the time is up" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_ending_the_call_ends_the_bot_that_it_started(tmp_path, number, status):
    bot = tmp_path / "bot.py"
    bot.write_text(
        "import os, pathlib\nfrom leibniz_voice.pipeline import Pipeline\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "def build(session):\n    return Pipeline([session.input, session.output])\n"
    )
    with subprocess.Popen([*COMMAND, "talk", "hello", "--bot", str(bot)], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "connected" in process.stderr.readline()
        pid = int((tmp_path / "pid").read_text())
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == status
    assert "Traceback" not in errors
    assert ends(pid)


def ends(pid: int) -> bool:
    """Whether a process ends soon; one that outlived its parent is reaped by init, sooner or later."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        os.sched_yield()
    return False


# ---------------------------------------------------------------------------------------------- files


def wav(path: Path, samples: np.ndarray, *, rate: int, channels: int, bits: int, tag: int = 1) -> str:
    """Write a WAV file by hand, each channel the same."""
    scaled = np.repeat(samples, channels)
    match tag, bits:
        case 3, _:
            body = scaled.astype("<f4").tobytes()
        case _, 8:
            body = (scaled * 127 + 128).astype(np.uint8).tobytes()
        case _, 24:
            body = (scaled * 2**31).astype("<i4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
        case _:
            body = (scaled * 2 ** (bits - 1)).astype(f"<i{bits // 8}").tobytes()
    size = bits // 8 * channels
    form = b"".join(
        value.to_bytes(n, "little") for value, n in ((tag if tag != 0xFFFE else 0xFFFE, 2), (channels, 2), (rate, 4),
                                                     (rate * size, 4), (size, 2), (bits, 2))
    )  # fmt: skip
    if tag == 0xFFFE:
        form += (22).to_bytes(2, "little") + bytes(6) + b"\x01\x00" + bytes(14)
    chunks = b"".join(
        name + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2)
        for name, data in ((b"LIST", b"odd"), (b"fmt ", form), (b"data", body))
    )
    path.write_bytes(b"RIFF" + (len(chunks) + 4).to_bytes(4, "little") + b"WAVE" + chunks)
    return str(path)


@pytest.mark.parametrize(
    ("rate", "channels", "bits", "tag"),
    [
        (16000, 1, 16, 1),
        (44100, 2, 16, 1),
        (8000, 1, 8, 1),
        (48000, 6, 24, 0xFFFE),
        (22050, 1, 32, 1),
        (96000, 2, 32, 3),
    ],
)
def test_any_wav_becomes_16_khz_mono(tmp_path, rate, channels, bits, tag):
    path = wav(tmp_path / "x.wav", tone(0.5, rate) * 0.5, rate=rate, channels=channels, bits=bits, tag=tag)
    pcm = np.frombuffer(read_wav(path), np.int16) / 2**15
    wanted = tone(0.5) * 0.5
    assert len(pcm) == pytest.approx(8000, abs=2)
    n = min(len(pcm), len(wanted))
    assert np.corrcoef(pcm[:n], wanted[:n])[0, 1] > 0.99
    assert np.abs(pcm).max() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "no WAV file"),
        (b"ID3 an mp3", "no WAV file"),
        (b"RIFF\x00\x00\x00\x00WAVE", "without audio"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01", "header is cut short"),
    ],
)
def test_what_is_no_wav_is_refused_with_a_reason(tmp_path, data, part):
    path = tmp_path / "x.wav"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=f"x.wav: .*{part}"):
        read_wav(str(path))


def test_a_silent_file_is_refused(tmp_path):
    path = tmp_path / "x.wav"
    write_wav(str(path), bytes(32000))
    with pytest.raises(UsageError, match="nothing can be heard"):
        read_wav(str(path))


# ---------------------------------------------------------------------------------------------- the report


@dataclass
class Noted:
    at_s: float
    kind: str
    fields: dict = field(default_factory=dict)


def state(at_s: float, name: str, turn: int = 1, words: str = "") -> Noted:
    return Noted(at_s, "state_update", {"state": name, "turn": turn, "text_buffer": words.split()})


def heard(first_s: float, last_s: float, length_s: float) -> bytes:
    pcm = np.zeros(int(16000 * length_s), np.int16)
    pcm[int(16000 * first_s) : int(16000 * last_s)] = 5000
    return pcm.tobytes()


def test_a_report_joins_the_turns_of_a_call():
    events = [
        state(0.5, "listening", 0),
        state(1.0, "thinking", 1, "where is"),
        Noted(1.1, "interrupted", {"turn": 1}),
        state(2.0, "thinking", 2, "where is it"),
        Noted(2.1, "response_ready", {"turn": 2, "text": "Here.", "thinking_ms": 90.0}),
        Noted(2.2, "response_text", {"turn": 2, "text": "Or there."}),
        Noted(4.0, "turn", {"turn": 2, "latency_ms": {"Join": 12.5}}),
    ]
    report = report_of(
        "s", events, states=["idle", "listening"], user_end_s=1.5, heard=heard(2.1, 3.9, 5), played_ms=1800.0
    )
    assert report.as_json() == {
        "session_id": "s",
        "transcript": "where is it",
        "reply": "Here. Or there.",
        "states": ["idle", "listening"],
        "interrupted": True,
        "latency_ms": {"response": 600.0, "thinking": 90.0, "Join": 12.5},
        "audio_ms": 1800.0,
    }
    assert report.is_heard


def test_audio_before_the_users_words_is_no_reply():
    report = report_of("s", [], states=["idle"], user_end_s=2.0, heard=heard(0.1, 1.0, 5), played_ms=900.0)
    assert not report.is_heard
    assert report.latency_ms == {}


def test_the_timeline_is_drawn_to_scale():
    drawn = timeline(
        [state(2.5, "listening"), state(5.0, "thinking"), state(7.5, "speaking")],
        said=heard(2.5, 5.0, 10),
        heard=heard(7.5, 10.0, 10),
        length_s=10.0,
        width=47,
        plain=True,
    )
    time, user, states, bot = (line[7:].ljust(40) for line in drawn.splitlines())
    assert time.startswith("|0 s    |2      |4")
    assert (user.strip(), user.index("@")) == ("@" * 10, 10)
    assert (bot.strip(), bot.index("@")) == ("@" * 10, 30)
    assert states == "|idle.....|listening|thinking-|speaking-"


def test_a_call_without_anything_can_be_drawn():
    assert timeline([], said=b"", heard=b"", length_s=0.0, width=10).startswith("time")
