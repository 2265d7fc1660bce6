"""An engine's answers over a socket, as Docker's API has them: to the real SDK, it is one.

For what no engine here can say: that it has GPUs, or cannot hand them on. What it is asked is kept.
"""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

Answers = dict[tuple[str, str], tuple[int, object]]  # (method, path without version) -> status, body

IMAGE = {
    "Id": "sha256:" + "5" * 64,
    "RepoTags": ["tunesmith-train:latest"],
    "RepoDigests": [],
    "Config": {
        "Env": [
            "PATH=/opt/venv/bin:/usr/bin:/bin",
            "CUDA_VERSION=13.0.2",
            "TUNESMITH_IMAGE=tunesmith-train",
            "XDG_CACHE_HOME=/home/tunesmith/.cache",
        ]
    },
}
CONTAINER = {"Id": "c" * 64, "State": {"Status": "created"}, "Config": {"Labels": {}}}
ANSWERS: Answers = {
    ("GET", "/version"): (200, {"ApiVersion": "1.50", "Version": "28.2.2"}),
    ("GET", "/_ping"): (200, "OK"),
    ("GET", "/info"): (200, {"ServerVersion": "28.2.2", "Runtimes": {"runc": {}}, "SecurityOptions": ["name=seccomp"]}),
    ("GET", "/images/tunesmith-train/json"): (200, IMAGE),
    ("GET", "/containers/json"): (200, []),
    ("POST", "/containers/create"): (201, {"Id": CONTAINER["Id"], "Warnings": []}),
    ("GET", f"/containers/{CONTAINER['Id']}/json"): (200, CONTAINER),
    ("POST", f"/containers/{CONTAINER['Id']}/attach"): (200, ""),
    ("POST", f"/containers/{CONTAINER['Id']}/wait"): (200, {"StatusCode": 0}),
    ("POST", f"/containers/{CONTAINER['Id']}/start"): (204, ""),
    ("DELETE", f"/containers/{CONTAINER['Id']}"): (204, ""),
}


class Engine(socketserver.ThreadingUnixStreamServer):
    """A server of recorded answers; `asked` has each request's method, path and body."""

    daemon_threads = True

    def __init__(self, path: Path, answers: Answers) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str, Any]] = []
        super().__init__(str(path), Handler)

    def bodies(self, path: str) -> list[Any]:
        """What was sent to a path."""
        return [body for _, asked, body in self.asked if asked == path]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Engine

    def answer(self) -> None:
        """Says what is recorded; of what is not, as an engine does, that there is no such thing."""
        size = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(size)
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/v1."):
            path = path[path.index("/", 1) :]
        self.server.asked.append((self.command, path, json.loads(sent) if sent else None))
        status, body = self.server.answers.get((self.command, path), (404, {"message": f"No such image: {path}"}))
        text = body if isinstance(body, str) else json.dumps(body)
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        if not path.endswith("/attach"):  # a stream, which ends when the connection does
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 -- the names that http.server looks for

    def address_string(self) -> str:
        """A socket in the file system has no address."""
        return "a socket"

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def recorded_engine(folder: Path, changed: Answers | None = None) -> Iterator[Engine]:
    """An engine at `folder/engine.sock`, with some of its answers changed."""
    server = Engine(folder / "engine.sock", ANSWERS | (changed or {}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
