"""Prepared chats become an adapter: LoRA through TRL's trainer, loss on what the assistant says, resumable.

dvc repro train                                            # as a stage
python -m pipeline.train -m train.lr=1e-4,2e-4,5e-4        # a sweep, each job in its own folder
"""

import csv
import json
from pathlib import Path
from typing import Any

import hydra
import pyarrow.parquet as pq

from pipeline.config import Config
from pipeline.data.report import split_report
from pipeline.errors import UserError
from pipeline.files import atomic_path, write_json
from pipeline.stage import stage
from pipeline.tracking import Run, tracked, training_folder
from pipeline.training.checkpoints import claimed, differences, fingerprint, library_versions, step_of, upgraded
from pipeline.training.engines import base_digest, choose_device
from pipeline.training.interruption import Interruption
from pipeline.training.job import Job
from pipeline.training.plan import choose, this_card
from pipeline.training.report import print_report, resource_report
from pipeline.training.rows import PREPARED
from pipeline.training.trainer import Trainer

PREPARE_REPORT = Path("reports/prepare.json")
ADAPTER = Path("models/adapter")
REPORT = Path("reports/train.json")
CURVE = Path("reports/loss.csv")


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
@stage
def main(config: Config, out: Path) -> float:
    """Trains, writes models/adapter and its reports below `out`, returns the validation loss."""
    device = choose_device(config.runtime.device)
    plan = choose(config.train, config.model, this_card(device))
    data, base = data_digest(PREPARE_REPORT), base_digest(config.model)
    name, settings = fingerprint(config.model, config.train, data, base, plan.engine)
    folder = training_folder(config, name)
    again = folder.is_dir()
    title = f"{config.model.name} on {config.data.name}"
    with (
        Interruption(config.runtime.seconds_allowed) as interruption,
        claimed(folder, settings),
        tracked(config, folder, title) as run,
    ):
        run.params(config)
        run.tags({"fingerprint": name, "data_digest": data})
        job = Job(config, plan, device, folder)
        checkpoint = job.checkpoint()
        interruption.step = step_of(checkpoint) if checkpoint else 0
        announce(checkpoint, again, folder, settings, plan.engine, run)
        trainer = job.train(checkpoint, run, interruption)
        report = {"fingerprint": name, "engine": plan.engine, "attention": plan.attention, **resource_report(trainer)}
        write_json(out / REPORT, report)
        write_curve(out / CURVE, trainer.state.log_history)
        save_adapter(trainer, {"fingerprint": name, "mlflow_run": run.id, "base": settings["model"]}, out / ADAPTER)
        run.metrics({"train": report})
        for path in (PREPARE_REPORT, out / REPORT, out / CURVE):
            run.artifact(path)
    print_report(report)
    return report["validation_loss"]


def announce(
    checkpoint: Path | None, again: bool, folder: Path, settings: dict[str, Any], engine: str, run: Run
) -> None:
    """Says what training goes on from, or why it starts afresh."""
    if run.before == "RUNNING":
        run.mark(f"killed, resumed at step {step_of(checkpoint) if checkpoint else 0}")
    if checkpoint is None and again:
        print("starting again: these settings have no whole checkpoint to go on from", flush=True)
    elif checkpoint is None and (changed := differences(folder, settings)):
        print("starting afresh; changed since the training that ran last:", *changed, sep="\n  ", flush=True)
    if checkpoint is None:
        return
    print(f"resuming from {checkpoint}", flush=True)
    for change in upgraded(checkpoint, library_versions(engine)):
        print(f"warning: {checkpoint.name} was made with another {change}; what follows may differ in its digits")


def data_digest(report: Path) -> str:
    """The digest of what is learnt from: the prepared splits as they are, which their report must agree with.

    Raises:
        UserError: the report or a split is missing, or they do not belong together.
    """
    if not report.is_file():
        raise UserError(f"{report} is missing; run `dvc repro prepare` first")
    splits = json.loads(report.read_text(encoding="utf-8"))["splits"]
    for name in ("train", "validation"):
        path = PREPARED / f"{name}.parquet"
        if not path.is_file():
            raise UserError(f"{path} is missing; run `dvc repro prepare` first")
        if split_report(pq.read_table(path)["messages"].to_pylist())["sha256"] != splits[name]["sha256"]:
            raise UserError(f"{path} is not what {report} describes; run `dvc repro prepare` or `dvc checkout`")
    return "+".join(splits[name]["sha256"][:16] for name in ("train", "validation"))


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
