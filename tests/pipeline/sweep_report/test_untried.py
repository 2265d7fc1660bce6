"""What a sweep has not tried."""

from pathlib import Path

from fake_sweep import FakeSweep

from pipeline.sweep_report.figures import read_figures
from pipeline.sweeps.record import Trial

SPACE = {"train.lr": ["1", "2", "3"], "train.lora.r": ["4", "8", "16"]}


def nearest(values: dict[str, str], step: int) -> float:
    """Return a loss that is least at a rate of 2 and a rank of 8."""
    return abs(float(values["train.lr"]) - 2) + abs(float(values["train.lora.r"]) - 8) / 8 + 1 / step


def highest(values: dict[str, str], step: int) -> float:
    """Return a loss that falls with the rate, and is least at a rank of 8."""
    return nearest({**values, "train.lr": "2"}, step) - float(values["train.lr"])


def untried(sweep: FakeSweep) -> tuple[str, ...]:
    """Return what is said once it is over."""
    sweep.play()
    return read_figures(sweep.folder).untried


def test_a_whole_grid_whose_best_lies_inside_left_nothing_out(tmp_path: Path) -> None:
    sweep = FakeSweep(tmp_path / "inside", SPACE, [[]], nearest)
    assert untried(sweep) == ()


def test_a_best_trial_at_an_edge_says_so(tmp_path: Path) -> None:
    sweep = FakeSweep(tmp_path / "edge", SPACE, [[]], highest)
    assert untried(sweep) == ("The best trial has lr 3, the highest of its values; no higher one has a result.",)


def test_an_edge_is_where_results_end_and_not_where_the_list_does(tmp_path: Path) -> None:
    sweep = FakeSweep(tmp_path / "failing", SPACE, [[]], nearest)
    sweep.play()
    for trial in sweep.record.trials:
        if trial.values["train.lr"] == "3":
            sweep.finish(trial.number, None, status="failed", reason="out of memory")
    assert read_figures(sweep.folder).untried == (
        "The best trial has lr 2, the highest of its values; no higher one has a result.",
        "With lr 3 all of 3 trials failed or were refused.",
    )


def test_the_end_of_an_interval_is_an_edge_also_where_no_trial_lies_on_it(tmp_path: Path) -> None:
    values = ["2e-06", "5e-06", "1e-05", "2e-05", "5e-05", "0.0001", "0.0002", "0.0004", "0.00098"]
    trials = [Trial(number=n, bracket=0, values={"train.lr": value}) for n, value in enumerate(values)]
    sweep = FakeSweep(tmp_path / "interval", {"train.lr": ["tag(log, interval(1e-6, 1e-3))"]}, [[]], trials=trials)
    sweep.loss = lambda values, step: -float(values["train.lr"])
    assert untried(sweep) == (
        "The best trial has lr 0.00098, the highest end of its interval; no higher one has a result.",
    )
    sweep.loss = lambda values, step: abs(float(values["train.lr"]) - 2e-4)
    assert untried(sweep) == ()


def test_a_sample_says_how_many_combinations_and_which_pairs_it_left_out(tmp_path: Path) -> None:
    drawn = [("2", "8"), ("1", "4"), ("3", "16"), ("2", "4"), ("1", "8"), ("3", "8"), ("2", "16")]
    keys = list(SPACE)
    trials = [Trial(number=n, bracket=0, values=dict(zip(keys, pair, strict=True))) for n, pair in enumerate(drawn)]
    sweep = FakeSweep(tmp_path / "sample", SPACE, [[]], nearest, trials)
    assert untried(sweep) == (
        "2 of 9 combinations were left out of the sample.",
        "2 of 9 pairs of values never met: lr 1 with r 16, lr 3 with r 4.",
    )


def test_a_value_that_no_trial_took_further_says_how_far_they_came(tmp_path: Path) -> None:
    sweep = FakeSweep(tmp_path / "early", SPACE, [[2, 4]], nearest)
    assert "With lr 3 no trial of 3 went beyond 2 steps." in untried(sweep)


def test_a_setting_that_does_nothing_has_no_edge(tmp_path: Path) -> None:
    space = {"train.lr": ["1", "2", "3", "4", "5"], "train.seed": ["1", "2", "3", "4", "5", "6"]}
    sweep = FakeSweep(tmp_path / "idle", space, [[]], lambda values, step: -float(values["train.lr"]))
    assert untried(sweep) == ("The best trial has lr 5, the highest of its values; no higher one has a result.",)


def test_a_wide_stretch_of_an_interval_without_a_trial_is_named(tmp_path: Path) -> None:
    values = ["0.05", "0.1", "0.2", "0.3", "0.7", "0.8", "0.9"]
    trials = [Trial(number=n, bracket=0, values={"train.lr": value}) for n, value in enumerate(values)]
    sweep = FakeSweep(tmp_path / "gap", {"train.lr": ["interval(0.0, 1.0)"]}, [[]], trials=trials)
    sweep.loss = lambda values, step: abs(float(values["train.lr"]) - 0.5)
    assert untried(sweep) == ("No trial has lr between 0.3 and 0.7.",)
