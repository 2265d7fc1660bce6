"""The winner as an experiment: what it says, and that it composes to what the trial was."""

import shutil
from pathlib import Path

import pytest
from fake_sweep import FakeSweep

from pipeline.core.adopted import Adopted, write
from pipeline.core.composition import compose
from pipeline.core.config import Config, load
from pipeline.sweeps.record import SweepRecord, Trial
from pipeline.sweeps.winner import is_free, winner_path, write_winner

REPO = Path(__file__).parents[3]


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(REPO / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "conf"


def record_of(path: Path, *fixed: str, **values: str) -> SweepRecord:
    trial = Trial(number=0, bracket=0, values={key.replace("__", "."): value for key, value in values.items()})
    return FakeSweep(path / "mine", {}, trials=[trial]).record.model_copy(update={"fixed": fixed})


def composed(conf: Path, record: SweepRecord) -> Config:
    write_winner(record, record.trials[0], ".checkpoints/sweeps/mine", "validation loss 0.5 at step 8")
    return load(compose(conf, ["experiment=mine-best"]))


def test_it_composes_to_the_trials_settings(conf: Path, tmp_path: Path) -> None:
    record = record_of(tmp_path, "model=starter-s", "train.seed=7", train__lr="0.003", train__lora="{r:8,alpha:32}")
    winner = composed(conf, record)
    assert winner.experiment == "mine-best"
    assert (winner.model.name, winner.train.seed, winner.train.lr) == ("starter-s", 7, 0.003)
    assert (winner.train.lora.r, winner.train.lora.alpha) == (8, 32)
    assert (winner.train.max_steps, winner.train.stop_step) == (8, None)


def test_presets_that_were_swept_are_chosen(conf: Path, tmp_path: Path) -> None:
    winner = composed(conf, record_of(tmp_path, train="full", model="starter-s"))
    assert (winner.train.method, winner.model.name) == ("full", "starter-s")


def test_it_stands_on_the_experiment_that_the_sweep_stood_on(conf: Path, tmp_path: Path) -> None:
    record = record_of(tmp_path, "experiment=r5", train__lr="0.0003")
    winner, r5 = composed(conf, record), load(compose(conf, ["experiment=r5"]))
    assert (winner.experiment, winner.train.lr) == ("mine-best", 0.0003)
    assert (winner.model, winner.data) == (r5.model, r5.data)
    assert winner.train.gradient_accumulation_steps == r5.train.gradient_accumulation_steps == 4


def test_it_stands_on_what_was_adopted_when_the_sweep_ran(conf: Path, tmp_path: Path) -> None:
    write(conf, Adopted({"experiment": "laptop"}, {"train.max_length": 384}))
    adopted = load(compose(conf, ["model=starter-s", "train.lr=0.003", "train.max_steps=8"]))
    winner = composed(conf, record_of(tmp_path, "model=starter-s", train__lr="0.003"))
    assert (winner.train, winner.evaluate) == (adopted.train, adopted.evaluate)
    assert winner.train.max_length == 384


def test_where_and_how_jobs_ran_is_no_part_of_it(conf: Path, tmp_path: Path) -> None:
    record = record_of(tmp_path, "runtime.device=cpu", "tracking=none", "sweep=r5", train__lr="0.0003")
    winner = composed(conf, record)
    assert (winner.runtime.device, winner.tracking.enabled) == ("auto", True)


def test_it_says_how_it_is_trained_and_gone_on_with(conf: Path, tmp_path: Path) -> None:
    record = record_of(tmp_path, train__lr="0.003")
    path = write_winner(record, record.trials[0], ".checkpoints/sweeps/mine", "validation loss 0.5 at step 8")
    lines = path.read_text().splitlines()
    assert lines[:2] == [
        "# @package _global_",
        "# The winner of the sweep mine, trial 0: validation loss 0.5 at step 8.",
    ]
    assert "dvc exp run -S experiment=mine-best -S runtime.checkpoint_root=.checkpoints/sweeps/mine " in lines[4]


def test_its_file_is_known_as_the_sweeps_own(conf: Path, tmp_path: Path) -> None:
    assert is_free("mine")
    path = write_winner(record_of(tmp_path, train__lr="1e-3"), Trial(number=0, bracket=0, values={}), "", "")
    assert path == winner_path("mine")
    assert is_free("mine")
    path.write_text(path.read_text().replace("sweep mine", "sweep other"))
    assert not is_free("mine")
