"""What reaches the Hub, and what is never sent."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import recorded_run
from hub_server import NAME, Hub, started
from huggingface_hub import ModelCard
from told_models import flip, told_lineage, write_told_adapter, write_told_gguf

from common.files import sha256
from pipeline import cli
from pipeline.provenance.signing import OWN, make_key_pair

REPO = Path(__file__).parents[3]
WEIGHTS = Path("models/adapter/adapter_model.safetensors")
FILE_PATH = "/{repo_id}/resolve/{revision}/{filename}"
GGUFS = {"tiny-F16.gguf": 3000, "tiny-Q8_0.gguf": 2000, "tiny-base-Q8_0.gguf": 2000, "tiny-adapter-F16.gguf": 500}
ADAPTER = {"adapter_config.json": 100, "adapter_model.safetensors": 700, "lineage.json": 0, "README.md": 10}
PUBLISHED = {
    *(".gitattributes", "README.md", "manifest.json", "tiny-F16.gguf", "tiny-Q8_0.gguf"),
    *("adapter/adapter_config.json", "adapter/adapter_model.safetensors", "adapter/lineage.json"),
    "adapter/tiny-adapter-F16.gguf",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub, and the token that opens it."""
    hub = started()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}{FILE_PATH}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # a protocol with servers of its own
    for name, value in {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_of_the_test"}.items():
        monkeypatch.setenv(name, value)
    yield hub
    hub.shutdown()
    hub.server_close()


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with models and reports of one run."""
    folder = tmp_path / "project"
    for place, sizes in (("models/gguf", GGUFS), ("models/adapter", ADAPTER)):
        (folder / place).mkdir(parents=True)
        for name, size in sizes.items():
            (folder / place / name).write_bytes(hashlib.shake_128(name.encode()).digest(size))
    monkeypatch.chdir(folder)
    write("models/adapter/lineage.json", recorded_run.lineage())
    write_manifest()
    write("reports/evaluation.json", recorded_run.evaluation())
    return folder


def digests() -> dict[str, str]:
    return {name: sha256(Path("models/gguf", name)) for name in GGUFS}


def write_manifest(**changes: Any) -> None:
    manifest = recorded_run.manifest(digests(), sha256(Path("models/adapter")))
    write("models/gguf/manifest.json", manifest | changes)


def tamper(path: Path) -> None:
    """Turns one bit of it."""
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


def write(path: str, value: Any) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture
def published() -> Any:
    """Runs the command."""

    def run(*arguments: str) -> None:
        assert cli.run(["publish", NAME, *arguments]) == 0

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Any:
    """The one line that the command ends with."""

    def line(*arguments: str, name: str = NAME) -> str:
        capsys.readouterr()
        assert cli.run(["publish", name, *arguments]) == 1
        (said,) = capsys.readouterr().err.splitlines()
        return said.removeprefix("publish: ")

    return line


def test_gguf_files_and_adapter_arrive_in_a_private_repository_as_one_commit(
    hub: Hub, published: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    published()
    assert hub.private is True
    assert hub.tokens == {"Bearer hf_of_the_test"}
    assert len(hub.commits) == 1
    assert set(hub.contents) == PUBLISHED
    assert hub.contents["tiny-Q8_0.gguf"] == Path("models/gguf/tiny-Q8_0.gguf").read_bytes()
    assert ModelCard(hub.contents["README.md"].decode()).data.base_model == recorded_run.BASE
    assert "llama-server -hf owner/tiny:Q8_0" in hub.contents["README.md"].decode()
    out = capsys.readouterr().out
    assert f"published 6 files, 0.0 MB: {hub.url}/{NAME}/commit/{hub.head}" in out
    assert f"SERVE_MODELS=hf://{NAME}@{hub.head} tunesmith serve" in out


def test_the_manifest_there_is_of_what_is_there(hub: Hub, published: Any) -> None:
    published()
    files = json.loads(hub.contents["manifest.json"])["files"]
    assert {file["file"] for file in files} == PUBLISHED - {".gitattributes", "README.md", "manifest.json"}
    for file in files:
        assert hashlib.sha256(hub.contents[file["file"]]).hexdigest() == file["sha256"]


def test_the_same_again_is_no_other_commit(hub: Hub, published: Any) -> None:
    published()
    sent = len(hub.sent)
    published()
    assert (len(hub.sent), len(hub.commits)) == (sent, 1)


def test_only_what_is_asked_for_is_sent_and_what_an_earlier_one_sent_is_taken_away(hub: Hub, published: Any) -> None:
    published("--gguf", "--public")
    assert hub.private is False
    assert not [name for name in hub.contents if name.startswith("adapter/")]
    hub.contents["picture.png"] = b"somebody's own"
    published("--adapter", "--public")
    assert set(hub.contents) == {name for name in PUBLISHED if not name.startswith("tiny-")} | {"picture.png"}
    assert len(hub.commits) == 2


def test_merged_weights_stand_at_the_root(hub: Hub, published: Any, tuned: Path) -> None:
    shutil.rmtree("models/adapter")
    shutil.copytree(tuned / "models/adapter", "models/adapter")
    lineage = json.loads(Path("models/adapter/lineage.json").read_text())
    write("models/adapter/lineage.json", lineage | {"fingerprint": recorded_run.FINGERPRINT})
    write_manifest()
    published("--merged")
    assert {"config.json", "tokenizer.json", "model.safetensors", "README.md", "manifest.json"} <= set(hub.contents)
    assert not [name for name in hub.contents if name.endswith(".gguf")]


def test_an_upload_that_breaks_off_leaves_nothing_and_goes_on_with_what_is_missing(
    hub: Hub, published: Any, refused: Any
) -> None:
    last, others = large_files()

    def refuse(digest: str) -> bool:
        if digest == last:
            wait_until(lambda: set(hub.sent) == others)
        return digest == last

    hub.refuses = refuse
    assert refused() == (
        f"{NAME} did not get it all and is as it was (HTTP 400: not taken); the same command goes on where it stopped"
    )
    assert list(hub.contents) == [".gitattributes"]
    hub.refuses = lambda digest: False
    published()
    assert sorted(hub.sent) == sorted({*others, last})
    assert set(hub.contents) == PUBLISHED
    assert len(hub.commits) == 1


def test_a_killed_upload_goes_on_with_what_is_missing(hub: Hub, published: Any) -> None:
    last, others = large_files()
    killed = threading.Event()

    def hold(digest: str) -> bool:
        if digest == last:
            killed.wait(60)
        return digest == last

    hub.refuses = hold
    command = [sys.executable, "-m", "pipeline", "publish", NAME]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(REPO)}, stdout=subprocess.DEVNULL)
    wait_until(lambda: set(hub.sent) == others or process.poll() is not None)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    killed.set()
    assert list(hub.contents) == [".gitattributes"]
    hub.refuses = lambda digest: False
    published()
    assert sorted(hub.sent) == sorted({*others, last})
    assert set(hub.contents) == PUBLISHED


def large_files() -> tuple[str, set[str]]:
    """The digests of a file that does not arrive, and of the others that are sent apart from the commit."""
    names = ("tiny-F16.gguf", "tiny-adapter-F16.gguf")
    return digests()["tiny-Q8_0.gguf"], {sha256(WEIGHTS), *(digests()[name] for name in names)}


def wait_until(condition: Callable[[], bool]) -> None:
    """Generous, for a machine with other work; it fails only where the condition never comes."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("name", ["tiny-Q8_0.gguf", "tiny-adapter-F16.gguf"])
def test_a_file_that_is_not_the_one_that_was_checked_is_refused_before_anything_is_asked(
    hub: Hub, refused: Any, name: str
) -> None:
    path = Path("models/gguf", name)
    tamper(path)
    said = f"{path} is not the file that was checked (manifest.json); run `dvc repro export`"
    assert refused() == said
    path.unlink()
    assert refused() == said
    assert not hub.requests


def test_an_adapter_that_is_not_the_one_that_was_exported_is_refused(hub: Hub, refused: Any) -> None:
    tamper(WEIGHTS)
    assert refused("--gguf") == (
        "models/adapter has changed since models/gguf was made of it; run `dvc checkout models/adapter`, or `dvc repro`"
    )
    assert not hub.requests


def test_a_file_that_changes_while_it_is_sent_is_not_published(hub: Hub, refused: Any) -> None:
    path = Path("models/gguf/tiny-Q8_0.gguf")

    def make(private: bool) -> None:
        path.write_bytes(b"another model")
        Hub.make(hub, private)

    hub.make = make  # type: ignore[method-assign] - the first that is asked, once everything here was checked
    assert refused("--gguf") == f"{path} changed while it was sent; nothing is published"
    assert not hub.commits


def test_a_gguf_that_no_export_has_checked_is_refused(hub: Hub, refused: Any) -> None:
    Path("models/gguf/mine.gguf").write_bytes(b"GGUF")
    said = refused()
    assert (
        said == "models/gguf/mine.gguf is not in manifest.json, so nothing has checked it; take it away, or export it"
    )
    assert not hub.requests


def test_a_model_that_failed_is_published_only_if_that_is_wanted(hub: Hub, published: Any, refused: Any) -> None:
    write("reports/evaluation.json", recorded_run.evaluation(passed=False))
    assert refused() == (
        "the evaluation says fail (quantization Q8_0); --failed publishes the model and says so in its README.md"
    )
    assert not hub.requests
    published("--failed")
    assert "**This model failed its evaluation.**" in hub.contents["README.md"].decode()


def test_a_model_of_too_few_conversations_is_published_only_if_that_is_wanted(
    hub: Hub, published: Any, refused: Any
) -> None:
    few = {"name": "test conversations", "what": "", "figure": 6, "limit": 50, "passed": None, "missing": 44}
    recorded = recorded_run.evaluation()
    write("reports/evaluation.json", recorded | {"verdict": {"passed": False, "checks": [few]}})
    assert refused().startswith("the evaluation says too few to tell: 44 more test conversations; --failed publishes")
    assert not hub.requests
    published("--failed")
    assert "**This model was evaluated on too little to tell.**" in hub.contents["README.md"].decode()


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        ("models/adapter/lineage.json", None, "models/adapter/lineage.json is missing; run `dvc repro train` first"),
        ("models/gguf/manifest.json", None, "models/gguf/manifest.json is missing; run `dvc repro export` first"),
        ("reports/evaluation.json", None, "reports/evaluation.json is missing; run `dvc repro report` first"),
        (
            "reports/evaluation.json",
            {"fingerprint": "0" * 16},
            "models/adapter, models/gguf and reports/evaluation.json are not of one training; run `dvc repro`",
        ),
        (
            "reports/evaluation.json",
            {
                "gguf": recorded_run.evaluation()["gguf"]
                | {"F16": recorded_run.gguf("tuned", 3000, 0.5, 0.9) | {"kl": 0.2}}
            },
            "reports/evaluation.json does not know models/gguf/tiny-F16.gguf; run `dvc repro evaluate`",
        ),
        (
            "reports/evaluation.json",
            {"schema_version": 1},
            "reports/evaluation.json was made by another version of Tunesmith (schema 1, this one reads 2); "
            "make it again: `dvc repro -sf report`",
        ),
        (
            "models/adapter/lineage.json",
            {"base": {}},
            "models/adapter/lineage.json does not hold what it should: base.name: field required; "
            "make it again: `dvc repro -sf train`",
        ),
        (
            "models/gguf/manifest.json",
            {"adapter": None},
            "models/gguf/manifest.json does not hold what it should: adapter: input should be a valid string; "
            "make it again: `dvc repro -sf export`",
        ),
    ],
)
def test_what_is_missing_or_does_not_belong_together_is_said(
    hub: Hub, refused: Any, path: str, change: dict[str, Any] | None, said: str
) -> None:
    if change is None:
        Path(path).unlink()
    else:
        write(path, json.loads(Path(path).read_text()) | change)
    assert refused() == said
    assert not hub.requests


