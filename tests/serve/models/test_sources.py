"""Sources of models. The registry is MLflow's own, on sqlite and as a server; the Hub is the few calls that matter."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from mlflow import MlflowClient
from mounts import may_mount, seen_by, with_small_disk
from servers import answers, free_port, run_server, started_server, wait_until
from tiny_gguf import split, write_random

from common.errors import UserError
from serve.models.registry import find_models

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """A Hub with one repository, owner/name, at one commit that has the tag v1."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files = files
        self.token = ""  # without which nothing is shown
        self.gated = False
        self.cut_at: int | None = None  # bytes after which a download breaks off
        self.asked: list[tuple[str, str]] = []  # paths, and the ranges that were wanted

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((path, self.headers.get("Range", "")))
        if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self.refuse(401, "RepoNotFound")
        elif "/owner/name/" not in path:
            self.refuse(404, "RepoNotFound")
        elif f"/{COMMIT}" not in path and not path.endswith("/v1") and COMMIT[:8] not in path:
            self.refuse(404, "RevisionNotFound")
        elif "/revision/" in path:
            self.answer(json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": []}).encode())
        elif "/tree/" in path:
            self.answer(json.dumps([self.entry(name) for name in self.server.files]).encode())
        elif self.server.gated:
            self.refuse(403, "GatedRepo")
        else:
            self.give(self.server.files[path.partition(f"/resolve/{COMMIT}/")[2]])

    def entry(self, name: str) -> dict:
        content = self.server.files[name]
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}  # noqa: S324

    def refuse(self, status: int, code: str) -> None:
        self.answer(b"", status, {"X-Error-Code": code})

    def give(self, content: bytes) -> None:
        etag = hashlib.sha1(content).hexdigest()  # noqa: S324 - what git names it by
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        start = int(re.findall(r"\d+", self.headers.get("Range", "bytes=0-"))[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.answer(content[start:], 206 if start else 200, headers, None if start else self.server.cut_at)

    def answer(  # a body that is cut off is shorter than its headers say
        self, content: bytes, status: int = 200, headers: dict[str, str] | None = None, cut_at: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:cut_at])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_random(tmp_path_factory.mktemp("gguf") / "model.gguf").read_bytes()


@pytest.fixture
def hub(gguf: bytes) -> Iterator[Hub]:
    with Hub({"tune-Q8_0.gguf": gguf, "more/tune.gguf": gguf, "README.md": b"# Tune"}) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()


@pytest.fixture
def variables(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """Where the server finds this Hub, and its cache."""
    return {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": ""}


def served(tmp_path: Path, variables: Mapping[str, str], models: str) -> list[str]:
    """The models that a server offers."""
    with started_server(tmp_path / "log.txt", until="/readyz", variables=variables, models=models) as (url, _):
        return [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]]


def refused(variables: Mapping[str, str], models: str) -> str:
    """The one line with which the server ends."""
    ended = run_server(variables, models=models, port=free_port())
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    return line.removeprefix("error: ")


def downloaded(hub: Hub) -> set[str]:
    names = {path.partition("/resolve/")[2].partition("/")[2] for path, _ in hub.asked if "/resolve/" in path}
    hub.asked.clear()
    return names


def test_a_folder_a_repository_and_a_file_of_it_can_stand_side_by_side(
    hub: Hub, variables: dict[str, str], folder: Path, tmp_path: Path
) -> None:
    models = f"{folder}, hf://owner/name@v1/tune*"
    assert served(tmp_path, variables, models)[-2:] == ["random", "name/tune-Q8_0"]
    assert downloaded(hub) == {"tune-Q8_0.gguf"}
    assert served(tmp_path, variables, f"hf://owner/name@{COMMIT[:8]}") == ["name/more/tune", "name/tune-Q8_0"]
    assert downloaded(hub) == {"more/tune.gguf"}


def test_who_names_the_first_part_of_a_split_model_gets_all(
    hub: Hub, variables: dict[str, str], tmp_path: Path
) -> None:
    parts = split(write_random(tmp_path / "tune.gguf"), 3)
    hub.files = {part.name: part.read_bytes() for part in parts} | {"tune.gguf": b""}
    assert served(tmp_path, variables, f"hf://owner/name@v1/{parts[0].name}") == ["name/tune"]
    assert downloaded(hub) == {part.name for part in parts}


def test_what_is_in_the_cache_needs_no_hub(hub: Hub, variables: dict[str, str], tmp_path: Path) -> None:
    assert served(tmp_path, variables, "hf://owner/name@v1/tune-Q8_0.gguf") == ["name/tune-Q8_0"]
    hub.asked.clear()
    offline = variables | {"HF_HUB_OFFLINE": "1"}
    for revision in ("v1", COMMIT):
        assert served(tmp_path, offline, f"hf://owner/name@{revision}/tune-Q8_0.gguf") == ["name/tune-Q8_0"]
    assert not hub.asked
    assert "the cache below HF_HOME does not have all of it" in refused(offline, "hf://owner/name@v1")


def test_a_cache_made_elsewhere_is_served_offline(gguf: bytes, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--owner--name"
    for path, content in {"blobs/0a": gguf, "refs/v1": COMMIT.encode()}.items():
        (repository / path).parent.mkdir(parents=True)
        (repository / path).write_bytes(content)
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "tune.gguf").symlink_to("../../blobs/0a")
    offline = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    assert served(tmp_path, offline, "hf://owner/name@v1") == ["name/tune"]


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ("hf://owner/name@v2", "the repository has no such revision"),
        ("hf://owner/none@v1", "the Hub has no such repository, or it is private and HF_TOKEN does not open it"),
        ("hf://owner/name@v1/none.gguf", "the repository has no GGUF file named none.gguf at this revision"),
    ],
)
def test_what_the_hub_does_not_have_is_said(variables: dict[str, str], models: str, reason: str) -> None:
    assert refused(variables, models) == f"{models}: {reason}"


