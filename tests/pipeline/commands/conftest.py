"""A workspace with an MLflow registry of its own, on sqlite."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

REPO = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A new MLflow database with the experiment; making one takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path.read_bytes()


@pytest.fixture
def place(tmp_path: Path, empty_database: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with conf/, an MLflow database of its own, and prepared questions."""
    (tmp_path / "conf").symlink_to(REPO / "conf")
    (tmp_path / "mlflow.db").write_bytes(empty_database)
    (tmp_path / "data/prepared").mkdir(parents=True)
    (tmp_path / "data/prepared/questions.jsonl").write_text('{"prompt": "What is 5 + 6?"}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # put back afterwards, whatever MLflow makes of it
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    yield tmp_path
    mlflow.set_tracking_uri(None)