def test_a_full_fine_tune_has_no_adapter(hub: Hub, refused: Any) -> None:
    write_manifest(method="full")
    assert refused("--adapter") == "a full fine-tune has no adapter; publish --merged"


def test_without_a_token_nothing_is_asked(
    hub: Hub, refused: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    assert refused() == f"HF_TOKEN is not set; set it to a token that may write to {NAME}"
    assert not hub.requests


@pytest.mark.parametrize("name", ["tiny", "owner/a/b", "owner/über"])
def test_a_name_that_no_repository_can_have_is_said(refused: Any, name: str) -> None:
    assert refused(name=name).startswith("the repository must be named OWNER/NAME")


@pytest.mark.parametrize(("private", "arguments"), [(False, ()), (True, ("--public",))])
def test_a_repository_that_others_can_see_or_cannot_is_not_taken_for_the_other(
    hub: Hub, refused: Any, private: bool, arguments: tuple[str, ...]
) -> None:
    hub.make(private)
    way = "leave --public out" if private else "add --public"
    is_now = "private" if private else "public"
    assert refused(*arguments) == f"{NAME} is {is_now}; {way}, or change that in its settings on the Hub"
    assert not hub.sent


def test_a_repository_with_something_else_is_left_alone_unless_told(hub: Hub, published: Any, refused: Any) -> None:
    hub.make(True, {"config.json": b"{}", "manifest.json": b"[]"})
    assert refused() == f"{NAME} holds something else (config.json); name another, or add --force"
    assert not hub.sent
    published("--force")
    assert hub.contents["config.json"] == b"{}"
    assert set(hub.contents) > PUBLISHED


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, f"the Hub refuses {NAME} (HTTP 403: not now); may HF_TOKEN write there?"),
        (
            500,
            f"{NAME} did not get it all and is as it was (HTTP 500: not now); "
            "the same command goes on where it stopped",
        ),
    ],
)
def test_what_the_hub_says_is_one_line(hub: Hub, refused: Any, status: int, said: str) -> None:
    hub.status = status
    assert refused() == said


