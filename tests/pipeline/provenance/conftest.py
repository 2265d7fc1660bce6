"""A workspace with a GGUF file and an adapter that say where they come from, and a key pair."""

import shutil
from pathlib import Path

import pytest
from lineages import REPO, lineage_here
from told_models import write_told_adapter, write_told_gguf

from pipeline.core.records import FileLineage
from pipeline.provenance.signing import make_key_pair


@pytest.fixture(scope="session")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> FileLineage:
    """Of a file of starter-s, made of the starter's data."""
    folder = tmp_path_factory.mktemp("lineage")
    for name in ("chats.jsonl", "questions.jsonl"):
        (folder / "starter").mkdir(exist_ok=True)
        shutil.copyfile(REPO / "starter" / name, folder / "starter" / name)
    shutil.copytree(REPO / "starter/models/starter-s", folder / "starter/models/starter-s")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return lineage_here(folder)


@pytest.fixture
def workspace(tmp_path: Path, lineage: FileLineage, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, entered, with models/adapter and a file of models/gguf."""
    monkeypatch.chdir(tmp_path)
    write_told_gguf(Path("models/gguf/tiny-Q8_0.gguf"), write_told_adapter(Path("models/adapter"), lineage))
    return tmp_path


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private and a public key."""
    return make_key_pair(tmp_path / "keys" / "mine")
