"""Checkpoints by fingerprint: the same settings and data resume, any others never do.

They are no DVC output: DVC would restore another configuration's checkpoint after a changed setting. A checkpoint
counts once COMPLETE, written last, stands in it.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.config import ModelSettings, TrainSettings
from pipeline.errors import UserError
from pipeline.files import write_json

COMPLETE = "complete.json"
# What may change without changing what is learnt.
NOT_LEARNT = ("stop_step", "save_steps", "save_total_limit", "eval_steps", "eval_batch_size", "logging_steps")


def fingerprint(model: ModelSettings, train: TrainSettings, data_digest: str, engine: str) -> tuple[str, dict]:
    """A short name for what a run learns, and the settings that it stands for."""
    learnt = {key: value for key, value in asdict(train).items() if key not in NOT_LEARNT}
    settings = {"model": asdict(model), "train": {**learnt, "engine": engine}, "data": data_digest}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16], settings


@contextmanager
def claimed(folder: Path, settings: dict) -> Iterator[None]:
    """Makes the folder of a fingerprint and keeps every other trainer out of it.

    Raises:
        UserError: another process trains there, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a")
    except OSError as error:
        why = f"cannot keep checkpoints in {folder}: {error.strerror}"
        raise UserError(f"{why}; make it writable or set runtime.checkpoint_root") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process trains the same in {folder}; wait for it or end it") from None
        write_json(folder / "settings.json", settings)
        yield


def newest_complete(folder: Path) -> Path | None:
    """The checkpoint to go on from; incomplete ones are set aside under another name, with a warning."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2])):
        if (checkpoint / COMPLETE).is_file():
            return checkpoint
        aside = checkpoint.with_name(f"incomplete-{checkpoint.name}")
        print(f"warning: {checkpoint} is incomplete; set aside as {aside.name}")
        shutil.rmtree(aside, ignore_errors=True)  # of an earlier time that the same step was cut off
        checkpoint.rename(aside)
    return None


class MarkComplete(TrainerCallback):
    """Writes the mark that makes a checkpoint count, after everything else of it."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Runs when the trainer has written its checkpoint."""
        checkpoint = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
        write_json(checkpoint / COMPLETE, {"step": state.global_step})
