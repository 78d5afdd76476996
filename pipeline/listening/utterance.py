"""The words of the user's current turn, and when they are complete: pure, fed with signals and the time.

    speech  ____/~~~~~~~~~~~~\\________________          /~~~: voice, as the speech detector reports it
    words             interim  interim  final
    here        started   words    words   words+commit

A turn is committed once the user is silent and no fragment is pending. While the bot is thinking or speaking, words
are collected apart: a backchannel is dropped, a late final without a new onset joins the turn that is being answered,
anything else becomes the next turn, and what was cut before any of its answer was heard stays in front of it.

Every method returns what to do, in order; `deadline` says when to call `on_deadline`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..conversation.resume import Resumption
from ..reconfigurable import Reconfigurable
from ..states import State
from .backchannel import BACKCHANNELS, is_backchannel
from .words import beyond, newest

BEHIND_S = 0.02  # after the end of a reply, before a turn that waited for it
MAX_CHARS = 16_000  # of one turn, twenty minutes of speech: all of it is told and stored with every further word
UNCLEAR = "(unclear)"  # stands in the buffer for speech that the recogniser could not read


@dataclass(frozen=True)
class Started:
    """The user took the floor."""


@dataclass(frozen=True)
class Words:
    """The buffer changed; `fragments` is all of it."""

    fragments: tuple[str, ...]
    is_final: bool


@dataclass(frozen=True)
class Guessed:
    """The words may be complete: `text` would be the turn."""

    text: str


@dataclass(frozen=True)
class Committed:
    """The turn is complete. `is_joined`: it is the turn being answered, with late words."""

    text: str
    is_joined: bool = False


@dataclass(frozen=True)
class Discarded:
    """What had begun was no turn."""

    reason: str


TurnAction = Started | Words | Guessed | Committed | Discarded


class Utterance(Reconfigurable):
    """One user's words. All times are loop seconds."""

    def __init__(
        self,
        *,
        no_words_s: float = 5.0,
        final_wait_s: float = 1.0,
        no_vad_commit_s: float = 0.8,
        unfinished_s: float = 1.2,
        min_unclear_ms: float = 400.0,
        min_cry_ms: float = 160.0,
        max_fragments: int = 256,
        backchannels: frozenset[str] = BACKCHANNELS,
    ) -> None:
        self.state = State.IDLE  # the conversation's state, as far as known here
        self.deadline: float | None = None  # when `on_deadline` is due; None: nothing is awaited
        self.finals: list[str] = []  # fragments that stay
        self.pending = ""  # the one fragment that the next replaces; "" when there is none
        self._unconfirmed = ""  # the fragment that was committed although no final had come; "" for none
        self._answered: list[str] = []  # the words of the turn that is being answered
        self._cut_words: list[str] = []  # the words of the turn that was cut since the last commit
        self._is_voiced = False  # the speech detector hears voice
        self._has_onset = False  # voice began since the last commit
        self._has_vad = False  # a speech detector has ever spoken up
        self._put_back = 0  # fragments in front that a cut has put there
        self._is_unfinished = False  # somebody who listens says that the user will go on
        self._silent_at = 0.0  # when voice ended, hangover included
        self._is_reopened = False  # a cut has put words back, and no word has come since
        self._is_held = False  # nobody interrupts the bot now: a turn waits until it may
        self._is_due = False  # one is complete, and waits
        self._is_client_paced = False  # the client does its own STT, so only the client ends turns
        self._no_words_s = no_words_s
        self._final_wait_s = final_wait_s
        self._no_vad_commit_s = no_vad_commit_s
        self._unfinished_s = unfinished_s
        self._min_unclear_ms = min_unclear_ms
        self._min_cry_ms = min_cry_ms  # voice in a cough lasts 130 ms at most, "stop" 220 at least
        self._max_fragments = max_fragments
        self._backchannels = backchannels

    @property
    def fragments(self) -> tuple[str, ...]:
        """All finals and the pending fragment."""
        return (*self.finals, self.pending) if self.pending else tuple(self.finals)

    @property
    def _is_bot_busy(self) -> bool:
        return self.state in (State.THINKING, State.SPEAKING)

    # -- signals -----------------------------------------------------------------------------------------------

    def resume(self, resumption: Resumption, now: float) -> list[TurnAction]:
        """Go on where another process left off."""
        self.state = resumption.state
        if self._is_bot_busy:
            self._answered = [resumption.question] if resumption.question else []
        elif self.state is State.LISTENING:
            self.finals, self.pending = list(resumption.fragments), ""
            if self.finals and resumption.is_pending:
                self.pending = self.finals.pop()
            self.deadline = now + self._no_words_s  # the end of the turn may have been lost with the old connection
        return []

    def on_speech_started(self, now: float) -> list[TurnAction]:
        """Voice began."""
        self._has_vad = self._is_voiced = self._has_onset = True
        self._is_unfinished = False
        self._is_due = self._is_due and self._is_client_paced  # it goes on; only the client says when its own does
        self.deadline = None
        return self._open()

    def on_client_speaking(self) -> list[TurnAction]:
        """The client itself is sure that its user talks over the bot: what comes now is newer than the turn."""
        self._has_onset = self._has_onset or self._is_bot_busy
        return []

    def on_speech_stopped(self, now: float) -> list[TurnAction]:
        """Voice ended, hangover included."""
        self._is_voiced, self._silent_at = False, now
        if self.finals and not self.pending:
            return self._commit_or_hold()
        self.deadline = now + (self._final_wait_s if self.pending else self._no_words_s)
        return self._guess()

    def on_prediction(self, is_complete: bool) -> list[TurnAction]:
        """Somebody who listens says whether the user is done. Not done: `unfinished_s` of silence end the turn."""
        was_held, self._is_unfinished = self._is_unfinished and not self._is_voiced, not is_complete
        if is_complete and was_held and self.finals and not self.pending:
            return self._commit()
        return []

    def on_quiet(self) -> list[TurnAction]:
        """The first silence, which may be a pause: what was said so far may be all."""
        return self._guess()

    def on_early_words(self, text: str) -> list[TurnAction]:
        """What the recogniser would say if the utterance ended here."""
        return self._guess(" ".join(text.split()))

    def on_words(self, text: str, is_final: bool, now: float, is_client: bool = False) -> list[TurnAction]:
        """A fragment of a recogniser, ours or (`is_client`) the client's."""
        text = " ".join(text.split())
        if not text:
            return []
        is_new = self._has_onset or (is_client and self.state is State.IDLE)  # a client begins its turn with words
        if is_final and self._unconfirmed and not is_new:
            return self._confirm(text, now, is_client)
        self._is_client_paced, self._is_reopened = is_client, False
        is_late = not self._has_onset and not self.pending  # a fragment since the commit was news, and may have cut
        if is_final and self.state is State.THINKING and is_late and not is_backchannel(text):
            return self._join(text)
        actions = self._open()
        is_stable = text == self.pending or (is_final and not self._is_voiced)
        if not is_final:
            self.pending = text
        else:
            self.pending = ""
            self.finals.append(text)
            self._bound()
        actions.append(Words(self.fragments, is_final))
        after = self._after_words(is_final, now)
        return actions + (after or (self._guess() if is_stable else []))

    def on_unclear(self, voiced_ms: float, now: float, likeness: str = "") -> list[TurnAction]:
        """Speech of `voiced_ms` that the recogniser rejected. A backchannel counts as noise, and so does what is short;
        what sounds like "wait" while the bot is busy may be shorter."""
        if likeness == "backchannel":
            return [] if self.fragments else self._discard("noise")
        is_cry = likeness == "interjection" and self._is_bot_busy
        if voiced_ms < (self._min_cry_ms if is_cry else self._min_unclear_ms) and not self.finals:
            return self._discard("noise")
        return self.on_words(UNCLEAR, True, now)

    def on_client_turn_end(self, now: float) -> list[TurnAction]:
        """The client says that the turn is over; a pending fragment counts."""
        if self._is_bot_busy and not self.fragments:
            return []
        return self._commit() if self.fragments else self._discard("empty")

    def on_state(self, state: State, now: float) -> list[TurnAction]:
        """The conversation moved."""
        was_busy = self._is_bot_busy
        if was_busy and state in (State.INTERRUPT, State.LISTENING):
            return []  # the cut itself is on its way here, or this state is older than the turn: see `on_cut`
        self.state = state
        if was_busy and state is State.IDLE:
            self._answered = []
            if self._is_voiced or self.fragments:  # the user began while the reply was ending
                if self._is_due and not self._is_voiced:  # whoever owns the reply hears a moment later that it is over
                    self.deadline = now + BEHIND_S
                return [Started(), Words(self.fragments, bool(self.finals) and not self.pending)]
        return []

    def hold(self, is_held: bool) -> list[TurnAction]:
        """Nobody interrupts the bot from now on; or again: then what was said meanwhile counts."""
        was_held, self._is_held = self._is_held, is_held
        if is_held or not was_held or not self.fragments or not self._is_bot_busy:
            return []
        words = Words(self.fragments, not self.pending)
        return [words, *self._commit()] if self._is_due and not self._is_voiced else [words]

    def on_cut(self, was_heard: bool, now: float) -> list[TurnAction]:
        """The reply was cut; words said meanwhile open the new turn, behind the old ones if nothing was heard of it."""
        if not self._is_bot_busy:
            return []
        self._put_back = 0 if was_heard else len(self._answered)
        if not was_heard:
            self.finals[:0] = self._answered
            self._bound()
        self._cut_words, self._answered = self._answered, []
        self.state = State.LISTENING
        self._is_reopened = True
        if not self._is_voiced and self.deadline is None:
            self.deadline = now + (BEHIND_S if self._is_due else self._no_words_s)
        actions: list[TurnAction] = [Words(self.fragments, not self.pending)] if self.fragments else []
        return actions

    def on_acted(self) -> None:
        """The turn has called a tool: it is never asked again, so its words stand in front of no others."""
        del self.finals[: self._put_back]
        self._put_back, self._answered, self._cut_words = 0, [], []

    def on_renewed(self, text: str) -> list[TurnAction]:
        """The responder asks the turn that was cut again, late words included: take back what was put back."""
        rest = beyond(text, " ".join(self._cut_words))  # words that came too late for that, too
        self.finals[: self._put_back] = [rest] if rest else []
        self._put_back, self._answered = 0, [text]
        if not rest:
            self.deadline, self._is_reopened = None, False
        self.state = State.THINKING
        return []

    def on_deadline(self, now: float) -> list[TurnAction]:
        """The awaited instant has come."""
        self.deadline = None
        if self.fragments and (self._is_reopened or self._is_due or not self._is_client_paced):
            return self._commit()  # after a cut without a further word, the question that was cut is asked again
        return [] if self.fragments else self._discard("no_words")

    # -- steps -------------------------------------------------------------------------------------------------

    def _bound(self) -> None:
        """Of an endless turn, fold the oldest fragments, and forget what is older than `MAX_CHARS`."""
        if len(self.finals) > self._max_fragments:
            self.finals[:2] = [" ".join(self.finals[:2])]
            self._put_back -= self._put_back > 1
        kept = newest(self.finals, MAX_CHARS)
        self._put_back = max(0, self._put_back - (len(self.finals) - len(kept)))
        self.finals = kept

    def _text(self) -> str:
        return " ".join(self.fragments)

    def _guess(self, more: str = "") -> list[TurnAction]:
        """What would be the turn, if it is a new one and has words."""
        words = [*self.finals, more] if more else [*self.fragments]
        text = " ".join(words)
        return [Guessed(text)] if text and UNCLEAR not in text and not self._is_bot_busy else []

    def _open(self) -> list[TurnAction]:
        if self.state is not State.IDLE:
            return []
        self.state = State.LISTENING
        return [Started()]

    def _after_words(self, is_final: bool, now: float) -> list[TurnAction]:
        if self._is_client_paced or self._is_voiced:
            self.deadline = None
        elif not is_final:
            self.deadline = now + (self._final_wait_s if self._has_vad else self._no_vad_commit_s)
        elif self._has_vad:
            return self._commit_or_hold()
        else:
            self.deadline = now + self._no_vad_commit_s
        return []

    def _commit_or_hold(self) -> list[TurnAction]:
        if not self._is_unfinished:
            return self._commit()
        self.deadline = self._silent_at + self._unfinished_s
        return self._guess()

    def _confirm(self, text: str, now: float, is_client: bool) -> list[TurnAction]:
        """The late final of a fragment that is committed already: what it says more, or better, is news."""
        pending, self._unconfirmed = self._unconfirmed, ""
        rest = beyond(pending, text)
        if rest == "":
            return []
        if self.state is State.THINKING and self._answered and self._answered[-1] == pending:
            self._answered[-1] = text
            return [Committed(" ".join(self._answered), is_joined=True)]
        return self.on_words(rest or text, True, now, is_client)

    def _join(self, text: str) -> list[TurnAction]:
        self.pending, self.deadline = "", None  # the final replaces it
        self._answered = newest([*self._answered, text], MAX_CHARS)
        return [Committed(" ".join(self._answered), is_joined=True)]

    def _commit(self) -> list[TurnAction]:
        fragments, text = list(self.fragments), self._text()
        is_company = self._is_bot_busy and is_backchannel(text, self._backchannels)
        if self._is_bot_busy and self._is_held and not is_company:
            self._is_due, self.deadline = True, None
            return []
        self._unconfirmed = self.pending
        if is_company:
            self._clear()
            return [Words((), True)]
        if self.state is State.THINKING:  # nothing of the old answer was heard, so its question still stands
            fragments = newest(self._answered + fragments, MAX_CHARS)
        self._clear()
        self._answered = fragments
        self.state = State.THINKING
        return [Committed(" ".join(fragments))]

    def _discard(self, reason: str) -> list[TurnAction]:
        is_floor_ours = not self._is_bot_busy
        self._clear()
        if is_floor_ours:
            self.state = State.IDLE
        return [Discarded(reason)]

    def _clear(self) -> None:
        self.finals, self.pending, self.deadline, self._is_reopened, self._put_back = [], "", None, False, 0
        self._has_onset, self._is_unfinished, self._is_due = self._is_voiced, False, False
        self._cut_words = []
