"""What a sweep is, in its folder: sweep.json, written when it is planned, and where its jobs have their files."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.core.records import Count, Record
from pipeline.core.trials import OUTCOME, Outcome, SweepFile

SWEEP = "sweep.json"
ROOT = Path("sweeps")  # as conf/config.yaml has it


class Trial(Record):
    """A combination of settings."""

    number: Count
    bracket: Count
    values: dict[str, str]  # what it has of the space, by the override's key
    same_as: Count | None = None  # an earlier trial whose training is the same
    refused: str | None = None  # why it cannot be trained, which was seen before it began


class Extension(Record):
    """What was added to a sweep after its settings."""

    rungs: Count = 0
    trials: Count = 0


class SweepRecord(SweepFile):
    """A sweep as it was planned: sweep.json."""

    schema_version: int = 1
    name: str
    stage: str
    arguments: tuple[str, ...]  # the command line, without -m
    settings: dict[str, object]  # of SweepSettings
    fixed: tuple[str, ...]  # overrides that all trials have
    space: dict[str, str]  # what they differ in, by key, as it was given
    base: dict[str, object]  # the configuration that all trials begin with, by dotted keys
    data: str | None  # digest of what is learnt from
    rungs: tuple[tuple[Count, ...], ...]  # of each bracket: the steps at which it stops; one without any is a grid's
    trials: tuple[Trial, ...]
    extension: Extension = Extension()


@dataclass(frozen=True)
class Folder:
    """A sweep's folder."""

    path: Path

    @property
    def record_path(self) -> Path:
        """Where sweep.json is."""
        return self.path / SWEEP

    def read(self) -> SweepRecord:
        """Return the record.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        return SweepRecord.read(self.record_path)

    def job(self, trial: int, stop_step: int | None) -> "JobFolder":
        """Return where a trial's job has its files: at one rung, or of a grid the only one."""
        return JobFolder(self.path / subfolder(trial, stop_step))


def subfolder(trial: int, stop_step: int | None) -> str:
    """Return a job's folder below the sweep's."""
    return str(trial) if stop_step is None else f"{trial}/step-{stop_step}"


@dataclass(frozen=True)
class JobFolder:
    """The output folder of a job."""

    path: Path

    def outcome(self) -> Outcome | None:
        """Return how the job ended, None if it has not."""
        path = self.path / OUTCOME
        return Outcome.read(path) if path.is_file() else None
