"""A registry of one machine over real HTTP, by OCI's distribution specification: logins, and uploads that break off."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TOKEN, IDENTITY = "token-of-the-realm", "identity-of-the-login"


class Registry(ThreadingHTTPServer):
    """Its repositories are made on demand."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.login: str | None = None  # "basic" or "bearer"
        self.accounts: dict[str, str] = {}  # passwords
        self.blobs: dict[str, bytes] = {}
        self.uploads: dict[str, bytearray] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}  # types and contents by REPOSITORY:TAG
        self.requests: list[str] = []  # their methods and paths, without what follows ?
        self.cuts: list[int] = []  # bytes after which the next uploads break off
        self.forgets = False  # what came of an upload that broke off
        self.status = 0  # answers all that is sent with it
        self.before_manifest: Callable[[], None] = lambda: None

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def may(self, authorization: str) -> bool:
        """Whether who asks is let in."""
        if self.login == "bearer":
            return authorization == f"Bearer {TOKEN}"
        return self.login is None or self.knows(authorization)

    def knows(self, authorization: str) -> bool:
        """Whether it is the name and password of an account."""
        with suppress(ValueError):
            name, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
            return self.accounts.get(name, "") == password != ""
        return False

    def sent(self) -> list[str]:
        """The requests that brought something."""
        return [request for request in self.requests if request.startswith(("PATCH", "PUT"))]


class Handler(BaseHTTPRequestHandler):
    server: Registry
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.respond()

    def do_GET(self) -> None:
        self.respond()

    def do_POST(self) -> None:
        self.respond()

    def do_PATCH(self) -> None:
        self.respond()

    def do_PUT(self) -> None:
        self.respond()

    def respond(self) -> None:
        registry, path = self.server, urlsplit(self.path).path
        registry.requests.append(f"{self.command} {path}")
        if path == "/token":
            return self.give_token()
        if not registry.may(self.headers.get("Authorization", "")):
            kind = "Basic" if registry.login == "basic" else "Bearer"
            realm = f'{kind} realm="http://{registry.name}/token",service="the-test"'
            return self.answer(401, error("UNAUTHORIZED", "authentication required"), {"WWW-Authenticate": realm})
        if registry.status and self.command in ("POST", "PATCH", "PUT"):
            return self.answer(registry.status, error("DENIED", "not for you"))
        if path == "/v2/":
            return self.answer(200)
        for pattern, act in (
            (r"/v2/(.+)/blobs/uploads/(.*)", self.upload),
            (r"/v2/(.+)/blobs/(.+)", self.blob),
            (r"/v2/(.+)/manifests/(.+)", self.manifest),
        ):
            if found := re.fullmatch(pattern, path):
                return act(*found.groups())
        return self.answer(404, error("NAME_UNKNOWN", "no such thing"))

    def give_token(self) -> None:
        asked = parse_qs(self.body().decode() or urlsplit(self.path).query)
        given = asked.get("refresh_token") == [IDENTITY] or self.server.knows(self.headers.get("Authorization", ""))
        scoped = asked.get("scope") == ["repository:me/chat:pull,push"] and asked.get("service") == ["the-test"]
        if given and scoped:
            return self.answer(200, json.dumps({"token": TOKEN}).encode())
        return self.answer(401, error("UNAUTHORIZED", "wrong name or password"))

    def upload(self, repository: str, known_by: str) -> None:
        registry = self.server
        if self.command == "POST":
            known_by = str(len(registry.requests))
            registry.uploads[known_by] = bytearray()
            return self.answer(202, headers=self.place(repository, known_by))
        held = registry.uploads.get(known_by)
        if held is None:
            return self.answer(404, error("BLOB_UPLOAD_UNKNOWN", "no such upload"))
        if self.command == "GET":
            return self.answer(204, headers=self.place(repository, known_by))
        if self.command == "PATCH":
            return self.append(repository, known_by, held)
        held += self.body()
        (digest,) = parse_qs(urlsplit(self.path).query)["digest"]
        del registry.uploads[known_by]
        if digest_of(held) != digest:
            return self.answer(400, error("DIGEST_INVALID", "provided digest did not match uploaded content"))
        registry.blobs[digest] = bytes(held)
        return self.answer(201)

    def append(self, repository: str, known_by: str, held: bytearray) -> None:
        length, begins = int(self.headers["Content-Length"]), self.headers.get("Content-Range", "0-").partition("-")[0]
        if int(begins) != len(held):
            return self.answer(416, error("RANGE_INVALID", "not where it ended"))
        if self.server.cuts:
            held += self.rfile.read(min(self.server.cuts.pop(0), length))
            if self.server.forgets:
                del self.server.uploads[known_by]
            self.close_connection = True
            self.connection.close()
            return None
        held += self.rfile.read(length)
        return self.answer(202, headers=self.place(repository, known_by))

    def place(self, repository: str, known_by: str) -> dict[str, str]:
        end = max(len(self.server.uploads[known_by]) - 1, 0)
        return {"Location": f"/v2/{repository}/blobs/uploads/{known_by}?state=kept", "Range": f"0-{end}"}

    def blob(self, repository: str, digest: str) -> None:
        held = self.server.blobs.get(digest)
        return self.answer(404) if held is None else self.answer(200, held)

    def manifest(self, repository: str, tag: str) -> None:
        if self.command == "PUT":
            self.server.before_manifest()
            content = self.body()
            named = json.loads(content)
            assert {part["digest"] for part in (named["config"], *named["layers"])} <= self.server.blobs.keys()
            self.server.manifests.setdefault(f"{repository}:{tag}", (self.headers["Content-Type"], content))
            return self.answer(201, headers={"Docker-Content-Digest": digest_of(content)})
        kind, content = self.server.manifests[f"{repository}:{tag}"]
        assert kind in self.headers["Accept"]
        return self.answer(200, content, {"Content-Type": kind})

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        with suppress(ConnectionError):
            self.send_response(status)
            if status >= 400:  # what comes with the request may not have been read
                self.send_header("Connection", "close")
            for name, text in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, text)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def error(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


def digest_of(content: bytes | bytearray) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@contextmanager
def started() -> Iterator[Registry]:
    registry = Registry()
    threading.Thread(target=registry.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield registry
    finally:
        registry.shutdown()
        registry.server_close()
