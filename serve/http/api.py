"""What programs ask: OpenAI's API under /v1, and the state of the server.

    POST /v1/chat/completions  an answer to a conversation, whole or as a stream of events
    POST /v1/completions       a text gone on with, without the chat template
    GET  /v1/models            the models
    GET  /healthz              200 while the process answers
    GET  /readyz               200 while questions are taken in, else 503
    GET  /metrics              for Prometheus

Errors have OpenAI's shape. A client that leaves frees its place, whether it streams or waits for the whole answer.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar, cast

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, field_validator
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from llama.errors import EngineError, RequestError
from llama.types import Sampling
from serve import limits
from serve.engine import Engine, Piece
from serve.http.error_responses import answer_error, describe, error_body
from serve.http.metrics import Metrics
from serve.settings import Settings

COMPLETION_TOKENS = 16  # of a plain completion that asks for no number, as with OpenAI
UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # events are passed on as they come

# Fields that would change the answer and are not supported, and the values with which they would not.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_p": (),
    "modalities": (["text"],),
    "n": (1,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_k": (),
    "top_logprobs": (0,),
    "web_search_options": (),
}
T = TypeVar("T")


class _Fields(BaseModel):
    """Values are of their types and not converted; what is not named is looked up in UNSUPPORTED."""

    model_config = ConfigDict(strict=True, extra="allow")


class StreamOptions(_Fields):
    """How a stream is written."""

    include_usage: bool | None = None


class CompletionRequest(_Fields):
    """What both kinds of completion take; the engine checks the ranges."""

    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _listed(cls, stop: Any) -> Any:
        return [stop] if isinstance(stop, str) else stop

    def sampling(self, max_tokens: int) -> Sampling:
        """Return how the answer is drawn.

        As asked, else as is usual here. Raises HTTPException for what cannot be had.
        """
        for name, value in (self.model_extra or {}).items():
            if name in UNSUPPORTED and value is not None and value not in UNSUPPORTED[name]:
                raise HTTPException(400, f"{name} is not supported: leave it out.")
        parameters = {name: getattr(self, name) for name in Sampling.__dataclass_fields__}
        parameters["max_tokens"] = max_tokens if self.max_tokens is None else self.max_tokens
        parameters["stop"] = tuple(self.stop or ())
        return Sampling(**{name: value for name, value in parameters.items() if value is not None})


class ChatMessage(_Fields):
    """One turn of a conversation; its content is a text or a list of parts that are texts."""

    role: str
    content: str

    @field_validator("role")
    @classmethod
    def _known(cls, role: str) -> str:
        return "system" if role == "developer" else role

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, content: Any) -> Any:
        if not isinstance(content, list):
            return content
        if not all(isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in content):
            raise ValueError("only parts of type text are supported")
        return "\n".join(part["text"] for part in content)


class ChatRequest(CompletionRequest):
    """A conversation to go on with."""

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None


class TextRequest(CompletionRequest):
    """A text to go on with."""

    prompt: str

    @field_validator("prompt", mode="before")
    @classmethod
    def _single(cls, prompt: Any) -> Any:
        return prompt[0] if isinstance(prompt, list) and len(prompt) == 1 else prompt


def build_health() -> APIRouter:
    """Return whether the process answers, for whatever runs it."""
    health = APIRouter()

    @health.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return health


def build_probes(engine: Engine, metrics: Metrics) -> APIRouter:
    """Return the state of the server, for whatever sends requests to it and watches it."""
    probes = APIRouter()
    metrics.watch(engine)

    @probes.get("/readyz")
    async def readyz(response: Response) -> dict[str, str]:
        response.status_code = 200 if engine.ready else 503
        return {"status": "ready" if engine.ready else "not ready"}

    @probes.get("/metrics")
    async def read_metrics() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    return probes


def build_api(engine: Engine, settings: Settings) -> FastAPI:
    """Return OpenAI's API; an application of its own, so that its errors are its own too."""
    api = FastAPI(openapi_url=None, redirect_slashes=False)
    entries = {
        name: {"id": name, "object": "model", "created": int(model.path.stat().st_mtime), "owned_by": "tunesmith"}
        for name, model in engine.models.items()
    }

    def check_model(name: str) -> None:
        if name not in engine.models:
            names = ", ".join(engine.models)
            raise HTTPException(404, f"There is no model named {name[:100]!r}; there is {names}.")

    @api.get("/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": list(entries.values())}

    @api.get("/models/{name:path}")
    async def show_model(name: str) -> dict[str, Any]:
        check_model(name)
        return entries[name]

    @api.post("/chat/completions")
    async def chat(request: Request, body: ChatRequest) -> Response:
        check_model(body.model)
        if body.max_completion_tokens is not None:
            body.max_tokens = body.max_completion_tokens
        messages = [{"role": message.role, "content": message.content} for message in body.messages]
        sampling = body.sampling(settings.max_tokens)
        pieces = engine.astream(body.model, cast(limits.Prompt, messages), sampling)
        return await _respond(request, body, pieces, Writer(body.model, chat=True))

    @api.post("/completions")
    async def complete(request: Request, body: TextRequest) -> Response:
        check_model(body.model)
        sampling = body.sampling(min(COMPLETION_TOKENS, settings.max_tokens))
        pieces = engine.astream(body.model, body.prompt, sampling)
        return await _respond(request, body, pieces, Writer(body.model, chat=False))

    for kind in (HTTPException, RequestValidationError, RequestError, EngineError, Exception):
        api.add_exception_handler(kind, answer_error)
    return api


