"""Prepared chats become an adapter: LoRA through TRL's trainer, loss on what the assistant says, resumable.

dvc repro train                                            # as a stage
python -m pipeline.train -m train.lr=1e-4,2e-4,5e-4        # a sweep, each job in its own folder
"""

import csv
import json
import math
from pathlib import Path
from typing import Any

import hydra
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, set_seed
from trl import SFTConfig

from pipeline.config import Config, TrainSettings
from pipeline.errors import UserError
from pipeline.files import atomic_path, write_json
from pipeline.stage import root, stage
from pipeline.tracking import Run, tracked
from pipeline.training.callbacks import Clock, StopAt, Track
from pipeline.training.chat import encode, load_tokenizer
from pipeline.training.checkpoints import MarkComplete, claimed, fingerprint, newest_complete
from pipeline.training.engines import choose_device, choose_engine, load_model
from pipeline.training.report import print_report, resource_report, trained_model
from pipeline.training.trainer import Trainer

PREPARED = Path("data/prepared")
PREPARE_REPORT = Path("reports/prepare.json")
ADAPTER = Path("models/adapter")
REPORT = Path("reports/train.json")
CURVE = Path("reports/loss.csv")
IGNORED = -100  # the label of tokens that the loss leaves out


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
@stage
def main(config: Config, out: Path) -> float:
    """Trains, writes models/adapter and its reports below `out`, returns the validation loss."""
    device = choose_device(config.runtime.device)
    engine = choose_engine(config.train.engine, device)
    name, settings = fingerprint(config.model, config.train, data_digest(PREPARE_REPORT), engine)
    folder = (root() / config.runtime.checkpoint_root / name).resolve()
    title = f"{config.model.name} on {config.data.name}"
    with claimed(folder, settings), tracked(config, run_id(folder), title) as run:
        keep_run_id(folder, run)
        run.params(config)
        run.tags({"fingerprint": name, "data_digest": settings["data"]})
        trainer = build_trainer(config, engine, device, folder, run)
        trainer.train(resume_from_checkpoint=resume_point(folder))
        if not evaluated_last(trainer.state.log_history, trainer.state.global_step):
            trainer.evaluate()
        refuse_broken(trainer)
        report = {"fingerprint": name, "engine": engine, **resource_report(trainer)}
        write_json(out / REPORT, report)
        write_curve(out / CURVE, trainer.state.log_history)
        save_adapter(trainer, {"fingerprint": name, "mlflow_run": run.id, "base": settings["model"]}, out / ADAPTER)
        run.metrics({"train": report})
        for path in (PREPARE_REPORT, out / REPORT, out / CURVE):
            run.artifact(path)
    print_report(report)
    return report["validation_loss"]


def build_trainer(config: Config, engine: str, device: str, folder: Path, run: Run) -> Trainer:
    """TRL's trainer over the prepared splits, with checkpoints in `folder`."""
    set_seed(config.train.seed)  # an adapter starts from random matrices, also in a sweep's second job
    model = load_model(engine, config.model, config.train, device)
    tokenizer = load_tokenizer(config.model)
    callbacks = [Clock(), Track(run), MarkComplete()]
    if config.train.stop_step:
        callbacks.append(StopAt(config.train.stop_step))
    return Trainer(
        model=model,
        args=trainer_settings(config.train, device, folder),
        train_dataset=supervised("train", tokenizer, config.train.max_length),
        eval_dataset=supervised("validation", tokenizer, config.train.max_length),
        processing_class=tokenizer,
        callbacks=callbacks,
    )


def trainer_settings(train: TrainSettings, device: str, folder: Path) -> SFTConfig:
    """Our settings in the trainer's words."""
    return SFTConfig(
        output_dir=str(folder),
        use_cpu=device == "cpu",
        bf16=device == "cuda",
        learning_rate=train.lr,
        lr_scheduler_type=train.scheduler,
        warmup_steps=train.warmup_ratio,  # a share of all steps where it is below 1
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optim=train.optimizer,
        per_device_train_batch_size=train.batch_size,
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        num_train_epochs=train.epochs,
        max_steps=train.max_steps or -1,
        max_length=train.max_length,
        gradient_checkpointing=train.gradient_checkpointing,
        seed=train.seed,
        data_seed=train.seed,
        save_steps=train.save_steps,
        save_total_limit=train.save_total_limit,
        eval_strategy="steps",
        eval_steps=train.eval_steps,
        per_device_eval_batch_size=train.eval_batch_size,
        logging_steps=train.logging_steps,
        include_num_input_tokens_seen="non_padding",
        restore_callback_states_from_checkpoint=True,
        report_to="none",
    )


