"""Random conversations, the same for the same seed: what a user does when, and how slow each service is.

    for seed in range(10_000):
        schedule = generate(random.Random(seed))
        ...                                       # play it; when it fails: print(schedule.describe())

    @given(schedules())                           # the same with hypothesis, which then looks for a smaller failure
    def test_nothing_stale_is_heard(schedule): ...

Plain data, and cheap (see tests/pipeline/testing/fuzz/test_generate.py): about 60 us each. It depends on nothing that
runs them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from ...errors import ConfigurationError

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["Delays", "Do", "Schedule", "ScheduledAction", "generate", "schedules"]

WORDS = ("where is my order", "when do you open", "i want to return it", "no wait", "a pizza please", "and a coke")
BACKCHANNELS = ("mhm", "okay", "yes", "right")


class Do(Enum):
    """What can happen. In brackets what the action's fields mean."""

    SPEECH_ON = "speech on"  # VAD: the user starts to speak [value: confidence]
    SPEECH_OFF = "speech off"  # VAD: the user is silent again
    SPEECH_CHUNK = "speech"  # 32 ms of speech [value: confidence, ms: speech so far]
    INTERIM = "interim"  # the recogniser guesses [text]
    FINAL = "final"  # the recogniser is sure [text]
    LATE_FINAL = "late final"  # the same, when the turn is already committed [text]
    FRAGMENT = "fragment"  # the client's own recogniser [text, value: 1 if final]
    TURN_END = "vad_end"  # the client says that the turn is over
    USER_SPEAKING = "user_speaking"  # the client says that its user talks [value: confidence]
    NOISE = "noise"  # a blip that is no speech [ms: how long]
    DISCONNECT = "disconnect"  # the line is gone; always the last


@dataclass(frozen=True, slots=True)
class ScheduledAction:
    """One thing that happens, `at_s` seconds after the start."""

    at_s: float
    do: Do
    text: str = ""
    value: float = 0.0
    ms: float = 0.0

    def __str__(self) -> str:
        text = f" {self.text!r}" if self.text else ""
        value = f" {self.value:.2f}" if self.value else ""
        return f"{self.at_s:.3f} {self.do.value}{text}{value}" + (f" {self.ms:.0f}ms" if self.ms else "")


@dataclass(frozen=True, slots=True)
class Delays:
    """How slow the services are in one turn, s; a service named in `fails` fails, one in `hangs` never answers."""

    stt_s: float
    intent_s: float
    retrieval_s: float
    llm_first_s: float
    llm_each_s: float
    tts_first_s: float
    tts_each_s: float
    sentences: int = 1  # of the reply
    fails: tuple[str, ...] = ()  # "intent", "retrieval", "llm", "tts"
    hangs: tuple[str, ...] = ()  # the same names

    def __str__(self) -> str:
        numbers = (self.stt_s, self.intent_s, self.retrieval_s, self.llm_first_s, self.llm_each_s)
        times = "/".join(f"{s * 1000:.0f}" for s in (*numbers, self.tts_first_s, self.tts_each_s))
        bad = [*(f"{name} fails" for name in self.fails), *(f"{name} hangs" for name in self.hangs)]
        return f"{times} ms, {self.sentences} sentences" + "".join(f", {text}" for text in bad)


@dataclass(frozen=True, slots=True)
class Schedule:
    """One conversation: actions in the order of their times, and the services' delays turn by turn."""

    actions: tuple[ScheduledAction, ...]
    delays: tuple[Delays, ...]

    @property
    def length_s(self) -> float:
        """When the last action happens."""
        return self.actions[-1].at_s if self.actions else 0.0

    def delays_of(self, turn: int) -> Delays:
        """The services' delays in a turn, counted from 0; the last stand for all later ones."""
        return self.delays[min(turn, len(self.delays) - 1)]

    def describe(self) -> str:
        """One line per action and per turn, for a failure's message."""
        turns = [f"turn {n}: stt/intent/retrieval/llm/token/tts/chunk {d}" for n, d in enumerate(self.delays, 1)]
        return "\n".join([*turns, *map(str, self.actions)])


def generate(draw: random.Random, *, turns: tuple[int, int] = (1, 4), failures: float = 0.1) -> Schedule:
    """Draw a conversation of `turns` (fewest, most) turns. `failures` is how often a service fails or hangs in a turn.

    `generate(random.Random(7)) == generate(random.Random(7))`. Raises `ConfigurationError` for an impossible range.
    """
    fewest, most = _checked(turns)
    count = fewest + int(draw.random() * (most - fewest + 1))
    return _schedule([draw] * count, failures)


def _schedule(draws: Sequence[random.Random], failures: float) -> Schedule:
    """A turn from each of these."""
    user = _User()
    delays = []
    for draw in draws:
        delays.append(_delays(draw, failures))
        user.takes_a_turn(draw, delays[-1])
    actions = sorted(user.actions, key=_when)  # stable; late words overlap with what follows
    if draws[-1].random() >= 0.85:
        actions = [action for action in actions if action.at_s <= user.now]
        actions.append(ScheduledAction(user.now, Do.DISCONNECT))
    return Schedule(tuple(actions), tuple(delays))