def test_a_token_opens_a_private_repository(hub: Hub, variables: dict[str, str], tmp_path: Path) -> None:
    hub.token = "hf_secret"
    assert "HF_TOKEN does not open it" in refused(variables, "hf://owner/name@v1")
    assert len(served(tmp_path, variables | {"HF_TOKEN": "hf_secret"}, "hf://owner/name@v1")) == 2


def test_a_gated_repository_says_what_to_do(hub: Hub, variables: dict[str, str]) -> None:
    hub.gated = True
    assert "accept terms first" in refused(variables, "hf://owner/name@v1")


def test_a_download_cut_off_leaves_nothing_that_is_taken_for_a_model(
    hub: Hub, variables: dict[str, str], gguf: bytes, tmp_path: Path
) -> None:
    models = "hf://owner/name@v1/tune-Q8_0.gguf"
    hub.cut_at = len(gguf) // 2
    assert "peer closed connection" in refused(variables, models)
    assert "does not have all of it" in refused(variables | {"HF_HUB_OFFLINE": "1"}, models)
    hub.cut_at = None
    assert served(tmp_path, variables, models) == ["name/tune-Q8_0"]


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(variables: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refused(variables | {"HF_HOME": str(tmp_path / "file")}, "hf://owner/name@v1")
    assert re.search(
        r"cannot write \S+/file/\S+ \(Not a directory\): set HF_HOME to a folder that can be written", said
    )


@pytest.mark.parametrize("revision", ["v1", COMMIT])
def test_a_hub_that_is_away_is_said(revision: str, tmp_path: Path) -> None:
    away = {"HF_ENDPOINT": f"http://127.0.0.1:{free_port()}", "HF_HOME": str(tmp_path)}
    reason = "the Hub is out of reach and the cache below HF_HOME does not have all of it: try again later"
    assert refused(away, f"hf://owner/name@{revision}") == f"hf://owner/name@{revision}: {reason}"


@pytest.mark.parametrize(
    "models", ["hf://owner/name", "hf://owner/name@", "hf://owner/name@main", "hf://name@v1", "hf://owner/name/x.gguf"]
)
def test_a_repository_without_a_pinned_revision_is_refused_and_why(models: str) -> None:
    with pytest.raises(
        UserError, match=f"{models} must be hf://owner/name@revision, with a commit or a tag .* told from"
    ):
        find_models(models)


@pytest.mark.parametrize("models", ["models:/tune", "models:/tune@", "models:/tune/latest", "models:/tune/1/x"])
def test_a_registered_model_without_alias_or_version_is_refused(models: str) -> None:
    with pytest.raises(UserError, match=f"{models} must be models:/name@alias or models:/name/version"):
        find_models(models)


def test_another_kind_of_address_is_refused() -> None:
    with pytest.raises(UserError, match=r"s3://bucket is no folder, hf://owner/name@revision or models:/name@alias"):
        find_models("s3://bucket")


def test_two_models_of_one_name_are_refused(gguf: bytes, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tune.gguf").write_bytes(gguf)
    with pytest.raises(UserError, match=r"two models are called tune: \S+/one/tune.gguf and \S+/two/tune.gguf: rename"):
        find_models(f"{tmp_path}/one,{tmp_path}/two")


REGISTER = """
import sys, mlflow
client = mlflow.MlflowClient()
experiment = client.create_experiment("tests")
model = client.create_logged_model(experiment, name="tune")
for folder in sys.argv[1:]:
    client.log_model_artifacts(model.model_id, folder)
client.finalize_logged_model(model.model_id, "READY")
client.create_registered_model("tune")
client.create_model_version("tune", f"models:/{model.model_id}", model_id=model.model_id)
client.set_registered_model_alias("tune", "champion", "1")
run = client.create_run(experiment)
client.log_dict(run.info.run_id, {}, "empty/x.json")
client.create_model_version("tune", f"{run.info.artifact_uri}/empty", run_id=run.info.run_id)
"""


def register(tracking: str, gguf: bytes, folder: Path) -> None:
    """Version 1 with two models and the alias champion, version 2 without a model."""
    for path in ("artifacts/tune-Q8_0.gguf", "artifacts/more/tune.gguf"):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_bytes(gguf)
    given = os.environ | {"MLFLOW_TRACKING_URI": tracking}
    command = [sys.executable, "-c", REGISTER, "artifacts"]
    subprocess.run(command, cwd=folder, env=given, capture_output=True, check=True, timeout=120)


@pytest.fixture(scope="module")
def registry(gguf: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry in mlflow.db, whose artifacts lie below it."""
    folder = tmp_path_factory.mktemp("registry")
    register(f"sqlite:///{folder}/mlflow.db", gguf, folder)
    return folder


@pytest.fixture(scope="module")
def registry_server(gguf: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an MLflow server that hands the artifacts out itself."""
    folder = tmp_path_factory.mktemp("registry-server")
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "artifacts-of-server"]
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(command + stores, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: answers(f"{url}/health") or server.poll() is not None, 120)
        register(url, gguf, folder)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # it has workers
        server.wait()


class Cutter(BaseHTTPRequestHandler):
    """Stands before an MLflow server and cuts off what it hands out."""

    server: "CuttingServer"

    def do_GET(self) -> None:
        with urllib.request.urlopen(f"{self.server.behind}{self.path}", timeout=30) as answer:  # noqa: S310 - http
            content = answer.read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.path.endswith(".gguf") else content)

    def log_message(self, *_: object) -> None:
        pass


class CuttingServer(ThreadingHTTPServer):
    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), Cutter)
        self.behind = behind


