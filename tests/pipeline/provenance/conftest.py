"""A workspace with a GGUF file and an adapter that say where they come from, and a key pair."""

from pathlib import Path

import pytest
from told_models import told_lineage, write_told_adapter, write_told_gguf

from pipeline.core.records import FileLineage
from pipeline.provenance.signing import make_key_pair


@pytest.fixture(scope="session")
def lineage() -> FileLineage:
    """Of a file of starter-s, made of the starter's data."""
    return told_lineage()


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
