"""Requests that are written otherwise than the routes: HEAD, a slash at the end, a packed body, `OPTIONS *`."""

import zlib

from fastapi.responses import Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.error_responses import API, describe
from serve.http.middleware import too_large
from serve.settings import Settings

PROBES = ("/healthz", "/readyz", "/health", "/metrics")
UNVERSIONED = ("/tokenize", "/detokenize")  # where llama.cpp and vLLM have them
PACKED = ("gzip", "x-gzip", "deflate")
GZIP_OR_ZLIB = 47  # window bits by which zlib finds out itself
ALLOW = {"Allow": "GET, HEAD, POST, OPTIONS"}


class FormsMiddleware:
    """Brings what programs ask into the form that the routes have; the page's own requests are left alone."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._most = app, settings.max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in as it is meant."""
        if scope["type"] == "http":
            if scope["path"] == "*":
                await Response(headers=ALLOW)(scope, receive, send)
                return
            if scope["path"].startswith(API) or scope["path"].rstrip("/") in PROBES:
                packing = Headers(scope=scope).get("content-encoding", "identity").strip().lower()
                if packing not in (*PACKED, "identity"):
                    error = HTTPException(415, f"A body can be packed by {PACKED[0]} or {PACKED[-1]}, or not at all.")
                    await describe(error).response()(scope, receive, send)
                    return
                receive = self._unpacked(receive) if packing in PACKED else receive
                # The server leaves out the body of what it knows as HEAD: the original scope stays as it is.
                path = scope["path"].rstrip("/")
                path = f"/v1{path}" if path in UNVERSIONED else path
                scope = {**scope, "path": path, "raw_path": path.encode()}
                scope["method"] = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._app(scope, receive, send)

    def _unpacked(self, receive: Receive) -> Receive:
        """Unpack the body as it comes, no further than a body may be long."""
        unpacker, size = zlib.decompressobj(GZIP_OR_ZLIB), 0

        async def unpacked() -> Message:
            nonlocal size
            message = await receive()
            if message["type"] != "http.request":
                return message
            try:
                body = unpacker.decompress(message.get("body", b""), self._most - size + 1)
            except zlib.error:
                raise HTTPException(400, "The body is not packed as its Content-Encoding says.") from None
            size += len(body)
            if size > self._most:
                raise too_large(self._most)
            if not message.get("more_body") and not unpacker.eof:
                raise HTTPException(400, "The packed body is cut short.")
            return {**message, "body": body}

        return unpacked
