"""Checkpoints by fingerprint: the same settings and data resume, any others never do.

They are no DVC output: DVC would restore another configuration's checkpoint after a changed setting. A checkpoint
counts once COMPLETE stands in it, written last, and its files are what that says.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from common.errors import MachineError
from common.files import disk_full, flush, sha256, unwritable, write_json
from pipeline.core.code import code_digest
from pipeline.core.config import ModelSettings, TrainSettings
from pipeline.core.learnt import learnt_settings
from pipeline.core.mappings import changed_keys, flatten
from pipeline.training.engines import Engine
from pipeline.workers.ranks import rank

logger = logging.getLogger(__name__)

COMPLETE = "complete.json"
SETTINGS = "settings.json"
ASIDE = "incomplete-"
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate")


def fingerprint(
    model: ModelSettings,
    train: TrainSettings,
    data_digest: str,
    base_digest: str,
    engine: str,
    start: str | None = None,
) -> tuple[str, dict[str, Any]]:
    """Return a short name for what a run learns, and the settings that it stands for."""
    started = {"start_adapter": start} if start else {}  # its digest, wherever it lies
    settings = {
        "model": {**asdict(model), "digest": base_digest},
        "train": {**learnt_settings(train), "engine": engine, **started},
        "data": data_digest,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16], settings


@contextmanager
def claimed(folder: Path, settings: dict[str, Any]) -> Iterator[None]:
    """Make the folder of a fingerprint and keep every other trainer out of it.

    Of processes that train together, the first does so for all.

    Raises:
        MachineError: another process trains there, or the folder cannot be written.
    """
    if rank():
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = locked(folder)
    except BlockingIOError:
        holder = (folder / "lock").read_text(encoding="utf-8").strip() or "another process"
        raise MachineError(f"{holder} trains the same in {folder}; wait for it or end it") from None
    except OSError as error:
        why = f"cannot keep checkpoints in {folder}: {error.strerror}"
        raise MachineError(f"{why}; make it writable or set runtime.checkpoint_root") from error
    with lock:
        write_json(folder / SETTINGS, settings)
        yield


def locked(folder: Path) -> IO[str]:
    """Return the folder's lock, held until it is closed, with the holder's name in it.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the folder cannot be written, or its file system has no locks.
    """
    with ExitStack() as undo:
        lock = undo.enter_context((folder / "lock").open("a+", encoding="utf-8"))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {os.uname().nodename}, since {time.strftime('%Y-%m-%d %H:%M:%S')},\n")
        lock.flush()
        undo.pop_all()
    return lock


def in_use(folder: Path) -> bool:
    """Return whether a trainer holds the folder."""
    path = folder / "lock"
    if not path.is_file():
        return False
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def differences(folder: Path, settings: dict[str, Any]) -> list[str]:
    """Return in what `settings` differ from those beside `folder` that ran last: `key: old -> new`, sorted."""
    others = [path for path in folder.parent.glob(f"*/{SETTINGS}") if path.parent != folder]
    if not others:
        return []
    last = max(others, key=lambda path: path.stat().st_mtime_ns)
    old, new = read_settings(last.parent), flatten(settings)
    if not old:  # damaged, and only told from
        return []
    return [f"{key}: {old.get(key, '(none)')} -> {new.get(key, '(none)')}" for key in changed_keys(old, new)]


def read_settings(folder: Path) -> dict[str, object]:
    """Return the settings of a training by dotted keys; none where their file is damaged."""
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return flatten(settings) if isinstance(settings, dict) else {}


@contextmanager
def written_whole(
    checkpoint: Path, libraries: dict[str, str], wait: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Mark what the block writes into `checkpoint` as complete; what it writes in part is removed.

    Of processes that train together, each writes a part, and the first marks the whole.

    Args:
        checkpoint: the folder.
        libraries: versions that the mark names.
        wait: returns once all processes have called it.

    Raises:
        MachineError: the disk refuses it.
    """
    # Of earlier times: what was set aside, whose room is needed, and what stop_step has gone back behind.
    for useless in (checkpoint, *checkpoint.parent.glob(f"{ASIDE}*")) if rank() == 0 else ():
        shutil.rmtree(useless, ignore_errors=True)
    wait()
    try:
        yield
        wait()
        if rank() == 0:
            flush(checkpoint)
            mark_complete(checkpoint, libraries)
    except Exception as error:
        reason = unwritable(error) or disk_full(checkpoint.parent)
        shutil.rmtree(checkpoint, ignore_errors=True)
        if reason is None:
            raise
        earlier = newest_step(checkpoint.parent)
        kept = "no earlier one is there" if earlier is None else f"that of step {earlier} is whole"
        message = f"cannot save {checkpoint}: {reason}; {kept}; make room or grant access there, then run again"
        raise MachineError(message) from error
    wait()


