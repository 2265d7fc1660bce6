"""One training from beginning to end: built from the settings, gone on with, on less at once where the GPU is full."""

import logging
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback, set_seed
from trl import SFTConfig

from common.errors import UserError
from common.words import counted
from pipeline.core.config import OPTIMIZERS, Config, TrainSettings
from pipeline.core.records import LEARNT_FROM
from pipeline.models.loading import device_name
from pipeline.tracking.progress_bar import ShowProgress
from pipeline.tracking.run import Run
from pipeline.training import micro_batch
from pipeline.training.callbacks import EarlyStopping, Meter, RefuseBrokenLoss, StopAt, Track
from pipeline.training.checkpoints import library_versions, newest_complete
from pipeline.training.collectives import broadcast, main_process_first
from pipeline.training.comparisons import Comparisons, Labelled
from pipeline.training.engines import Engine, engine
from pipeline.training.interruption import EvaluationStopped, Interruption, StopWhenAsked
from pipeline.training.plan import Plan, choose_compile, this_card
from pipeline.training.preference_trainer import PreferenceTrainer, Unlogged
from pipeline.training.reference import Reference
from pipeline.training.report import operations
from pipeline.training.rows import compared, supervised
from pipeline.training.shared import TRAININGS, Kept, free_memory
from pipeline.training.start import go_on_from
from pipeline.training.trainer import Trainer
from pipeline.training.trial import FollowTrial
from pipeline.training.updates import Conversations, Layout
from pipeline.workers.ranks import rank, world

logger = logging.getLogger(__name__)

CONVERSATIONS: dict[str, Kept[Conversations]] = {name: Kept() for name in LEARNT_FROM}
COMPARISONS: dict[str, Kept[Comparisons]] = {name: Kept() for name in LEARNT_FROM}
FITTING: Kept[tuple[int, bool, str]] = Kept()  # rows at once, whether activations are recomputed, and why
OWN_LOSS: Kept[bool] = Kept()  # whether the model keeps its own
# What takes no memory: the rate's course, how long it goes on, and what happens between updates.
COURSE = (
    "lr", "scheduler", "warmup_ratio", "min_lr_ratio", "decay_ratio", "weight_decay", "max_grad_norm", "epochs",
    "max_steps", "stop_step", "patience", "save_steps", "save_total_limit", "eval_steps", "eval_batch_size",
    "logging_steps", "check_export",
)  # fmt: skip


