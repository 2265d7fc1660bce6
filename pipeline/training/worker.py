"""What one process does in a training, which alone is all of it: from the prepared data to adapter and reports.

Of several, the first does what is to be done once.
"""

import csv
import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from common.errors import UserError
from common.files import atomic_path, sha256, write_json
from pipeline.core.config import Config
from pipeline.core.learnt import settings_of_digits
from pipeline.core.making import this_making
from pipeline.core.paths import COMPARED, LINEAGE, PREPARE_REPORT, PREPARED
from pipeline.core.records import LEARNT_FROM, Lineage, PrepareReport, TrainReport
from pipeline.data.prepared import origin
from pipeline.data.report import split_report
from pipeline.models.chat import load_tokenizer, unknown_switches
from pipeline.models.loading import (  # fmt: skip
    ADAPTER_CONFIG,
    base_digest,
    choose_device,
    device_name,
    has_own_attention,
    head_size,
    without_weights,
)
from pipeline.models.packaged import is_packaged
from pipeline.models.vocabulary import VOCABULARIES, copy_vocabulary, model_folder
from pipeline.tracking.run import Run, tracked, training_folder
from pipeline.training.checkpoints import (
    LIBRARIES,
    claimed,
    differences,
    fingerprint,
    library_versions,
    step_of,
    upgraded,
)
from pipeline.training.collectives import process_group
from pipeline.training.engines import Engine
from pipeline.training.interruption import Interruption
from pipeline.training.plan import choose, this_card
from pipeline.training.report import print_report, resource_report
from pipeline.training.requirements import asked, check
from pipeline.training.session import Session
from pipeline.training.shared import TOKENIZER, TRAININGS, Kept
from pipeline.training.start import read_start
from pipeline.training.targets import coverage, spelt_out
from pipeline.training.trainer import Trainer
from pipeline.training.trial import follow
from pipeline.workers.parent import IN_IMAGE
from pipeline.workers.ranks import rank, world

logger = logging.getLogger(__name__)

FITS: Kept[bool] = Kept()


def run_worker(config: Config, may_begin: Callable[[], None], adapter: Path, report: Path, curve: Path) -> float | None:
    """Meet the other processes, train and write the three; return the validation loss.

    `may_begin` is called before weights are loaded, and raises where that is of no use.
    """
    device = choose_device(config.runtime.device)
    with process_group(device), TRAININGS.one():
        return train(config, may_begin, device, adapter, report, curve)


def train(
    config: Config, may_begin: Callable[[], None], device: str, adapter: Path, report: Path, curve: Path
) -> float | None:
    """Train on `device` and write adapter, report and loss curve; return the validation loss."""
    model, base = without_weights(config.model), base_digest(config.model)
    tokenizer = TOKENIZER.get((base, config.model), lambda: load_tokenizer(config.model))
    plan = choose(
        config.train, config.model, this_card(device), head_size(config.model), own_attention=has_own_attention(model)
    )
    start = read_start(Path(config.train.start_adapter)) if config.train.start_adapter else None
    preference, prepared = config.train.preference, read_prepared(PREPARE_REPORT)
    if preference.loss:
        require_compared(prepared)
    data = prepared.compared_digest if preference.loss else prepared.learnt_digest
    settled = spelt_out(config.train, model)
    plan = replace(plan, reasons=(*plan.reasons, *coverage(model, config.train), *left_as_it_is(tokenizer)))
    of_base = asked(config, base, start)
    FITS.get(of_base, lambda: check(of_base, model, tokenizer))
    may_begin()
    begun = start.digest if start else None
    name, settings = fingerprint(config.model, settled, data, base, plan.engine, begun)
    folder = training_folder(config, name)
    again = folder.is_dir()
    with (
        Interruption(config.runtime.seconds_allowed) as interruption,
        claimed(folder, settings),
        tracked(config, folder, "train") as run,
    ):
        run.params(config)
        run.tags({"fingerprint": name, "data_digest": data})
        run.splits(prepared, LEARNT_FROM)
        trial = follow(report.parent.parent, settings, config.train)
        session = Session(config, tokenizer, plan, device, folder, base, trial)
        checkpoint = session.checkpoint()
        interruption.step = step_of(checkpoint) if checkpoint else 0
        announce(checkpoint, again, folder, settings, session.engine, run)
        trainer = session.train(checkpoint, run, interruption)
        figures = TrainReport(
            fingerprint=name, engine=plan.engine, attention=plan.attention, **resource_report(trainer)
        )
        if rank() == 0:
            figures.write(report)
            write_curve(curve, trainer.state.log_history)
        lineage = Lineage(
            fingerprint=name,
            mlflow_run=run.id,
            base=settings["model"],
            data=origin(prepared),
            train=settings_of_digits(config.train),
            making=this_making((*LIBRARIES, *session.engine.libraries), device_name(device), world()),
            image=os.environ.get(IN_IMAGE),
            start_adapter=begun,
            ancestors=start.trainings if start else (),
        )
        save_adapter(trainer, lineage, adapter)
        run.metrics({"train": figures.tree()})
        for path in (PREPARE_REPORT, report, curve):
            run.artifact(path)
    print_report(figures.tree())
    return figures.validation_loss