def test_a_commit_of_somebody_else_meanwhile_is_not_overwritten(hub: Hub, refused: Any) -> None:
    hub.before_commit = lambda: hub.commits.append("somebody else's")
    assert refused() == f"{NAME} was changed while this was sent (HTTP 412: A commit has happened since); run again"
    assert hub.commits == ["somebody else's"]


@pytest.fixture
def told(project: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same run with files that say where they come from, and a key to sign them with; return the public one."""
    lineage = write_told_adapter(Path("models/adapter"), told_lineage())
    for name in GGUFS:
        write_told_gguf(Path("models/gguf", name), lineage)
    write_manifest()
    private, public = make_key_pair(project / "mine")
    monkeypatch.setenv(OWN, str(private))
    return str(public)


def test_what_is_published_with_a_key_is_signed_beside_it(
    hub: Hub, told: str, published: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    published()
    assert "signed by " in capsys.readouterr().out
    bundles = {name for name in hub.contents if name.endswith(".intoto.jsonl")}
    assert bundles == {
        *("tiny-F16.gguf.intoto.jsonl", "tiny-Q8_0.gguf.intoto.jsonl"),
        *("adapter/tiny-adapter-F16.gguf.intoto.jsonl", "adapter.intoto.jsonl"),
    }
    downloaded = tmp_path / "downloaded"
    for name, content in hub.contents.items():
        (downloaded / name).parent.mkdir(parents=True, exist_ok=True)
        (downloaded / name).write_bytes(content)
    for name in ("tiny-Q8_0.gguf", "adapter", "adapter/tiny-adapter-F16.gguf"):
        assert cli.run(["verify", str(downloaded / name), "--key", told]) == 0
    flip(downloaded / "adapter/adapter_config.json", 0)
    assert cli.run(["verify", str(downloaded / "adapter"), "--key", told]) == 1


def test_a_signature_goes_with_what_it_was_of(
    hub: Hub, told: str, published: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published()
    monkeypatch.delenv(OWN)
    capsys.readouterr()
    published()
    assert "unsigned: TUNESMITH_SIGNING_KEY names no key" in capsys.readouterr().out
    assert not [name for name in hub.contents if name.endswith(".intoto.jsonl")]


def test_with_a_key_nothing_is_sent_that_cannot_be_signed(hub: Hub, told: str, refused: Any) -> None:
    path = Path("models/gguf/tiny-Q8_0.gguf")
    path.write_bytes(b"GGUF of nobody")
    write_manifest()
    assert refused().startswith(f"{path} cannot be read as a GGUF")
    assert not hub.requests
