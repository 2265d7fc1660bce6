"""The limits that hold for every way in before a request's content counts: its rate, its key, the size of its body."""

import asyncio
import hmac
import ipaddress
import math
import time
from collections import OrderedDict
from contextlib import suppress
from functools import partial

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.error_responses import API, refusal
from serve.settings import Settings

CHARGE = "tunesmith.charge"  # in a request's scope: counts what it asks for beyond one answer
ADMIN = "/admin/"  # how the paths begin that take a key of their own
CLIENTS = 10_000  # addresses whose rate is remembered; the longest unseen is forgotten
REST = 8 << 20  # bytes of a body that are read after the answer
REST_SECONDS = 10
# What the rate holds for, beside the API: what makes work through the page, and what may guess its password.
LIMITED_POSTS = ("/gradio_api/queue/join", "/gradio_api/call/", "/gradio_api/run/", "/gradio_api/api/", "/login")


class LimitsMiddleware:
    """Holds every request to the limits that come before its content: rate, key, and size of the body."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._rate = Rate(settings.rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] == "http":
            try:
                self._check(Request(scope))
            except HTTPException as error:
                await refusal(scope["path"], error)(scope, receive, send)
                return
            receive = self._counted(receive)
            address = client(self._address(Request(scope)))
            scope = {**scope, CHARGE: partial(self._rate.charge, address)}
        await self._app(scope, receive, send)

    def _check(self, request: Request) -> None:
        """Raise HTTPException for a request that is not let in."""
        path = request.scope["path"]  # not from the URL, which a Host header can bend
        admin = path.startswith(ADMIN) and bool(self._settings.admin_key)
        if admin or path.startswith(API) or (request.method == "POST" and path.startswith(LIMITED_POSTS)):
            self._check_rate(self._address(request))
        if admin:
            _compare(request.headers, self._settings.admin_key)
        elif path.startswith(API):
            self._check_key(request.headers)
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._settings.max_body:
            raise too_large(self._settings.max_body)

    def _check_rate(self, address: str) -> None:
        if seconds := self._rate.take(client(address)):
            text = f"At most {self._settings.rate} requests a minute are answered: try again in {seconds} s."
            raise HTTPException(429, text, {"Retry-After": str(seconds)})

    def _check_key(self, headers: Headers) -> None:
        key = self._settings.api_key
        if not key and self._settings.login:
            raise HTTPException(401, "The API is closed: the server asks for a login and has no SERVE_API_KEY.")
        if key:
            _compare(headers, key)

    def _address(self, request: Request) -> str:
        """Return the client's; behind proxies, what the first of ours was called from.

        What stands before it is hearsay.
        """
        proxies = self._settings.proxy
        passed = [part.strip() for part in ",".join(request.headers.getlist("x-forwarded-for")).split(",")]
        if proxies and len(passed) >= proxies:
            return passed[-proxies][:64]
        return request.client.host if request.client else ""

    def _counted(self, receive: Receive) -> Receive:
        """Count the body as it comes: a client need not say its length beforehand, or may lie."""
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._settings.max_body:
                raise too_large(self._settings.max_body)
            return message

        return counted


def _compare(headers: Headers, key: str) -> None:
    """Raise HTTPException for a request without the key."""
    token = headers.get("authorization", "").partition(" ")[2].strip() or headers.get("x-api-key", "")
    if not hmac.compare_digest(token.encode(), key.encode()):
        text = "The key is missing or wrong: send it as `Authorization: Bearer KEY` or `x-api-key: KEY`."
        raise HTTPException(401, text)


def too_large(most: int) -> HTTPException:
    """Return the refusal of a body with more than so many bytes."""
    return HTTPException(413, f"A request's body can have {most} bytes at most.")


class RestMiddleware:
    """Reads what is left of a body before an answer ends.

    A client that listens only when all is sent would find its connection cut, and never know why it was refused.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        ended = scope["type"] != "http" or not any(
            name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"]
        )

        async def noted() -> Message:
            nonlocal ended
            message = await receive()
            ended = ended or not message.get("more_body", False)
            return message

        async def read_rest() -> None:
            size = 0
            while not ended and size <= REST:
                size += len((await noted()).get("body", b""))

        async def after_the_rest(message: Message) -> None:
            if ended or message["type"] != "http.response.body" or message.get("more_body"):
                await send(message)
                return
            await send({**message, "more_body": True})
            with suppress(TimeoutError):
                await asyncio.wait_for(read_rest(), REST_SECONDS)
            await send({"type": "http.response.body", "body": b""})

        await self._app(scope, noted, after_the_rest)


class StreamsMiddleware:
    """Has proxies pass on events as they come: Gradio's do not say it, and nginx would wait for 4 KB of them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def unbuffered(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/event-stream"):
                    headers["X-Accel-Buffering"] = "no"
            await send(message)

        await self._app(scope, receive, unbuffered)


def client(address: str) -> str:
    """Return whom an address stands for: with IPv6 a /64, since whoever has one address there has all of them."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # what a proxy calls it
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed.packed, 64), strict=False))


class Rate:
    """A bucket of tokens for each client: a minute's requests at once, and one more for each one's time since."""

    def __init__(self, per_minute: int) -> None:
        """With 0, there is no limit."""
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def take(self, client: str) -> int:
        """Count a request; 0 if it may be answered, else the seconds until one may."""
        if not self._per_minute:
            return 0
        now = time.monotonic()
        tokens, counted = self._buckets.pop(client, (self._per_minute, now))
        tokens = min(self._per_minute, tokens + (now - counted) * self._per_minute / 60)
        allowed = tokens >= 1
        self._buckets[client] = (tokens - allowed, now)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        return 0 if allowed else math.ceil((1 - tokens) * 60 / self._per_minute)

    def charge(self, client: str, more: int) -> None:
        """Count more of a request that was allowed: what goes beyond the bucket has to come in before the next one."""
        if tokens_and_time := self._buckets.get(client):
            tokens, counted = tokens_and_time
            self._buckets[client] = (tokens - more, counted)
