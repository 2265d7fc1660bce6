"""Training as one watches it: a bar on a terminal, lines in a log."""

import logging
import time

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from common.words import GIB
from pipeline.workers.ranks import rank

logger = logging.getLogger(__name__)


class ShowProgress(TrainerCallback):
    """Step, loss, tokens a second, GPU memory and the time left: in `bar`, or in a log at each `logging_steps`."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.loss = self.validation = "-"
        self.began, self.first_step, self.first_tokens = time.monotonic(), 0, 0
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal or rank() > 0)
        self.task = self.bar.add_task("")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Start the bar where the training starts."""
        self.began = time.monotonic()
        self.first_step, self.first_tokens = state.global_step, int(state.num_input_tokens_seen)
        self.bar.update(self.task, total=state.max_steps, completed=state.global_step, description="first update")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Move the bar."""
        if self.console.is_terminal:
            self.bar.update(self.task, completed=state.global_step, description=self.line(state))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Take the losses, and write the line of a log."""
        if "eval_loss" in (logs or {}):
            self.validation = f"{(logs or {})['eval_loss']:.4f}"
        if "loss" in (logs or {}):
            self.loss = f"{(logs or {})['loss']:.4f}"
            if not self.console.is_terminal:
                logger.info(f"step {state.global_step}/{state.max_steps}  {self.line(state)}")

    def line(self, state: TrainerState) -> str:
        """Return what stands beside the bar."""
        seconds = time.monotonic() - self.began
        steps = max(state.global_step - self.first_step, 1)
        left = int(seconds / steps * (state.max_steps - state.global_step))
        speed = (int(state.num_input_tokens_seen) - self.first_tokens) / seconds
        memory = f"  {torch.cuda.memory_reserved() / GIB:.1f} GiB" if torch.cuda.is_available() else ""
        losses = f"loss {self.loss}  validation {self.validation}"
        return f"{losses}  {speed:,.0f} tokens/s{memory}  {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
