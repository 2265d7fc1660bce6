"""A registry, as far as an artifact needs one to be sent there: OCI's distribution specification 1.1 over HTTP.

PyPI's client of it (oras 0.2.43) begins a broken upload anew, asks five times for what was refused, and has no time
limit. Docker's credentials are read by Docker's own SDK, credential helpers among them.
"""

import base64
import os
import re
import time
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import docker.auth
import httpx
from docker.credentials.errors import StoreError
from docker.errors import DockerException

from common.errors import UserError
from pipeline.core.progress import shown

HUB, HUB_HOST = docker.auth.INDEX_NAME, "registry-1.docker.io"
USERNAME, PASSWORD = "REGISTRY_USERNAME", "REGISTRY_PASSWORD"  # variables that go before Docker's configuration
PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
NAME = re.compile(rf"(?P<repository>{PATH_PART}(?:/{PATH_PART})*)(?::(?P<tag>\w[\w.-]{{0,127}}))?", re.ASCII)
HOST = re.compile(r"([\w-]+(\.[\w-]+)*|\[[0-9a-f:]+\])(:\d{1,5})?", re.ASCII)  # which has no place for a login
LOOPBACK = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?")  # without TLS, as for Docker
PATIENCE = httpx.Timeout(60, connect=10, read=300)  # seconds; a registry may take some to put a large file together
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds until an upload that broke off goes on
FALTERS = (408, 429, 500, 502, 503, 504)  # statuses after which another try may succeed
LOST = (404, 416)  # of an upload that the registry has forgotten, or has otherwise than we
REMEDIES = {
    400: "did the file change while it was sent? run again",
    404: "make the repository there first, where it wants that",
}
PIECE = 1 << 20  # bytes that are read at a time
SHOWN = 200  # characters of what a registry says of an error


@dataclass(frozen=True)
class Reference:
    """Where an artifact goes."""

    registry: str
    repository: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what is meant by [REGISTRY/]OWNER/NAME[:TAG], Docker Hub's where no registry is named.

        Raises:
            UserError: it is no such name.
        """
        try:
            registry, rest = docker.auth.resolve_repository_name(text)
        except DockerException:
            registry, rest = "", ""
        name = NAME.fullmatch(rest) if HOST.fullmatch(registry) else None
        if name is None or (registry == HUB and "/" not in name["repository"]):
            raise UserError(f"{text} is no [REGISTRY/]OWNER/NAME[:TAG] in small letters, such as ghcr.io/me/chat:1")
        return cls(registry, name["repository"], name["tag"] or "latest")

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}:{self.tag}"

    def url(self, plain: bool) -> str:
        """Return where the repository's blobs and manifests are; `plain`: without TLS."""
        host = HUB_HOST if self.registry == HUB else self.registry
        scheme = "http" if plain or LOOPBACK.fullmatch(host) else "https"
        return f"{scheme}://{host}/v2/{self.repository}"


@dataclass(frozen=True)
class Blob:
    """A part of an artifact, as its manifest names it."""

    media_type: str
    digest: str
    size: int  # bytes
    content: Path | bytes

    def pieces(self, start: int) -> Iterator[bytes]:
        """Yield what follows the first `start` bytes.

        Raises:
            UserError: it is a file that has changed meanwhile.
        """
        if isinstance(self.content, bytes):
            yield self.content[start:]
            return
        with self.content.open("rb") as file:
            if os.fstat(file.fileno()).st_size != self.size:
                raise UserError(f"{self.content} changed while it was sent; run again")
            file.seek(start)
            while piece := file.read(PIECE):
                yield piece


