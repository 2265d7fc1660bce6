"""What happens while the trainer runs: costs that add up over restarts, early ends, metrics as they come."""

import math
import time
from pathlib import Path

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from common.errors import UserError
from pipeline.tracking.run import Run
from pipeline.training.checkpoints import newest_step
from pipeline.training.shared import TRAININGS

LOGGED = {
    "loss": "train.loss",
    "eval_loss": "validation.loss",
    "eval_accuracy": "validation.accuracy",
    "learning_rate": "lr",
    "grad_norm": "grad_norm",
    "kl": "train.kl",
    "replay_loss": "train.replay_loss",
    **{
        f"{prefix}rewards/{figure}": f"{part}.rewards/{figure}"
        for prefix, part in (("", "train"), ("eval_", "validation"))
        for figure in ("chosen", "rejected", "margins", "accuracies")
    },
}


def busy_after(control: TrainerControl) -> bool:
    """Return whether something else than the next update follows the present one."""
    return control.should_log or control.should_evaluate or control.should_save or control.should_training_stop


class Meter(TrainerCallback, ExportableState):
    """Time and memory over all sessions of an interrupted run, and the loss that no log line has shown yet.

    Checkpoints carry its figures; the trainer puts a new one in its place when it resumes. Updates count as steady from
    the sixth of a session on: those before compile and plan.
    """

    WARM_UP = 5

    def __init__(
        self,
        seconds: float = 0.0,
        sessions: int = 0,
        peak: int = 0,
        training_peak: int = 0,
        steady_updates: float = 0.0,
        steady_span: float = 0.0,
        steady_tokens: int = 0,
        unlogged_loss: float = 0.0,
        last_logged: int = 0,
    ) -> None:
        """With what earlier sessions measured: seconds, bytes reserved on the GPU, a sum of losses and its first step.

        Of the steady time, `steady_updates` are the seconds in updates and `steady_span` those from first to last.
        """
        self.seconds_before = seconds
        self.sessions = sessions
        self.peak_before = peak
        self.training_peak_before = training_peak
        self.steady_updates = steady_updates
        self.steady_span_before = steady_span
        self.steady_tokens = steady_tokens
        self.unlogged_loss = unlogged_loss
        self.last_logged = last_logged
        self.loaded = 0
        self.started = self.update_began = time.monotonic()
        self.steady_from: float | None = None
        self.updates = self.tokens = 0
        self.startup: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds trained, this part and all earlier ones."""
        return self.seconds_before + time.monotonic() - self.started

    @property
    def peak(self) -> int:
        """Bytes reserved on the GPU at most."""
        return max(self.peak_before, _reserved())

    @property
    def training_peak(self) -> int:
        """Bytes reserved at most beyond those that the loaded model took."""
        return max(self.training_peak_before, _reserved() - self.loaded)

    @property
    def steady_span(self) -> float:
        """Seconds since the updates are steady, with all that was between them."""
        return self.steady_span_before + (0.0 if self.steady_from is None else time.monotonic() - self.steady_from)

    @property
    def steady_tokens_per_second(self) -> float | None:
        """Of the steady updates, or None before the first."""
        return self.steady_tokens / self.steady_updates if self.steady_updates else None

    @property
    def outside_share(self) -> float | None:
        """The share of the steady time that was outside of updates: evaluation, saving, logging."""
        return 1 - self.steady_updates / self.steady_span if self.steady_updates else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Start this part."""
        self.started = time.monotonic()
        self.sessions += 1
        self.loaded = _reserved()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Start an update."""
        self.update_began, self.tokens = time.monotonic(), int(state.num_input_tokens_seen)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """End it; where something follows that is none of its, with all that the GPU has been given to do."""
        if torch.cuda.is_initialized() and busy_after(control):
            torch.cuda.synchronize()
        now = time.monotonic()
        self.updates += 1
        if self.startup is None:
            self.startup = time.time() - TRAININGS.began
        if self.steady_from is not None:
            self.steady_updates += now - self.update_began
            self.steady_tokens += int(state.num_input_tokens_seen) - self.tokens
        elif self.updates == self.WARM_UP:
            self.steady_from = now

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Stop the clock: what comes after the training is no part of it."""
        self.steady_span_before, self.steady_from = self.steady_span, None

    def state(self) -> dict[str, dict[str, float]]:
        """Return what a checkpoint keeps."""
        kept = ("seconds", "sessions", "peak", "training_peak", "steady_updates", "steady_span", "steady_tokens")
        return {
            "args": {name: getattr(self, name) for name in (*kept, "unlogged_loss", "last_logged")},
            "attributes": {},
        }


class StopAt(TrainerCallback):
    """Ends a run early at `stop_step`, with a checkpoint to go on from; the schedule stays as it was."""

    def __init__(self, stop_step: int) -> None:
        self.stop_step = stop_step

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Train nothing if that step is reached."""
        if state.global_step >= self.stop_step:
            control.should_training_stop = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Ask the trainer to save and stop."""
        if state.global_step >= self.stop_step:
            control.should_save = True
            control.should_training_stop = True


class EarlyStopping(TrainerCallback, ExportableState):
    """Ends a run once the validation loss has had no new best for `patience` evaluations.

    A checkpoint is made of each new best, so that its weights can be taken in the end.
    """

    def __init__(self, patience: int, best: float = math.inf, best_step: int = 0, waited: int = 0) -> None:
        self.patience = patience
        self.best = best
        self.best_step = best_step
        self.waited = waited

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Train nothing if patience has ended before."""
        if self.waited >= self.patience:
            control.should_training_stop = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Take the new loss; the same step may come twice, at its end and at the run's."""
        loss = (metrics or {})["eval_loss"]
        if loss < self.best:
            self.best, self.best_step, self.waited = loss, state.global_step, 0
            control.should_save = True
        elif state.global_step > self.best_step:
            self.waited += 1
        if self.waited >= self.patience:
            control.should_save = True
            control.should_training_stop = True

    def state(self) -> dict[str, dict[str, float]]:
        """Return what a checkpoint keeps."""
        kept = ("patience", "best", "best_step", "waited")
        return {"args": {name: getattr(self, name) for name in kept}, "attributes": {}}


class RefuseBrokenLoss(TrainerCallback):
    """Ends a run whose validation loss is no number."""

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Run after each validation."""
        loss = (metrics or {})["eval_loss"]
        if not math.isfinite(loss):
            kept = newest_step(Path(args.output_dir or "."))
            raise UserError(diverged(state.global_step, f"validation loss {loss}", kept))


class Track(TrainerCallback):
    """Sends losses and rates to the tracked run as they come, but no step twice."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Run whenever the trainer reports figures."""
        figures = {LOGGED[key]: value for key, value in (logs or {}).items() if key in LOGGED}
        self.run.metrics(figures, step=state.global_step)


def diverged(step: int, what: str, last_good: int | None) -> str:
    """Return the line that a training ends with whose figures are no numbers any more."""
    kept = "" if last_good is None else f"; the last good checkpoint is that of step {last_good}"
    return f"training diverged at step {step}: {what}{kept}; lower train.lr or train.max_grad_norm, or warm up longer"


def _reserved() -> int:
    return torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
