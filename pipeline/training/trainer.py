"""TRL's trainer where ours differs: what an update is, checkpoints that are whole or not there, exact resumption."""

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import torch
from peft import PeftModel
from torch.optim.lr_scheduler import LRScheduler
from transformers import PrinterCallback, TrainerCallback
from trl import SFTTrainer

from common.errors import UserError
from pipeline.training import sharding
from pipeline.training.activation_offload import ActivationOffloading
from pipeline.training.callbacks import EarlyStopping, Meter, busy_after, diverged
from pipeline.training.checkpoints import damage, newest_step, rotate, written_whole
from pipeline.training.collectives import barrier
from pipeline.training.interruption import EvaluationStopped
from pipeline.training.lora import Model, forget, without_adapter
from pipeline.training.loss import HitRate, check_loss
from pipeline.training.updates import Conversations, Inputs, MicroBatch, UpdateLoader, Updates
from pipeline.workers.ranks import rank

# How far our loss may be from a model's own, as parts of it: float32 rounds by 1e-7, bf16 by 4e-3.
NEAR, NEAR_IN_BF16 = 1e-3, 5e-2
Callback = TypeVar("Callback", bound=TrainerCallback)


class Unchecked(NamedTuple):
    """What shows whether an update is broken, on its way from the GPU."""

    step: int
    figures: torch.Tensor  # sum of losses since the last log line, gradient norm
    arrived: torch.cuda.Event | None  # None on a CPU, where they are there


