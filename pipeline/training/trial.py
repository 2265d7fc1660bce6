"""A training as a trial of a sweep: its losses go to its folder as they come, and it ends where it is hopeless."""

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from common.errors import Hopeless
from pipeline.core.config import TrainSettings
from pipeline.core.trials import PROGRESS, TASK, UNTRAINED, Point, Task, Untrained, read_progress
from pipeline.workers.ranks import rank


class FollowTrial(TrainerCallback):
    """Appends losses to progress.jsonl, and ends a trial that has diverged or lies far behind."""

    def __init__(self, folder: Path, task: Task, same_start: str) -> None:
        """Follow what is trained for `folder`; trials of one `same_start` share the loss before training."""
        self.folder, self.task = folder, task
        self.untrained_path = Path(task.sweep) / f"{same_start}.{UNTRAINED}"
        known = self.untrained_path.is_file()
        self.untrained = Untrained.read(self.untrained_path).loss if known else None
        self.written = {(point.step, point.validation_loss is None) for point in read_progress(folder)}

    @property
    def starts_with_evaluation(self) -> bool:
        """Whether the loss before training is yet to be measured."""
        return self.task.worst is not None and self.untrained is None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        model: PreTrainedModel | None = None,
        **_: object,
    ) -> None:
        """Write a loss down, and see whether it is hopeless.

        Raises:
            Hopeless: it is.
        """
        loss, validation = (logs or {}).get("loss"), (logs or {}).get("eval_loss")
        if loss is None and validation is None:
            return
        if validation is not None and state.global_step == 0:
            self.untrained = validation
        if rank() == 0:
            self.write(state, loss, validation)
        if validation is not None:
            self.raise_if_worse(state.global_step, validation)
            self.raise_if_behind(state.global_step, validation)
        elif loss is not None and model is not None:
            self.raise_if_guessing(state.global_step, loss, model)

    def write(self, state: TrainerState, loss: float | None, validation: float | None) -> None:
        """Append a line; a training that was cut off repeats steps, which are written once."""
        if validation is not None and state.global_step == 0 and not self.untrained_path.is_file():
            Untrained(loss=validation).write(self.untrained_path)
        if (state.global_step, validation is None) in self.written:
            return
        self.written.add((state.global_step, validation is None))
        end = self.task.stop_step or state.max_steps
        point = Point(step=state.global_step, of=end, train_loss=finite(loss), validation_loss=finite(validation))
        with (self.folder / PROGRESS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(point.tree()) + "\n")

    def raise_if_worse(self, step: int, loss: float) -> None:
        """End a trial whose validation loss is far above that of the untrained model.

        Raises:
            Hopeless: it is.
        """
        worst, untrained = self.task.worst, self.untrained
        if worst is not None and untrained is not None and not loss <= worst * untrained:
            times = f"more than {worst:g} times the untrained {untrained:.4f}"
            raise Hopeless(f"diverged: validation loss {loss:.4f} at step {step}, {times}")

    def raise_if_guessing(self, step: int, loss: float, model: PreTrainedModel) -> None:
        """End a trial that learns worse than chance, and than an untrained model may.

        Rows of training may be harder than those of validation, but not so hard; and weights at random begin above
        chance.

        Raises:
            Hopeless: it does.
        """
        worst, untrained = self.task.worst, self.untrained
        if worst is None or untrained is None:
            return
        limit = max(math.log(model.config.get_text_config().vocab_size), worst * untrained)
        if not loss <= limit:
            raise Hopeless(f"diverged: training loss {loss:.4f} at step {step}; to guess has {limit:.4f} at most")

    def raise_if_behind(self, step: int, loss: float) -> None:
        """End a trial whose validation loss others had long before.

        Raises:
            Hopeless: it has.
        """
        limit = self.task.limit
        if limit is not None and limit.step <= step < (self.task.stop_step or 0) and loss > limit.loss:
            others = f"where all others began the rung with {limit.loss:.4f} or less"
            raise Hopeless(f"behind: validation loss {loss:.4f} at step {step}, {others}")


def finite(loss: float | None) -> float | None:
    """Return a loss, None where it is no number."""
    return loss if loss is not None and math.isfinite(loss) else None


def follow(folder: Path, settings: dict[str, Any], train: TrainSettings) -> FollowTrial | None:
    """Return what follows a training for a sweep's job, None where it is none.

    Args:
        folder: of its output.
        settings: what it learns by, as its fingerprint has them.
        train: what its validation rows depend on besides.
    """
    if not (folder / TASK).is_file():
        return None
    start = {"model": settings["model"], "data": settings["data"], "rows": [train.max_length, train.loss_on]}
    if train.preference.loss:
        start["preference"] = asdict(train.preference)
    same_start = hashlib.sha256(json.dumps(start, sort_keys=True).encode()).hexdigest()[:16]
    return FollowTrial(folder, Task.read(folder / TASK), same_start)
