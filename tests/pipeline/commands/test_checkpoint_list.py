"""`tunesmith checkpoints`: what is listed, and what is pruned."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.training.checkpoints import claimed, mark_complete

REPO = Path(__file__).parents[3]

Checkpoints = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two trainings: `aaaa` of three days ago with two checkpoints, `bbbb` of now with one that is cut off."""
    shutil.copytree(REPO / "conf", tmp_path / "conf")
    for name, rate, steps, days in (("aaaa", 1e-3, (10, 20), 3), ("bbbb", 2e-3, (5, 7), 0)):
        folder = tmp_path / ".checkpoints" / name
        with claimed(folder, {"model": {"name": "starter-s"}, "train": {"lr": rate, "seed": 1}}):
            for step in steps:
                checkpoint = folder / f"checkpoint-{step}"
                checkpoint.mkdir()
                (checkpoint / "adapter_model.safetensors").write_bytes(bytes(500_000))
                mark_complete(checkpoint, {})
        (folder / "mlflow.jsonl").write_text("{}")
        for path in (folder / "settings.json", *folder.glob("checkpoint-*")):
            os.utime(path, (time.time() - days * 86400,) * 2)
    (tmp_path / ".checkpoints/bbbb/checkpoint-7/complete.json").unlink()
    return tmp_path


@pytest.fixture
def run(project: Path) -> Checkpoints:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(REPO), "COLUMNS": "200"}
        return subprocess.run(
            [sys.executable, "-m", "pipeline", "checkpoints", *arguments],
            cwd=project, env=environment, capture_output=True, text=True,
        )  # fmt: skip

    return command


def cells(output: str, name: str) -> list[str]:
    """A training's row of the table."""
    (line,) = [line for line in output.splitlines() if line.startswith(f"│ {name}")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_each_training_is_listed_with_age_steps_size_state_and_what_tells_it_apart(run: Checkpoints) -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    assert cells(done.stdout, "aaaa") == [
        "aaaa", "3 d", "10, 20", "1.0", "resumable", "model=starter-s train.lr=0.001",
    ]  # fmt: skip
    row = cells(done.stdout, "bbbb")
    assert row[2:] == ["5, 7", "1.0", "resumable, 1 broken", "model=starter-s train.lr=0.002"]


def test_a_training_without_a_whole_checkpoint_is_not_called_resumable(project: Path, run: Checkpoints) -> None:
    (project / ".checkpoints/bbbb/checkpoint-5/adapter_model.safetensors").write_bytes(b"cut")
    assert cells(run().stdout, "bbbb")[4] == "nothing whole, 2 broken"


def test_what_nobody_ran_for_so_long_is_pruned_but_not_its_journal(project: Path, run: Checkpoints) -> None:
    done = run("--prune", "2d")
    assert "aaaa: 1.0 MB freed" in done.stdout
    assert sorted(path.name for path in (project / ".checkpoints/aaaa").iterdir()) == [
        "lock", "mlflow.jsonl", "settings.json",
    ]  # fmt: skip
    assert (project / ".checkpoints/bbbb/checkpoint-5").is_dir()
    assert "aaaa" not in run().stdout


def test_one_training_is_pruned_by_the_beginning_of_its_name(project: Path, run: Checkpoints) -> None:
    assert "bbbb: 1.0 MB freed" in run("--prune", "bb").stdout
    assert not list((project / ".checkpoints/bbbb").glob("checkpoint-*"))
    assert (project / ".checkpoints/aaaa/checkpoint-20").is_dir()


def test_an_unknown_name_ends_in_one_line_and_removes_nothing(project: Path, run: Checkpoints) -> None:
    done = run("--prune", "cc")
    assert done.returncode == 1
    said = "0 trainings in .checkpoints have a name that begins with cc; see the list"
    assert done.stderr == f"checkpoints: {said}\n"
    assert len(list(project.glob(".checkpoints/*/checkpoint-*"))) == 4


def test_a_running_training_is_left_alone(project: Path, run: Checkpoints) -> None:
    with claimed(project / ".checkpoints/aaaa", {"model": {"name": "starter-s"}}):
        assert "aaaa is being trained: left alone" in run("--prune", "aaaa").stdout
        assert cells(run().stdout, "aaaa")[4] == "training"
    assert (project / ".checkpoints/aaaa/checkpoint-20").is_dir()


def test_no_checkpoints_are_said(project: Path, run: Checkpoints) -> None:
    shutil.rmtree(project / ".checkpoints")
    assert run().stdout == "no checkpoints in .checkpoints\n"


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '"model"'])
def test_a_training_whose_settings_are_damaged_is_listed_and_can_be_pruned(
    run: Checkpoints, project: Path, content: str
) -> None:
    (project / ".checkpoints/aaaa/settings.json").write_text(content)
    listed = run()
    assert listed.returncode == 0, listed.stderr
    assert cells(listed.stdout, "aaaa")[-1] == "settings.json is damaged"
    assert run("--prune", "aaaa").returncode == 0
