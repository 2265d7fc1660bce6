"""The web application on FastAPI: the gate, the probes, OpenAI's API, and the page at /.

It answers more with each step of the start: /healthz at once, the API as soon as there is an engine, the page at last,
since Gradio takes seconds to import. Where Gradio is not installed, / says what there is instead. What programs ask is
in api.py, the page in page/.
"""

import importlib.util
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketClose

from serve.engine import Engine
from serve.feedback import FeedbackStore
from serve.following import Follower
from serve.http.admin import build_admin
from serve.http.api import build_api, build_health, build_probes
from serve.http.error_responses import API, Failure
from serve.http.forms import FormsMiddleware
from serve.http.metrics import Metrics
from serve.http.middleware import LimitsMiddleware, RestMiddleware, StreamsMiddleware
from serve.http.origins import OriginMiddleware
from serve.settings import Settings

RETRY = {"Retry-After": "2"}  # seconds, as the page below has it
STARTING = "The server is starting: try again in a few seconds."
STARTING_PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="2">
<title>Tunesmith</title>
<p style="font-family: system-ui, sans-serif; margin: 40vh auto; text-align: center">{STARTING}</p>
"""
WITHOUT_PAGE = """\
Tunesmith, without its page: Gradio is not installed here.

POST /v1/chat/completions, /v1/responses    a conversation, as OpenAI's clients ask
POST /v1/messages                           the same, as Anthropic's do
POST /v1/completions, /v1/embeddings        a text gone on with; as a vector
GET  /v1/models                             the models
GET  /healthz, /readyz, /metrics            is it alive, does it take questions, and its figures
"""


def build_app(settings: Settings) -> FastAPI:
    """Return the application as it is at first: it says that it is alive, and that the rest is to come."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(FormsMiddleware, settings=settings)
    app.add_middleware(LimitsMiddleware, settings=settings)  # before it
    app.add_middleware(OriginMiddleware, settings=settings)  # before the limits
    app.add_middleware(RestMiddleware)  # around all three, which refuse
    app.include_router(build_health())
    app.router.default = _starting  # for what has no route yet
    return app


def add_api(
    app: FastAPI, engine: Engine, settings: Settings, metrics: Metrics, follower: Follower | None = None
) -> None:
    """Let programs ask, from now on; where there is a key for it, whoever runs the server, too."""
    app.mount("/v1", build_api(engine, settings))
    if follower:
        metrics.watch_swaps(follower)
    if follower and settings.admin_key:
        app.include_router(build_admin(follower))
    app.include_router(build_probes(engine, metrics))  # the last, since they say that the others are there


def add_page(
    app: FastAPI, engine: Engine, settings: Settings, feedback: FeedbackStore | None = None
) -> AbstractAsyncContextManager:
    """Show the page at /, to which all goes that has no route before it.

    Returns what must be entered in the application's event loop for as long as the page is shown.
    """
    from serve.page import mount_page  # seconds: Gradio

    page = FastAPI(openapi_url=None)
    page.add_middleware(StreamsMiddleware)
    page.add_middleware(CORSMiddleware)  # which allows no other origin; without it Gradio would allow each

    @page.post("/gradio_api/upload")
    @page.post("/gradio_api/process_recording")
    async def refuse_upload() -> None:
        raise HTTPException(403, "This server takes no files.")

    mount_page(page, engine, settings, feedback)
    app.mount("/", page)
    return page.router.lifespan_context(page)


def has_page() -> bool:
    """Return whether there is Gradio to show a page with: the image of the API alone has none."""
    return importlib.util.find_spec("gradio") is not None


def say_what_is_there(app: FastAPI) -> None:
    """Say at / what programs may ask, where there is no page; what has no route is not found from now on."""
    app.add_api_route("/", lambda: PlainTextResponse(WITHOUT_PAGE), methods=["GET", "HEAD"], response_model=None)
    app.router.default = app.router.not_found


async def _starting(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await WebSocketClose()(scope, receive, send)
        return
    answer: Response = HTMLResponse(STARTING_PAGE, 503, RETRY)
    if scope["path"] in ("/readyz", "/health") or scope["path"].startswith(API):
        answer = Failure(503, STARTING, RETRY).response()
    await answer(scope, receive, send)
