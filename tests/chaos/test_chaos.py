"""The train stage keeps its word when it is killed: a round of `make chaos`, in `make test-long` one of each kind."""

import importlib.util
import random
import sys
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM

import pytest
from chaos_bench import Bench
from chaos_disk import can_mount
from chaos_plan import Blow, Damage, Harm, Plan, draw
from chaos_process import ordinary_signals
from chaos_result import Result
from chaos_round import TrainRound

pytestmark = pytest.mark.slow

KILLED_WHILE_SAVING_THEN_ALTERED_THEN_ASKED = Plan((
    Harm(Blow((SIGKILL,), "both"), "save", 10, 0.5, Damage("flip", file=0.3, place=0.6)),
    Harm(Blow((SIGTERM,), "trainer"), "step", 20, 0.5),
))  # fmt: skip
DVC_KILLED_THEN_CTRL_C_THEN_DVC_ENDED = Plan((
    Harm(Blow((SIGKILL,), "dvc"), "imports", 1, 0.5),
    Harm(Blow((SIGINT,), "both"), "saved", 10, 0.5),
    Harm(Blow((SIGTERM,), "dvc"), "step", 20, 0.5),
), checkpoints_kept=1)  # fmt: skip
TRAINER_KILLED_THEN_CUT_THEN_ASKED_TWICE = Plan((
    Harm(Blow((SIGKILL,), "trainer"), "step", 12, 0.5, Damage("truncate", file=0.99, place=0.6)),
    Harm(Blow((SIGTERM, SIGTERM), "trainer"), "step", 20, 0.5),
))  # fmt: skip


@pytest.fixture(scope="module", params=["trl", "unsloth"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Prepared data and an undisturbed training."""
    if request.param == "unsloth" and importlib.util.find_spec("unsloth") is None:
        pytest.skip("Unsloth is not installed")
    ordinary_signals()
    return Bench(tmp_path_factory.mktemp("chaos"), sys.executable, request.param, [])


def played(plan: Plan, bench: Bench, tmp_path: Path) -> Result:
    """The plan's round, in which every harm came in time."""
    result = TrainRound(tmp_path.name, plan, bench).play()
    assert result.wrong == {}
    assert result.starts == len(plan.harms) + (plan.disk is not None) + 1
    return result


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(KILLED_WHILE_SAVING_THEN_ALTERED_THEN_ASKED, id="killed while saving, then altered, then asked"),
        pytest.param(
            DVC_KILLED_THEN_CTRL_C_THEN_DVC_ENDED, id="dvc killed, then ctrl-c, then dvc ended", marks=pytest.mark.long
        ),
        pytest.param(
            TRAINER_KILLED_THEN_CUT_THEN_ASKED_TWICE,
            id="trainer killed, then cut, then asked twice",
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_harmed_training_goes_on_to_the_same_adapter(plan: Plan, bench: Bench, tmp_path: Path) -> None:
    result = played(plan, bench, tmp_path)
    assert result.lost <= bench.save_steps


@pytest.mark.skipif(not can_mount(), reason="no file system can be mounted here; `make chaos` also tries `unshare -rm`")
def test_a_full_file_system_costs_no_more_than_the_checkpoint_that_did_not_fit(bench: Bench, tmp_path: Path) -> None:
    played(Plan((), disk=1.5), bench, tmp_path)


def test_a_plan_follows_from_its_seed() -> None:
    plans = [draw(random.Random(seed), steps=36) for seed in range(30)]
    assert plans == [draw(random.Random(seed), steps=36) for seed in range(30)]
    assert len(set(plans)) > 25
