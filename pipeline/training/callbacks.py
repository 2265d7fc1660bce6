"""What happens while the trainer runs: time that survives a restart, an early stop, metrics as they come."""

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from pipeline.tracking import Run

LOGGED = {"loss": "train.loss", "eval_loss": "validation.loss", "learning_rate": "lr", "grad_norm": "grad_norm"}


class Clock(TrainerCallback, ExportableState):
    """Seconds of training over all parts of an interrupted run; checkpoints carry the sum."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.before = seconds
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds trained, this part and all earlier ones."""
        return self.before + time.monotonic() - self.started

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Starts this part's clock."""
        self.started = time.monotonic()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"args": {"seconds": self.seconds}, "attributes": {}}


class StopAt(TrainerCallback):
    """Ends a run early at `stop_step`, with a checkpoint to go on from; the schedule stays as it was."""

    def __init__(self, stop_step: int) -> None:
        self.stop_step = stop_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Asks the trainer to save and stop."""
        if state.global_step >= self.stop_step:
            control.should_save = True
            control.should_training_stop = True


class Track(TrainerCallback):
    """Sends losses and rates to the tracked run as they come."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict | None = None, **_: Any
    ) -> None:
        """Runs whenever the trainer reports figures."""
        figures = {LOGGED[key]: value for key, value in (logs or {}).items() if key in LOGGED}
        self.run.metrics(figures, step=state.global_step)
