"""What programs ask: OpenAI's API under /v1, and the state of the server.

    POST /v1/chat/completions  an answer to a conversation, whole or as a stream of events
    POST /v1/completions       a text gone on with, without the chat template
    POST /v1/responses         the same in OpenAI's newer form; /v1/responses/input_tokens: its tokens
    POST /v1/messages          the same as Anthropic's clients ask for it; /v1/messages/count_tokens: its tokens
    POST /v1/embeddings        texts as vectors, by a model that is for that
    POST /v1/tokenize          the token ids of a text or a conversation; at /tokenize, too
    POST /v1/detokenize        the text of token ids; at /detokenize, too
    GET  /v1/models            the models
    GET  /healthz              200 while the process answers
    GET  /readyz, /health      200 while questions are taken in, else 503
    GET  /metrics              for Prometheus

What may be asked is in requests.py and fields.py, how answers are written in answers.py. Errors have OpenAI's shape. A
client that leaves frees its place, whether it streams or waits for the whole answer.
"""

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import TypeVar

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from llama.errors import EngineError, RequestError
from llama.types import Prompt, Sampling
from serve.engine import Engine, Piece
from serve.http.answers import Drawn, EventStream, Json, Writer, Writing, events
from serve.http.embeddings import EmbeddingsRequest, embedded
from serve.http.error_responses import answer_error
from serve.http.fields import called
from serve.http.messages import CountRequest, MessagesRequest, MessageWriter
from serve.http.metrics import Metrics
from serve.http.middleware import CHARGE
from serve.http.requests import SEEDS, ChatRequest, DetokenizeRequest, TextRequest, TokenizeRequest
from serve.http.responses import ResponsesRequest, ResponseWriter
from serve.http.tokens import detokenized, tokenized
from serve.merging import merged_or_silent
from serve.models.registry import Model
from serve.settings import Settings

SILENCE = 10.0  # seconds without a piece, after which a stream's reader is told to wait: proxies hang up after 60

NO_NAMES: Mapping[str, str] = MappingProxyType({})

T = TypeVar("T")
Body = TypeVar("Body", ChatRequest, TextRequest)


class Told(JSONResponse):
    """What is told as JSON, also where it repeats a text of the client's that is no Unicode."""

    def render(self, content: object) -> bytes:
        """Return its bytes."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode(errors="backslashreplace")  # as JSON escapes the halves of a character, too


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
    @probes.get("/health")
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

    @api.get("/models")
    async def list_models() -> dict[str, object]:
        entries = [_entry(model, settings) for model in engine.all_models.values()]
        paged = {"first_id": entries[0]["id"], "last_id": entries[-1]["id"], "has_more": False}  # as with Anthropic
        return {"object": "list", "data": entries, **paged}

    @api.get("/models/{name:path}")
    async def show_model(name: str) -> dict[str, object]:
        return _entry(engine.find(name), settings)

    @api.post("/chat/completions")
    async def chat(request: Request, body: ChatRequest) -> Response:
        return await _respond(request, body, engine, settings)

    @api.post("/completions")
    async def complete(request: Request, body: TextRequest) -> Response:
        return await _respond(request, body, engine, settings)

    @api.post("/responses")
    async def respond(request: Request, body: ResponsesRequest) -> Response:
        chat, names = body.translated()
        return await _respond(request, chat, engine, settings, partial(ResponseWriter, body), names)

    @api.post("/responses/input_tokens")
    async def count_response(request: Request, body: ResponsesRequest) -> Response:
        chat, names = body.translated()
        return await _answer_once(request, _counted(chat, engine, names, object="response.input_tokens"))

    @api.post("/messages")
    async def message(request: Request, body: MessagesRequest) -> Response:
        chat, names = body.translated()
        return await _respond(request, chat, engine, settings, MessageWriter, names)

    @api.post("/messages/count_tokens")
    async def count_message(request: Request, body: CountRequest) -> Response:
        chat, names = body.translated()
        return await _answer_once(request, _counted(chat, engine, names))

    @api.post("/embeddings")
    async def embed(request: Request, body: EmbeddingsRequest) -> Response:
        engine.find(body.model, "embed")
        request.scope[CHARGE](len(body.texts()) - 1)
        return await _answer_once(request, embedded(body, engine))

    @api.post("/tokenize")
    async def tokenize(request: Request, body: TokenizeRequest) -> Response:
        model = engine.find(engine.default if body.model is None else body.model)
        body.check()
        context = min(settings.context, model.context)
        return await _answer_once(request, tokenized(body, engine, model.name, context))

    @api.post("/detokenize")
    async def detokenize(request: Request, body: DetokenizeRequest) -> Response:
        model = engine.find(engine.default if body.model is None else body.model)
        body.check()
        return await _answer_once(request, detokenized(body, engine, model.name))

    for kind in (HTTPException, RequestValidationError, RequestError, EngineError, Exception):
        api.add_exception_handler(kind, answer_error)
    return api


def _entry(model: Model, settings: Settings) -> Json:
    """Return what is told of a model: to OpenAI's clients, to vLLM's and to Anthropic's."""
    created = model.modified // 10**9
    told: Json = {"id": model.name, "object": "model", "created": created, "owned_by": "tunesmith"}
    told["max_model_len"] = min(settings.context, model.context)
    day = datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z")
    return told | {"type": "model", "display_name": model.name, "created_at": day}


