"""Sweeps by name, in a folder that has several."""

from pathlib import Path

import pytest
from fake_sweep import FakeSweep

from common.errors import UserError
from pipeline.commands import sweeps
from pipeline.core.trials import OUTCOME, TASK
from pipeline.training.checkpoints import locked

REPO = Path(__file__).parents[3]
SPACE = {"train.lr": ["1", "2", "3", "4"]}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of sweeps of a workspace."""
    (tmp_path / "conf").symlink_to(REPO / "conf")
    monkeypatch.setattr("pipeline.commands.sweeps.root", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return Path("sweeps")


def played(path: Path) -> FakeSweep:
    sweep = FakeSweep(path, SPACE, loss=lambda values, step: float(values["train.lr"]))
    sweep.play()
    return sweep


@pytest.mark.parametrize("name", ["sweep.json", "0/step-2/outcome.json", "0/step-2/progress.jsonl"])
def test_a_damaged_file_takes_its_own_sweep_out_of_the_list_and_says_what_helps(
    root: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    played(root / "whole")
    played(root / "damaged")
    (root / "damaged" / name).write_text('{"status": "fini\n', encoding="utf-8")
    said = f"^sweeps/damaged/{name} is no JSON; remove it, and begin the sweep again by its own command"
    with pytest.raises(UserError, match=said):
        sweeps.show_all()
    assert "whole" in capsys.readouterr().out


def test_a_job_that_is_done_needs_no_task(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = played(root / "mine")
    (sweep.folder.job(3, 2).path / TASK).unlink()
    sweeps.show_all()
    assert "finished" in capsys.readouterr().out


def test_trials_that_failed_are_forgotten_and_no_others(root: Path) -> None:
    sweep = played(root / "mine")
    sweep.finish(3, 2, status="failed", reason="out of memory")
    kept = {path for path in root.rglob(OUTCOME) if "/3/" not in str(path)}
    assert sweeps.arguments("mine", retry=True) == ("train", ["-m", *sweep.record.arguments])
    assert set(root.rglob(OUTCOME)) == kept


def test_a_sweep_that_runs_is_left_alone(root: Path) -> None:
    sweep = played(root / "mine")
    sweep.finish(3, 2, status="failed", reason="out of memory")
    before = {path: path.read_bytes() for path in root.rglob("*.json")}
    with locked(sweep.folder.path):
        for act in (
            lambda: sweeps.arguments("mine", retry=True),
            lambda: sweeps.extend("mine", 1, 0),
            lambda: sweeps.prune("mine", everything=True),
        ):
            with pytest.raises(UserError, match=r"^mine is running; end it first, or wait for it$"):
                act()
    assert {path: path.read_bytes() for path in root.rglob("*.json")} == before


@pytest.mark.parametrize("fixed", [(), ("runtime.checkpoint_root=shared",)])
def test_checkpoints_are_pruned_where_the_sweep_had_them(root: Path, fixed: tuple[str, ...]) -> None:
    sweep = played(root / "mine")
    sweep.record.model_copy(update={"fixed": fixed}).write(sweep.folder.record_path)
    checkpoint = Path("shared" if fixed else ".checkpoints") / "sweeps/mine/0123/checkpoint-2"
    checkpoint.mkdir(parents=True)
    sweeps.prune("mine", everything=True)
    assert not checkpoint.exists()