def left_as_it_is(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return a line on what the chat template takes and is not told."""
    switches = ", ".join(unknown_switches(tokenizer))
    return [f"chat template without its {switches}: what turns thinking off there is not known"] if switches else []


def announce(
    checkpoint: Path | None, again: bool, folder: Path, settings: dict[str, Any], engine: Engine, run: Run
) -> None:
    """Say what training goes on from, or why it starts afresh."""
    if run.before == "RUNNING":
        run.mark(f"killed, resumed at step {step_of(checkpoint) if checkpoint else 0}")
    if checkpoint is None and again:
        logger.info("starting again: these settings have no whole checkpoint to go on from")
    elif checkpoint is None and (changed := differences(folder, settings)):
        logger.info("\n  ".join(["starting afresh; changed since the training that ran last:", *changed]))
    if checkpoint is None:
        return
    logger.info(f"resuming from {checkpoint}")
    for change in upgraded(checkpoint, library_versions(engine)):
        logger.warning(f"{checkpoint.name} was made with another {change}; what follows may differ in its digits")


def read_prepared(report: Path) -> PrepareReport:
    """Return the report of what is learnt from, which must agree with the prepared splits as they are.

    Raises:
        UserError: the report or a split is missing, or they do not belong together.
    """
    prepared = PrepareReport.read(report)
    for name in LEARNT_FROM:
        path = PREPARED / f"{name}.parquet"
        if not path.is_file():
            raise UserError(f"{path} is missing; run `dvc repro prepare` first")
        if messages_digest(path, sha256(path)) != prepared.splits[name].sha256:
            raise UserError(f"{path} is not what {report} describes; run `dvc repro prepare` or `dvc checkout`")
    return prepared


def require_compared(prepared: PrepareReport) -> None:
    """Refuse comparisons that are not there, or not those that the report of `prepare` describes.

    Raises:
        UserError: they are not.
    """
    for name in LEARNT_FROM:
        path = PREPARED / COMPARED / f"{name}.parquet"
        if name not in prepared.preferences or not path.is_file():
            raise UserError(
                f"{path} is missing, which train.preference.loss learns from: take data=preferences, or set "
                "data.preferences=learn, and run `dvc repro prepare`"
            )
        if split_report(pq.read_table(path).to_pylist())["sha256"] != prepared.preferences[name].sha256:
            raise UserError(f"{path} is not what {PREPARE_REPORT} describes; run `dvc repro prepare` or `dvc checkout`")


@lru_cache(maxsize=len(LEARNT_FROM))
def messages_digest(path: Path, _: str) -> str:
    """Return the digest of a split's messages; the second argument is the file's, of which this is kept."""
    return split_report(pq.read_table(path)["messages"].to_pylist())["sha256"]


def write_curve(path: Path, history: list[dict[str, Any]]) -> None:
    """Write training and validation loss by step, as `dvc plots` reads them."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "split", "loss"])
        for entry in history:
            for key, split in (("loss", "train"), ("eval_loss", "validation")):
                if key in entry:
                    writer.writerow([entry["step"], split, f"{entry[key]:.5f}"])


def save_adapter(trainer: Trainer, lineage: Lineage, path: Path) -> None:
    """Write adapter, tokenizer and where they come from, in PEFT's layout.

    All processes take part, the first one writes.

    Raises:
        UserError: the disk refuses them.
    """
    if rank():
        trainer.save_model()
        return
    with atomic_path(path) as temporary:
        trainer.save_model(str(temporary))
        (temporary / "training_args.bin").unlink(missing_ok=True)
        base = lineage.base
        name_base(temporary / ADAPTER_CONFIG, base.path)
        copy_vocabulary(model_folder(base.path, base.revision, VOCABULARIES), temporary)
        lineage.write(temporary / LINEAGE)


def name_base(adapter_config: Path, path: str) -> None:
    """Have PEFT's file name the base as the configuration does, which for a package is no folder of this machine."""
    if not is_packaged(path) or not adapter_config.is_file():
        return
    written = json.loads(adapter_config.read_text(encoding="utf-8"))
    write_json(adapter_config, {**written, "base_model_name_or_path": path})
