"""Code, base and data are found by their digests, and what is other is named."""

import shutil
import subprocess
from pathlib import Path

import pytest
from lineages import REPO, lineage_here

from common.errors import UserError
from common.files import sha256
from pipeline.core import code
from pipeline.core.making import this_making
from pipeline.core.records import FileLineage, Making
from pipeline.verification import inputs
from pipeline.verification.inputs import Checkouts, find_base, find_data, find_start


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, entered, with the starter's data and starter-s in it."""
    for name in ("chats.jsonl", "questions.jsonl"):
        (tmp_path / "starter").mkdir(exist_ok=True)
        shutil.copyfile(REPO / "starter" / name, tmp_path / "starter" / name)
    shutil.copytree(REPO / "starter/models/starter-s", tmp_path / "starter/models/starter-s")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lineage(workspace: Path) -> FileLineage:
    return lineage_here(workspace)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit of code, which takes the place of this one."""
    folder = tmp_path / "repository"
    (folder / "pipeline/gguf").mkdir(parents=True)
    (folder / "pipeline/gguf/quantize.py").write_text("first")
    for module in (code, inputs):
        monkeypatch.setattr(module, "ROOT", folder)
    monkeypatch.setattr("pipeline.core.making.digests", lambda: code.digests(folder))
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=x", "-c", "user.email=x@example.com")
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "some")


def made() -> Making:
    return this_making((), "cpu")


def test_code_as_it_was_is_this_code(repository: Path, tmp_path: Path) -> None:
    assert Checkouts(tmp_path / "code").of(made()) == repository


def test_a_commit_that_changes_no_code_is_not_named(repository: Path) -> None:
    before = made()
    (repository / "README.md").write_text("Read me.")
    commit(repository)
    assert made() == before


def test_code_that_has_changed_since_is_cloned_at_its_commit(repository: Path, tmp_path: Path) -> None:
    before = made()
    (repository / "pipeline/gguf/quantize.py").write_text("second")
    commit(repository)
    clone = Checkouts(tmp_path / "code").of(before)
    assert (clone / "pipeline/gguf/quantize.py").read_text() == "first"
    assert Checkouts(tmp_path / "code").of(made()) == repository


def test_code_that_was_never_committed_is_named(repository: Path, tmp_path: Path) -> None:
    (repository / "pipeline/gguf/quantize.py").write_text("tried")
    tried = made()
    assert tried.uncommitted == ("pipeline/gguf/quantize.py",)
    assert Checkouts(tmp_path / "code").of(tried) == repository
    (repository / "pipeline/gguf/quantize.py").write_text("third")
    with pytest.raises(UserError, match=r"^code: pipeline/gguf/quantize\.py was never committed as it was"):
        Checkouts(tmp_path / "code").of(tried)


def test_code_of_another_repository_is_named_by_what_differs(repository: Path, tmp_path: Path) -> None:
    elsewhere = made().model_copy(update={"commit": "0" * 40, "code": {**made().code, "pipeline/gguf": "other"}})
    with pytest.raises(UserError, match=r"^code: pipeline/gguf differs here, and commit 0{40} is not in this"):
        Checkouts(tmp_path / "code").of(elsewhere)


def test_code_outside_of_any_repository_has_no_commit(repository: Path) -> None:
    shutil.rmtree(repository / ".git")
    assert (made().commit, made().uncommitted) == (None, ())


def test_the_base_is_found_where_it_is_the_same(lineage: FileLineage, workspace: Path, tmp_path: Path) -> None:
    name = "starter/models/starter-s"
    assert find_base(lineage, (workspace,)) == {name: workspace / name}
    with (workspace / name / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(UserError, match=rf"^base: {name} or its chat template has the digest \w+ here, and had \w+$"):
        find_base(lineage, (workspace,))
    assert find_base(lineage, (workspace, REPO)) == {name: REPO / name}


def test_data_are_found_where_they_are_the_same(lineage: FileLineage, workspace: Path) -> None:
    assert lineage.data
    chats = workspace / "starter/chats.jsonl"
    assert find_data(lineage.data, (workspace,))["starter/chats.jsonl"] == chats
    chats.write_bytes(chats.read_bytes().replace(b"a", b"b", 1))
    (workspace / "starter/questions.jsonl").unlink()
    with pytest.raises(UserError) as raised:
        find_data(lineage.data, (workspace,))
    assert str(raised.value) == (
        f"data: starter/chats.jsonl has changed, it had the SHA-256 {lineage.data.files['starter/chats.jsonl'][:16]}…; "
        "starter/questions.jsonl is not here, it had the SHA-256 "
        f"{lineage.data.files['starter/questions.jsonl'][:16]}…"
    )
    assert find_data(lineage.data, (workspace, REPO))["starter/chats.jsonl"] == REPO / "starter/chats.jsonl"


def test_the_adapter_that_was_gone_on_from_is_found_where_it_is_the_same(workspace: Path, lineage: FileLineage) -> None:
    champion = workspace / "models/champion"
    champion.mkdir(parents=True)
    weights = champion / "adapter_model.safetensors"
    weights.write_bytes(b"champion")
    assert find_start(lineage, (workspace,)) == {}
    started = lineage_here(workspace, "train.start_adapter=models/champion").model_copy(
        update={"start_adapter": sha256(weights)}
    )
    assert find_start(started, (REPO, workspace)) == {"models/champion": champion}
    digest = sha256(weights)[:16]
    weights.write_bytes(b"another")
    with pytest.raises(
        UserError, match=rf"^start adapter: models/champion is another one, it had the SHA-256 {digest}…$"
    ):
        find_start(started, (workspace,))
    weights.unlink()
    with pytest.raises(UserError, match=rf"^start adapter: models/champion is not here, it had the SHA-256 {digest}…$"):
        find_start(started, (workspace,))
