"""Runs in a real MLflow on sqlite; and what happens where it is out of reach."""

import json
import os
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipeline.compose import compose
from pipeline.config import Config, load
from pipeline.tracking import PARENT, open_run, tracked, tracking_uri

REPO = Path(__file__).parents[2]
CONFIG = load(compose(REPO / "conf"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the database of this module is; to make one takes seconds."""
    return tmp_path_factory.mktemp("tracking")


@pytest.fixture(autouse=True)
def root(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv(PARENT, raising=False)
    monkeypatch.chdir(folder)


@pytest.fixture
def client(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


def config(experiment: str = "tunesmith", **train: Any) -> Config:
    tracking = replace(CONFIG.tracking, experiment=experiment)
    return replace(CONFIG, tracking=tracking, train=replace(CONFIG.train, **train))


@contextmanager
def ours() -> Iterator[list[str]]:
    """What tracking warns of, once the block has ended."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    said += [str(warning.message) for warning in caught if "MLflow records" in str(warning.message)]


def runs(client: MlflowClient, experiment: str) -> list[Any]:
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else list(client.search_runs([found.experiment_id]))


def test_one_run_gets_what_two_stages_record(folder: Path, client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text("{}")
    (tmp_path / "metrics.json").write_text("{}")
    with tracked(config("two"), None, "starter-m on starter") as run:
        run.params(config("two"), ("model", "train"))
        run.metrics({"train.loss": 2.0}, step=10)
        run.metrics({"train.loss": 1.0}, step=20)
        run.tags({"fingerprint": "abc"})
        run.artifact(tmp_path / "train.json")
        first = run.id
    with tracked(config("two"), first, "another name") as run:
        assert run.id == first
        assert client.get_run(run.id).info.status == "RUNNING"
        run.params(config("two"), ("export",))
        run.metrics({"tuned": {"loss": 0.5, "by": {"sum": 1.0}}, "model": "no number", "nothing": None})
        run.artifact(tmp_path / "metrics.json")

    (recorded,) = runs(client, "two")
    assert recorded.info.status == "FINISHED"
    assert recorded.info.run_name == "starter-m on starter"
    assert recorded.data.params["model.name"] == "starter-m"
    assert recorded.data.params["train.lora.r"] == "32"
    assert recorded.data.params["export.quantizations"] == "['F16', 'Q8_0', 'Q4_K_M']"
    assert recorded.data.metrics == {"train.loss": 1.0, "tuned.loss": 0.5, "tuned.by.sum": 1.0}
    assert [m.step for m in client.get_metric_history(first, "train.loss")] == [10, 20]
    assert recorded.data.tags["fingerprint"] == "abc"
    assert {item.path for item in client.list_artifacts(first)} == {"train.json", "metrics.json"}
    assert Path(recorded.info.artifact_uri.removeprefix("file://")).is_relative_to(folder / "mlartifacts")


def test_the_commit_is_a_tag(folder: Path, client: MlflowClient, tmp_path: Path, monkeypatch: Any) -> None:
    names = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, env=os.environ | names)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True, check=True)
    monkeypatch.chdir(tmp_path)
    with tracked(config("commit"), None, "x") as run:
        tags = client.get_run(run.id).data.tags
    assert (tags["git_commit"], tags["git_dirty"]) == (head.stdout.strip(), "false")


def test_outside_of_git_there_is_no_commit(client: MlflowClient, folder: Path) -> None:
    with tracked(config("no commit"), None, "x") as run:
        assert "git_commit" not in client.get_run(run.id).data.tags


def test_a_changed_param_becomes_a_tag(client: MlflowClient) -> None:
    with tracked(config("changed"), None, "x") as run:
        run.params(config(), ("train",))
        run.params(config(), ("train",))  # the same again is nothing new
        assert not [key for key in client.get_run(run.id).data.tags if key.startswith("changed.")]
        run.params(config(save_steps=7), ("train",))
        data = client.get_run(run.id).data
    assert data.params["train.save_steps"] == str(CONFIG.train.save_steps)
    assert data.tags["changed.train.save_steps"] == "7"


def test_long_settings_are_cut_and_do_not_fail(client: MlflowClient) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with tracked(config("long"), None, "x") as run:
            run.params(config())
    (recorded,) = runs(client, "long")
    assert len(recorded.data.params["evaluate.prompts"]) == 500


def test_an_unknown_run_id_starts_a_new_run(client: MlflowClient) -> None:
    with tracked(config("unknown"), "0" * 32, "x") as run:  # a clone has the id but not the database
        assert run.id not in (None, "0" * 32)
        assert client.get_run(run.id).info.run_name == "x"


def test_an_exception_ends_the_run_as_failed_and_passes_through(client: MlflowClient) -> None:
    with pytest.raises(KeyError, match="mine"), tracked(config("failed"), None, "x"):
        raise KeyError("mine")
    with pytest.raises(KeyboardInterrupt), tracked(config("failed"), None, "x"):
        raise KeyboardInterrupt
    assert [run.info.status for run in runs(client, "failed")] == ["FAILED", "FAILED"]


def test_a_job_of_a_sweep_is_its_parents_child(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = open_run(config("sweep").tracking, None, "sweep")
    monkeypatch.setenv(PARENT, str(parent.id))
    with tracked(config("sweep"), None, "job") as run:
        assert client.get_run(run.id).data.tags["mlflow.parentRunId"] == parent.id


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "nonsense://x", "sqlite:////proc/no/mlflow.db"])
def test_where_mlflow_is_out_of_reach_it_is_said_once_and_the_stage_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = []
    with ours() as said, tracked(CONFIG, None, "x") as run:
        assert run.id is None
        run.params(CONFIG)
        run.metrics({"loss": 1.0})
        run.tags({"a": "b"})
        run.artifact(tmp_path / "missing")
        done.append("the stage")
    assert done == ["the stage"]
    (warning,) = said
    assert warning.startswith("MLflow records nothing more of this stage (")
    assert "\n" not in warning


