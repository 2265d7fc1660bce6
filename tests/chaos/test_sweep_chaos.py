"""Sweeps keep their word when they are killed: the short form of `make chaos-sweep`."""

import random
import subprocess
import sys
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest
from chaos_process import ordinary_signals
from sweep_bench import SweepBench
from sweep_mlflow import Recorded, faults
from sweep_plan import Blow, Harm, LostMlflow, Plan, draw
from sweep_round import SweepRound

SMALL = ("train.lr=1e-3,4e-3,1,2e-3", "hydra.sweeper.max_steps=6")  # of four trials two go on


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> SweepBench:
    """Prepared data, and an undisturbed sweep of each launcher that is asked for."""
    ordinary_signals()
    return SweepBench(tmp_path_factory.mktemp("chaos"), sys.executable, SMALL)


@pytest.mark.slow
@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(
            Plan((
                Harm(LostMlflow(5), "outcome", 0.1, 0.1),
                Harm(Blow((SIGKILL,), "all"), "save", 0.4, 0.5),
                Harm(Blow((SIGTERM,), "sweep"), "update", 0.7, 0.5),
            )),
            id="MLflow lost for a while, then killed, then asked to stop",
        ),
        pytest.param(
            Plan((
                Harm(Blow((SIGKILL,), "worker"), "update", 0.3, 0.5),
                Harm(Blow((SIGKILL,), "sweep"), "outcome", 0.7, 0.5),
            ), "joblib"),
            id="of joblib's, a worker killed and then the sweep",
            marks=pytest.mark.long,
        ),
    ],
)  # fmt: skip
def test_a_harmed_sweep_goes_on_to_the_same_ranking(plan: Plan, bench: SweepBench, tmp_path: Path) -> None:
    result = SweepRound(tmp_path.name, plan, bench).play()
    assert result.wrong == {}
    assert result.notes == []


@pytest.mark.slow
@pytest.mark.long
def test_how_soon_a_killed_sweep_trains_again_can_be_measured() -> None:
    measure = [sys.executable, str(Path(__file__).with_name("sweep_resume.py")), "--kills", "1"]
    done = subprocess.run(measure, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, again = done.stdout.splitlines()
    assert first.startswith("first rung and begin of the second: ")
    assert again.startswith("trains again after ")


def test_a_plan_follows_from_its_seed() -> None:
    plans = [draw(random.Random(seed)) for seed in range(30)]
    assert plans == [draw(random.Random(seed)) for seed in range(30)]
    assert len(set(plans)) > 25


def test_a_repeated_step_a_missing_run_and_another_status_are_seen() -> None:
    trial = Recorded("trial 0.1", "FINISHED", {"train.loss": [1, 2, 3]})
    assert faults([trial], [trial]) == []
    assert faults([trial], [trial, trial])
    assert faults([trial], [trial._replace(status="RUNNING")])
    assert faults([trial], [trial._replace(steps={"train.loss": [1, 2, 2, 3]})])
