"""What a request to the port gets: a plain answer, a refusal, or a conversation. The same for every server."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from websockets.http11 import Request, Response

from ..access.origins import Origins
from ..access.token_gate import token_in
from ..access.token_key import TokenRefused
from .entrances import ENTRANCES, path_of, query_of, session_id_of, subprotocols_in
from .host import ConversationHost
from .http_routes import Routes, refusal

ONCE = ("Origin", "Host", "Upgrade", "Authorization")  # headers of which a second one could mean something else


class Handshake:
    """Judges requests by path, origin and token, for one `ConversationHost`. `trusts_host`: see `Origins`."""

    def __init__(
        self, conversations: ConversationHost, *, origins: Sequence[str] = (), trusts_host: bool = True
    ) -> None:
        self._conversations = conversations
        self._tokens = conversations.tokens
        self._routes = Routes(
            origins=Origins(origins, trusts_host=trusts_host),
            health=conversations.whole_health,
            metrics=conversations.metrics,
            unready=conversations.unready,
        )

    async def answer(self, request: Request, address: str) -> tuple[Response | None, bool]:
        """Return the response, or None where a WebSocket may be opened; and whether it brought a token, now used."""
        twice = next((name for name in ONCE if len(request.headers.get_all(name)) > 1), None)
        if twice is not None:
            return refusal(HTTPStatus.BAD_REQUEST, f"The header {twice} stands twice."), False
        response = await self._routes.answer(request)
        if response is not None:
            return response, False
        origin = request.headers.get("Origin")
        if self._conversations.is_draining:
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, "The server is ending; connect again.", origin), False
        entrance = ENTRANCES[path_of(request.path)]
        if entrance.answer is not None:
            return None, False  # what names the session is still to come, so its token is judged only then
        in_query = query_of(request.path, "token") if entrance.takes_token_in_query else ""
        in_headers = token_in(request.headers.get("Authorization", ""), subprotocols_in(request.headers))
        token = in_headers or in_query or None
        if token is None or self._tokens.is_open:
            return None, False
        if self._conversations.crowded(address) is not None:
            return None, False  # it is told so as soon as it is open, and its token is good for the next try
        try:
            await self._tokens.admit(token, session_id_of(request.path))
        except TokenRefused as error:
            return refusal(HTTPStatus.UNAUTHORIZED, str(error), origin), False
        return None, True