def test_what_mlflow_refuses_later_is_said_once_and_the_rest_is_left_out(client: MlflowClient, tmp_path: Path) -> None:
    with ours() as said, tracked(config("later"), None, "x") as run:
        run.metrics({"loss": 1.0})
        run.artifact(tmp_path / "missing")
        run.artifact(tmp_path / "missing")
        run.metrics({"loss": 2.0})
    assert len(said) == 1
    (recorded,) = runs(client, "later")
    assert recorded.data.metrics == {"loss": 1.0}


def test_tracking_can_be_off(client: MlflowClient) -> None:
    off = replace(CONFIG, tracking=replace(CONFIG.tracking, enabled=False, experiment="off"))
    with tracked(off, None, "x") as run:
        run.params(off)
        run.metrics({"loss": 1.0})
        assert run.id is None
    assert client.get_experiment_by_name("off") is None


def test_runs_go_where_the_setting_says_else_the_environment_else_beside_the_repository(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    assert tracking_uri(CONFIG.tracking) == f"sqlite:///{folder.resolve()}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
    assert tracking_uri(CONFIG.tracking) == "http://localhost:1"
    assert tracking_uri(replace(CONFIG.tracking, uri="sqlite:///x.db")) == "sqlite:///x.db"


def test_a_figure_that_is_nan_is_recorded_or_left_out_but_stops_nothing(client: MlflowClient) -> None:
    with tracked(config("nan"), None, "x") as run:
        run.metrics({"grad_norm": float("nan"), "loss": 1.0})
        run.metrics({"loss": 0.5}, step=1)
    (recorded,) = runs(client, "nan")
    assert recorded.data.metrics["loss"] == 0.5
    assert json.dumps(recorded.data.params) == "{}"
