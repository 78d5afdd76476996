"""When the bot's audio leaves: 20 ms chunks at real time, a few ahead, and an account of what was heard. Pure.

 pushed   |---------------------------------------------|      as fast as the voice makes it
 sent     |==================|                                 at most `lead_ms` ahead of ...
 played   |===============|                                    ... the playback clock of this reply

The clock starts with the first chunk sent. When the source is late and the client has run dry, the clock waits for it:
what comes next is played when it comes, and nothing is sent in a burst to catch up. A pause stops the clock at a
sample; the client keeps what it has, so resuming sends only what was never sent. All times are the caller's, in s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ...pipeline.errors import ConfigurationError

CHUNK_MS = 20
MAX_LEAD_MS = 100.0  # the contract's; a client that cannot be flushed plays this much of a cut reply
MAX_LAG_MS = 1000.0  # how far a client may say that it is behind; what is beyond is not believed
MAX_WORD_MS = 1000.0  # a word that sounds for longer is over, and a pause follows it
MAX_MARKS = 64  # of protected speech in a reply; the oldest go
_EPSILON = 1e-3  # samples; a clock in float seconds is not exact to the sample


class _Reply:
    """The audio of one reply: what waits, what left, and its playback clock. Positions count samples."""

    __slots__ = ("buffer", "closed", "ended", "marks", "origin_s", "sent", "sent_real", "spread", "turn_id", "words")

    def __init__(self, turn_id: int) -> None:
        self.turn_id = turn_id
        self.buffer = bytearray()  # PCM that has not left
        self.words: list[tuple[str, float]] = []  # (word, start in ms from the reply's first sample)
        self.marks: list[tuple[int, bool]] = []  # (sample from which on, protected or not)
        self.spread = 0.0  # ms up to which words without times are spread over the audio
        self.sent = 0  # samples that left, the padding of the last chunk included
        self.sent_real = 0  # the same without the padding
        self.origin_s: float | None = None  # when sample 0 is played; None before the first chunk left
        self.ended = False  # nothing more will be pushed
        self.closed = False  # ended, and all of it left


class Playout:
    """One conversation's outgoing audio. `push_audio` and `end` fill it, `take` is asked every tick.

    Mono PCM16 at `sample_rate`. Holds at most `max_s` seconds and `max_replies` replies: what does not fit is dropped
    and counted in `dropped_samples`, as is audio of a reply that was cut or is over. Replies play in the order of their
    turn ids; a newer one ends the older ones.
    """

    def __init__(
        self, *, sample_rate: int = 16_000, lead_ms: float = 60.0, max_s: float = 120.0, max_replies: int = 8
    ) -> None:
        if not CHUNK_MS <= lead_ms <= MAX_LEAD_MS:
            raise ConfigurationError(f"lead_ms is {lead_ms}, but must be {CHUNK_MS} to {MAX_LEAD_MS:g}")
        self.sample_rate = sample_rate
        self.dropped_samples = 0  # pushed, but never to be sent
        self._chunk = sample_rate * CHUNK_MS // 1000  # samples in one message
        self._lead = lead_ms * sample_rate / 1000  # samples
        self._max_bytes = int(max_s * sample_rate) * 2
        self._max_words = int(max_s * 10)  # nobody says ten words a second
        self._max_replies = max_replies
        self._replies: deque[_Reply] = deque()  # the playing one first
        self._held_bytes = 0  # in all buffers together
        self._over_upto = -1  # turns up to this one were cut or are finished
        self._paused_s: float | None = None  # when the clock was stopped; None while it runs
        self._lag = 0.0  # samples that the client was behind the clock when it last told its position

    # ------------------------------------------------------------------------------------------ filling

    def push_audio(self, turn_id: int, pcm: bytes, words: Sequence[tuple[str, float]] = ()) -> int:
        """Add audio, any length of whole samples, and its words. Returns the samples that were taken."""
        reply = self._reply(turn_id)
        room = max(0, self._max_bytes - self._held_bytes) if reply else 0
        taken = min(len(pcm), room) & ~1
        self.dropped_samples += (len(pcm) - taken) // 2
        if reply is None:
            return 0
        reply.buffer += pcm if taken == len(pcm) else pcm[:taken]
        reply.words.extend(words[: max(0, self._max_words - len(reply.words))])
        self._held_bytes += taken
        return taken // 2

    def push_words(self, turn_id: int, text: str) -> None:
        """Add words whose times are not known, after their audio: each gets its share of it, by its letters.

        A single word, or words to which no audio belongs, begin where the audio pushed so far ends.
        """
        reply, words = self._reply(turn_id), text.split()
        if reply is None or not words:
            return
        end_ms = (reply.sent_real + len(reply.buffer) // 2) * 1000 / self.sample_rate
        begin_ms = end_ms if len(words) == 1 else min(reply.spread, end_ms)
        share_ms = (end_ms - begin_ms) / sum(map(len, words))
        for word in words[: max(0, self._max_words - len(reply.words))]:
            reply.words.append((word, begin_ms))
            begin_ms += len(word) * share_ms
        reply.spread = end_ms

    def protect(self, turn_id: int, is_protected: bool) -> None:
        """What is pushed from now on is protected; or no longer."""
        reply = self._reply(turn_id)
        if reply is not None:
            reply.marks = [*reply.marks[-MAX_MARKS:], (reply.sent_real + len(reply.buffer) // 2, is_protected)]

    def end(self, turn_id: int) -> None:
        """Nothing more will be pushed for this turn. A reply without any audio is finished by it."""
        reply = self._reply(turn_id)
        if reply is not None:
            reply.ended = True

    # ------------------------------------------------------------------------------------------ playing

    def take(self, now_s: float) -> list[bytes]:
        """The chunks that are due: often one or none, at the start of a reply as many as the lead allows."""
        if self._paused_s is not None or not self._replies:
            return []
        reply = self._replies[0]
        chunks: list[bytes] = []
        while self._has_chunk(reply):
            elapsed = self._elapsed(reply, now_s)
            if elapsed is None or elapsed > reply.sent:  # first chunk, or the client has run dry: the clock waits
                reply.origin_s = now_s - reply.sent / self.sample_rate
                elapsed = reply.sent
            if reply.sent + self._chunk - elapsed > self._lead + _EPSILON:
                break
            chunks.append(self._pop_chunk(reply))
        if reply.ended and not reply.buffer:
            reply.closed = True
        return chunks

    def pause(self, now_s: float) -> None:
        """Stop the clock; `take` gives nothing until `resume`. The client keeps its buffer."""
        if self._paused_s is None:
            self._paused_s = now_s

    def resume(self, now_s: float, *, at_word: bool = False) -> float:
        """Go on at the sample where playback stopped; `at_word`: where the word began that was sounding.

        Returns how many ms of what was played are to be played again, from the client's memory.
        """
        if self._paused_s is None:
            return 0.0
        back_ms = self._into_word_ms(self._paused_s) if at_word else 0.0
        if self._replies and self._replies[0].origin_s is not None:
            self._replies[0].origin_s += now_s - self._paused_s + back_ms / 1000
        self._paused_s = None
        return back_ms

    def _into_word_ms(self, now_s: float) -> float:
        played_ms = self.played_ms(now_s)
        begun = [start_ms for _, start_ms in self._replies[0].words if start_ms <= played_ms] if played_ms else []
        into_ms = played_ms - max(begun, default=played_ms)
        return into_ms if into_ms <= MAX_WORD_MS else 0.0

    def cut(self, turn_id: int, now_s: float) -> float:
        """Drop all of this turn and older ones, now and in future; lifts a pause.

        Returns the ms heard of the playing one; 0 when nothing of them was playing: not yet begun, or finished before.
        """
        heard_ms = 0.0
        if self._replies and self._replies[0].turn_id <= turn_id:
            heard_ms = self.played_ms(now_s)
        while self._replies and self._replies[0].turn_id <= turn_id:
            gone = self._replies.popleft()
            self._held_bytes -= len(gone.buffer)
        if turn_id > self._over_upto:
            self._over_upto = turn_id
        if not self._replies or self._replies[0].origin_s is None:  # a newer one has not begun: nothing is paused now
            self._paused_s = None
        return heard_ms

    def acknowledge(self, turn_id: int, played_ms: float, now_s: float) -> None:
        """The client says how far it has played: what is between that and the clock is on its way, or buffered there.

        Only the account of what was heard follows it, at most MAX_LAG_MS; the pace does not, as a far-away client would
        run dry. The newest word counts, for later replies too; of other replies than the playing one nothing is learnt.
        """
        reply = self._replies[0] if self._replies else None
        if reply is None or reply.turn_id != turn_id:
            return
        elapsed = self._elapsed(reply, now_s)
        if elapsed is not None:
            behind = min(elapsed, reply.sent_real) - played_ms * self.sample_rate / 1000
            self._lag = max(0.0, min(behind, MAX_LAG_MS * self.sample_rate / 1000))

    # ------------------------------------------------------------------------------------------ asking

    @property
    def turn_id(self) -> int | None:
        """The turn whose reply is playing, or waits to; None when there is none."""
        return self._replies[0].turn_id if self._replies else None

    @property
    def is_paused(self) -> bool:
        """Whether the clock is stopped."""
        return self._paused_s is not None

    @property
    def sent_ms(self) -> float:
        """How much of the playing reply has left."""
        return self._replies[0].sent_real / self.sample_rate * 1000 if self._replies else 0.0

    @property
    def is_full(self) -> bool:
        """Whether no further audio is taken before some of it has left."""
        return self._held_bytes >= self._max_bytes

    @property
    def is_sent(self) -> bool:
        """Whether all of the playing reply has left, and nothing more of it comes."""
        return bool(self._replies) and self._replies[0].closed

    @property
    def held_ms(self) -> float:
        """Audio that waits to leave, in ms."""
        return self._held_bytes / 2 / self.sample_rate * 1000

    def played_ms(self, now_s: float) -> float:
        """How much of the playing reply is played by now: by the clock, and less what the client said it was behind."""
        if not self._replies:
            return 0.0
        reply = self._replies[0]
        elapsed = self._elapsed(reply, now_s)
        if elapsed is None:
            return 0.0
        return max(0.0, min(elapsed - self._lag, reply.sent_real)) / self.sample_rate * 1000

    def heard_words(self, now_s: float) -> tuple[str, ...]:
        """The words of the playing reply that have begun to sound. Ask before `cut`."""
        played_ms = self.played_ms(now_s)
        return tuple(word for word, start_ms in self._replies[0].words if start_ms < played_ms) if played_ms else ()

    def is_protected(self, now_s: float) -> bool:
        """Whether what sounds now is protected; a protected end is so until the reply is finished."""
        if not self._replies:
            return False
        reply, is_protected = self._replies[0], False
        played = self.played_ms(now_s) * self.sample_rate / 1000 + _EPSILON
        pushed = reply.sent_real + len(reply.buffer) // 2
        for begin, value in reply.marks:
            if begin <= played and (value or begin < pushed):
                is_protected = value
        return is_protected

    def finished(self, now_s: float) -> int | None:
        """The turn whose reply has ended and whose last sample is played, once; else None."""
        if not self._replies:
            return None
        reply = self._replies[0]
        if not reply.ended or reply.buffer:
            return None
        elapsed = self._elapsed(reply, now_s)
        if elapsed is not None and elapsed - self._lag < reply.sent_real - _EPSILON:
            return None
        self._replies.popleft()
        self._over_upto = max(self._over_upto, reply.turn_id)
        return reply.turn_id

    # ------------------------------------------------------------------------------------------ inside

    def _reply(self, turn_id: int) -> _Reply | None:
        """The open reply of this turn, made if it is new; None if it is over, cut, or older than the newest."""
        if turn_id <= self._over_upto:
            return None
        newest = self._replies[-1] if self._replies else None
        if newest is not None and newest.turn_id >= turn_id:
            return newest if newest.turn_id == turn_id and not newest.closed else None
        if len(self._replies) >= self._max_replies:
            return None
        if newest is not None:
            newest.ended = True  # voices speak in order: the older reply gets nothing more
        self._replies.append(_Reply(turn_id))
        return self._replies[-1]

    def _has_chunk(self, reply: _Reply) -> bool:
        return len(reply.buffer) >= 2 * self._chunk or (reply.ended and len(reply.buffer) > 0)

    def _pop_chunk(self, reply: _Reply) -> bytes:
        size = 2 * self._chunk
        chunk = bytes(reply.buffer[:size])
        del reply.buffer[:size]
        self._held_bytes -= len(chunk)
        reply.sent_real += len(chunk) // 2
        reply.sent += self._chunk
        return chunk if len(chunk) == size else chunk.ljust(size, b"\0")

    def _elapsed(self, reply: _Reply, now_s: float) -> float | None:
        """Where the reply's clock stands, in samples; None before its first chunk left. A pause holds it."""
        if reply.origin_s is None:
            return None
        at = now_s if self._paused_s is None else self._paused_s
        return (at - reply.origin_s) * self.sample_rate
