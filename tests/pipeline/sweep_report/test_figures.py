"""The figures of a sweep's report."""

import os
from pathlib import Path

import pytest
from fake_sweep import FakeSweep

from pipeline.core.trials import OUTCOME, TASK
from pipeline.sweep_report.figures import measure, read_figures
from pipeline.sweeps.record import Trial

RATES = {"train.lr": ["4", "3", "2", "1"]}


def by_rate(values: dict[str, str], step: int) -> float:
    """Return a loss that falls with the rate, and with each step."""
    return float(values["train.lr"]) + 1 / step


@pytest.fixture
def sweep(tmp_path: Path) -> FakeSweep:
    """Return a sweep of four trials and three rungs, that is over."""
    sweep = FakeSweep(tmp_path / "rates", RATES, loss=by_rate)
    sweep.play()
    return sweep


def test_a_sweep_that_is_over_has_its_winner_and_the_way_to_it(sweep: FakeSweep) -> None:
    report = read_figures(sweep.folder)
    assert (report.is_over, report.winner, report.adopt) == (True, 3, "dvc exp run -S experiment=rates-best")
    assert report.command == "tunesmith train -m hydra/sweeper=halving train.lr=4,3,2,1"


def test_a_sweep_without_a_name_adopts_its_winner(tmp_path: Path) -> None:
    sweep = FakeSweep(tmp_path / "unnamed", RATES, loss=by_rate, name=None)
    sweep.play()
    assert read_figures(sweep.folder).adopt == "tunesmith adopt train.lr=1"


def test_a_sweep_that_goes_on_has_no_winner(tmp_path: Path) -> None:
    sweep = FakeSweep(tmp_path / "half", RATES, loss=by_rate)
    sweep.play(rungs=1)
    report = read_figures(sweep.folder)
    assert (report.is_over, report.winner, report.adopt) == (False, None, None)
    assert report.best is not None
    assert report.best.number == 3


def test_steps_are_those_made_beside_those_of_the_grid(sweep: FakeSweep) -> None:
    spent = read_figures(sweep.folder).spent
    assert (spent.updates, spent.grid_updates, spent.whole_grid_updates) == (2 + 2 + 4 + 8, 4 * 8, 4 * 8)
    assert spent.share == 0.5
    assert spent.seconds == 2 + 2 + 4 + 8


def test_twins_are_counted_apart(tmp_path: Path) -> None:
    trials = [Trial(number=n, bracket=0, values={"train.lr": str(4 - n)}) for n in range(4)]
    trials.append(Trial(number=4, bracket=0, values={"train.lr": "1.0"}, same_as=3))
    sweep = FakeSweep(tmp_path / "twins", RATES, loss=by_rate, trials=trials)
    sweep.play()
    spent = read_figures(sweep.folder).spent
    assert (spent.updates, spent.grid_updates, spent.whole_grid_updates) == (16, 32, 40)


def test_a_trial_that_ended_counts_with_the_steps_that_it_made(tmp_path: Path) -> None:
    sweep = FakeSweep(tmp_path / "ended", RATES, loss=by_rate)
    sweep.finish(0, 2, status="ended", reason="diverged")
    assert read_figures(sweep.folder).spent.updates == 2


def test_wall_time_is_from_the_first_job_to_the_last(sweep: FakeSweep) -> None:
    for trial, step, begun, ended in ((0, 2, 1_000, 1_010), (3, 8, 1_090, 1_100)):
        folder = sweep.folder.job(trial, step).path
        os.utime(folder / TASK, (begun, begun))
        os.utime(folder / OUTCOME, (ended, ended))
    for outcome in sweep.folder.path.rglob(OUTCOME):
        if outcome.stat().st_mtime > 1_100:
            os.utime(outcome, (1_050, 1_050))
    assert read_figures(sweep.folder).spent.wall_seconds == 100


def test_decisions_have_the_cut_and_who_was_nearest_to_it(sweep: FakeSweep) -> None:
    first, second = read_figures(sweep.folder).decisions
    assert (first.kept, first.dropped, first.best, first.cut, first.best_dropped) == ((3, 2), (1, 0), 1.5, 2.5, 3.5)
    assert (second.entered, second.kept) == (2, (3,))


def test_failures_are_by_reason(tmp_path: Path) -> None:
    sweep = FakeSweep(tmp_path / "ill", RATES, loss=by_rate)
    for number in (0, 2):
        sweep.finish(number, 2, status="failed", reason="out of memory")
    (failure,) = read_figures(sweep.folder).failures
    assert (failure.state, failure.reason, failure.trials) == ("failed", "out of memory", (0, 2))


def test_a_sum_is_said_with_its_weights() -> None:
    assert measure({"validation_loss": 1}) == "validation loss"
    assert (
        measure({"validation_loss": 1, "tokens_per_second": -1e-5})
        == "1 * validation loss + -1e-05 * tokens per second"
    )