def supervised(split: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """A prepared split as token ids with the assistant's part marked; rows with nothing to learn are left out.

    Raises:
        UserError: the split is missing, or no row has anything to learn within `max_length` tokens.
    """
    path = PREPARED / f"{split}.parquet"
    if not path.is_file():
        raise UserError(f"{path} is missing; run `dvc repro prepare` first")
    rows = Dataset.from_parquet(str(path))

    def label(batch: dict[str, list]) -> dict[str, list]:
        encoded = [encode(tokenizer, messages, max_length) for messages in batch["messages"]]
        labels = [[i if said else IGNORED for i, said in zip(*pair, strict=True)] for pair in encoded]
        return {"input_ids": [ids for ids, _ in encoded], "labels": labels}

    labelled = rows.map(label, batched=True, remove_columns=rows.column_names, desc=f"tokenizing {split}")
    kept = labelled.filter(lambda row: any(i != IGNORED for i in row["labels"]))
    if not len(kept):
        raise UserError(f"no {split} row has an assistant token within train.max_length {max_length}; raise it")
    return kept


def data_digest(report: Path) -> str:
    """The digest of what is learnt from: the prepared splits as their report records them."""
    if not report.is_file():
        raise UserError(f"{report} is missing; run `dvc repro prepare` first")
    splits = json.loads(report.read_text(encoding="utf-8"))["splits"]
    return "+".join(splits[name]["sha256"][:16] for name in ("train", "validation"))


def resume_point(folder: Path) -> str | None:
    """The checkpoint to go on from, said aloud."""
    checkpoint = newest_complete(folder)
    if checkpoint is not None:
        print(f"resuming from {checkpoint}")
    return None if checkpoint is None else str(checkpoint)


def evaluated_last(history: list[dict[str, Any]], step: int) -> bool:
    """Whether the last step has its validation loss."""
    return any("eval_loss" in entry and entry["step"] == step for entry in history)


def run_id(folder: Path) -> str | None:
    """The MLflow run that an interrupted training began."""
    path = folder / "mlflow_run"
    return path.read_text().strip() if path.is_file() else None


def keep_run_id(folder: Path, run: Run) -> None:
    """Writes the run beside the checkpoints, for the next part of the training."""
    if run.id:
        (folder / "mlflow_run").write_text(run.id)


def refuse_broken(trainer: Trainer) -> None:
    """Nothing is written of a training that diverged.

    Raises:
        UserError: weights or losses are not finite.
    """
    weights = (p for p in trained_model(trainer).parameters() if p.requires_grad)
    losses = (entry[key] for entry in trainer.state.log_history for key in ("loss", "eval_loss") if key in entry)
    if not all(map(math.isfinite, [*losses, *(weight.detach().float().sum().item() for weight in weights)])):
        raise UserError("training diverged: weights or losses are not finite; lower train.lr")


def write_curve(path: Path, history: list[dict[str, Any]]) -> None:
    """Training and validation loss by step, as `dvc plots` reads them."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "split", "loss"])
        for entry in history:
            for key, split in (("loss", "train"), ("eval_loss", "validation")):
                if key in entry:
                    writer.writerow([entry["step"], split, f"{entry[key]:.5f}"])


def save_adapter(trainer: Trainer, lineage: dict[str, Any], path: Path) -> None:
    """Adapter, tokenizer and where they come from, in PEFT's layout.

    Raises:
        UserError: the disk refuses them.
    """
    with atomic_path(path) as temporary:
        trainer.save_model(str(temporary))
        (temporary / "training_args.bin").unlink(missing_ok=True)
        write_json(temporary / "lineage.json", lineage)


if __name__ == "__main__":
    main()
