"""One training from beginning to end: built from the settings, gone on with, on less at once where the GPU is full."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import set_seed
from trl import SFTConfig

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.tracking import Run
from pipeline.training import micro_batch
from pipeline.training.bar import ShowProgress
from pipeline.training.callbacks import EarlyStopping, Meter, RefuseBrokenLoss, StopAt, Track
from pipeline.training.chat import load_tokenizer
from pipeline.training.checkpoints import library_versions, newest_complete
from pipeline.training.engines import load_model
from pipeline.training.interruption import EvaluationStopped, Interruption, StopWhenAsked
from pipeline.training.rows import PackedCollator, packed, supervised
from pipeline.training.trainer import Trainer


@dataclass(frozen=True)
class Job:
    """What is trained, by what, on what, and where its checkpoints are."""

    config: Config
    engine: str  # trl or unsloth
    device: str  # cpu or cuda
    folder: Path

    def checkpoint(self) -> Path | None:
        """The one to go on from, if any."""
        return newest_complete(self.folder, self.config.train.stop_step)

    def train(self, checkpoint: Path | None, run: Run, interruption: Interruption) -> Trainer:
        """Trains from `checkpoint` to the end; a full GPU halves the micro-batch once, from the newest checkpoint on.

        Raises:
            Interrupted: a request to stop; a checkpoint has been saved.
            UserError: the training diverged, or the GPU or the disk is too small.
        """
        rows, update_size = self.micro_batch(), self.config.train.update_size
        trainer = self.attempt(rows, checkpoint, run, interruption)
        if trainer is None:
            rows, checkpoint = micro_batch.halved(rows, update_size), self.checkpoint()
            start = "the start" if checkpoint is None else checkpoint.name
            print(
                f"the GPU's memory is full: on from {start}, {rows} rows at once, {update_size} an update", flush=True
            )
            trainer = self.attempt(rows, checkpoint, run, interruption)
        if trainer is None:
            smaller = micro_batch.halved(rows, update_size)
            micro_batch.record(self.folder, self.device, smaller)
            raise UserError(
                f"the GPU's memory is full with {rows} rows at once, too; run again, to go on with {smaller}"
            )
        interruption.raise_if_asked()
        if not trainer.evaluated():
            with suppress(EvaluationStopped):
                trainer.evaluate()
            interruption.raise_if_asked()
        trainer.take_best()
        return trainer

    def attempt(self, rows: int, checkpoint: Path | None, run: Run, interruption: Interruption) -> Trainer | None:
        """Trains with `rows` at once until the end or a request to stop; None if the GPU does not hold them."""
        micro_batch.free_memory()  # which an earlier attempt, or the search for `rows`, has taken
        micro_batch.record(self.folder, self.device, rows)
        trainer = self.trainer(rows)
        progress = ShowProgress()
        for callback in (Track(run), progress, StopWhenAsked(interruption)):
            trainer.add_callback(callback)
        try:
            with progress.bar, interruption.deferred():
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        except torch.OutOfMemoryError:
            return None
        return trainer

    def micro_batch(self) -> int:
        """The rows that go through the model at once: as set or found before, or for `auto` the most that fit."""
        settings = self.config.train
        rows = micro_batch.recorded(self.folder, self.device)
        if rows is None and settings.batch_size == "auto":
            trial = self.trainer(rows=1) if self.device == "cuda" else None
            rows = micro_batch.largest(settings.update_size, trial)
            print(f"train.batch_size auto: {rows} rows at once, {settings.update_size} an update", flush=True)
        return rows or int(settings.batch_size)

    def trainer(self, rows: int) -> Trainer:
        """Our trainer over the prepared splits, with `rows` in a micro-batch.

        Raises:
            UserError: the model, its tokenizer or the rows are not fit to be trained with.
        """
        settings, model_settings = self.config.train, self.config.model
        set_seed(settings.seed)  # an adapter starts from random matrices, also in a sweep's second job
        tokenizer = load_tokenizer(model_settings)
        learnt = supervised("train", tokenizer, settings.max_length, settings.max_truncated)
        callbacks = [Meter(), RefuseBrokenLoss()]
        if settings.stop_step:
            callbacks.append(StopAt(settings.stop_step))
        if settings.patience:
            callbacks.append(EarlyStopping(settings.patience))
        return Trainer(
            model=load_model(self.engine, model_settings, settings, self.device),
            args=self.arguments(rows),
            train_dataset=packed(learnt, settings.max_length) if settings.packing else learnt,
            eval_dataset=supervised("validation", tokenizer, settings.max_length),
            processing_class=tokenizer,
            data_collator=PackedCollator(tokenizer.pad_token_id) if settings.packing else None,
            callbacks=callbacks,
            conversations=len(learnt),
            save_total_limit=settings.save_total_limit,
            libraries=library_versions(self.engine),
        )

    def arguments(self, rows: int) -> SFTConfig:
        """Our settings in the trainer's words."""
        settings = self.config.train
        arguments = SFTConfig(
            output_dir=str(self.folder),
            use_cpu=self.device == "cpu",
            bf16=self.device == "cuda",
            learning_rate=settings.lr,
            lr_scheduler_type=settings.scheduler,
            warmup_steps=settings.warmup_ratio,  # a share of all steps where it is below 1
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            optim=settings.optimizer,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=settings.update_size // rows,
            num_train_epochs=settings.epochs,
            max_steps=settings.max_steps or -1,
            max_length=settings.max_length,
            dataset_kwargs={"skip_prepare_dataset": True},  # the rows are tokenized, marked and cut
            gradient_checkpointing=settings.gradient_checkpointing,
            seed=settings.seed,
            data_seed=settings.seed,
            save_steps=settings.save_steps,
            eval_strategy="steps",
            eval_steps=settings.eval_steps,
            per_device_eval_batch_size=settings.eval_batch_size,
            logging_steps=settings.logging_steps,
            logging_nan_inf_filter=False,
            disable_tqdm=True,
            include_num_input_tokens_seen="non_padding",
            restore_callback_states_from_checkpoint=True,
            report_to="none",
        )
        arguments._n_gpu = 1  # of several visible ones; DataParallel would multiply the batch
        return arguments