def _checked(turns: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= turns[0] <= turns[1]:
        raise ConfigurationError(f"turns is {turns}; give (fewest, most) with 1 <= fewest <= most")
    return turns


def schedules(*, turns: tuple[int, int] = (1, 4), failures: float = 0.1) -> SearchStrategy[Schedule]:
    """The same as a hypothesis strategy, which shrinks: `@given(schedules(turns=(2, 3)))`. Needs hypothesis."""
    from hypothesis import strategies as st

    fewest, most = _checked(turns)

    def from_turns(numbers: list[bytes]) -> Schedule:
        draws: Any = [_Draws(of_turn) for of_turn in numbers]
        return _schedule(draws, failures)

    # Bytes, as they are drawn evenly; a block for each turn, so that a turn can be left out and the others stay.
    return st.lists(st.binary(min_size=32, max_size=32), min_size=fewest, max_size=most).map(from_turns)


class _Draws:
    """Stands for a `Random` whose draws hypothesis chose; behind them come zeros, so that shorter is simpler."""

    def __init__(self, numbers: bytes) -> None:
        self._left = iter(numbers)

    def random(self) -> float:
        return next(self._left, 0) / 256


class _User:
    """Draws what the user does, turn after turn."""

    def __init__(self) -> None:
        self._random: Callable[[], float] = float  # draws of the current turn, 0 to 1
        self.now = 0.0  # s
        self.actions: list[ScheduledAction] = []

    def takes_a_turn(self, draw: random.Random, delays: Delays) -> None:
        """Say something, somehow; then wait for the answer, or do not."""
        random = self._random = draw.random
        self._wait(0.0, 0.5)
        kind = random()
        if kind < 0.6:
            self._speaks(delays)
        elif kind < 0.9:
            self._types()
        else:
            self.add(Do.NOISE, value=0.3, ms=20 + 180 * random())
        patience = random()
        if patience < 0.2:  # at once
            self._wait(0.0, 0.05)
        elif patience < 0.6:  # while the bot thinks, or as it begins
            self._wait(0.0, 1.0)
        else:
            self._wait(1.0, 4.0)
        while random() >= 0.55:
            self._disturbs()

    def add(self, do: Do, text: str = "", value: float = 0.0, ms: float = 0.0, after_s: float = 0.0) -> None:
        """Note that something happens now, or a while later."""
        self.actions.append(ScheduledAction(self.now + after_s, do, text, value, ms))

    def _speaks(self, delays: Delays) -> None:
        random, text = self._random, self._pick(WORDS)
        self.add(Do.SPEECH_ON, value=0.6 + 0.4 * random())
        for chunk in range(1, 4 + int(10 * random())):
            self.now += 0.032
            self.add(Do.SPEECH_CHUNK, value=0.5 + 0.5 * random(), ms=32.0 * chunk)
        if random() < 0.5:
            self.add(Do.INTERIM, text[: len(text) // 2])
        self.now += 0.032
        self.add(Do.SPEECH_CHUNK, value=0.1)
        self.add(Do.SPEECH_OFF)
        self.add(Do.FINAL, text, after_s=delays.stt_s)
        if random() < 0.1:
            self.add(Do.LATE_FINAL, self._pick(WORDS), after_s=delays.stt_s + 0.3 + random())

    def _types(self) -> None:
        random = self._random
        for _ in range(1 + int(2 * random())):
            self.add(Do.FRAGMENT, self._pick(WORDS), value=float(random() < 0.6))
            self._wait(0.0, 0.1)
        self.add(Do.TURN_END)

    def _disturbs(self) -> None:
        random = self._random
        kind = random()
        if kind < 0.35:
            self.add(Do.USER_SPEAKING, value=random())
        elif kind < 0.6:
            self.add(Do.NOISE, value=0.3 + 0.5 * random(), ms=20 + 180 * random())
        elif kind < 0.8:
            self.add(Do.FRAGMENT, self._pick(BACKCHANNELS), value=1.0)
        else:
            self.add(Do.INTERIM, self._pick(WORDS))
        self._wait(0.0, 0.8)

    def _wait(self, low_s: float, high_s: float) -> None:
        self.now += low_s + (high_s - low_s) * self._random()

    def _pick(self, texts: Sequence[str]) -> str:
        return texts[int(self._random() * len(texts))]


def _delays(draw: random.Random, failures: float) -> Delays:
    random = draw.random
    fails: tuple[str, ...] = ()
    hangs: tuple[str, ...] = ()
    if random() >= 1.0 - failures:
        name = ("intent", "retrieval", "llm", "tts")[int(random() * 4)]
        fails, hangs = ((name,), ()) if random() < 0.6 else ((), (name,))
    return Delays(
        stt_s=0.3 * random(),
        intent_s=0.2 * random() ** 2,
        retrieval_s=0.2 * random() ** 2,
        llm_first_s=0.6 * random() ** 2,
        llm_each_s=0.04 * random() ** 2,
        tts_first_s=0.3 * random() ** 2,
        tts_each_s=0.02 * random() ** 2,
        sentences=1 + int(3 * random()),
        fails=fails,
        hangs=hangs,
    )


def _when(action: ScheduledAction) -> float:
    return action.at_s
