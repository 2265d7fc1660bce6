"""The gate for browsers: whether a request comes from this server's own page, or another web site has sent it.

A browser says so itself in Sec-Fetch-Site, wherever the server is on https or on this machine; elsewhere in Origin,
which is held against the name by which the browser knows the server. Programs send neither, and are let in.
"""

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from serve.http.error_responses import refusal
from serve.http.forms import PROBES
from serve.settings import Settings

OWN_SITES = ("same-origin", "none")  # none: the visitor's own doing, as an address typed in
LINKED = ("/", *PROBES)  # where links of other sites may lead: what only shows something
SHOWN = ("document", "iframe", "frame")
PORTS = {"http": 80, "https": 443}
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
FOREIGN = (
    "Pages of other web sites cannot ask this server. If this is its own page: the proxy must pass Host on, or "
    "X-Forwarded-Host with SERVE_PROXY set."
)
REBOUND = "The server is known as localhost alone; behind a proxy or a tunnel with another name, set SERVE_PROXY."


class OriginMiddleware:
    """Refuses what a page of another web site asks through a visitor's browser, on every path."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._proxies = settings.proxy
        self._local = settings.host in LOCAL_NAMES and not settings.proxy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] in ("http", "websocket"):
            request = Request({**scope, "type": "http"})
            why = REBOUND if self._is_rebound(request) else FOREIGN if self._is_foreign(request) else ""
            if why and scope["type"] == "websocket":
                await WebSocketClose()(scope, receive, send)
                return
            if why:
                await refusal(scope["path"], HTTPException(403, why))(scope, receive, send)
                return
            send = _unread_elsewhere(send)
        await self._app(scope, receive, send)

    def _is_foreign(self, request: Request) -> bool:
        site = request.headers.get("sec-fetch-site")
        if site is not None:
            return site not in OWN_SITES and not _is_link(request)
        origin = request.headers.get("origin")
        return origin is not None and not self._is_own(origin, request)

    def _is_own(self, origin: str, request: Request) -> bool:
        """Return whether that is the server as the browser sees it: behind a proxy, as the proxy says."""
        scheme, _, host = origin.partition("://")
        forwarded = self._forwarded(request, "proto")
        if scheme not in PORTS or (forwarded and forwarded != scheme):
            return False
        seen = self._forwarded(request, "host") or request.headers.get("host", "")
        return _without_port(host, scheme) == _without_port(seen, scheme)

    def _forwarded(self, request: Request, what: str) -> str:
        """Return what the outermost proxy says; nothing where there is none."""
        said = request.headers.get(f"x-forwarded-{what}", "") if self._proxies else ""
        return said.partition(",")[0].strip()

    def _is_rebound(self, request: Request) -> bool:
        """Return whether the name is another site's.

        Its owner can let a name stand for this machine, and the browser then takes their page for ours.
        """
        return self._local and not _is_local_name(request.headers.get("host", ""))


def _unread_elsewhere(send: Send) -> Send:
    """Return what also tells browsers not to let a page of another site have the answer, by which way soever."""

    async def unread(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
            headers["X-Content-Type-Options"] = "nosniff"
        await send(message)

    return unread


def _is_link(request: Request) -> bool:
    """Return whether somebody follows a link, or sees the page in a frame."""
    asked = request.method in ("GET", "HEAD") and request.headers.get("sec-fetch-mode") == "navigate"
    return asked and request.headers.get("sec-fetch-dest") in SHOWN and request.scope["path"] in LINKED


def _without_port(host: str, scheme: str) -> str:
    return host.lower().removesuffix(f":{PORTS[scheme]}")


def _is_local_name(host: str) -> bool:
    """Return whether no stranger can own the name in a Host header: one without a dot, or an address."""
    try:
        name = urlsplit(f"//{host}").hostname or ""  # programs may send none
        return "." not in name or name.endswith(".localhost") or bool(ipaddress.ip_address(name))
    except ValueError:
        return False