def mark_complete(checkpoint: Path, libraries: dict[str, str]) -> None:
    """Write the mark that makes a checkpoint count: each of its files with size and digest."""
    files = {
        path.relative_to(checkpoint).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file()
    }
    saved = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    mark = {"step": step_of(checkpoint), "saved": saved, "libraries": libraries, "files": files}
    write_json(checkpoint / COMPLETE, mark)


def damage(checkpoint: Path, by_digest: bool = True) -> str | None:
    """Return what is wrong with a checkpoint, if anything.

    Files are compared with their sizes and, unless told, digests.
    """
    if not (checkpoint / COMPLETE).is_file():
        return "was cut off while it was saved"
    try:
        files = read_mark(checkpoint)["files"]
        for name, file in files.items():
            path = checkpoint / name
            if not path.is_file():
                return f"lacks {name}"
            if path.stat().st_size != file["bytes"]:
                return f"has {path.stat().st_size} bytes of {name} instead of {file['bytes']}"
            if by_digest and sha256(path) != file["sha256"]:
                return f"has another {name} than was saved"
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return f"has a {COMPLETE} that cannot be read"
    return None


def newest_complete(folder: Path, at_most: int | None = None) -> Path | None:
    """Return the newest whole checkpoint, of step `at_most` at most.

    Those cut off or damaged are set aside with a warning.
    """
    for checkpoint in reversed(checkpoints(folder)):
        if at_most is not None and step_of(checkpoint) > at_most:
            continue
        wrong = damage(checkpoint)
        if wrong is None:
            return checkpoint
        aside = checkpoint.with_name(f"{ASIDE}{checkpoint.name}")
        logger.warning(f"{checkpoint} {wrong}; set aside as {aside.name}")
        shutil.rmtree(aside, ignore_errors=True)  # of an earlier time that the same step was cut off
        checkpoint.rename(aside)
    return None


def rotate(folder: Path, keep: int, step: int, best: int | None) -> None:
    """Remove the complete checkpoints before the newest `keep` up to `step`, but not that of `best`."""
    whole = [path for path in marked(folder) if step_of(path) <= step]
    for checkpoint in whole[:-keep]:
        if step_of(checkpoint) != best:
            shutil.rmtree(checkpoint, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a fingerprint by step, complete or not."""
    return sorted((path for path in folder.glob("checkpoint-*") if path.name[11:].isdecimal()), key=step_of)


def marked(folder: Path) -> list[Path]:
    """Return those that are marked complete; whether they still are whole, `damage` says."""
    return [path for path in checkpoints(folder) if (path / COMPLETE).is_file()]


def newest_step(folder: Path) -> int | None:
    """Return the step of the newest checkpoint that is marked complete."""
    return max(map(step_of, marked(folder)), default=None)


def step_of(checkpoint: Path) -> int:
    """Return the step that a checkpoint's name says."""
    return int(checkpoint.name.rpartition("-")[2])


def read_mark(checkpoint: Path) -> dict[str, Any]:
    """Return what COMPLETE says."""
    return json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))


def library_versions(engine: Engine) -> dict[str, str]:
    """Return what can change a training's digits beside its settings: libraries, and the digest of our own code."""
    libraries = {name: version(name) for name in (*LIBRARIES, *engine.libraries)}
    return {**libraries, "pipeline.training": code_digest("pipeline/training", "pipeline/models")[:8]}


def upgraded(checkpoint: Path, libraries: dict[str, str]) -> list[str]:
    """Return the libraries that a checkpoint was not made with: `name old -> new`."""
    recorded = read_mark(checkpoint).get("libraries")
    before = recorded if isinstance(recorded, dict) else {}
    return [f"{name} {before.get(name)} -> {now}" for name, now in libraries.items() if before.get(name) != now]