def test_an_alias_and_a_version_are_served_where_they_lie(registry: Path, tmp_path: Path) -> None:
    tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{registry}/mlflow.db", "XDG_CACHE_HOME": str(tmp_path)}
    names = ["tune@champion/more/tune", "tune@champion/tune-Q8_0"]
    assert served(tmp_path, tracking, "models:/tune@champion") == names
    assert served(tmp_path, tracking, "models:/tune/1") == ["tune/1/more/tune", "tune/1/tune-Q8_0"]
    assert not (tmp_path / "tunesmith").exists()


def test_the_registry_is_the_pipelines_unless_set(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(registry)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert [model.revision for model in find_models("models:/tune@champion").values()] == ["1", "1"]


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ("models:/tune@none", "Registered model alias none not found"),
        ("models:/none@champion", "Registered Model with name=none not found"),
        ("models:/tune/9", "version=9"),
        ("models:/tune/2", "version 2 has no *.gguf among its artifacts"),
    ],
)
def test_what_the_registry_does_not_have_is_said(registry: Path, models: str, reason: str) -> None:
    said = refused({"MLFLOW_TRACKING_URI": f"sqlite:///{registry}/mlflow.db"}, models)
    assert said.startswith(f"{models}: ")
    assert reason in said


def test_artifacts_of_a_server_are_fetched_once(registry_server: str, tmp_path: Path) -> None:
    tracking = {"MLFLOW_TRACKING_URI": registry_server, "XDG_CACHE_HOME": str(tmp_path)}
    names = ["tune@champion/more/tune", "tune@champion/tune-Q8_0"]
    assert served(tmp_path, tracking, "models:/tune@champion") == names
    cached = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.gguf")}
    assert len(cached) == 2
    assert served(tmp_path, tracking, "models:/tune/1") == ["tune/1/more/tune", "tune/1/tune-Q8_0"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.gguf")} == cached


def test_an_artifact_cut_off_leaves_nothing_that_is_taken_for_a_model(registry_server: str, tmp_path: Path) -> None:
    with CuttingServer(registry_server) as cutter:
        threading.Thread(target=cutter.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{cutter.server_port}"
        tracking = {"MLFLOW_TRACKING_URI": url, "XDG_CACHE_HOME": str(tmp_path)}
        said = refused(tracking | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}, "models:/tune@champion")
        assert "IncompleteRead" in said
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
        cutter.shutdown()


def test_a_place_for_artifacts_that_cannot_be_written_is_named(registry_server: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tracking = {"MLFLOW_TRACKING_URI": registry_server, "XDG_CACHE_HOME": str(tmp_path / "file")}
    assert "(Not a directory): set XDG_CACHE_HOME to a folder" in refused(tracking, "models:/tune@champion")


@pytest.mark.skipif(not may_mount(), reason="a full disk needs `unshare -rm` and a tmpfs mount")
def test_a_disk_that_fills_between_promotion_and_swap_leaves_the_old_champion(
    registry_server: str, gguf: bytes, tmp_path: Path
) -> None:
    client = MlflowClient(registry_server)
    number = another_version(client, gguf, tmp_path / "artifacts")
    (cache := tmp_path / "cache").mkdir()
    variables = {"MLFLOW_TRACKING_URI": registry_server, "XDG_CACHE_HOME": str(cache)}
    settings = {"models": "models:/tune@champion", "admin_key": "key", "follow_seconds": 0}
    within = with_small_disk(cache, f"{4 * len(gguf)}")
    with started_server(tmp_path / "log.txt", "/readyz", variables, within, **settings) as (url, server):

        def look() -> tuple[int, dict]:
            told = httpx.post(f"{url}/admin/reload", headers={"x-api-key": "key"}, timeout=60)
            (source,) = told.json()["sources"]
            return told.status_code, source

        ballast = seen_by(server.pid, cache) / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 12))
        client.set_registered_model_alias("tune", "champion", number)
        status, source = look()
        assert (status, source["leads_to"], source["tried"]) == (503, "1", number)
        assert source["why_not"] == (
            "models:/tune@champion: cannot write the cache (No space left on device): make room, or set XDG_CACHE_HOME "
            "to a folder that can be written"
        )
        assert answered_by(url) == "1"
        ballast.unlink()
        assert look()[0] == 200
        assert answered_by(url) == number
    client.set_registered_model_alias("tune", "champion", "1")
    told = [line for line in (tmp_path / "log.txt").read_text().splitlines() if line.startswith("models:/")]
    assert [line.partition(": ")[0] for line in told] == [
        "models:/tune@champion stays at 1", f"models:/tune@champion leads to {number} now, and no more to 1"
    ]  # fmt: skip


def another_version(client: MlflowClient, gguf: bytes, folder: Path) -> str:
    """The number of a version with one model."""
    folder.mkdir()
    (folder / "tune-Q8_0.gguf").write_bytes(gguf)
    experiment = client.get_experiment_by_name("tests").experiment_id
    model = client.create_logged_model(experiment, name="tune")
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    return str(client.create_model_version("tune", f"models:/{model.model_id}", model_id=model.model_id).version)


def answered_by(url: str) -> str:
    """The version of the model that answers, as it says."""
    body = {"model": "tune@champion", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()["system_fingerprint"]


def test_a_registry_that_is_away_is_said(tmp_path: Path) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    said = refused({"MLFLOW_TRACKING_URI": away, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}, "models:/tune@champion")
    assert said.startswith(f"models:/tune@champion: API request to {away}/")


def test_without_mlflow_one_is_told_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "mlflow.py").write_text("raise ModuleNotFoundError('No module named mlflow', name='mlflow')")
    assert refused({"PYTHONPATH": str(tmp_path)}, "models:/tune@champion") == (
        "models:/tune@champion: mlflow is not installed: `pip install mlflow`, or leave it out"
    )
