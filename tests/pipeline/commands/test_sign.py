"""`tunesmith keygen`, `sign`, `sbom`, and `verify --key`: from a key to an answer, and each way to no."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import recorded_run
from lineages import REPO
from told_models import flip, told_lineage, write_told_adapter, write_told_gguf

from common.files import sha256
from pipeline import cli
from pipeline.provenance.signing import OWN

GGUF = Path("models/gguf/tiny-Q8_0.gguf")
Command = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line: what it prints, or the one line that it ends with."""

    def command(*arguments: str, status: int = 0) -> str:
        capsys.readouterr()
        assert cli.run(arguments) == status
        printed = capsys.readouterr()
        if status:
            (line,) = printed.err.splitlines()
            return line
        return printed.out

    return command


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, entered, with a file and the adapter that it was made of, as export has recorded them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(OWN, raising=False)
    write_told_gguf(GGUF, write_told_adapter(Path("models/adapter"), told_lineage()))
    manifest = recorded_run.manifest({GGUF.name: sha256(GGUF)}, sha256(Path("models/adapter")))
    manifest["files"] = [file for file in manifest["files"] if file["file"] == GGUF.name]
    (GGUF.parent / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def test_what_was_made_is_signed_and_checked_by_the_public_key_alone(workspace: Path, run: Command) -> None:
    said = run("keygen", "keys/mine")
    assert f"export {OWN}={workspace}/keys/mine.key" in said
    said = run("sign", "--key", "keys/mine.key")
    assert said.splitlines()[0].endswith(", models/signatures/tiny-Q8_0.gguf.intoto.jsonl")
    assert said.splitlines()[1].startswith("models/adapter: signed by ")
    Path("keys/mine.key").unlink()
    said = run("verify", str(GGUF), "--key", "keys/mine.pub")
    assert f"  tiny-Q8_0.gguf: SHA-256 {sha256(GGUF)}" in said
    assert f"  data     starter/chats.jsonl sha256 {sha256(REPO / 'starter/chats.jsonl')}" in said
    assert run("verify", "models/adapter", "--key", "keys/mine.pub")
    flip(GGUF, -1)
    assert run("verify", str(GGUF), "--key", "keys/mine.pub", status=1).startswith(
        f"verify: {GGUF} is not what was signed: tiny-Q8_0.gguf has changed: "
    )


def test_what_is_not_signed_fails_where_a_signature_is_asked_for(workspace: Path, run: Command) -> None:
    run("keygen", "mine")
    assert run("verify", str(GGUF), "--key", "mine.pub", status=1).startswith(f"verify: {GGUF} is unsigned: ")
    assert run("verify", "docker:none", "--key", "mine.pub", "--bundle", "none", status=1) == (
        "verify: none is no file here"
    )


def test_without_a_key_it_is_said_how_to_get_one(
    workspace: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("sign", status=1) == (
        f"sign: there is no key to sign with; `tunesmith keygen NAME` makes one, and {OWN} or --key names it"
    )
    monkeypatch.setenv(OWN, "gone.key")
    assert run("sign", status=1) == "sign: cannot read the key gone.key: No such file or directory"
    run("keygen", "mine")
    assert "keys are never overwritten" in run("keygen", "mine", status=1)


def test_only_what_export_has_checked_is_signed_without_being_named(workspace: Path, run: Command) -> None:
    run("keygen", "mine")
    flip(GGUF, -1)
    assert run("sign", "--key", "mine.key", status=1) == (
        f"sign: {GGUF} is not the file that was checked (manifest.json); run `dvc repro export`"
    )
    flip(GGUF, -1)
    flip(Path("models/adapter/README.md"), 0)
    assert run("sign", "--key", "mine.key", status=1).startswith(
        "sign: models/adapter is not what models/gguf was made"
    )
    assert not Path("models/signatures").exists()


def test_what_does_not_say_where_it_comes_from_is_not_signed(workspace: Path, run: Command) -> None:
    run("keygen", "mine")
    Path("text.gguf").write_text("a text")
    assert run("sign", "text.gguf", "--key", "mine.key", status=1).startswith(
        "sign: text.gguf cannot be read as a GGUF"
    )
    assert not Path("text.gguf.intoto.jsonl").exists()


def test_a_bill_is_printed_of_each_kind(workspace: Path, run: Command) -> None:
    assert json.loads(run("sbom", str(GGUF)))["metadata"]["component"]["name"] == "tiny-Q8_0.gguf"
    assert json.loads(run("sbom", "models/adapter"))["bomFormat"] == "CycloneDX"
    assert json.loads(run("sbom"))["metadata"]["component"]["name"] == "tunesmith"


def test_ways_to_verify_exclude_each_other(workspace: Path, run: Command) -> None:
    said = run("verify", str(GGUF), "--key", "mine.pub", "--against", str(GGUF), status=1)
    assert said == "verify: --against and --key exclude each other; give one of them"
    assert "--key is needed" in run("verify", str(GGUF), "--bundle", "b", status=1)
