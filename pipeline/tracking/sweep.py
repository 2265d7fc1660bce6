"""What stands around a stage that is run by hand, once or as a sweep.

Something is said and refused before it starts; a sweep has one MLflow parent, and at the end a ranked table.

A Hydra callback, named in conf/config.yaml; DVC's stages read params.yaml and have none. The database is made before
the jobs start, since several at once on a new one fail; the jobs find their parent by an environment variable, which
every launcher hands on.
"""

import atexit
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write
from rich.console import Console
from rich.table import Column, Table

from common.errors import UserError
from pipeline.core.adopted import meeting
from pipeline.core.config import load
from pipeline.core.data_settings import DataSettings
from pipeline.core.records import TrainReport
from pipeline.data.prepared import require_prepared
from pipeline.tracking.run import PARENT, Run, open_run
from pipeline.workers.ranks import rank

READ_PREPARED = ("train", "export", "evaluate")
SHOWN = ("validation_loss", "train_loss", "seconds", "tokens_per_second")


@dataclass(frozen=True)
class Job:
    """A training of a sweep."""

    name: str
    overrides: str  # that tell it from the others
    report: TrainReport


class Sweep(Callback):
    """Says what experiments override; of a multirun, checks its data, opens and closes the parent, ranks the jobs."""

    def __init__(self) -> None:
        self.run: Run | None = None

    def on_run_start(self, config: DictConfig, **_: object) -> None:
        """Have output go into the workspace, without the folder `.hydra` that jobs of a sweep have beside theirs."""
        with read_write(config):
            config.hydra.output_subdir = None
        if rank() == 0:
            say_meetings(config)

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Open the parent run; a configuration that is not valid is left for the jobs to refuse."""
        say_meetings(config)
        plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        try:
            settings = load(plain)
        except UserError:
            return
        check_data(config, settings.data)
        tracking = settings.tracking
        if tracking.enabled:
            self.run = open_run(tracking, Path(config.hydra.sweep.dir), "sweep")
            atexit.register(self.run.end, "KILLED")  # unless the sweep comes to its end
            if self.run.id:
                os.environ[PARENT] = self.run.id

    def on_multirun_end(self, config: DictConfig, **_: object) -> None:
        """Rank what the jobs have written, best validation loss first."""
        jobs = ranked(Path(config.hydra.sweep.dir))
        if jobs:
            print_jobs(jobs)
        if self.run is not None:
            if jobs:
                self.run.metrics({"best": {key: getattr(jobs[0].report, key) for key in SHOWN}})
                self.run.tags({"best_job": jobs[0].name, "best_overrides": jobs[0].overrides})
            atexit.unregister(self.run.end)
            self.run.end("FINISHED")
            os.environ.pop(PARENT, None)


def say_meetings(config: DictConfig) -> None:
    """Say for each experiment, of several in a sweep, what it overrides of what is adopted."""
    sources = {source.provider: source.path for source in config.hydra.runtime.config_sources}
    names = [config.hydra.runtime.choices.get("experiment")]
    for override in swept(config):
        if override.key_or_group == "experiment" and isinstance(choice := override.value(), ChoiceSweep):
            names = [str(name) for name in choice.list]
    try:
        notices = [meeting(Path(sources["main"]), name) for name in names]
    except UserError as error:
        sys.exit(f"{config.hydra.job.name}: {error}")
    print(*filter(None, notices), sep="\n", end="\n" * any(notices), flush=True)


def check_data(config: DictConfig, settings: DataSettings) -> None:
    """End a sweep before its first job where jobs would not find their data prepared.

    Where experiments are swept over, each job looks for itself.
    """
    if config.hydra.job.name not in READ_PREPARED:
        return
    keys = [override.key_or_group for override in swept(config)] + list(config.hydra.sweeper.get("params") or {})
    data = [key for key in keys if key.partition(".")[0] == "data"]
    try:
        if data:
            raise UserError(
                f"the jobs of a sweep share one data/prepared and cannot differ in {', '.join(data)}; experiments do "
                f"not: `dvc exp run --queue -S {data[0]}=a,b`, then `dvc queue start`"
            )
        if "experiment" not in keys:
            require_prepared(settings)
    except UserError as error:
        sys.exit(f"{config.hydra.job.name}: {error}")


def swept(config: DictConfig) -> list[Override]:
    """Return the overrides of the command line that the jobs of a sweep differ in."""
    parsed = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    return [override for override in parsed if override.is_sweep_override()]


def ranked(folder: Path) -> list[Job]:
    """Return the reports of the jobs below a sweep's folder, with the overrides that tell them apart, best first."""
    reports = {report.parent.parent: report for report in folder.glob("*/reports/train.json")}
    overrides = {job: list(map(str, OmegaConf.load(job / ".hydra/overrides.yaml"))) for job in reports}
    shared = set.intersection(*map(set, overrides.values())) if len(overrides) > 1 else set()
    jobs: list[Job] = []
    for job, report in reports.items():
        own = " ".join(override for override in overrides[job] if override not in shared)
        jobs.append(Job(job.name, own, TrainReport.read(report)))
    return sorted(jobs, key=lambda job: math.inf if job.report.validation_loss is None else job.report.validation_loss)


def print_jobs(jobs: list[Job]) -> None:
    """Print the ranking as a table."""
    table = Table(
        "rank", "job", Column("overrides", no_wrap=True), *(key.replace("_", " ") for key in SHOWN), title="sweep"
    )
    for place, job in enumerate(jobs, 1):
        table.add_row(str(place), job.name, job.overrides, *(str(getattr(job.report, key)) for key in SHOWN))
    Console().print(table)
