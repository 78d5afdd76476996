"""`Holding`: which frames wait, and which may go on. Pure."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    FrameProcessorResumeFrame,
    FunctionCallResultFrame,
    InputAudioRawFrame,
    InterruptionFrame,
    StartFrame,
    StopFrame,
    SystemFrame,
    TextFrame,
    UserStartedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from leibniz_voice.pipeline.engine.holding import MAX_HELD, Holding

DOWN = FrameDirection.DOWNSTREAM


def holding(*, paused: bool = False, all_paused: bool = False, is_open: bool = True) -> Holding:
    made = Holding()
    made.is_open, made.is_paused, made.is_system_paused = is_open, paused, all_paused
    return made


def add(held: Holding, *frames: Frame) -> None:
    for frame in frames:
        held.add(frame, DOWN, None)


def released(held: Holding) -> list[Frame]:
    frames = []
    while (item := held.next()) is not None:
        frames.append(item[0])
        held.remove(item[0])
    return frames


@pytest.mark.parametrize(
    ("made", "holds_data", "holds_system", "holds_start"),
    [
        (lambda: holding(), False, False, False),
        (lambda: holding(is_open=False), True, True, False),
        (lambda: holding(paused=True), True, False, False),
        (lambda: holding(all_paused=True), True, True, True),
        (lambda: holding(paused=True, all_paused=True), True, True, True),
        (lambda: holding(all_paused=True, is_open=False), True, True, True),
    ],
    ids=["open", "new", "paused", "all paused", "both paused", "paused before the start"],
)
def test_what_waits(made: Callable[[], Holding], holds_data: bool, holds_system: bool, holds_start: bool) -> None:
    held = [made().must_hold(frame) for frame in (TextFrame("a"), SystemFrame(), StartFrame())]
    assert held == [holds_data, holds_system, holds_start]


def test_nothing_waits_after_a_cancel_since_pipecat_drops_it() -> None:
    held = holding(paused=True, all_paused=True)
    held.is_cancelled = True
    assert not held.must_hold(TextFrame("a"))
    add(held, TextFrame("a"))
    assert released(held) == []


def test_frames_go_on_in_the_order_in_which_they_came() -> None:
    held = holding(paused=True, all_paused=True)
    frames = [TextFrame("a"), SystemFrame(), TextFrame("b"), SystemFrame()]
    add(held, *frames)
    assert released(held) == []
    held.is_paused = held.is_system_paused = False
    assert released(held) == frames


def test_with_data_still_paused_only_system_frames_go_on_and_later_ones_wait_for_them() -> None:
    held = holding(paused=True, all_paused=True)
    data, first, second = TextFrame("a"), SystemFrame(), SystemFrame()
    add(held, data, first, second)
    held.is_system_paused = False
    assert held.must_hold(SystemFrame())
    assert released(held) == [first, second]
    assert not held.must_hold(SystemFrame())
    assert held.must_hold(TextFrame("b"))
    held.is_paused = False
    assert released(held) == [data]


def test_a_start_frame_that_was_held_goes_first() -> None:
    held = holding(all_paused=True, is_open=False)
    early, start = TextFrame("a"), StartFrame()
    add(held, early, start)
    assert released(held) == []
    held.is_system_paused = False
    assert released(held) == [start]  # the rest waits for what it does
    held.is_open = True
    assert released(held) == [early]


def test_a_frame_that_goes_on_keeps_its_place_until_it_is_removed() -> None:
    held = holding()
    frame = TextFrame("a")
    add(held, frame)
    assert held.next() == held.next() == (frame, DOWN, None)
    assert held.must_hold(TextFrame("b"))
    held.remove(frame)
    held.remove(frame)
    assert held.is_settled


def test_the_oldest_is_dropped_where_there_is_no_room() -> None:
    held = holding(paused=True)
    frames = [TextFrame(str(number)) for number in range(MAX_HELD + 2)]
    dropped = [held.add(frame, DOWN, None) for frame in frames]
    assert dropped[-2:] == frames[:2]
    held.is_paused = False
    assert released(held) == frames[2:]


def test_audio_is_dropped_before_other_data() -> None:
    held = holding(all_paused=True)
    early, audio = TextFrame("early"), [InputAudioRawFrame(b"", 16000, 1) for _ in range(2)]
    add(held, early, *audio)
    texts = [TextFrame(str(number)) for number in range(MAX_HELD)]
    dropped = [held.add(frame, DOWN, None) for frame in texts]
    assert dropped[-3:] == [*audio, early]


KEPT: list[Callable[[], Frame]] = [
    StartFrame,
    EndFrame,
    StopFrame,
    CancelFrame,
    InterruptionFrame,
    UserStartedSpeakingFrame,
    lambda: FrameProcessorResumeFrame(processor=FrameProcessor()),
    lambda: FunctionCallResultFrame("f", "1", {}, 1),
]


@pytest.mark.parametrize("make", KEPT)
@pytest.mark.parametrize("filler", [lambda: TextFrame("x"), lambda: InputAudioRawFrame(b"", 16000, 1)])
def test_what_must_arrive_is_never_dropped(make: Callable[[], Frame], filler: Callable[[], Frame]) -> None:
    held = holding(all_paused=True)
    kept = make()
    add(held, kept, *(filler() for _ in range(MAX_HELD + 2)))
    held.is_system_paused = False
    frames = released(held)
    assert kept in frames
    assert len(frames) == MAX_HELD


def test_where_nothing_may_be_dropped_all_of_it_is_kept() -> None:
    held = holding(all_paused=True)
    frames = [InterruptionFrame() for _ in range(MAX_HELD + 2)]
    assert [held.add(frame, DOWN, None) for frame in frames] == [None] * len(frames)
    assert held.add(audio := InputAudioRawFrame(b"", 16000, 1), DOWN, None) is audio
    held.is_system_paused = False
    assert released(held) == frames


def test_it_knows_which_data_it_holds() -> None:
    held = holding(all_paused=True)
    add(held, TextFrame("a"), SystemFrame())
    assert (held.has(TextFrame), held.has(Frame), held.has(StartFrame), held.has(SystemFrame)) == (
        True,
        True,
        False,
        False,
    )
