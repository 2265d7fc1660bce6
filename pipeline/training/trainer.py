"""TRL's trainer where ours differs: order of rows, checkpoints that are whole or not there, and exact resumption."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from peft import PeftModel
from torch.utils.data import Sampler
from transformers import PrinterCallback, TrainerCallback
from trl import SFTTrainer

from pipeline.errors import UserError
from pipeline.training.callbacks import EarlyStopping, Meter, diverged
from pipeline.training.checkpoints import damage, newest_step, rotate, written_whole
from pipeline.training.interruption import EvaluationStopped

Callback = TypeVar("Callback", bound=TrainerCallback)


class SortedWithinUpdates(Sampler[int]):
    """A new random order each epoch, in which the rows of one update stand longest first.

    The micro-batches of an update then need little padding, and what an update learns from is as random as without. (To
    group by length over many updates, as Transformers offers, puts like tasks together: the starter lost two points.)
    """

    def __init__(self, lengths: Sequence[int], update_size: int, seed: int) -> None:
        """For rows of these `lengths` in tokens, `update_size` of them an update."""
        self.lengths = lengths
        self.update_size = update_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer, also when it resumes: the order follows from seed and epoch alone."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        for start in range(0, len(order), self.update_size):
            yield from sorted(order[start : start + self.update_size], key=self.lengths.__getitem__, reverse=True)

    def __len__(self) -> int:
        return len(self.lengths)


class Trainer(SFTTrainer):
    """SFTTrainer with our row order, checkpoints and checks.

    Every hook that is overridden here is called by `_inner_training_loop` of Transformers 5.17's Trainer.
    """

    def __init__(
        self, *args: Any, conversations: int, save_total_limit: int, libraries: dict[str, str], **kwargs: Any
    ) -> None:
        """SFTTrainer's arguments; conversations in the training split; checkpoints kept, and the versions they name."""
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)  # ShowProgress takes its place
        if isinstance(self.model, PeftModel):  # whose adapter TRL casts to bf16 on a 4-bit base
            for parameter in self.model.parameters():
                parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
        self.conversations = conversations
        self.keep = save_total_limit
        self.libraries = libraries
        self.begun = False

    def find(self, kind: type[Callback]) -> Callback | None:
        """The callback of that kind, which on resumption is not the one that was handed in."""
        return next((c for c in self.callback_handler.callbacks if isinstance(c, kind)), None)

    @property
    def meter(self) -> Meter:
        """The meter of this training."""
        return cast(Meter, self.find(Meter))

    @property
    def best_step(self) -> int | None:
        """The step with the best validation loss so far, where early stopping asks for it."""
        stopping = self.find(EarlyStopping)
        return stopping.best_step if stopping else None

    @property
    def validation_loss(self) -> float | None:
        """That of the best step, or the last one."""
        wanted = [entry for entry in self.state.log_history if "eval_loss" in entry]
        if self.best_step is not None:
            wanted = [entry for entry in wanted if entry["step"] == self.best_step]
        return round(wanted[-1]["eval_loss"], 5) if wanted else None

    def take_best(self) -> None:
        """Takes the weights of the best step, if those are not the present ones.

        Raises:
            UserError: its checkpoint is damaged.
        """
        if self.best_step in (None, self.state.global_step):
            return
        best = Path(cast(str, self.args.output_dir)) / f"checkpoint-{self.best_step}"
        wrong = damage(best)
        if wrong is not None:
            folder = best.parent.name
            raise UserError(
                f"{best}, with the best weights, {wrong}; `make checkpoints PRUNE={folder}`, then train anew"
            )
        self._load_from_checkpoint(str(best))

    @property
    def trained_model(self) -> torch.nn.Module:
        """The model; SFTTrainer's types call it optional, which it is not once built."""
        return cast(torch.nn.Module, self.model)

    def evaluated(self) -> bool:
        """Whether the current step has its validation loss."""
        history = self.state.log_history
        return any("eval_loss" in entry and entry["step"] == self.state.global_step for entry in history)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Leaves out the README.md that TRL writes beside the checkpoints."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        args = self.args
        update_size = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        return SortedWithinUpdates([len(ids) for ids in rows["input_ids"]], update_size, args.seed)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if not self.begun:
            self._begin()
        # Transformers takes one step more before it looks whether the end was reached before.
        if not self.control.should_training_stop and self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)

    def _begin(self) -> None:
        """What a resumed training makes good before its first update."""
        self.begun = True
        self.state.compute_steps(self.args, self.state.max_steps)  # not those that the checkpoint was made with
        self._tr_loss += self.meter.unlogged_loss
        self._globalstep_last_logged = self.meter.last_logged
        step = self.state.global_step
        missed = step and step % cast(int, self.args.eval_steps) == 0 and not self.evaluated()
        if missed and not self.control.should_training_stop:
            self._evaluate(None, None)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """SFTTrainer's, without a trace in the random state: when it is measured does not change what is learnt."""
        try:
            with torch.random.fork_rng():
                return super().evaluate(*args, **kwargs)
        except torch.OutOfMemoryError as error:
            size = self.args.per_device_eval_batch_size
            raise UserError(f"the GPU's memory is too small for train.eval_batch_size {size}; lower it") from error

    def _evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        try:
            return super()._evaluate(*args, **kwargs)
        except EvaluationStopped:
            self.control.should_save = self.control.should_training_stop = True
            return {}

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Runs before each update, so that nothing is learnt from a broken gradient."""
        grad_norm = super()._get_grad_norm(model, grad_norm)
        loss, norm = float(self._tr_loss), float(grad_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._refuse(f"loss {loss:.4g}, gradient norm {norm:.4g}", self.state.global_step + 1)
        return grad_norm

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if not all(p.isfinite().all() for p in self.trained_model.parameters() if p.requires_grad):
            self._refuse("weights are not finite", self.state.global_step)
        self.meter.unlogged_loss, self.meter.last_logged = float(self._tr_loss), self._globalstep_last_logged
        folder = Path(cast(str, self.args.output_dir))
        with written_whole(folder / f"checkpoint-{self.state.global_step}", self.libraries):
            super()._save_checkpoint(model, trial)
        rotate(folder, self.keep, self.state.global_step, self.best_step)

    def _refuse(self, what: str, step: int) -> None:
        raise UserError(diverged(step, what, newest_step(Path(cast(str, self.args.output_dir)))))
