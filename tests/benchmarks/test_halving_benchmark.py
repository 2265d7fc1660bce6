"""benchmarks/halving.py: what it runs, what it charges to whom, what its table says; no training."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import halving, halving_gpu
from benchmarks.halving_searches import Losses, Search, Seed, Spent, asha, compared, has_ray, is_over, optuna_rule
from benchmarks.halving_table import report, table
from pipeline.sweeps.record import Folder, SweepRecord, Trial

RUNGS = (1, 2, 4)
# Trials by their loss at the last rung; the third is the first one's twin.
FINAL = (0.5, 0.9, 0.5, 0.7, 0.4, 0.8)
SAME_AS = (0, 1, 0, 3, 4, 5)


def loss_at(trial: int, step: int) -> float:
    """A trial's loss, which falls; trials keep their order."""
    return FINAL[trial] + 1 / step - 1 / RUNGS[-1]


LOSSES = Losses(RUNGS, 2, tuple({step: loss_at(trial, step) for step in RUNGS} for trial in range(6)), SAME_AS)


def seed_of(number: int, ours: float, steps: int) -> Seed:
    """A seed's figures, with Optuna's within 2% for 40 steps."""
    searches = {
        "ours": Search(ours, steps, steps),
        "optuna": Search(0.408, 50, 40),
        "optuna at our steps": Search(None, 9, 9),
    }
    return Seed(number, 6, 5, 100, 80, 0.4, searches, checked=9, equal=9, largest_difference=0.0)


@pytest.fixture
def sweeps(tmp_path: Path) -> Callable[..., Folder]:
    """Writes a sweep's folder as one leaves it: the losses of LOSSES, at rungs or in a grid."""

    def write(name: str, rungs: tuple[int, ...], stopped_at: dict[int, int]) -> Folder:
        folder = Folder(tmp_path / name)
        trials = [
            Trial(number=n, bracket=0, values={"train.lr": str(n)}, same_as=None if same == n else same)
            for n, same in enumerate(SAME_AS)
        ]
        settings = SETTINGS | {"max_steps": rungs[-1] if rungs else None}
        SweepRecord(
            schema_version=1, name=name, stage="train", arguments=(), settings=settings, fixed=(),
            space={"train.lr": ""}, base={}, data=None, rungs=(rungs,), trials=tuple(trials),
        ).write(folder.record_path)  # fmt: skip
        for trial, last in stopped_at.items():
            for begin, stop in zip((0, *rungs), rungs or (None,), strict=False):
                if stop is None or stop <= last:
                    write_job(folder, trial, stop, begin, stop or last)
        return folder

    return write


SETTINGS = {
    "name": "a", "sampler": "grid", "trials": None, "seed": 0, "min_steps": None, "max_steps": None, "eta": 2,
    "brackets": 1, "objective": ["validation_loss"], "worst": None, "attempts": 3,
}  # fmt: skip