class Trainer(SFTTrainer):
    """SFTTrainer with our updates, evaluation, checkpoints and checks.

    Every hook that is overridden here is called by `_inner_training_loop` of Transformers 5.17's Trainer.
    """

    def __init__(
        self,
        *args: Any,
        conversations: dict[str, Conversations],
        update_size: int,
        eval_rows: int,
        decay_ratio: float | None,
        save_total_limit: int,
        libraries: dict[str, str],
        sharded: bool = False,
        offload: bool = False,
        **kwargs: Any,
    ) -> None:
        """Take SFTTrainer's arguments, and what it is told of updates and checkpoints.

        Args:
            *args: SFTTrainer's.
            conversations: those of `train` and `validation`.
            update_size: conversations that an update learns from, over all processes.
            eval_rows: conversations of full length at once in evaluation.
            decay_ratio: the share of all updates at the end in which the rate falls, for a schedule that is told it.
            save_total_limit: checkpoints kept.
            libraries: versions that they name.
            sharded: whether each process holds a part of the weights; else all of them.
            offload: whether what the backward pass needs waits in main memory.
            **kwargs: SFTTrainer's.
        """
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)  # ShowProgress takes its place
        if isinstance(self.model, PeftModel):  # whose adapter TRL casts to bf16 on a 4-bit base
            for parameter in self.model.parameters():
                parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
        self.conversations = conversations
        self.update_size = update_size
        self.eval_rows = eval_rows
        self.decay_ratio = decay_ratio
        self.keep = save_total_limit
        self.libraries = libraries
        self.sharded = sharded
        self.saved: AbstractContextManager[object] = (
            ActivationOffloading(self.trained_model) if offload else nullcontext()
        )
        self.measures_accuracy = False  # beside the validation loss
        self.begun = False
        self.unchecked: Unchecked | None = None

    @property
    def row_tokens(self) -> int:
        """Tokens of one row at most."""
        learnt = self.conversations["train"]
        return learnt.layout.row_tokens if learnt.layout.packed else max(learnt.lengths)

    def use(self, rows: int, checkpointing: bool, compiled: bool) -> None:
        """Train with so many conversations of full length at once, activations recomputed or kept, layers compiled."""
        # On a GPU, evaluation takes no more at once than training, whose memory it then finds enough.
        eval_rows = self.eval_rows if self.args.device.type == "cpu" else min(self.eval_rows, rows)
        for name, at_once in (("train", rows), ("validation", eval_rows)):
            self.conversations[name].layout = replace(self.conversations[name].layout, rows=at_once)
        self.args.gradient_checkpointing = checkpointing
        if compiled:
            compile_layers(self.trained_model)
        if self.sharded:
            sharding.shard(self.trained_model, self.args.bf16)

    def updates(self) -> Updates:
        """Return what this process learns from, update by update."""
        args = self.args
        return Updates(self.conversations["train"], self.update_size, args.seed, args.process_index, args.world_size)

    def rows_of_use(self) -> int:
        """Return rows at once that hold the largest update of the first epoch whole."""
        learnt = self.conversations["train"]
        largest = max(sum(learnt.lengths[row] for row in rows) for rows in self.updates().rows())
        tokens = largest if learnt.layout.packed else self.update_size * self.row_tokens
        return -(-tokens // self.args.world_size // self.row_tokens)

    def tokens_to_train(self) -> int:
        """Return tokens in all updates of the training, about."""
        learnt, args = self.conversations["train"], self.args
        steps = args.max_steps if args.max_steps > 0 else len(self.updates()) * args.num_train_epochs
        return int(steps * self.update_size * sum(learnt.lengths) / len(learnt))

    def memory_of(self, rows: int, checkpointing: bool) -> tuple[int, int]:
        """Return bytes on the GPU, at their most, while the longest conversations go forward and back.

        And their tokens.
        """
        learnt, model = self.conversations["train"], self.trained_model
        learnt.layout = replace(learnt.layout, rows=len(learnt))
        longest = sorted(range(len(learnt)), key=learnt.lengths.__getitem__, reverse=True)
        indices: list[int] = []
        tokens = 0
        while tokens < rows * self.row_tokens:
            indices.append(longest[len(indices) % len(longest)])
            tokens += learnt.lengths[indices[-1]] if learnt.layout.packed else self.row_tokens
        if checkpointing:
            model.gradient_checkpointing_enable(self.args.gradient_checkpointing_kwargs)
        elif self.args.gradient_checkpointing is False:
            model.gradient_checkpointing_disable()
        model.train()
        torch.cuda.reset_peak_memory_stats()
        try:
            with torch.random.fork_rng(), self.accelerator.autocast():
                loss = self.compute_loss(model, learnt[MicroBatch(indices, tokens, tokens)])
            loss.backward()
        finally:
            forget(model)
            model.zero_grad(set_to_none=True)
        return torch.cuda.max_memory_allocated(), tokens

    def find(self, kind: type[Callback]) -> Callback | None:
        """Return the callback of that kind, which on resumption is not the one that was handed in."""
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
        evaluations = [entry for entry in self.state.log_history if "eval_loss" in entry]
        if self.best_step is not None:
            evaluations = [entry for entry in evaluations if entry["step"] == self.best_step]
        return round(evaluations[-1]["eval_loss"], 5) if evaluations else None

    @property
    def validation_accuracy(self) -> float | None:
        """The share of validation's supervised tokens that the model would have chosen, where it was measured last."""
        measured = [entry["eval_accuracy"] for entry in self.state.log_history if "eval_accuracy" in entry]
        return round(measured[-1], 5) if measured else None

    def take_best(self) -> None:
        """Take the weights of the best step, if those are not the present ones.

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
                f"{best}, with the best weights, {wrong}; `tunesmith checkpoints --prune {folder}`, then train anew"
            )
        self._load_from_checkpoint(str(best))

    @property
    def trained_model(self) -> Model:
        """The model; SFTTrainer's types call it optional, which it is not once built."""
        return cast(Model, self.model)

    @property
    def learner(self) -> Any:
        """The model that PEFT has put adapters into, which learn_from_supervised gives more attributes."""
        return without_adapter(self.trained_model)

    @property
    def stepped(self) -> tuple[torch.optim.Optimizer, LRScheduler]:
        """What takes a step each update; Transformers' types call it optional, which it is not in training."""
        return cast(tuple[torch.optim.Optimizer, LRScheduler], (self.optimizer, self.lr_scheduler))

    def evaluated(self) -> bool:
        """Return whether the current step has its validation loss."""
        history = self.state.log_history
        return any("eval_loss" in entry and entry["step"] == self.state.global_step for entry in history)

    def create_model_card(self, *_: object, **__: object) -> None:
        """Leave out the README.md that TRL writes beside the checkpoints."""

    def get_train_dataloader(self) -> UpdateLoader:
        """Return updates in the place of batches: Transformers counts, skips and resumes them as such."""
        return UpdateLoader(self.conversations["train"], self.updates(), pin=self.args.device.type == "cuda")

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """Tell the schedule how many updates its share is."""
        if self.decay_ratio is not None:
            kwargs = cast(dict[str, Any], self.args.lr_scheduler_kwargs)
            kwargs["num_decay_steps"] = math.ceil(self.decay_ratio * num_training_steps)
        return super().create_scheduler(num_training_steps, optimizer)

    def training_step(self, model: torch.nn.Module, inputs: Any, num_items_in_batch: object = None) -> torch.Tensor:
        """Return one update's gradients, micro-batch by micro-batch; its loss, of no gradient."""
        model.train()
        losses, inputs = [], list(self.settled(iter(inputs)))
        for number, micro_batch in enumerate(inputs, start=1):
            # Gradients in shards add up there: whole ones would take the memory that sharding saves.
            synced = number == len(inputs) or self.sharded
            with nullcontext() if synced else self.accelerator.no_sync(model):
                loss = self.compute_loss(model, micro_batch)
                self.accelerator.backward(loss)
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def settled(self, inputs: Iterator[Inputs]) -> Iterator[Inputs]:
        """Do what an update, or an evaluation, wants before its loss, and return the micro-batches of that."""
        return inputs

    def compute_loss(
        self, model: torch.nn.Module, inputs: Mapping[str, object], *_: object, **__: object
    ) -> torch.Tensor:
        """Return a micro-batch's share of the mean loss over the supervised tokens of its update, on all processes.

        It is multiplied by their number, since gradients and logged losses are averaged over them.
        """
        unused = ("labels", "tokens") if self.learns_from_supervised else ("positions", "targets", "tokens")
        with self.saved:
            return model(**self.moved(inputs, inputs.keys() - set(unused))).loss * self.args.world_size

    def moved(self, inputs: Mapping[str, object], keys: Collection[str]) -> dict[str, torch.Tensor]:
        """Return some of a micro-batch, on the device; numbers, which a few of it are, as they are."""
        found = {key: cast(torch.Tensor, value) for key, value in inputs.items() if key in keys}
        return {
            key: value.to(self.args.device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for key, value in found.items()
        }

    def keep_own_loss(self) -> bool:
        """See on the shortest conversation whether our loss is the model's; if not, the model keeps its own.

        Returns:
            Whether it does.
        """
        if not self.learns_from_supervised:
            return False
        inputs, on_cpu = self.conversations["train"].shortest(), self.args.device.type == "cpu"

        def compute() -> torch.Tensor:
            with self.accelerator.autocast():
                return Trainer.compute_loss(self, self.trained_model, inputs)

        try:
            return not check_loss(without_adapter(self.trained_model), compute, NEAR if on_cpu else NEAR_IN_BF16)
        finally:
            forget(self.trained_model)

    @property
    def learns_from_supervised(self) -> bool:
        """Whether the model takes positions and targets in the place of labels."""
        return bool(getattr(without_adapter(self.trained_model), "learns_from_supervised", False))

    def floating_point_ops(self, inputs: object) -> int:
        """Return 0: they are not counted here; see report.py."""
        return 0

    def _track_num_input_tokens(self, inputs: list[Inputs]) -> None:
        self.state.num_input_tokens_seen += inputs[0]["tokens"]

    def _run_epoch(self, *args: object, **kwargs: object) -> None:
        if not self.begun:
            self._begin()
        # Transformers takes one step more before it looks whether the end was reached before.
        if not self.control.should_training_stop and self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)

    def _begin(self) -> None:
        """Make good what a resumed training must before its first update."""
        self.begun = True
        self.state.compute_steps(self.args, self.state.max_steps)  # not those that the checkpoint was made with
        self._tr_loss += self.meter.unlogged_loss
        self._globalstep_last_logged = self.meter.last_logged
        step = self.state.global_step
        missed = step and step % cast(int, self.args.eval_steps) == 0 and not self.evaluated()
        if missed and not self.control.should_training_stop:
            self._evaluate(None, None)

    def evaluate(self, *_: object, **__: object) -> dict[str, float]:
        """Return the mean loss over the supervised tokens of the validation split, in nats; and accuracy, if wanted.

        Without a trace in the random state: when it is measured does not change what is learnt. Not compiled, since the
        layers would have to be once more.

        Raises:
            UserError: the GPU does not hold as many rows as are asked for.
        """
        held_out, args = self.conversations["validation"], self.args
        model = self.model_wrapped
        model.eval()
        self.watch()
        parts = held_out.split(range(len(held_out)), args.process_index, args.world_size)
        try:
            with torch.random.fork_rng(), torch.no_grad(), torch.compiler.set_stance("force_eager"):
                losses = []
                for inputs in self.settled(held_out[part] for part in parts):
                    losses.append(self.compute_loss(model, inputs))
                    self.control = self.callback_handler.on_prediction_step(args, self.state, self.control)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"the GPU's memory is too small for train.eval_batch_size {self.eval_rows}; lower it"
            ) from error
        loss = self.accelerator.reduce(torch.stack(losses).sum(), "mean")
        metrics = {"eval_loss": loss.item(), **self.watched()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(args, self.state, self.control, metrics)
        return metrics

    def watch(self) -> None:
        """Count, while validation is measured, what the model would have chosen, if that is wanted."""
        counts = self.measures_accuracy and self.learns_from_supervised
        self.learner.hit_rate = HitRate(self.args.device) if counts else None

    def watched(self) -> dict[str, float]:
        """Return what was counted of validation, and count no more."""
        found, self.learner.hit_rate = self.learner.hit_rate, None
        if found is None:
            return {}
        hits, tokens = self.accelerator.reduce(found.counts, "sum").tolist()
        return {"eval_accuracy": hits / tokens}

    def _evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        try:
            return super()._evaluate(*args, **kwargs)
        except EvaluationStopped:
            self.control.should_save = self.control.should_training_stop = True
            return {}

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: torch.Tensor | None = None) -> torch.Tensor:
        """Run before each update, so that nothing is learnt from a broken gradient.

        To wait for the figures here would leave the GPU without work. An optimizer that can is told to leave a broken
        update out, and the figures are looked at before the next one, a log line or a checkpoint.
        """
        self.check_update()
        grad_norm = super()._get_grad_norm(model, grad_norm)
        figures = torch.stack([self._tr_loss.float(), grad_norm.float()])
        on_host = figures.to("cpu", non_blocking=True)
        self.unchecked = Unchecked(self.state.global_step + 1, on_host, torch.cuda.Event() if figures.is_cuda else None)
        optimizer: Any = getattr(self.optimizer, "optimizer", self.optimizer)  # Accelerate's wrapper around it
        if self.unchecked.arrived is None or self.sharded or not getattr(optimizer, "_step_supports_amp_scaling", None):
            self.check_update()
        else:
            self.unchecked.arrived.record()
            optimizer.found_inf = (~figures.isfinite()).any().float()
        return grad_norm

    def check_update(self) -> None:
        """Wait for the newest update's loss and gradient norm.

        Raises:
            UserError: they are broken.
        """
        if self.unchecked is None:
            return
        if self.unchecked.arrived is not None:
            self.unchecked.arrived.synchronize()
        loss, norm = self.unchecked.figures.tolist()
        step, self.unchecked = self.unchecked.step, None
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._refuse(f"loss {loss:.4g}, gradient norm {norm:.4g}", step)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        if busy_after(self.control):
            self.check_update()
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        if not all(p.isfinite().all() for p in self.trained_model.parameters() if p.requires_grad):
            self._refuse("weights are not finite", self.state.global_step)
        unlogged = self.accelerator.reduce(self._tr_loss.clone(), "mean")
        self.meter.unlogged_loss, self.meter.last_logged = float(unlogged), self._globalstep_last_logged
        folder = Path(cast(str, self.args.output_dir))
        with written_whole(folder / f"checkpoint-{self.state.global_step}", self.libraries, barrier):
            super()._save_checkpoint(model, trial)
        if rank() == 0:
            rotate(folder, self.keep, self.state.global_step, self.best_step)

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        return sharding.plain(super()._clip_grad_norm(model))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the model, or its adapter; all processes take part, the first one writes."""
        if not self.sharded:
            super().save_model(output_dir, _internal_call)
            return
        whole = sharding.whole_weights(self.trained_model)
        if rank() == 0:
            self._save(output_dir, state_dict=whole)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.sharded:
            sharding.save(*self.stepped, Path(output_dir))
        else:
            super()._save_optimizer_and_scheduler(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.args.world_size > 1:  # which Transformers cannot on a CPU
            sharding.load(*self.stepped, Path(checkpoint))
        else:
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if self.sharded:
            sharding.load_weights(self.trained_model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _refuse(self, what: str, step: int) -> None:
        raise UserError(diverged(step, what, newest_step(Path(cast(str, self.args.output_dir)))))


def compile_layers(model: Model) -> None:
    """Compile a model's decoder layers, all from the same graphs, for rows of any length.

    Raises:
        UserError: it has none by the name that nearly all models give them.
    """
    base = without_adapter(model)
    layers = getattr(base.base_model, "layers", None)
    if layers is None:
        raise UserError(f"{type(base).__name__} cannot be compiled layer by layer; set train.compile=false")
    # Else numbers such as a norm's epsilon become inputs that are computed with on the CPU, by kernels that a C++
    # compiler is started for: half a minute at every start.
    torch._dynamo.config.specialize_float = True
    for layer in layers:
        layer.compile(dynamic=True)