@dataclass(frozen=True)
class Session:
    """What is trained, how, on what, and where its checkpoints are."""

    config: Config
    tokenizer: PreTrainedTokenizerBase  # of `load_tokenizer`
    plan: Plan
    device: str  # cpu or cuda
    folder: Path
    base: str | None = None  # its digest; without one, its weights are kept for no other training
    trial: FollowTrial | None = None  # where it is one of a sweep

    @property
    def engine(self) -> Engine:
        """What loads the model."""
        return engine(self.plan.engine)

    @property
    def sharded(self) -> bool:
        """Whether several processes share the weights; an adapter is small."""
        return world() > 1 and self.config.train.method == "full" and self.engine.shards

    def checkpoint(self) -> Path | None:
        """Return the one to go on from, if any."""
        return broadcast(lambda: newest_complete(self.folder, self.config.train.stop_step))

    def train(self, checkpoint: Path | None, run: Run, interruption: Interruption) -> Trainer:
        """Train from `checkpoint` to the end; a full GPU halves the micro-batch once, from the newest checkpoint on.

        Of several processes the one whose GPU is full ends, and the others with it: they wait for it, and what it has
        done of an update it cannot take back.

        Raises:
            Interrupted: a request to stop; a checkpoint has been saved.
            UserError: the training diverged, or the GPU or the disk is too small.
        """
        trainer = self.trainer()
        logger.info(self.plan)
        size = broadcast(lambda: self.find_batch_size(trainer))
        if not self.attempt(trainer, size, checkpoint, run, interruption):
            if world() > 1:
                self.give_up(size, f"{counted(size.rows, 'row')} at once on GPU {trainer.args.local_process_index}")
            del trainer
            size, checkpoint = self.smaller(size), self.checkpoint()
            start = "the start" if checkpoint is None else checkpoint.name
            logger.info(f"the GPU's memory is full: on from {start}, {counted(size.rows, 'row')} at once")
            free_memory()
            trainer = self.trainer()
            if not self.attempt(trainer, size, checkpoint, run, interruption):
                self.give_up(size, f"{counted(size.rows, 'row')} at once, too")
        interruption.raise_if_asked()
        if not trainer.evaluated():
            with suppress(EvaluationStopped):
                trainer.evaluate()
            interruption.raise_if_asked()
        trainer.take_best()
        return trainer

    def give_up(self, size: micro_batch.BatchSize, rows: str) -> NoReturn:
        """End with a full GPU; the next start goes on with less at once.

        Raises:
            UserError: always.
        """
        smaller = self.smaller(size)
        micro_batch.record(self.folder, smaller)
        raise UserError(f"the GPU's memory is full with {rows}; run again, to go on with {smaller.rows}")

    def attempt(
        self,
        trainer: Trainer,
        size: micro_batch.BatchSize,
        checkpoint: Path | None,
        run: Run,
        interruption: Interruption,
    ) -> bool:
        """Train until the end or a request to stop; False if the GPU does not hold what goes through it at once."""
        free_memory()  # which the search for it has taken
        if rank() == 0:
            micro_batch.record(self.folder, size)
        if size.compile:
            lora, dtype = self.config.train.lora, self.config.train.frozen_dtype
            TRAININGS.compile((self.base, self.plan.attention, size.checkpointing, lora, dtype))
        trainer.use(size.rows, size.checkpointing, size.compile)
        progress = ShowProgress()
        for callback in (Track(run), progress, StopWhenAsked(interruption)):
            trainer.add_callback(callback)
        if self.trial is not None:
            trainer.add_callback(self.trial)
            trainer.args.eval_on_start = checkpoint is None and self.trial.starts_with_evaluation
            trainer.measures_accuracy = self.trial.task.measure_accuracy
        try:
            with progress.bar, interruption.deferred():
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        except torch.OutOfMemoryError:
            return False
        return True

    def find_batch_size(self, trainer: Trainer) -> micro_batch.BatchSize:
        """Return how much goes through the model at once: as before, as set, or as the card allows; say why."""
        settings = self.config.train
        requested = f"{settings.batch_size} {settings.gradient_checkpointing} {settings.compile} {self.plan.attention}"
        requested += f" {'packed' if self.plan.packing else 'padded'}"
        requested += f" {world()} processes" if world() > 1 else ""  # which have use for fewer rows each
        size = micro_batch.recorded(self.folder, self.device, requested)
        if size is not None:
            logger.info(f"  {size}: as before")
            return size
        rows = None if settings.batch_size == "auto" else settings.batch_size
        checkpointing = None if settings.gradient_checkpointing == "auto" else bool(settings.gradient_checkpointing)
        if self.engine.recomputes:
            checkpointing = trainer.args.gradient_checkpointing
        if self.device == "cpu":
            rows = rows or micro_batch.cpu_rows(trainer)
            checkpointing, why = bool(checkpointing), "more are no faster on a CPU"
        elif self.sharded:  # what it takes shows when the weights are shared out
            rows, checkpointing = rows or 1, checkpointing is not False
            why = "not tried, as weights are shared; train.batch_size may be more"
        else:
            rows, checkpointing, why = self.fitting(trainer, rows, checkpointing)
        share = operations(trainer, trainer.tokens_to_train()) / world()
        compiled, why_compiled = choose_compile(settings, self.plan, this_card(self.device), share)
        size = micro_batch.BatchSize(device_name(self.device), requested, rows, checkpointing, compiled)
        logger.info(f"  {size}: {why}; {why_compiled}")
        return size

    def fitting(self, trainer: Trainer, rows: int | None, checkpointing: bool | None) -> tuple[int, bool, str]:
        """Return what the card holds; tried once for trainings that are alike."""
        most = trainer.rows_of_use()
        key = (self.alike, most)
        return FITTING.get(key, lambda: micro_batch.rows_and_checkpointing(trainer, rows, checkpointing, most))

    @property
    def alike(self) -> object:
        """What is equal for trainings of this process that differ in their course alone."""
        if self.base is None:
            return object()
        return self.base, self.plan, CONVERSATIONS["train"].made, beside_course(self.config.train)

    def smaller(self, size: micro_batch.BatchSize) -> micro_batch.BatchSize:
        """Return half as many rows, or one row with its activations recomputed where that was not asked against."""
        if size.rows == 1 and not size.checkpointing and self.config.train.gradient_checkpointing == "auto":
            return replace(size, checkpointing=True)
        return replace(size, rows=micro_batch.halved(size.rows))

    def trainer(self) -> Trainer:
        """Return our trainer over the prepared splits, one conversation at a time until it is told more.

        Raises:
            UserError: the model or the rows are not fit to be trained with.
        """
        settings, tokenizer = self.config.train, self.tokenizer
        if self.sharded and OPTIMIZERS[settings.optimizer]:  # whose states are no plain tensors
            raise UserError(
                f"train.optimizer={settings.optimizer} cannot share its states over GPUs; take adamw_torch_fused"
            )
        set_seed(settings.seed)  # an adapter starts from random matrices, also in a sweep's second job
        # That the configuration in memory is given the tokenizer's ends: no file and no row depends on it.
        logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)
        layout = Layout(1, self.plan.packing, settings.max_length, self.plan.few_counts)
        preference = settings.preference
        with main_process_first():
            read = self.comparisons if preference.loss else self.conversations
            splits = {name: read(name, layout) for name in LEARNT_FROM}
        callbacks: list[TrainerCallback] = [Meter(), RefuseBrokenLoss()]
        if preference.loss:
            callbacks.append(Unlogged())
        if settings.stop_step:
            callbacks.append(StopAt(settings.stop_step))
        if settings.patience:
            callbacks.append(EarlyStopping(settings.patience))
        trainer = (PreferenceTrainer if preference.loss else Trainer)(
            model=self.engine.load(self.plan, self.config.model, settings, self.device, self.base),
            args=self.arguments(),
            train_dataset=splits["train"][0],
            eval_dataset=splits["validation"][0],
            processing_class=tokenizer,
            callbacks=callbacks,
            conversations={name: tensors for name, (_, tensors) in splits.items()},
            update_size=settings.update_size,
            eval_rows=settings.eval_batch_size,
            decay_ratio=settings.decay_ratio,
            save_total_limit=settings.save_total_limit,
            libraries=library_versions(self.engine),
            sharded=self.sharded,
            offload=self.engine.offloads and settings.gradient_checkpointing == "offload",
        )
        if OWN_LOSS.get(self.alike, trainer.keep_own_loss):
            trainer.keep_own_loss()  # also where that was found by a training before
            logger.warning(f"{self.config.model.name} learns by its own loss, slower: ours would be another one")
        if isinstance(trainer, PreferenceTrainer):
            trainer.learn_from(preference)
        self.start(trainer)
        return trainer

    def start(self, trainer: Trainer) -> None:
        """Begin with the adapter that is gone on from, and keep what the model is held against: an adapter, each time.

        The base is one without effect.
        """
        train = self.config.train
        held = isinstance(trainer, PreferenceTrainer) and train.preference.has_reference
        of_base = Reference(trainer.trained_model) if held and train.preference.reference == "base" else None
        if train.start_adapter:
            go_on_from(trainer.trained_model, Path(train.start_adapter))
        if isinstance(trainer, PreferenceTrainer) and held:
            trainer.reference = of_base or Reference(trainer.trained_model)

    def conversations(self, split: str, layout: Layout) -> tuple[Dataset, Conversations]:
        """Return a split's conversations, tokenized, and as tensors, which are kept until others are asked for."""
        settings, tokenizer = self.config.train, self.tokenizer
        most = settings.max_truncated if split == "train" else 1.0
        rows = supervised(split, tokenizer, settings.max_length, most, settings.loss_on)

        def read() -> Conversations:
            return Conversations(in_memory(rows), layout, tokenizer.pad_token_id)

        return rows, CONVERSATIONS[split].get(rows, read).laid_out(layout)

    def comparisons(self, split: str, layout: Layout) -> tuple[Dataset, Comparisons]:
        """Return a split's answers that are compared, tokenized, and as tensors with what is replayed beside them."""
        settings, tokenizer, preference = self.config.train, self.tokenizer, self.config.train.preference
        most = settings.max_truncated if split == "train" else 1.0
        pairs = preference.loss != "kto"
        rows, found = compared(split, tokenizer, settings.max_length, most, pairs)
        share = preference.replay if split == "train" else 0.0
        beside = supervised(split, tokenizer, settings.max_length, most, settings.loss_on) if share else None
        wide = replace(layout, together=2 if pairs else 1)

        def read() -> Comparisons:
            replayed = None if beside is None else in_memory(beside)
            return Comparisons(
                in_memory(rows), found, wide, tokenizer.pad_token_id, replayed, share, preference.loss == "kto"
            )

        return rows, COMPARISONS[split].get((rows, beside, share, preference.loss), read).laid_out(wide)

    def arguments(self) -> SFTConfig:
        """Return our settings in the trainer's words; it sees an update as one batch."""
        settings = self.config.train
        arguments = SFTConfig(
            output_dir=str(self.folder),
            use_cpu=self.device == "cpu",
            bf16=self.device == "cuda",
            learning_rate=settings.lr,
            **schedule(settings),
            warmup_steps=settings.warmup_ratio,  # a share of all steps where it is below 1
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            optim=settings.optimizer,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=1,
            num_train_epochs=settings.epochs,
            max_steps=settings.max_steps or -1,
            max_length=settings.max_length,
            dataset_kwargs={"skip_prepare_dataset": True},  # the rows are tokenized, marked and cut
            loss_type="nll",  # not TRL's own head; see training/loss.py
            gradient_checkpointing=self.engine.recomputes and settings.gradient_checkpointing is not False,
            ddp_find_unused_parameters=False,
            seed=settings.seed,
            data_seed=settings.seed,
            save_steps=settings.save_steps,
            eval_strategy="steps",
            eval_steps=settings.eval_steps,
            logging_steps=settings.logging_steps,
            logging_nan_inf_filter=False,
            disable_tqdm=True,
            log_level_replica="error",  # the first process warns for all
            restore_callback_states_from_checkpoint=True,
            report_to="none",
        )
        arguments._n_gpu = 1  # of several visible ones; DataParallel would multiply the batch
        return arguments


def beside_course(train: TrainSettings) -> dict[str, object]:
    """Return the settings of a training but those of its course."""
    return {key: value for key, value in asdict(train).items() if key not in COURSE}


def in_memory(rows: Dataset) -> Labelled:
    """Return tokenized rows at once; they would be read row by row."""
    return rows.with_format("numpy")[:]


def schedule(train: TrainSettings) -> dict[str, Any]:
    """Return the learning rate's course in Transformers' words: a schedule with a minimum has another name there."""
    least = train.min_lr_ratio
    if train.scheduler == "warmup_stable_decay":  # the steps of its decay are known later
        more: dict[str, Any] = {"min_lr_ratio": least, "decay_type": "linear"}
        return {"lr_scheduler_type": train.scheduler, "lr_scheduler_kwargs": more}
    if not least:
        return {"lr_scheduler_type": train.scheduler}
    if train.scheduler == "cosine":
        return {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": least}}
    return {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 1.0, "lr_end": least * train.lr}}
