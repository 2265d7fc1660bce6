"""A hub on this machine that has one dataset."""

import json
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

COMMIT = "5f0c2d" + "1" * 34


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
