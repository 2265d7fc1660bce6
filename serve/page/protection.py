"""What holds for each path of the page, within Gradio's own application: the login, and what a browser may do there."""

import base64
import hashlib
import re
from http import HTTPStatus

from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.settings import Settings

# What a browser needs to show the form that asks for a login.
OPEN = ("/", "/login", "/login/", "/favicon.ico", "/robots.txt", "/manifest.json", "/theme.css")
OPEN_FOLDERS = ("/assets/", "/static/", "/svelte/")
INLINE_SCRIPT = re.compile(rb"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL)
API_INFO = re.compile(rb"(window\.gradio_api_info = ).*?(;</script>)", re.DOTALL)
# Gradio makes functions of the texts of events ('unsafe-eval') and sets styles everywhere. No form of its own is sent
# by the browser, and so none in an answer is. What an answer shows from elsewhere would tell that it was read.
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval' {scripts}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; manifest-src 'self'; base-uri 'self'; form-action 'none'; "
    "frame-ancestors 'self' {embedders}"
)


class ProtectionMiddleware:
    """Asks for the login on every path but those that show where to log in, and says what an HTML page may do.

    Gradio leaves some of its own paths out, and tells of the models before the login.
    """

    def __init__(self, app: ASGIApp, script: str, settings: Settings) -> None:
        """Protect Gradio's application; `script` is one that the page adds to itself."""
        self._app = app
        self._script = _hash(script.encode())
        self._embedders = " ".join(settings.embedders)
        self._login = bool(settings.login)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        known = not self._login or _is_logged_in(request)
        if not _is_let_in(request, known):
            answer = JSONResponse({"detail": {"error": "Not authenticated"}}, HTTPStatus.UNAUTHORIZED)
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, self._with_policy(send, known))

    def _with_policy(self, send: Send, known: bool) -> Send:
        """Return what sends an answer on; of an HTML page the whole is waited for."""
        start: Message | None = None
        body = b""

        async def with_policy(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and _is_html(message):
                start = message
                return
            if start is None:
                await send(message)
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                body = body if known else API_INFO.sub(rb"\1{}\2", body)
                headers = MutableHeaders(scope=start)
                headers["Content-Length"] = str(len(body))
                headers["Content-Security-Policy"] = self._policy(body)
                headers["Referrer-Policy"] = "same-origin"
                await send(start)
                await send({"type": "http.response.body", "body": body})

        return with_policy

    def _policy(self, page: bytes) -> str:
        scripts = [self._script, *(_hash(script) for script in INLINE_SCRIPT.findall(page))]
        return POLICY.format(scripts=" ".join(scripts), embedders=self._embedders).strip()


def _is_let_in(request: Request, known: bool) -> bool:
    path = request.scope["path"]
    if path == "/logout":  # an image in an answer may have that address
        return request.headers.get("sec-fetch-dest") != "image"
    return known or path in OPEN or path.startswith(OPEN_FOLDERS)


def _is_logged_in(request: Request) -> bool:
    """Return whether Gradio knows the visitor, by the cookie that it gave."""
    gradio = request.app
    cookies = (f"access-token-{gradio.cookie_id}", f"access-token-unsecure-{gradio.cookie_id}")
    return any(request.cookies.get(name) in gradio.tokens for name in cookies)


def _is_html(start: Message) -> bool:
    return MutableHeaders(scope=start).get("content-type", "").startswith("text/html")


def _hash(script: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"
