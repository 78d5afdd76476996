"""The plain HTTP side of the port: health, metrics, the console page, and who may open a WebSocket."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Callable, Sequence
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from .protocol import is_session_id

PATH = "/orchestrate"
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
_CONSOLE = files(__package__ or __name__) / "console"
_SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def session_id_of(path: str) -> str:
    """Return the `session_id` of a request path, "" if there is none."""
    return parse_qs(urlsplit(path).query).get("session_id", [""])[0]


class Routes:
    """Answers what is not a WebSocket. `origins` are exact origins besides the server's own and loopback; `*`: all."""

    def __init__(self, *, origins: Sequence[str] = (), health: Callable[[], dict[str, Any]]) -> None:
        self._origins = frozenset(origins)  # allowed besides the server's own and loopback
        self._health = health  # what /health says

    def answer(self, request: Request) -> Response | None:
        """Return the response, or None where the WebSocket handshake is to go on."""
        parts = urlsplit(request.path)
        origin = request.headers.get("Origin")
        if origin is not None and not self.is_allowed(origin, request.headers.get("Host", "")):
            return _response(HTTPStatus.FORBIDDEN, f"The origin {origin} is not allowed; add it to LEIBNIZ_ORIGINS.\n")
        if parts.path == PATH:
            if not is_session_id(session_id_of(request.path)):
                text = "Give ?session_id= with 1 to 64 letters, digits, '_' or '-'.\n"
                return _response(HTTPStatus.BAD_REQUEST, text, origin=origin)
            if request.headers.get("Upgrade", "").lower() != "websocket":
                return _response(HTTPStatus.UPGRADE_REQUIRED, "Open this address as a WebSocket.\n", origin=origin)
            return None
        return self._page(parts.path, origin)

    def is_allowed(self, origin: str, host: str) -> bool:
        """Whether a browser page of `origin` may talk to this server, reached as `host`."""
        if "*" in self._origins or origin in self._origins:
            return True
        try:
            parts = urlsplit(origin)
            name = parts.hostname
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and (parts.netloc == host or name in _LOOPBACK)

    def _page(self, path: str, origin: str | None) -> Response:
        if path == "/health":
            return _response(HTTPStatus.OK, json.dumps(self._health()) + "\n", "application/json", origin)
        if path == "/metrics":
            return _response(HTTPStatus.OK, generate_latest(), CONTENT_TYPE_LATEST, origin)
        name = "index.html" if path == "/" else path.removeprefix("/")
        file = _CONSOLE / name
        if "/" in name or name.startswith(".") or not file.is_file():
            return _response(HTTPStatus.NOT_FOUND, "Nothing here. Try /, /health or /metrics.\n", origin=origin)
        return _response(HTTPStatus.OK, file.read_bytes(), mimetypes.guess_type(name)[0] or "text/plain", origin)


def _response(
    status: HTTPStatus, body: str | bytes, content_type: str = "text/plain; charset=utf-8", origin: str | None = None
) -> Response:
    data = body.encode() if isinstance(body, str) else body
    headers = Headers(_SECURITY)
    headers["Content-Type"] = content_type
    headers["Content-Length"] = str(len(data))
    headers["Connection"] = "close"
    if origin is not None:
        headers["Access-Control-Allow-Origin"] = origin
        headers["Vary"] = "Origin"
    return Response(status.value, status.phrase, headers, data)