async def _counted(chat: ChatRequest, engine: Engine, names: Mapping[str, str], **beside: str) -> Json:
    """Return how many tokens a conversation has, with what is told beside it. Raises RequestError."""
    with called(names):
        engine.find(chat.model, "answer")
        chat.check()
        return beside | {"input_tokens": len(await engine.tokens(chat.model, *chat.prompts()))}


async def _respond(
    request: Request,
    body: Body,
    engine: Engine,
    settings: Settings,
    writer_of: Callable[[Body, Sequence[Prompt]], Writing] = Writer,
    names: Mapping[str, str] = NO_NAMES,
) -> Response:
    """Return the answers in the form that was asked for.

    Until the first piece, or until it has been waited for long enough, an error has a status.

    Args:
        request: that asks for them.
        body: what is asked for.
        engine: that gives them.
        settings: limits.
        writer_of: returns what writes them, for a body and its prompts.
        names: the client's for those of the body's fields, where it was translated.
    """
    with called(names):
        return await _answered(request, body, engine, settings, writer_of)


async def _answered(
    request: Request,
    body: Body,
    engine: Engine,
    settings: Settings,
    writer_of: Callable[[Body, Sequence[Prompt]], Writing],
) -> Response:
    engine.find(body.model, "answer")
    body.check()
    sampling, prompts, each = body.drawn(settings.max_tokens), body.prompts(), body.choices
    asked, most = len(prompts) * each, settings.slots + settings.queue
    if not 0 < asked <= most:
        text = f"A request can have 1 to {most} answers, its prompts times n; this asks for {asked}."
        raise RequestError(text, param="n" if each > 1 else "prompt")
    request.scope[CHARGE](asked - 1)
    writer = writer_of(body, prompts)
    answers = [
        engine.astream(body.model, prompt, _another(sampling, place)) for prompt in prompts for place in range(each)
    ]
    drawn = merged_or_silent(answers, SILENCE if body.stream else None)
    if not body.stream:
        return await _while_connected(request, _whole(drawn, writer)) or Response(status_code=499)
    first = await _while_connected(request, _first(drawn))
    if first is None:
        return Response(status_code=499)
    return EventStream(events(first[0], drawn, writer), drawn)


def _another(sampling: Sampling, place: int) -> Sampling:
    """Return how the answer at a place among those to one prompt is drawn: by a seed of its own."""
    if not place or sampling.seed is None:
        return sampling
    return dataclasses.replace(sampling, seed=(sampling.seed + place) % SEEDS)


async def _answer_once(request: Request, work: Awaitable[Json]) -> Response:
    """Return what the work comes to, unless the client leaves before."""
    told = await _while_connected(request, work)
    return Response(status_code=499) if told is None else Told(told)


async def _whole(drawn: Drawn, writer: Writing) -> Response:
    async with aclosing(drawn):
        async for item in drawn:
            if item is not None:
                writer.take(*_piece(item))
    return Told(writer.whole())


async def _first(drawn: Drawn) -> tuple[tuple[int, Piece] | None]:
    """Return what comes first, be it silence. Raises what comes in the place of a piece, and ends the other answers."""
    item = await anext(drawn)
    try:
        return (item and _piece(item),)
    except Exception:
        await drawn.aclose()
        raise


def _piece(item: tuple[int, Piece | Exception]) -> tuple[int, Piece]:
    index, piece = item
    if isinstance(piece, Exception):
        raise piece
    return index, piece


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
