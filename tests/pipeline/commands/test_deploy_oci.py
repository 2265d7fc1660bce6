"""What reaches a registry, who is let in, and what becomes of an upload that breaks off."""

import base64
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from registry_server import IDENTITY, Registry, digest_of, started
from tiny_gguf import write_other, write_random

from common.errors import UserError
from pipeline import cli
from pipeline.deployment import oci_registry
from pipeline.deployment.oci_registry import Reference

NAME, PASSWORD = "me", "secret:of the test"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("model") / "tiny-F32.gguf")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Registry]:
    """A registry, and a home without a login."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("DOCKER_CONFIG", oci_registry.USERNAME, oci_registry.PASSWORD):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(oci_registry, "WAITS", (0.0, 0.0))
    with started() as registry:
        yield registry


@pytest.fixture
def deployed(registry: Registry, model: Path) -> Any:
    """Runs the command, and returns the digest that it names."""

    def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
        assert cli.run(["deploy", "oci", *to(registry), "--model", str(model), *arguments]) == 0
        out = capsys.readouterr().out
        assert PASSWORD not in out
        (line,) = [line for line in out.splitlines() if line.startswith("published ")]
        return line.rpartition(" ")[2]

    return run


@pytest.fixture
def refused(registry: Registry, model: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """The one line that the command ends with."""

    def line(*arguments: str) -> str:
        given = arguments or (*to(registry), "--model", str(model))
        assert cli.run(["deploy", "oci", *given]) == 1
        (said,) = capsys.readouterr().err.splitlines()
        assert PASSWORD not in said
        return said.removeprefix("deploy oci: ")

    return line


def to(registry: Registry) -> tuple[str, str]:
    return "--tag", f"{registry.name}/me/chat:1"


def pulled(registry: Registry) -> tuple[str, dict[str, Any]]:
    """The digest of what the tag leads to, and its manifest."""
    url = f"http://{registry.name}/v2/me/chat/manifests/1"
    content = httpx.get(url, headers={"Accept": MANIFEST}).content
    return digest_of(content), json.loads(content)


def test_what_is_pulled_has_the_digest_and_the_layout_that_was_pushed(
    registry: Registry, deployed: Any, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    licence = tmp_path / "LICENSE"
    licence.write_text("Do what you like.")
    pushed = deployed(capsys, "--licence", str(licence))
    digest, manifest = pulled(registry)
    assert digest == pushed
    assert (manifest["mediaType"], manifest["config"]["mediaType"]) == (
        MANIFEST,
        "application/vnd.docker.ai.model.config.v0.1+json",
    )
    weights, text = manifest["layers"]
    assert weights["mediaType"] == "application/vnd.docker.ai.gguf.v3"
    assert registry.blobs[weights["digest"]] == model.read_bytes()
    assert weights["annotations"]["org.cncf.model.filepath"] == model.name
    assert (text["mediaType"], registry.blobs[text["digest"]]) == (
        "application/vnd.docker.ai.license",
        licence.read_bytes(),
    )
    config = json.loads(registry.blobs[manifest["config"]["digest"]])
    assert config["rootfs"] == {"type": "rootfs", "diff_ids": [weights["digest"], text["digest"]]}
    known = {key: config["config"][key] for key in ("format", "architecture", "quantization", "context_size")}
    assert known == {"format": "gguf", "architecture": "llama", "quantization": "F32", "context_size": 512}
    assert set(map(type, config["config"]["gguf"].values())) == {str}


def test_the_same_again_is_sent_to_nobody_and_has_the_same_digest(
    registry: Registry, deployed: Any, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, sent = deployed(capsys), registry.sent()
    os.utime(model, (0, 0))
    assert deployed(capsys) == first
    assert registry.sent()[len(sent) :] == ["PUT /v2/me/chat/manifests/1"]


def as_docker_keeps_it(registry: Registry, home: Path, **entry: Any) -> None:
    """A login as `docker login` leaves it."""
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text(json.dumps({"auths": {registry.name: entry}}))


def by_variables(registry: Registry, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(oci_registry.USERNAME, NAME)
    monkeypatch.setenv(oci_registry.PASSWORD, PASSWORD)


def by_file(registry: Registry, home: Path, _: pytest.MonkeyPatch) -> None:
    as_docker_keeps_it(registry, home, auth=base64.b64encode(f"{NAME}:{PASSWORD}".encode()).decode())


def by_identity(registry: Registry, home: Path, _: pytest.MonkeyPatch) -> None:
    as_docker_keeps_it(registry, home, identitytoken=IDENTITY)


def by_helper(registry: Registry, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of Docker's kind that keeps logins."""
    as_docker_keeps_it(registry, home)
    config = home / ".docker" / "config.json"
    config.write_text(json.dumps({"credsStore": "of-the-test"}))
    helper = home / "docker-credential-of-the-test"
    helper.write_text(f"#!/bin/sh\necho '{json.dumps({'Username': NAME, 'Secret': PASSWORD})}'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("login", "known"),
    [
        ("basic", by_variables),
        ("bearer", by_variables),
        ("basic", by_file),
        ("bearer", by_file),
        ("bearer", by_identity),
        ("bearer", by_helper),
    ],
)
def test_logins_that_docker_keeps_or_variables_have_are_used(
    registry: Registry,
    deployed: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    login: str,
    known: Any,
) -> None:
    registry.login, registry.accounts = login, {NAME: PASSWORD}
    known(registry, tmp_path, monkeypatch)
    assert deployed(capsys) == digest_of(registry.manifests["me/chat:1"][1])


