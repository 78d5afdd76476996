"""The plain HTTP side of the port: health, metrics, the console page, and where a WebSocket may be opened."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CONTENT_TYPE_LATEST
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from ..access.limits import REFUSED
from ..access.origins import Origins
from ..dialects.protocol import is_session_id
from .entrances import ENTRANCES, session_id_of

_PAGES = {file.name: file for file in (files("leibniz_voice.transports") / "console").iterdir() if file.is_file()}
_SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "Permissions-Policy": "microphone=(self)",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Routes:
    """Answers what is not a WebSocket."""

    def __init__(
        self,
        *,
        origins: Origins,
        health: Callable[[], Awaitable[dict[str, Any]]],
        metrics: Callable[[], Awaitable[bytes]],
        unready: Callable[[], str],
    ) -> None:
        self._origins = origins  # who may talk to the server from a browser
        self._health = health  # what /health says
        self._metrics = metrics  # what /metrics says
        self._unready = unready  # why no new conversation should come here, "" if one may

    async def answer(self, request: Request) -> Response | None:
        """Return the response, or None where the WebSocket handshake is to go on."""
        try:
            parts = urlsplit(request.path)
        except ValueError:
            return refusal(HTTPStatus.BAD_REQUEST, "The address cannot be read.")
        origin = request.headers.get("Origin")
        if origin is not None and not self._origins.allows(origin, request.headers.get("Host", "")):
            REFUSED.labels("origin").inc()
            return refusal(HTTPStatus.FORBIDDEN, f"The origin {origin} is not allowed; add it to LEIBNIZ_ORIGINS.")
        if entrance := ENTRANCES.get(parts.path):
            return self._handshake(request, origin, is_named=entrance.answer is None)
        return await self._page(parts.path, origin)

    def _handshake(self, request: Request, origin: str | None, *, is_named: bool) -> Response | None:
        if is_named and not is_session_id(session_id_of(request.path)):
            REFUSED.labels("session_id").inc()
            text = "Give ?session_id= with 1 to 64 letters, digits, '_' or '-'."
            return refusal(HTTPStatus.BAD_REQUEST, text, origin)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return refusal(HTTPStatus.UPGRADE_REQUIRED, "Open this address as a WebSocket.", origin)
        return None

    async def _page(self, path: str, origin: str | None) -> Response:
        if path == "/health":
            return _response(HTTPStatus.OK, json.dumps(await self._health()) + "\n", "application/json", origin)
        if path == "/ready":
            why = self._unready()
            status = HTTPStatus.SERVICE_UNAVAILABLE if why else HTTPStatus.OK
            return _response(status, f"{why or 'ready'}\n", origin=origin)
        if path == "/metrics":
            return _response(HTTPStatus.OK, await self._metrics(), CONTENT_TYPE_LATEST, origin)
        name = "index.html" if path == "/" else path.removeprefix("/")
        if name not in _PAGES:
            return _response(HTTPStatus.NOT_FOUND, "Nothing here. Try /, /health, /ready or /metrics.\n", origin=origin)
        return _response(
            HTTPStatus.OK, _PAGES[name].read_bytes(), mimetypes.guess_type(name)[0] or "text/plain", origin
        )


def refusal(status: HTTPStatus, sentence: str, origin: str | None = None) -> Response:
    """A response of one sentence."""
    response = _response(status, sentence + "\n", origin=origin)
    if status is HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _response(
    status: HTTPStatus, body: str | bytes, content_type: str = "text/plain; charset=utf-8", origin: str | None = None
) -> Response:
    data = body.encode("utf-8", "replace") if isinstance(body, str) else body
    headers = Headers(_SECURITY)
    headers["Content-Type"] = content_type
    headers["Content-Length"] = str(len(data))
    headers["Connection"] = "close"
    if origin is not None:
        headers["Access-Control-Allow-Origin"] = origin
        headers["Vary"] = "Origin"
    return Response(status.value, status.phrase, headers, data)
