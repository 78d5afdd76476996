"""The two voices of a recording as PCM, each sample at its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import soxr
from numpy.typing import NDArray

from .events import CLIENT, WIRE, RecordedEvent, RecordingError

if TYPE_CHECKING:
    from .recording import Recording

MAX_S = 4 * 3600.0  # of one voice


def _microphone_of(recording: Recording) -> list[RecordedEvent]:
    """The chunks that the microphone brought."""
    return [
        event
        for event in recording.events
        if (event.kind == "InputAudioRawFrame" and event.direction == "downstream")
        or (event.kind == "audio" and event.direction == "to_bot")
    ]


def audio_of(recording: Recording, direction: str, *, rate: int = 16_000) -> bytes:
    """What the user said ("to_bot") or heard ("to_user"), PCM16 mono at `rate` from the recording's beginning on.

    A chunk of the microphone was said before it came, and one of the bot's is played behind the one before it. What
    the client was told to drop, or to hold, is silent.
    """
    if direction not in ("to_bot", "to_user"):
        raise RecordingError(f"direction is {direction!r}; it is to_bot or to_user")
    if recording.length_s > MAX_S:
        raise RecordingError(f"it lasts {recording.length_s:.0f} s; audio is put together for up to {MAX_S:.0f} s")
    track = np.zeros(int((recording.length_s + 1) * rate), np.int16)
    if direction == "to_bot":
        for event in _microphone_of(recording):
            samples = _samples(event, rate)
            _put(track, samples, int(event.at * rate) - len(samples))
        return track.tobytes()
    events = [e for e in recording.events if e.direction == "to_user" and e.processor in (WIRE, CLIENT)]
    plays_until = held_from = 0
    for event in events:
        now = int(event.at * rate)
        if event.kind == "audio":
            samples = _samples(event, rate)
            start = max(now, plays_until)
            _put(track, samples, start)
            plays_until = start + len(samples)
        elif event.kind == "interrupted":
            track[now:] = 0
            plays_until = now
        elif event.kind == "pause":
            held_from = now
        elif event.kind == "resume" and plays_until > held_from > 0:
            held = track[held_from:plays_until].copy()
            track[held_from:] = 0
            _put(track, held, now)
            plays_until, held_from = now + len(held), 0
    return track.tobytes()


def _samples(event: RecordedEvent, rate: int) -> NDArray[np.int16]:
    samples, own = np.frombuffer(event.pcm(), np.int16), event.fields.get("rate", rate)
    if own == rate or not len(samples):
        return samples
    if not isinstance(own, int) or not 4_000 <= own <= 192_000:
        raise RecordingError(f"the audio at {event.at:.3f} s has a rate of {own!r} Hz")
    return soxr.resample(samples, own, rate)


def _put(track: NDArray[np.int16], samples: NDArray[np.int16], start: int) -> None:
    skipped = max(0, -start)
    room = track[start + skipped : start + len(samples)]
    room[:] = samples[skipped : skipped + len(room)]