def write_job(folder: Folder, trial: int, stop: int | None, begin: int, end: int) -> None:
    """Write what a job that went to its end leaves; one at a later rung says from which checkpoint it went on."""
    job = folder.job(trial, stop).path
    job.mkdir(parents=True)
    task = {"trial": trial, "sweep": str(folder.path), "stop_step": stop, "mlflow_parent": None, "worst": None}
    (job / "task.json").write_text(json.dumps(task))
    (job / "log.txt").write_text(f"resuming from /x/0123/checkpoint-{begin}\n" if begin else "plan:\n")
    steps = [step for step in RUNGS if begin < step <= end]
    points = [{"step": step, "of": end, "validation_loss": loss_at(trial, step)} for step in steps]
    (job / "progress.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
    outcome = {"status": "finished", "steps": end, "validation_loss": loss_at(trial, end)}
    (job / "outcome.json").write_text(json.dumps(outcome))


def test_steps_that_a_twin_has_made_cost_nothing_where_twins_count_once() -> None:
    spent = Spent(LOSSES)
    spent.train(0, 0, 2)
    spent.train(2, 0, 1)
    spent.train(2, 1, 2)
    spent.train(2, 2, 4)
    assert (spent.plain, spent.once) == (6, 4)


def test_optunas_rule_finds_the_best_of_trials_that_keep_their_order_for_fewer_steps() -> None:
    found = optuna_rule(LOSSES, seed=1)
    assert found.loss == pytest.approx(0.4)
    assert 6 < found.steps < LOSSES.plain_steps
    assert found.steps_once <= found.steps


def test_a_search_with_a_budget_ends_at_it() -> None:
    found = optuna_rule(LOSSES, seed=1, budget=3)
    assert 3 <= found.steps_once <= 4  # the rung that was begun is made


@pytest.mark.skipif(not has_ray(), reason="Ray Tune is not installed")
def test_ashas_rule_finds_the_best_of_trials_that_keep_their_order_for_fewer_steps() -> None:
    found = asha(LOSSES, seed=1)
    assert found.loss == pytest.approx(0.4)
    assert 6 < found.steps < LOSSES.plain_steps


def test_a_trial_that_failed_is_no_search_s_best() -> None:
    failed = Losses(RUNGS, 2, (LOSSES.by_trial[0], {}), (0, 1))
    assert optuna_rule(failed, seed=1).loss == 0.5
    assert failed.best == 0.5


def test_a_sweep_is_charged_for_what_its_jobs_say_they_trained(sweeps: Callable[..., Folder]) -> None:
    grid = sweeps("grid-1", (), {0: 4, 1: 4, 3: 4, 4: 4, 5: 4})
    ours = sweeps("halving-1", RUNGS, {0: 2, 1: 1, 3: 1, 4: 4, 5: 1})
    assert is_over(grid)
    assert is_over(ours)
    seed = compared(1, grid, ours)
    assert seed.searches["ours"] == Search(pytest.approx(0.4), 9, 9)
    assert (seed.plain_steps, seed.distinct_steps, seed.trials, seed.distinct) == (24, 20, 6, 5)
    assert (seed.checked, seed.equal) == (8, 8)


def test_a_job_that_began_anew_is_charged_for_all_its_steps(sweeps: Callable[..., Folder]) -> None:
    grid = sweeps("grid-1", (), {0: 4, 1: 4, 3: 4, 4: 4, 5: 4})
    ours = sweeps("halving-1", RUNGS, {0: 2, 1: 1, 3: 1, 4: 4, 5: 1})
    (ours.job(4, 4).path / "log.txt").write_text("plan:\n")
    assert compared(1, grid, ours).searches["ours"].steps == 11


def test_an_archive_has_grids_and_whole_sweeps_without_checkpoints(
    sweeps: Callable[..., Folder], tmp_path: Path
) -> None:
    sweeps("grid-1", (), {0: 4})
    sweeps("halving-1", RUNGS, {0: 2, 1: 1, 3: 1, 4: 4, 5: 1})
    sweeps("halving-2", RUNGS, {0: 1, 1: 1})
    (tmp_path / "grid-1/0/models").mkdir()
    (tmp_path / "grid-1/0/models/adapter.safetensors").write_text("large")
    halving.pack(tmp_path, tmp_path / "out.tar.xz")
    halving.unpack(tmp_path / "out.tar.xz", tmp_path / "elsewhere")
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["grid-1", "halving-1"]
    assert is_over(Folder(tmp_path / "elsewhere/halving-1"))
    assert not list((tmp_path / "elsewhere").rglob("*.safetensors"))


def test_grid_and_sweep_differ_in_where_trials_stop_alone() -> None:
    bench = halving.Bench(Path("/bench"), (15, 120), ("train.lr=1e-4,5e-4",))
    grid, ours = (bench.command(kind, 3, 4) for kind in halving.KINDS)
    assert set(grid) ^ set(ours) == {
        "hydra.sweeper.name=grid-3", "hydra.sweeper.min_steps=null", "hydra.sweeper.max_steps=null",
        "train.max_steps=120", "hydra.sweeper.name=halving-3", "hydra.sweeper.min_steps=15",
        "hydra.sweeper.max_steps=120",
    }  # fmt: skip
    assert {"train.seed=3", "train.eval_steps=15", "hydra.launcher.n_jobs=4"} < set(grid)


def test_the_grid_s_pairs_on_a_gpu_are_all_trained_at_one_rate_and_schedule() -> None:
    bench = halving_gpu.GpuBench(Path("/bench"), "tiny", (15, 120), ())
    pairs, ours = (set(bench.command(kind)) for kind in ("pairs", "halving"))
    assert {"train.lr=choice(2e-4)", "train.scheduler=choice(linear)", "train.max_steps=120"} < pairs
    assert any("tokens_per_second" in each for each in pairs - ours)


def test_the_table_has_means_and_says_which_goals_are_missed() -> None:
    made = report([seed_of(1, 0.4, 20), seed_of(2, 0.406, 30)], [])
    text = table(made)
    assert "| ours, a sweep that ran; twins are trained once | 0.75% | 1.50% | 25 | 25.0% | 25 | 31.2% |" in text
    assert "- NO: the winner within 1% of the grid's best loss, in every seed" in text
    assert "- yes: at most 32% of the steps of the plain grid, in every seed" in text
    assert "- yes: no more steps than each peer, twins counted once, on the mean" in text
    assert "| 2 | 0.4000 | 0.4060, 30 | 0.4080, 40 | none, 9 |" in text
    json.dumps(made, allow_nan=False)
