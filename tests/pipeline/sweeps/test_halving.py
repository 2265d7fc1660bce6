"""Sweeps that train: over rungs, under MLflow, killed and gone on with, to a winner that can be trained again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from chats import CHATS
from mlflow import MlflowClient
from mlflow.entities import Run

from common.files import sha256
from pipeline.core.trials import OUTCOME, PROGRESS
from pipeline.sweeps.record import Folder
from pipeline.sweeps.settings import read_settings
from pipeline.sweeps.standings import standings

REPO = Path(__file__).parents[3]
SETTINGS = [
    "model=starter-s",
    f"model.path={REPO}/starter/models/starter-s",
    *CHATS,
    "tracking=none",
    "runtime.device=cpu",
    "train.lora.r=4",
    "train.batch_size=4",
    "train.effective_batch=8",
    "train.save_steps=1",
    "train.logging_steps=1",
    "train.max_length=128",
    "train.check_export=false",
]
HALVING = ["hydra/sweeper=halving", "hydra.sweeper.min_steps=2", "hydra.sweeper.max_steps=4"]
SPACE = "train.lr=1e-3,4e-3,2e-3,1"
ADAPTER = "models/adapter/adapter_model.safetensors"


def command(*arguments: str) -> list[str]:
    flags = [argument for argument in arguments if argument.startswith("-")]
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    return [sys.executable, "-m", "pipeline.stages.train", *flags, *SETTINGS, *overrides]


def environment(root: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "DVC_ROOT": str(root), "COLUMNS": "200"}


def ran(line: list[str], project: Path, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, cwd=project, env=environment(root), capture_output=True, text=True)


def outcome(sweep: Path, place: str) -> dict[str, Any]:
    return json.loads((sweep / place / OUTCOME).read_text())


def ranking(sweep: Path) -> list[tuple[int, str, float | None]]:
    folder = Folder(sweep)
    record = folder.read()
    return [
        (each.trial.number, each.state, each.score)
        for each in standings(folder, record, read_settings(record.settings))
    ]


def tracked_runs(root: Path) -> tuple[MlflowClient, Run, list[Run]]:
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name("tunesmith")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return client, parent, [run for run in runs if run is not parent]


@pytest.fixture(scope="module")
def whole(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a sweep that nothing has disturbed."""
    root = tmp_path_factory.mktemp("whole")
    line = command("-m", *HALVING, SPACE, f"hydra.sweep.dir={root}/sweep", "hydra.sweeper.name=tried")
    done = ran([*line, "tracking=mlflow"], project, root)
    assert done.returncode == 0, done.stderr[-3000:]
    (root / "said").write_text(done.stdout)
    return root


def test_the_best_go_on_from_their_checkpoints_and_what_diverges_ends(whole: Path) -> None:
    sweep = whole / "sweep"
    assert [(number, state) for number, state, _ in ranking(sweep)] == [
        (2, "finished"),
        (1, "finished"),
        (0, "dropped"),
        (3, "ended"),
    ]
    assert outcome(sweep, "3/step-2")["reason"].startswith("diverged: ")
    for trial in (1, 2):
        report = json.loads((sweep / f"{trial}/step-4/reports/train.json").read_text())
        assert (report["steps"], report["sessions"]) == (4, 2)
        assert "/checkpoint-2\n" in (sweep / f"{trial}/step-4/log.txt").read_text()
    steps = [json.loads(line)["step"] for line in (sweep / f"1/step-4/{PROGRESS}").read_text().splitlines()]
    assert sorted(set(steps)) == [3, 4]


