"""What a sweep and the jobs that it launches tell one another, each in a file of the job's output folder.

A job is one trial at one rung. Neither side waits for the other in memory: so a job may run in another process, or on
another machine that shares the disk, and a sweep that was killed finds all of it again.
"""

from pathlib import Path
from typing import ClassVar, Literal

from pipeline.core.records import Amount, Count, Record

TASK, OUTCOME, PROGRESS, LOG = "task.json", "outcome.json", "progress.jsonl", "log.txt"
UNTRAINED = "untrained.json"  # the end of such a file's name, in the sweep's folder


class SweepFile(Record):
    """A file of a sweep's, or a line of one."""

    made_by: ClassVar[str] = "train"

    @classmethod
    def remedy(cls) -> str:
        """Return what to do about a file that is damaged, or another version's."""
        return "remove it, and begin the sweep again by its own command, which does without"


class Limit(Record):
    """A validation loss that is hopeless from a step on: other trials had a better one long before."""

    step: Count
    loss: float


class Task(SweepFile):
    """What a job is told: task.json, written before it is launched."""

    trial: Count
    sweep: str  # its folder
    stop_step: Count | None
    mlflow_parent: str | None  # the folder of its journal; MLflow may be away
    worst: float | None  # times the loss of the untrained model; a trial above it has diverged
    limit: Limit | None = None
    measure_accuracy: bool = False


class Outcome(SweepFile):
    """How a job ended: outcome.json, written last. A job without it was cut off, and is launched again.

    `finished` went to its stop step, `ended` was given up within its rung, `failed` could not be trained; `stopped` was
    asked to stop or could not write, and is launched again, too.
    """

    status: Literal["finished", "ended", "failed", "stopped"]
    reason: str | None = None  # of all but the first
    preempted: bool = False  # stopped by who runs its process, as Slurm and Ray may, while the sweep goes on
    steps: Count | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    train_loss: float | None = None
    tokens_per_second: float | None = None
    adapter_mb: Amount | None = None
    seconds: Amount | None = None  # over all rungs so far
    fingerprint: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether it need not be launched again."""
        return self.status != "stopped"


class Untrained(SweepFile):
    """The validation loss of a model before its training, which the trials share that begin with it and its data."""

    loss: float


class Point(SweepFile):
    """A line of progress.jsonl: a step and what was measured at it."""

    step: Count
    of: Count  # steps until the rung ends
    train_loss: float | None = None
    validation_loss: float | None = None


def read_progress(folder: Path) -> list[Point]:
    """Return what a job has written of its losses so far; a line that is being written is left out."""
    path = folder / PROGRESS
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.is_file() else []
    return [Point.parse_text(line, str(path)) for line in lines if line.endswith("\n")]
