"""A training as a trial: what it writes down, what the trials share, and when one is hopeless."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from common.errors import Hopeless
from pipeline.core.trials import Limit, Task, read_progress
from pipeline.training.trial import FollowTrial

VOCABULARY = 1000  # to guess has 6.9078 nats


class Followed:
    """A trial whose losses are told one by one."""

    def __init__(self, folder: Path, limit: Limit | None = None, worst: float | None = 1.5) -> None:
        (folder / "job").mkdir(exist_ok=True)
        task = Task(trial=3, sweep=str(folder), stop_step=20, mlflow_parent=None, worst=worst, limit=limit)
        self.folder = folder / "job"
        self.follower = FollowTrial(self.folder, task, "start")

    def log(self, step: int, **logs: float) -> None:
        text = SimpleNamespace(vocab_size=VOCABULARY)
        model: Any = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text))
        state = TrainerState(global_step=step, max_steps=80)
        self.follower.on_log(TrainingArguments(output_dir=str(self.folder)), state, TrainerControl(), logs, model)


def test_losses_are_written_as_they_come_and_once_a_step(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    followed.log(0, eval_loss=2.0)
    followed.log(5, loss=1.8, learning_rate=1e-3)
    followed.log(5, eval_loss=1.7)
    again = Followed(tmp_path)  # cut off behind step 5, and gone on with from before it
    again.log(5, loss=1.8)
    again.log(10, loss=1.6)
    again.log(10, learning_rate=1e-3)
    points = [(point.step, point.of, point.train_loss, point.validation_loss) for point in read_progress(again.folder)]
    assert points == [(0, 20, None, 2.0), (5, 20, 1.8, None), (5, 20, None, 1.7), (10, 20, 1.6, None)]


def test_the_untrained_loss_is_measured_by_the_first_trial_alone(tmp_path: Path) -> None:
    first = Followed(tmp_path)
    assert first.follower.starts_with_evaluation
    first.log(0, eval_loss=2.0)
    second = Followed(tmp_path)
    assert not second.follower.starts_with_evaluation
    assert second.follower.untrained == 2.0


@pytest.mark.parametrize("loss", [3.01, math.nan, math.inf])
def test_a_validation_loss_far_above_the_untrained_ends_it(tmp_path: Path, loss: float) -> None:
    followed = Followed(tmp_path)
    followed.log(0, eval_loss=2.0)
    followed.log(5, eval_loss=3.0)
    with pytest.raises(
        Hopeless, match=r"^diverged: validation loss .* at step 10, more than 1\.5 times the untrained 2\.0000$"
    ):
        followed.log(10, eval_loss=loss)


def test_a_training_loss_ends_it_where_it_is_worse_than_to_guess(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    followed.log(0, eval_loss=1.0)
    followed.log(5, loss=6.9)  # rows that are harder than those of validation
    with pytest.raises(Hopeless, match=r"^diverged: training loss 7\.0000 at step 10; to guess has 6\.9078 at most$"):
        followed.log(10, loss=7.0)


def test_a_model_that_begins_worse_than_to_guess_may_learn(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    followed.log(0, eval_loss=7.2)
    followed.log(5, loss=7.3)
    with pytest.raises(Hopeless, match=r"to guess has 10\.8000 at most"):
        followed.log(10, loss=10.9)


def test_one_that_is_behind_ends_halfway_and_not_before_nor_at_the_end(tmp_path: Path) -> None:
    followed = Followed(tmp_path, Limit(step=15, loss=1.2))
    followed.log(0, eval_loss=2.0)
    followed.log(14, eval_loss=1.3)
    followed.log(15, eval_loss=1.2)
    followed.log(20, eval_loss=1.3)  # the rung's end, which decides by itself
    with pytest.raises(
        Hopeless, match=r"^behind: validation loss 1\.3000 at step 16, where all others began the rung with "
    ):
        followed.log(16, eval_loss=1.3)


def test_without_a_limit_nothing_ends_it(tmp_path: Path) -> None:
    followed = Followed(tmp_path, worst=None)
    assert not followed.follower.starts_with_evaluation
    followed.log(5, eval_loss=50.0)
    followed.log(10, loss=50.0)
    followed.log(15, loss=math.nan)
    assert [point.train_loss for point in read_progress(followed.folder)] == [None, 50.0, None]
