"""What runs between the port and the last answer: the models, the engine and the API, then the page."""

import logging
import socket
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from fastapi import FastAPI

from serve.engine import Engine
from serve.feedback import FeedbackStore
from serve.following import Follower, candidate_of, sources_of
from serve.http.app import add_api, add_page, build_app, has_page, say_what_is_there
from serve.http.metrics import Metrics
from serve.http.server import Server
from serve.models.registry import find_models
from serve.settings import Settings, of_the_page

logger = logging.getLogger(__name__)


def run(settings: Settings, listener: socket.socket) -> None:
    """Serve until a signal comes. Raises UserError if there is no model to serve."""
    app = build_app(settings)
    with ExitStack() as opened:  # closed when the last answer is out
        server = Server(app, partial(start, app, settings, opened), settings)
        server.run(sockets=[listener])
        if server.failure:
            raise server.failure


def start(app: FastAPI, settings: Settings, opened: ExitStack, server: Server) -> None:
    """Do what takes its time, while the port is answered already."""
    page = has_page()
    feedback = open_feedback(settings, opened) if page else None
    sources = [*sources_of(settings.models), *(candidate := candidate_of(settings.canary))]
    models = find_models(settings.models, settings.model, settings.base)
    metrics = Metrics()
    server.engine = opened.enter_context(Engine(models, settings, metrics.observe))
    follower = opened.enter_context(Follower(sources, server.engine, settings))
    if candidate:
        follower.look()
    add_api(app, server.engine, settings, metrics, follower)
    if page:
        server.enter(add_page(app, server.engine, settings, feedback))
    else:
        go_without_page(app, settings)
    host = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared, not bound
    print(f"Tunesmith is on http://{host}:{settings.port} (Ctrl-C stops it)", flush=True)


def go_without_page(app: FastAPI, settings: Settings) -> None:
    """Say, there and here, that there is none, and which settings are of no use then."""
    say_what_is_there(app)
    print("no page, since Gradio is not installed: the API alone", flush=True)
    if useless := of_the_page(settings):
        logger.warning("warning: of no use without the page: %s", ", ".join(useless))


def open_feedback(settings: Settings, opened: ExitStack) -> FeedbackStore | None:
    """Return where feedback is kept; None where none is asked for. Raises UserError for a folder that cannot be."""
    if settings.feedback == "off":
        return None
    store = FeedbackStore(Path(settings.feedback), settings.feedback_repo or None, settings.feedback_minutes)
    return opened.enter_context(store)
