"""The web application on FastAPI: the gate, the probes, OpenAI's API, and the page at /.

What programs ask is in api.py, the page in page.py.
"""

import logging
import socket

import uvicorn
from fastapi import FastAPI, HTTPException

from serve.api import build_api, build_probes
from serve.engine import Engine
from serve.gate import Gate
from serve.metrics import Metrics
from serve.page import TITLE, mount_page
from serve.settings import Settings

SHUTDOWN_SECONDS = 2  # for short answers under way to reach their readers


def build_app(engine: Engine, settings: Settings, metrics: Metrics) -> FastAPI:
    """The web application: what is mounted first is found first, the page takes the rest."""
    app = FastAPI(title=TITLE, openapi_url=None)
    app.add_middleware(Gate, settings=settings)
    app.include_router(build_probes(engine, metrics))
    app.mount("/v1", build_api(engine, settings))

    @app.post("/gradio_api/upload")
    async def refuse_upload() -> None:
        raise HTTPException(403, "This server takes no files.")

    return mount_page(app, engine, settings)


def web_server(app: FastAPI) -> uvicorn.Server:
    """The server for the application; it logs warnings alone, and so no word of a conversation."""
    # It warns of each word for a client that has just left, which a busy machine takes a moment to notice.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    # A client's address is for the gate to find out (SERVE_PROXY): uvicorn would believe anyone on this machine.
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return _QuietServer(config)


class _QuietServer(uvicorn.Server):
    """Says nothing of the open pages that it cuts off at its end: each holds a connection for as long as it is open."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)
