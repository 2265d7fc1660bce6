import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

import pipeline

REPOSITORY = Path(pipeline.__file__).parents[1]
COMMIT = "5f0c2d" + "1" * 34

LOAD = """
import json, sys
from pathlib import Path
from pipeline.data.settings import DataSettings
from pipeline.data.sources import load
from pipeline.errors import UserError
try:
    (source,) = load(DataSettings("hub", "hub", **json.loads(sys.argv[1])), Path())
except UserError as error:
    sys.exit(f"UserError: {error}")
print(json.dumps({"name": source.name, "revision": source.revision, "rows": list(source.rows)}))
"""


class HubHandler(BaseHTTPRequestHandler):
    """As much of the hub's interface as loading a dataset of one JSONL file takes."""

    protocol_version = "HTTP/1.1"
    rows = "".join(json.dumps({"question": f"Is {n} even?", "answer": str(n % 2 == 0)}) + "\n" for n in range(6))
    files: ClassVar = {"chats.jsonl": rows.encode()}

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path in ("/api/datasets/owner/chats", f"/api/datasets/owner/chats/revision/{COMMIT}"):
            self.answer({"id": "owner/chats", "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]})
        elif path == f"/api/datasets/owner/chats/tree/{COMMIT}":
            files = self.files.items()
            self.answer([{"type": "file", "path": k, "size": len(v), "oid": "0" * 40} for k, v in files])
        elif path.startswith(f"/datasets/owner/chats/resolve/{COMMIT}/"):
            self.answer_file(path.rsplit("/", 1)[1])
        elif path.startswith("/datasets/owner/chats/resolve/"):
            self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            self.send(404, b"", {"X-Error-Code": "RepoNotFound" if "chats" not in path else "EntryNotFound"})

    do_HEAD = do_GET  # noqa: N815

    def answer(self, value: Any) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer_file(self, name: str) -> None:
        if name in self.files:
            self.send(200, self.files[name], {"X-Repo-Commit": COMMIT, "ETag": f'"{name}"'})
        else:
            self.send(404, b"", {"X-Repo-Commit": COMMIT, "X-Error-Code": "EntryNotFound"})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    """The address of a hub on this machine that has the dataset owner/chats at one commit."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def closed_port() -> str:
    """An address where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def load_from_hub(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Loads a hub dataset in a fresh process, since the hub's client reads its environment once, at import."""

    def load(endpoint: str, offline: bool = False, **settings: Any) -> subprocess.CompletedProcess[str]:
        environment = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / "huggingface"),
            "HF_HUB_OFFLINE": str(int(offline)),
            "PYTHONPATH": str(REPOSITORY),
            "HOME": str(tmp_path),
        }
        return subprocess.run(
            [sys.executable, "-c", LOAD, json.dumps({"path": "owner/chats"} | settings)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return load