@dataclass(frozen=True)
class _Rest:
    """What is still to be sent of a blob; it may be read again, as when a registry asks for a login first."""

    blob: Blob
    start: int

    def __iter__(self) -> Iterator[bytes]:
        left = -(-(self.blob.size - self.start) // PIECE)
        yield from shown(self.blob.pieces(self.start), "sending", total=left)


class FalteredError(Exception):
    """The registry did not take it, and may the next time."""


@dataclass(frozen=True)
class Credentials:
    """Who asks: a name with a password, or a token that Docker's login has left."""

    username: str = ""
    password: str = ""
    identity_token: str = ""


def credentials_of(registry: str) -> Credentials | None:
    """Return those of the environment, else of Docker's configuration (DOCKER_CONFIG, `docker login`); None of none.

    Raises:
        UserError: one of the two variables is missing, or the configuration cannot be read.
    """
    username, password = os.environ.get(USERNAME, ""), os.environ.get(PASSWORD, "")
    if bool(username) != bool(password):
        lacking, given = (PASSWORD, USERNAME) if username else (USERNAME, PASSWORD)
        raise UserError(f"{given} is set, and {lacking} is not; export both, or neither")
    if username:
        return Credentials(username, password)
    try:
        found = docker.auth.load_config().resolve_authconfig(registry) or {}
    except (DockerException, StoreError, ValueError) as error:
        told = f"Docker's configuration has no readable login for {registry} ({_one_line(error)})"
        raise UserError(f"{told}; run `docker login {registry}` again, or export {USERNAME} and {PASSWORD}") from error
    known = {key.lower(): str(value) for key, value in found.items()}
    login = Credentials(known.get("username", ""), known.get("password", ""), known.get("identitytoken", ""))
    return login if login != Credentials() else None


class Login(httpx.Auth):
    """Answers a registry that asks who calls: with a token that it is to be got from, or with name and password.

    Nothing of it goes to another host, where an upload or a download may lead.
    """

    requires_response_body = True

    def __init__(self, url: httpx.URL, scope: str, credentials: Credentials | None) -> None:
        """Log in at the registry behind `url`, for a scope such as repository:me/chat:pull,push."""
        self._url, self._scope, self._credentials = url, scope, credentials
        self._header = ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send a request, and again when its challenge has been answered."""
        ours = (request.url.scheme, request.url.netloc) == (self._url.scheme, self._url.netloc)
        if ours and self._header:
            request.headers["Authorization"] = self._header
        response = yield request
        if not ours or response.status_code != httpx.codes.UNAUTHORIZED:
            return
        challenge = response.headers.get("WWW-Authenticate", "")
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        if challenge.lower().startswith("bearer ") and self._may_ask(fields.get("realm", "")):
            told = yield self._token_request(fields["realm"], fields.get("service", ""))
            self._header = f"Bearer {_token(told)}" if told.is_success else ""
        elif challenge.lower().startswith("basic ") and self._credentials and self._credentials.username:
            self._header = _basic(self._credentials)
        if self._header:
            request.headers["Authorization"] = self._header
            yield request

    def _may_ask(self, realm: str) -> bool:
        """Return whether a password may go there: never in the open, unless to a registry that is reached so."""
        return realm.startswith("https://") or (realm.startswith("http://") and self._url.scheme == "http")

    def _token_request(self, realm: str, service: str) -> httpx.Request:
        """Return what asks for a token, by the token specification of Docker's registry."""
        asked = {"service": service, "scope": self._scope}
        if self._credentials and self._credentials.identity_token:
            given = {"grant_type": "refresh_token", "refresh_token": self._credentials.identity_token}
            return httpx.Request("POST", realm, data=asked | given | {"client_id": "tunesmith"})
        headers = {"Authorization": _basic(self._credentials)} if self._credentials else {}
        return httpx.Request("GET", httpx.URL(realm).copy_merge_params(asked), headers=headers)


@contextmanager
def reached(reference: Reference, plain: bool = False) -> Iterator["Registry"]:
    """Yield the registry of a reference, which is there and lets us in; `plain`: without TLS.

    Raises:
        UserError: it is out of reach, refuses or is none, or the credentials cannot be read.
    """
    url = httpx.URL(reference.url(plain))
    login = Login(url, f"repository:{reference.repository}:pull,push", credentials_of(reference.registry))
    with httpx.Client(auth=login, timeout=PATIENCE, headers={"User-Agent": "tunesmith"}) as client:
        registry = Registry(reference, url, client)
        registry.greet()
        yield registry


class Registry:
    """A repository in a registry."""

    def __init__(self, reference: Reference, url: httpx.URL, client: httpx.Client) -> None:
        """Stand for the repository of a reference, whose blobs and manifests are below `url`."""
        self._reference, self._url, self._client = reference, url, client

    def greet(self) -> None:
        """Raise a `UserError` where no registry answers."""
        try:
            self._ask("GET", str(self._url.copy_with(path="/v2/")))
        except FalteredError as error:
            remedy = "is this its name, and is it up? --plain-http reaches one without TLS"
            raise UserError(f"{self._reference.registry} cannot be reached ({error}); {remedy}") from error

    def send(self, blob: Blob) -> bool:
        """Send a blob that is not there yet, and return whether it had to be sent.

        An upload that breaks off goes on at the byte that the registry has, or anew where it has forgotten it.

        Raises:
            UserError: the registry refuses it, or it broke off again and again.
        """
        session = ""
        for wait in (*WAITS, None):
            try:
                if self._has(blob):
                    return bool(session)
                session, start = self._resumed(session) if session else self._begun()
                session = self._append(session, blob, start)
                self._ask("PUT", _with_digest(session, blob.digest), httpx.codes.CREATED, falters=LOST)
                return True
            except FalteredError as error:
                if wait is None:
                    told = f"{self._reference} is not published: the upload broke off ({error})"
                    raise UserError(f"{told}; the same command sends what is not there yet") from error
                time.sleep(wait)
        raise AssertionError  # the last try returns or raises

    def name(self, manifest: bytes, media_type: str) -> None:
        """Give the tag to a manifest, whose blobs are all there.

        Raises:
            UserError: the registry refuses it.
        """
        try:
            self._ask("PUT", self._manifest, httpx.codes.CREATED, manifest, {"Content-Type": media_type})
        except FalteredError as error:
            raise UserError(f"{self._reference} is not published ({error}); the same command goes on") from error

    def manifest(self, media_type: str) -> bytes:
        """Return the manifest that the tag leads to.

        Raises:
            UserError: there is none.
        """
        try:
            return self._ask("GET", self._manifest, headers={"Accept": media_type}).content
        except FalteredError as error:
            raise UserError(f"{self._reference} cannot be read back ({error}); run again") from error

    @property
    def _manifest(self) -> str:
        return f"{self._url}/manifests/{self._reference.tag}"

    def _has(self, blob: Blob) -> bool:
        found = self._ask("HEAD", f"{self._url}/blobs/{blob.digest}", None, follow_redirects=True)
        return found.status_code == httpx.codes.OK

    def _begun(self) -> tuple[str, int]:
        """Return the address of a new upload, and at which byte it begins."""
        return self._location(self._ask("POST", f"{self._url}/blobs/uploads/", httpx.codes.ACCEPTED)), 0

    def _resumed(self, session: str) -> tuple[str, int]:
        """Return the address of an upload that broke off and at which byte it goes on; a new one where it is gone."""
        found = self._ask("GET", session, None)
        there = re.fullmatch(r"(?:bytes=)?0-(\d+)", found.headers.get("Range", ""))
        if found.status_code != httpx.codes.NO_CONTENT or not there:
            return self._begun()
        last = int(there[1])
        return self._location(found), last + 1 if last else 0  # 0-0 stands for nothing, too

    def _append(self, session: str, blob: Blob, start: int) -> str:
        """Send the rest of a blob in one request, as Docker does, and return where the upload goes on."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size - start)}
        if start:
            headers["Content-Range"] = f"{start}-{blob.size - 1}"
        rest = _Rest(blob, start)
        return self._location(self._ask("PATCH", session, httpx.codes.ACCEPTED, rest, headers, falters=LOST))

    def _location(self, response: httpx.Response) -> str:
        return str(response.url.join(response.headers["Location"]))

    def _ask(
        self,
        method: str,
        url: str,
        expected: httpx.codes | None = httpx.codes.OK,
        content: bytes | _Rest | None = None,
        headers: Mapping[str, str] | None = None,
        follow_redirects: bool = False,
        falters: Collection[int] = (),
    ) -> httpx.Response:
        """Return an answer of the status that is expected, or of any but a refusal where there is none to expect.

        Raises:
            FalteredError: none came, or another one may come later.
            UserError: the registry refuses.
        """
        try:
            response = self._client.request(
                method, url, content=content, headers=headers, follow_redirects=follow_redirects
            )
        except httpx.HTTPError as error:
            raise FalteredError(_one_line(error)) from error
        status = response.status_code
        if status == expected or (expected is None and status not in (401, 403, *FALTERS)):
            return response
        said = f"HTTP {status}{_said(response)}"
        if status in (*FALTERS, *falters):
            raise FalteredError(said)
        registry, repository = self._reference.registry, self._reference.repository
        if status in (401, 403):
            remedy = f"`docker login {registry}`, or export {USERNAME} and {PASSWORD}, as somebody who may write there"
            raise UserError(f"{registry} refuses {repository} ({said}); {remedy}")
        remedy = REMEDIES.get(status, "is it a registry, and has it room?")
        raise UserError(f"{registry} does not take {repository} ({said}); {remedy}")


def _with_digest(session: str, digest: str) -> str:
    return str(httpx.URL(session).copy_merge_params({"digest": digest}))


def _basic(credentials: Credentials) -> str:
    both = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(both).decode()}"


def _token(response: httpx.Response) -> str:
    """Return the token of an answer, under either of its names; nothing of what is none."""
    try:
        told = response.json()
    except ValueError:
        return ""
    return str(told.get("token") or told.get("access_token") or "") if isinstance(told, dict) else ""


def _said(response: httpx.Response) -> str:
    """Return what a registry gives as the reason, in the form that the specification has for it."""
    try:
        first = response.json()["errors"][0]
        return f": {_one_line(first.get('message') or first['code'])}"
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:SHOWN] or type(error).__name__
