"""Generated histories of one session in a Redis that fails over and loses its last writes; what must hold in them.

Connections claim (the answer may be lost) and write; the server may forget everything since a moment before, as in a
failover to a replica that was behind; old connections, zombies, write again whenever they like, and a frozen server
may find an earlier write late. Each connection stands for a process of its own that knows nothing of the others.
Clocks go on between two connections, as real ones do, and differ by less than the time between two.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from redis import Redis

from leibniz_voice.pipeline.conversation.snapshot import ConversationFields
from leibniz_voice.transports.state.redis_scripts import CLAIM, WRITE, LuaScript

STEPS = st.one_of(
    st.tuples(st.just("claim"), st.sampled_from(["answered", "lost, clock ahead", "lost, clock behind"])),
    st.tuples(st.just("write"), st.integers(0, 5)),  # one of the connections has something new
    st.tuples(st.just("late"), st.integers(0, 5)),  # the server finds an earlier write of one
    st.tuples(st.just("snapshot"), st.none()),  # the replica is up to date
    st.tuples(st.just("failover"), st.none()),  # the replica takes over, without what came since
)
HISTORIES = st.lists(STEPS, min_size=1, max_size=14)
Step = tuple[str, Any]

APART_US = 200  # least time between two claims
OFF_US = 50  # by how much a process's clock differs from the server's


class Violation(AssertionError):
    """A rule of fencing was broken."""


def altered(script: LuaScript, old: str, new: str) -> LuaScript:
    """A script with one thing changed."""
    assert old in script.source
    return LuaScript(script.source.replace(old, new))


VARIANTS = {  # what is deliberately broken -> the scripts
    "a plain counter as epoch": (altered(CLAIM, "math.max(current + 1, now, tonumber(ARGV[2]))", "current + 1"), WRITE),
    "no comparison of owners": (CLAIM, altered(WRITE, "if held[1] == ARGV[1] then\n", "if stored == epoch then\n")),
    "an older sequence number accepted": (
        CLAIM,
        altered(WRITE, "if epoch_of(held[3]) > epoch_of(ARGV[3]) then return 'stale' end", ""),
    ),
    "a lost claim not sent again": (
        CLAIM,
        altered(WRITE, "elseif held[1] and stored >= epoch then", "elseif held[1] then"),
    ),
}


@dataclass
class Connection:
    """One owner; `born` orders them, the newest is the one that the client talks to."""

    born: int
    epoch: int
    is_known: bool  # its claim was answered
    sent: list[tuple[int, bool, str]] = field(default_factory=list)  # (sequence, is_first, content)

    @property
    def name(self) -> str:
        return f"owner-{self.born}"


class History:
    """Plays one history on a real server and raises `Violation` when a rule breaks.

    1. A connection that has been followed by a newer one, as far as the present server knows, writes nothing more.
    2. A connection that has not is never refused, but by a later write of its own.
    3. What is stored is what the last accepted write said; a later one is not undone by an earlier of the same owner.
    4. No epoch is handed out twice.
    5. In the end the newest connection's next write is accepted, and no zombie's after it.
    """

    def __init__(self, redis: Redis, claim: LuaScript = CLAIM, write: LuaScript = WRITE) -> None:
        self.redis, self.claim_script, self.write_script = redis, claim, write
        self.key = "session:h"
        self.connections: list[Connection] = []
        self.holder: Connection | None = None  # the newest connection that the present server has heard of
        self.replica: tuple[bytes | None, Connection | None] = (None, None)
        self.last_claim = 0.0
        for script in (claim, write):
            redis.script_load(script.source)
        redis.delete(self.key, "{session:h}:log")

    def play(self, steps: Sequence[Step]) -> None:
        for kind, choice in steps:
            if kind == "claim":
                self.claim(choice)
            elif kind == "snapshot":
                self.replica = (self.redis.dump(self.key), self.holder)
            elif kind == "failover":
                self.fail_over()
            elif self.connections:
                connection = self.connections[choice % len(self.connections)]
                self.write(connection, is_late=kind == "late")
        if self.connections:
            self.end()

    def claim(self, how: str) -> None:
        while time.perf_counter() - self.last_claim < APART_US / 1e6:
            pass
        name = f"owner-{len(self.connections)}"
        fresh = [text for pair in ConversationFields().to_fields().items() for text in pair]
        reply = self.redis.evalsha(
            self.claim_script.sha, 2, self.key, "{session:h}:damaged", name, 0, "9" * 16, 3_600_000, 1000, *fresh
        )
        self.last_claim = time.perf_counter()
        epoch = int(reply[1])
        if any(epoch == other.epoch for other in self.connections):
            raise Violation(f"epoch {epoch} was handed out twice")
        if how != "answered":  # the process makes one up, by its own clock
            epoch += OFF_US if how == "lost, clock ahead" else -OFF_US
        self.holder = Connection(len(self.connections), epoch, how == "answered")
        self.connections.append(self.holder)

    def fail_over(self) -> None:
        dump, self.holder = self.replica
        self.redis.delete(self.key)
        if dump is not None:
            self.redis.restore(self.key, 0, dump)

    def write(self, connection: Connection, *, is_late: bool = False) -> str:
        if is_late and connection.sent:
            sequence, is_first, content = connection.sent[0]
        else:
            sequence = len(connection.sent) + 1
            is_first, content = not connection.is_known, f"{connection.name}/{sequence}"
            connection.sent.append((sequence, is_first, content))
        before = self.redis.hmget(self.key, "llm_response", "owner")
        verdict = self._send(connection, sequence, is_first, content)
        after, owner = (
            value.decode() if value else "" for value in self.redis.hmget(self.key, "llm_response", "owner")
        )
        if self.holder is not None and connection.born < self.holder.born:
            if verdict != "fenced" or (before[0] or b"").decode() != after:
                raise Violation(f"{connection.name} wrote ({verdict}) although {self.holder.name} is newer")
            return verdict
        if verdict == "fenced":
            raise Violation(f"{connection.name} was refused although nobody newer is there")
        if owner != connection.name or (verdict == "stored" and after != content):
            raise Violation(f"the store said {verdict} to {content}, but holds {after} of {owner}")
        said = (before[0] or b"").decode().partition("/")
        if verdict == "stored" and said[0] == connection.name and int(said[2]) > sequence:
            raise Violation(f"{content} undid {'/'.join(said[::2])}")
        self.holder = connection
        return verdict

    def _send(self, connection: Connection, sequence: int, is_first: bool, content: str) -> str:
        fields = {"state": "thinking", "llm_response": content}
        reply = self.redis.evalsha(
            self.write_script.sha, 3, self.key, "{session:h}:log", "{session:h}:damaged",
            connection.name, connection.epoch, sequence, 3_600_000, 200, 1, 0, 1000 if is_first else 0,
            *[text for pair in fields.items() for text in pair],
        )  # fmt: skip
        if isinstance(reply, list):
            connection.is_known = True
            return reply[0].decode()
        if reply == b"stored":
            connection.is_known = True
        return reply.decode()

    def end(self) -> None:
        newest = self.connections[-1]
        for _ in range(2):  # one may claim only
            self.write(newest)
        for zombie in self.connections[:-1]:
            self.write(zombie)
