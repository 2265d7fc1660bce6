"""A Hub of one model repository over real HTTP: what an upload asks of it, by Git LFS's protocol."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

NAME = "owner/tiny"
LARGE = (".gguf", ".safetensors", ".whl")  # files that go by LFS


class Hub(ThreadingHTTPServer):
    """The repository `owner/tiny`, made on demand."""

    daemon_threads = True

    def __init__(self, handler: "type[Handler] | None" = None) -> None:
        super().__init__(("127.0.0.1", 0), handler or Handler)
        self.private: bool | None = None  # None: there is no repository
        self.contents: dict[str, bytes] = {}  # of its main branch
        self.commits: list[str] = []  # their messages
        self.objects: dict[str, bytes] = {}  # large files that have arrived, by SHA-256
        self.sent: list[str] = []  # the digests of those that were sent, in turn
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.status = 0  # answers everything with it
        self.refuses: Callable[[str], bool] = lambda digest: False  # large files that are not taken
        self.before_commit: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def head(self) -> str:
        return f"{len(self.commits) + 1:040x}"

    def make(self, private: bool, contents: dict[str, bytes] | None = None) -> None:
        self.private, self.contents = private, {".gitattributes": b"", **(contents or {})}


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def do_PUT(self) -> None:
        digest = self.path.rpartition("/")[2]
        self.server.requests.append(self.path)
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refuses(digest) or hashlib.sha256(content).hexdigest() != digest:
            return self.send(400, {"error": "not taken"})
        self.server.sent.append(digest)
        self.server.objects[digest] = content
        return self.send(200, {})

    def answer(self, body: bytes) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        hub.requests.append(path)
        hub.tokens.add(self.headers["Authorization"])
        if hub.status:
            return self.send(hub.status, {"error": "not now"})
        if path == "/api/validate-yaml":
            return self.send(200, {})
        if path == "/api/repos/create":
            hub.make(private=json.loads(body)["visibility"] == "private")
            return self.send(200, {"url": f"{hub.url}/{NAME}"})
        if hub.private is None:
            return self.send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if path in (f"/api/models/{NAME}", f"/api/models/{NAME}/revision/main"):
            siblings = [{"rfilename": name} for name in hub.contents]
            return self.send(200, {"id": NAME, "sha": hub.head, "private": hub.private, "siblings": siblings})
        if "/resolve/" in path:
            return self.send_file(hub.contents[path.partition(f"/resolve/{hub.head}/")[2]])
        if path.endswith("/preupload/main"):
            return self.send(200, {"files": [self.mode(file) for file in json.loads(body)["files"]]})
        if path.endswith("/info/lfs/objects/batch"):
            return self.send(200, {"transfer": "basic", "objects": [*map(self.way, json.loads(body)["objects"])]})
        assert path == f"/api/models/{NAME}/commit/main", path
        hub.before_commit()
        return self.commit(map(json.loads, body.splitlines()))

    def mode(self, file: dict[str, Any]) -> dict[str, Any]:
        large = file["path"].endswith(LARGE)
        content = self.server.contents.get(file["path"])
        oid = None if content is None else known_by(content, large)
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}

    def way(self, wanted: dict[str, Any]) -> dict[str, Any]:
        upload = {"upload": {"href": f"{self.server.url}/lfs/{wanted['oid']}", "header": {}}}
        return wanted if wanted["oid"] in self.server.objects else {**wanted, "actions": upload}

    def commit(self, lines: Iterable[dict[str, Any]]) -> None:
        hub, contents, message = self.server, dict(self.server.contents), ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
                if value["parentCommit"] != hub.head:
                    return self.send(412, {"error": "A commit has happened since"})
            elif line["key"] == "file":
                contents[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                contents[value["path"]] = hub.objects[value["oid"]]
            else:
                assert line["key"] == "deletedFile"
                del contents[value["path"]]
        hub.contents = contents
        hub.commits.append(message)
        return self.send(200, {"commitUrl": f"{hub.url}/{NAME}/commit/{hub.head}", "commitOid": hub.head})

    def send_file(self, content: bytes) -> None:
        self.send_content(
            200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": self.server.head}
        )

    def send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self.send_content(status, json.dumps(value).encode(), headers or {})

    def send_content(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        with suppress(ConnectionError):
            self.send_response(status)
            for name, text in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, text)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def known_by(content: bytes, large: bool) -> str:
    """What the Hub tells a file's content by: Git LFS's digest, or Git's own."""
    if large:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324


def started() -> Hub:
    """A Hub that answers; `shutdown` ends it."""
    hub = Hub()
    threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return hub