@pytest.mark.parametrize(
    ("login", "said"), [("basic", "authentication required"), ("bearer", "wrong name or password")]
)
def test_who_is_not_let_in_is_told_what_to_do(registry: Registry, refused: Any, login: str, said: str) -> None:
    registry.login = login
    assert refused() == (
        f"{registry.name} refuses me/chat (HTTP 401: {said}); `docker login {registry.name}`, or "
        "export REGISTRY_USERNAME and REGISTRY_PASSWORD, as somebody who may write there"
    )
    assert registry.blobs == {}


def test_one_of_the_two_variables_alone_is_refused(refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(oci_registry.PASSWORD, PASSWORD)
    assert refused() == "REGISTRY_PASSWORD is set, and REGISTRY_USERNAME is not; export both, or neither"


def test_a_login_that_cannot_be_read_is_named(registry: Registry, refused: Any, tmp_path: Path) -> None:
    as_docker_keeps_it(registry, tmp_path, auth="of no form")
    assert refused().startswith(f"Docker's configuration has no readable login for {registry.name} (")


def test_a_login_goes_to_no_other_host(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_variables(registry, tmp_path, monkeypatch)
    ours = httpx.URL("http://ours.example/v2/me/chat")
    login = oci_registry.Login(ours, "scope", oci_registry.credentials_of(registry.name))
    challenge = {"WWW-Authenticate": 'Basic realm="x"'}
    asking = login.auth_flow(httpx.Request("GET", ours))
    next(asking)
    assert asking.send(httpx.Response(401, headers=challenge)).headers["Authorization"].startswith("Basic ")
    for other in ("http://theirs.example/upload", "http://ours.example:81/upload", "https://ours.example/upload"):
        asking = login.auth_flow(httpx.Request("PATCH", other))
        assert "Authorization" not in next(asking).headers
        with pytest.raises(StopIteration):
            asking.send(httpx.Response(401, headers=challenge))


@pytest.mark.parametrize("status", [403, 404, 507])
def test_a_registry_that_does_not_take_it_is_quoted(registry: Registry, refused: Any, status: int) -> None:
    registry.status = status
    assert f"(HTTP {status}: not for you); " in refused()
    assert registry.manifests == {}


def test_a_registry_out_of_reach_is_said_at_once(refused: Any, model: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        name = f"127.0.0.1:{closed.getsockname()[1]}"
        line = refused("--tag", f"{name}/me/chat:1", "--model", str(model))
    assert line.startswith(f"{name} cannot be reached (")


def test_what_is_no_model_is_refused_before_anybody_is_asked(registry: Registry, refused: Any, tmp_path: Path) -> None:
    adapter = write_other(tmp_path / "adapter.gguf", "llama", general__type="adapter")
    whole = write_random(tmp_path / "models" / "one.gguf")
    write_random(whole.with_name("two.gguf"), seed=1)
    for model, said in (
        (tmp_path / "missing.gguf", "is no file here"),
        (adapter, "is an adapter, which cannot answer"),
        (whole.parent, "an artifact is one file"),
    ):
        assert said in refused(*to(registry), "--model", str(model))
    said = refused(*to(registry), "--model", str(whole), "--licence", str(tmp_path / "missing.txt"))
    assert said.startswith(f"{tmp_path}/missing.txt cannot be read (No such file")
    assert registry.requests == []


@pytest.mark.parametrize("cuts", [[100_000], [0], [1_000, 200_000]])
def test_an_upload_that_breaks_off_goes_on_where_it_broke(
    registry: Registry, deployed: Any, capsys: pytest.CaptureFixture[str], cuts: list[int]
) -> None:
    registry.cuts = [*cuts]
    assert deployed(capsys) == pulled(registry)[0]
    begun = {request for request in registry.requests if "/uploads/" in request and request.startswith("PATCH")}
    assert len(begun) == 2  # the model's upload, and the configuration's


def test_an_upload_that_the_registry_has_forgotten_begins_anew(
    registry: Registry, deployed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.cuts, registry.forgets = [100_000], True
    assert deployed(capsys) == pulled(registry)[0]


def test_an_upload_that_breaks_off_for_good_says_so_and_the_next_one_is_whole(
    registry: Registry, deployed: Any, refused: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.cuts = [1_000] * 3
    line = refused()
    assert line.startswith(f"{registry.name}/me/chat:1 is not published: the upload broke off (")
    assert line.endswith("the same command sends what is not there yet")
    assert registry.manifests == {}
    assert deployed(capsys) == pulled(registry)[0]


def test_a_file_that_changes_while_it_is_sent_is_not_published(
    registry: Registry, refused: Any, tmp_path: Path
) -> None:
    model = write_random(tmp_path / "model.gguf")
    registry.cuts = [1_000]
    resumed = oci_registry.Registry._resumed

    def other(self: oci_registry.Registry, session: str) -> tuple[str, int]:
        write_random(model, seed=1)
        return resumed(self, session)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oci_registry.Registry, "_resumed", other)
        line = refused(*to(registry), "--model", str(model))
    assert line.endswith("did the file change while it was sent? run again")
    assert registry.manifests == {}


def test_a_tag_that_leads_elsewhere_in_the_end_is_told_of(registry: Registry, refused: Any) -> None:
    registry.before_manifest = lambda: registry.manifests.update({"me/chat:1": (MANIFEST, b"{}")})
    assert refused() == (
        f"{registry.name}/me/chat:1 leads to something else than was sent; did somebody push there meanwhile?"
    )


@pytest.mark.parametrize(
    ("text", "plain", "url"),
    [
        ("me/chat", False, "https://registry-1.docker.io/v2/me/chat"),
        ("docker.io/me/chat:2", False, "https://registry-1.docker.io/v2/me/chat"),
        ("ghcr.io/me/chat:2", False, "https://ghcr.io/v2/me/chat"),
        ("registry.example:5000/a/b/c", True, "http://registry.example:5000/v2/a/b/c"),
        ("localhost:5000/chat", False, "http://localhost:5000/v2/chat"),
        ("localhost.example/chat", False, "https://localhost.example/v2/chat"),
    ],
)
def test_a_name_leads_to_its_registry(text: str, plain: bool, url: str) -> None:
    assert Reference.parse(text).url(plain) == url


@pytest.mark.parametrize(
    "text",
    ["chat", "Me/chat", "me/chat:", "me/chat@sha256:0", "https://ghcr.io/me/chat", "me:pw@ghcr.io:443/me/chat", ""],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"is no \[REGISTRY/\]OWNER/NAME\[:TAG\]"):
        Reference.parse(text)