class Writer:
    """Writes one answer as OpenAI does."""

    def __init__(self, model: str, chat: bool) -> None:
        self.chat = chat
        self._head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, last: Piece) -> dict[str, Any]:
        """Return the whole answer at once."""
        payload = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return self._body("chat.completion", payload, last.finish) | {"usage": usage(last)}

    def begin(self) -> dict[str, Any]:
        """Return what a chat's stream begins with."""
        return self._body("chat.completion.chunk", {"delta": {"role": "assistant", "content": ""}}, None)

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """Return the next bit of it."""
        payload = {"delta": {"content": piece.text} if piece.text else {}} if self.chat else {"text": piece.text}
        return self._body("chat.completion.chunk", payload, piece.finish)

    def figures(self, last: Piece) -> dict[str, Any]:
        """Return what a stream ends with where usage was asked for."""
        return self._body("chat.completion.chunk", {}, None) | {"choices": [], "usage": usage(last)}

    def _body(self, kind: str, payload: Mapping[str, Any], finish: str | None) -> dict[str, Any]:
        choice = {"index": 0, **payload, "logprobs": None, "finish_reason": finish}
        return {**self._head, "object": kind if self.chat else "text_completion", "choices": [choice]}


def usage(last: Piece) -> dict[str, Any]:
    """Return the tokens of an answer, as of its last piece."""
    return {
        "prompt_tokens": last.prompt,
        "completion_tokens": last.tokens,
        "total_tokens": last.prompt + last.tokens,
        "prompt_tokens_details": {"cached_tokens": last.cached},
    }


async def _respond(request: Request, body: CompletionRequest, pieces: AsyncIterator[Piece], writer: Writer) -> Response:
    """Return the answer in the form that was asked for. The first piece is waited for.

    Until then an error has a status.
    """
    if not body.stream:
        return await _while_connected(request, _whole(pieces, writer)) or Response(status_code=499)
    first = await _while_connected(request, anext(pieces))
    if first is None:
        return Response(status_code=499)
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    return EventStream(_events(first, pieces, writer, with_usage), pieces)


async def _whole(pieces: AsyncIterator[Piece], writer: Writer) -> Response:
    all_pieces = [piece async for piece in pieces]
    return JSONResponse(writer.whole("".join(piece.text for piece in all_pieces), all_pieces[-1]))


async def _events(piece: Piece, pieces: AsyncIterator[Piece], writer: Writer, with_usage: bool) -> AsyncIterator[str]:
    """Yield the answer as server-sent events, from its first piece on."""
    if writer.chat:
        yield _event(writer.begin())
    yield _event(writer.chunk(piece))
    try:
        while not piece.finish:
            piece = await anext(pieces)
            if piece.text or piece.finish:
                yield _event(writer.chunk(piece))
    except Exception as error:  # too late for a status
        status, message, _ = describe(error)
        yield _event(error_body(status, message))
        return
    if with_usage:
        yield _event(writer.figures(piece))
    yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


class EventStream(StreamingResponse):
    """Closes the answer however it ends: Starlette leaves that to the garbage collector."""

    def __init__(self, events: AsyncIterator[str], answer: AsyncIterator[Piece]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=UNBUFFERED)
        self._answer = cast(AsyncGenerator[Piece, None], answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, until the client leaves."""
        async with aclosing(self._answer):
            await super().__call__(scope, receive, send)


async def _while_connected(request: Request, work: Awaitable[T]) -> T | None:
    """Return what the work comes to; it is cancelled, and None comes, when the client leaves."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(left())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()
