"""Where conversations come in: at which paths, spelled how, and named by what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from websockets.datastructures import Headers

from ..dialects.dialect import Dialect, JsonDialect
from ..dialects.rtvi import RtviDialect
from ..dialects.twilio import TwilioDialect
from .client_socket import ClientSocket
from .twilio_call import answer_call

# Reads what comes before a conversation, for so many seconds; returns its socket, from the first message on, and its
# session id. Raises `ProtocolError` and `ClientGone`.
Answer = Callable[[ClientSocket, float], Awaitable[tuple[ClientSocket, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entrance:
    """A path at which conversations come in."""

    dialect: Callable[[], Dialect]  # makes the one that is spoken there
    has_choice: bool = False  # unless the client offers the subprotocol of another
    takes_token_in_query: bool = False  # for clients that can put it nowhere else
    answer: Answer | None = None  # learns the session id; None where the address says it


@dataclass(frozen=True, slots=True)
class Arrival:
    """The conversation that a request asks for."""

    session_id: str  # "" where `answer` learns it
    dialect: Dialect
    answer: Answer | None = None


ENTRANCES = {
    "/orchestrate": _Entrance(dialect=JsonDialect, has_choice=True),  # our JSON and PCM
    "/pipecat": _Entrance(dialect=RtviDialect, takes_token_in_query=True),  # protobuf and RTVI, for Pipecat's clients
    "/twilio": _Entrance(dialect=TwilioDialect, answer=answer_call),  # media streams, named in their first message
}
_BY_SUBPROTOCOL: dict[str, Callable[[], Dialect]] = {made.subprotocol: made for made in (JsonDialect, RtviDialect)}


def arrival_of(target: str, headers: Headers) -> Arrival:
    """The conversation that a request for one of `ENTRANCES` asks for."""
    entrance = ENTRANCES[path_of(target)]
    chosen = subprotocol_of(subprotocols_in(headers)) if entrance.has_choice else None
    make = entrance.dialect if chosen is None else _BY_SUBPROTOCOL[chosen]
    return Arrival(session_id_of(target), make(), entrance.answer)


def subprotocol_of(offered: Sequence[str]) -> str | None:
    """The client's favourite subprotocol among ours, None if there is none. A token is never repeated."""
    return next((name for name in offered if name in _BY_SUBPROTOCOL), None)


def subprotocols_in(headers: Headers) -> list[str]:
    """The subprotocols that a client offers, its favourite first."""
    return [name.strip() for line in headers.get_all("Sec-WebSocket-Protocol") for name in line.split(",")]


def path_of(target: str) -> str:
    """Return the path of a request's target, which may be a whole URL (RFC 9112, section 3.2.2)."""
    return urlsplit(target).path


def query_of(target: str, name: str) -> str:
    """Return a parameter of a request's target, "" if there is none."""
    return parse_qs(urlsplit(target).query).get(name, [""])[0]


def session_id_of(target: str) -> str:
    """Return the `session_id` of a request's target, "" if there is none."""
    return query_of(target, "session_id")
