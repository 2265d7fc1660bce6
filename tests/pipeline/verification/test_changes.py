"""What has changed since a file was made is named: settings by their keys, data, base, code, libraries."""

import shutil
from pathlib import Path

import pytest
from lineages import REPO, lineage_here

from common.files import sha256
from pipeline.verification.changes import changes


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, entered, with conf/, the starter's data and starter-s in it."""
    shutil.copytree(REPO / "conf", tmp_path / "conf")
    (tmp_path / "conf/adopted.yaml").write_text("# @package _global_\ndefaults:\n  - override /model: starter-s\n")
    shutil.copytree(REPO / "starter", tmp_path / "starter")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_is_named_where_all_is_as_it_was(workspace: Path) -> None:
    assert changes(lineage_here(workspace), workspace) == []


def test_each_thing_that_has_changed_is_named(workspace: Path) -> None:
    lineage = lineage_here(workspace, "train.lr=0.001", "data.seed=7", "export.importance_matrix=true")
    lineage = lineage.model_copy(update={"importance_matrix": True})
    assert lineage.trained
    older = {**lineage.trained.libraries, "torch": "1.0", "gone": "2.0"}
    before = {**lineage.exported.code, "pipeline/gguf": "other"}
    lineage = lineage.model_copy(
        update={
            "trained": lineage.trained.model_copy(update={"libraries": older}),
            "exported": lineage.exported.model_copy(update={"code": before, "commit": None}),
        }
    )
    with (workspace / "starter/chats.jsonl").open("a") as file:
        file.write("\n")
    (workspace / "starter/models/starter-s/config.json").write_text("{}")
    found = changes(lineage, workspace)
    assert found[:3] == [
        "setting: data.seed was 7 and is 42",
        "setting: train.lr was 0.001 and is 0.005",
        "setting: export.importance_matrix was True and is False",
    ]
    assert found[3].startswith("base: starter/models/starter-s or its chat template has the digest ")
    assert found[4].startswith("data: starter/chats.jsonl has changed, ")
    assert found[5] == "code: pipeline/gguf"
    assert found[6] == "library: gone was 2.0 and is not installed"
    assert found[7].startswith("library: torch was 1.0 and is 2")


def test_a_commit_that_a_branch_came_to_is_no_change_of_settings(workspace: Path) -> None:
    lineage = lineage_here(workspace)
    assert lineage.data
    resolved = lineage.data.model_copy(update={"settings": {**lineage.data.settings, "revision": "c0ffee"}})
    assert changes(lineage.model_copy(update={"data": resolved}), workspace) == []


def test_another_adapter_to_go_on_from_is_named(workspace: Path) -> None:
    adopted = workspace / "conf/adopted.yaml"
    adopted.write_text(adopted.read_text() + "train: {start_adapter: models/champion}\n")
    started = lineage_here(workspace, "train.start_adapter=models/champion")
    weights = workspace / "models/champion/adapter_model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"champion")
    assert changes(started.model_copy(update={"start_adapter": sha256(weights)}), workspace) == []
    (found,) = changes(started.model_copy(update={"start_adapter": "c" * 64}), workspace)
    assert found == f"start adapter: models/champion is another one, it had the SHA-256 {'c' * 16}…"
