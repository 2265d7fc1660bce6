"""Runs in a real PostgreSQL: several first ones at once, a kill, a sweep's parent and children.

TEST_POSTGRES names the server, as postgresql+psycopg2://postgres@localhost, with a driver of it installed; databases
are made there and removed.
"""

import os
import signal
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow_runs import CONFIG, eventually, four_first_runs, runs, steps, training
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from pipeline.tracking.journal import Journal
from pipeline.tracking.registry import mlflow_client
from pipeline.tracking.run import PARENT, open_run, tracked

SERVER = os.environ.get("TEST_POSTGRES")
pytestmark = pytest.mark.skipif(not SERVER, reason="TEST_POSTGRES names no PostgreSQL server to make databases in")


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a new database, which this folder's runs go to."""
    server = make_url(SERVER or "")
    name = f"tunesmith_{uuid.uuid4().hex}"
    engine = create_engine(server.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    address = server.set(database=name).render_as_string(hide_password=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.delenv(PARENT, raising=False)
    yield address
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def test_four_first_runs_at_once_make_one_database(tmp_path: Path, database: str) -> None:
    four_first_runs(tmp_path, database)


def test_a_killed_training_goes_on_in_its_run_with_each_step_once(tmp_path: Path, database: str) -> None:
    process = training(tmp_path / "abc", 1, 0)
    journal = Journal(tmp_path / "abc")
    eventually(lambda: journal.run_id and journal.sent)
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = max(entry.step or 0 for entry, _ in journal.entries())
    again = training(tmp_path / "abc", max(last - 5, 1), last + 5)
    assert again.communicate()[0]
    assert again.returncode == 0
    (recorded,) = runs(MlflowClient(database), "tunesmith")
    assert steps(MlflowClient(database), recorded.info.run_id) == list(range(1, last + 6))
    assert recorded.info.status == "FINISHED"


def test_a_sweep_has_its_children_and_its_files_are_in_the_repository(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = open_run(CONFIG.tracking, tmp_path / "sweep", "sweep")
    monkeypatch.setenv(PARENT, str(parent.id))
    for number in range(2):
        changed = replace(CONFIG, train=replace(CONFIG.train, lr=0.1 + number))
        with tracked(changed, tmp_path / str(number), "train") as run:
            run.params(changed)
            run.metrics({"train.loss": 1.0 + number}, 1)
    parent.end("FINISHED")
    with mlflow_client(CONFIG.tracking) as client:
        experiment = client.get_experiment_by_name("tunesmith")
        assert experiment is not None
        children = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{parent.id}'")
        assert sorted(child.data.params["train.lr"] for child in children) == ["0.1", "1.1"]
        for child in children:
            assert [item.path for item in client.list_artifacts(child.info.run_id)] == ["params.yaml"]
    assert Path(experiment.artifact_location.removeprefix("file://")) == tmp_path / "mlartifacts"