def test_the_winner_is_what_its_settings_give_alone_to_the_bit(whole: Path, project: Path, tmp_path: Path) -> None:
    winner = yaml.safe_load((project / "conf/experiment/tried-best.yaml").read_text())
    assert winner["experiment"] == "tried-best"
    settings = [f"train.lr={winner['train']['lr']}", f"train.max_steps={winner['train']['max_steps']}"]
    done = ran(command(f"hydra.run.dir={tmp_path}/alone", *settings), project, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert sha256(tmp_path / "alone" / ADAPTER) == sha256(whole / "sweep/2/step-4" / ADAPTER)
    alone = json.loads((tmp_path / "alone/reports/train.json").read_text())
    assert alone["validation_loss"] == outcome(whole / "sweep", "2/step-4")["validation_loss"]


def test_mlflow_has_one_parent_and_a_run_a_trial_over_all_its_rungs(whole: Path) -> None:
    client, parent, children = tracked_runs(whole)
    assert len(children) == 4
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    (best,) = [child for child in children if child.data.params["train.lr"] == "0.002"]
    history = client.get_metric_history(best.info.run_id, "validation.loss")
    assert [metric.step for metric in history] == [2, 4]
    assert parent.data.tags["best_settings"] == "train.lr=0.002"
    assert parent.data.metrics["best.validation_loss"] == outcome(whole / "sweep", "2/step-4")["validation_loss"]
    (ended,) = [child for child in children if "ended" in child.data.tags]
    assert ended.data.params["train.lr"] == "1.0"


def test_what_was_said_has_the_decision_the_ranking_and_the_next_command(whole: Path) -> None:
    said = (whole / "said").read_text()
    assert "train.lr=0.002: validation loss" in said
    assert "`dvc exp run -S experiment=tried-best` trains it through all stages" in said


@pytest.mark.parametrize("place", ["1/step-2", "2/step-4"])
def test_a_sweep_that_was_killed_goes_on_to_the_same_ranking(
    whole: Path, project: Path, tmp_path: Path, place: str
) -> None:
    line = command("-m", *HALVING, SPACE, f"hydra.sweep.dir={tmp_path}/sweep", "tracking=mlflow")
    process = subprocess.Popen(line, cwd=project, env=environment(tmp_path), stdout=subprocess.DEVNULL)
    while not (tmp_path / f"sweep/{place}/log.txt").is_file():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done_before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep").rglob(OUTCOME)}
    done = ran(line, project, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert ranking(tmp_path / "sweep") == ranking(whole / "sweep")
    assert done_before
    assert {path: path.stat().st_mtime_ns for path in done_before} == done_before
    _, parent, children = tracked_runs(tmp_path)
    assert len(children) == 4
    assert parent.info.status == "FINISHED"


def test_sigterm_saves_the_trial_that_runs_and_the_same_command_goes_on(
    whole: Path, project: Path, tmp_path: Path
) -> None:
    line = command("-m", *HALVING, SPACE, f"hydra.sweep.dir={tmp_path}/sweep")
    process = subprocess.Popen(
        line, cwd=project, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / f"sweep/1/step-2/{PROGRESS}").is_file():  # its first update is made
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    _, errors = process.communicate()
    assert process.returncode == 75
    assert errors.splitlines()[-1].startswith("train: SIGTERM: ")
    assert ran(line, project, tmp_path).returncode == 0
    assert ranking(tmp_path / "sweep") == ranking(whole / "sweep")


def test_a_second_sweep_of_the_folder_waits_for_nothing_and_says_who_runs_it(
    whole: Path, project: Path, tmp_path: Path
) -> None:
    from pipeline.training.checkpoints import locked

    line = command("-m", *HALVING, SPACE, f"hydra.sweep.dir={tmp_path}/sweep")
    (tmp_path / "sweep").mkdir()
    with locked(tmp_path / "sweep"):
        done = ran(line, project, tmp_path)
    assert done.returncode == 1
    assert f"sweep is run by process {os.getpid()} on " in done.stderr.splitlines()[-1]


def test_a_grid_without_a_name_has_a_folder_of_its_own_and_goes_on(project: Path, tmp_path: Path) -> None:
    line = command("-m", "train.max_steps=1", "train.lr=1e-3,2e-3")
    for done in (ran(line, project, tmp_path), ran(line, project, tmp_path)):
        assert done.returncode == 0, done.stderr[-3000:]
    (sweep,) = (project / "sweeps").glob("train-*")
    assert sorted(path.parent.name for path in (project / "sweeps").rglob(OUTCOME)) == ["0", "1"]
    assert "2 jobs done before" in done.stdout
    assert "`tunesmith adopt train.lr=" in done.stdout
    assert f"written: {sweep.relative_to(project)}/report.html" in done.stdout
