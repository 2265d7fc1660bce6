"""What a Hydra multirun needs around its jobs: one MLflow parent, and at the end a ranked table.

A Hydra callback, named in conf/config.yaml. The database is made before the jobs start, since several at once on a new
one fail; the jobs find their parent by an environment variable, which every launcher hands on.
"""

import atexit
import json
import os
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Column, Table

from pipeline.config import load
from pipeline.errors import UserError
from pipeline.tracking import PARENT, open_run

RANKED_BY = "validation_loss"
SHOWN = ("validation_loss", "train_loss", "seconds", "tokens_per_second")


class Sweep(Callback):
    """Opens the parent run before the jobs of a multirun, closes it after them, and ranks the jobs."""

    def __init__(self) -> None:
        self.run: Any = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Opens the parent run; a configuration that is not valid is left for the jobs to refuse."""
        plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        try:
            tracking = load(plain).tracking
        except UserError:
            return
        if tracking.enabled:
            self.run = open_run(tracking, Path(config.hydra.sweep.dir), "sweep")
            atexit.register(self.run.end, "KILLED")  # unless the sweep comes to its end
            if self.run.id:
                os.environ[PARENT] = self.run.id

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Ranks what the jobs have written, best validation loss first."""
        jobs = ranked(Path(config.hydra.sweep.dir))
        if jobs:
            print_jobs(jobs)
        if self.run is not None:
            if jobs:
                self.run.metrics({"best": {key: jobs[0][key] for key in SHOWN}})
                self.run.tags({"best_job": jobs[0]["job"], "best_overrides": jobs[0]["overrides"]})
            atexit.unregister(self.run.end)
            self.run.end("FINISHED")
            os.environ.pop(PARENT, None)


def ranked(folder: Path) -> list[dict[str, Any]]:
    """The reports of the jobs below a sweep's folder, with the overrides that tell them apart, best first."""
    reports = {report.parent.parent: report for report in folder.glob("*/reports/train.json")}
    overrides = {job: list(map(str, OmegaConf.load(job / ".hydra/overrides.yaml"))) for job in reports}
    shared = set.intersection(*map(set, overrides.values())) if len(overrides) > 1 else set()
    jobs: list[dict[str, Any]] = []
    for job, report in reports.items():
        own = " ".join(override for override in overrides[job] if override not in shared)
        jobs.append({"job": job.name, "overrides": own, **json.loads(report.read_text(encoding="utf-8"))})
    return sorted(jobs, key=lambda job: (job[RANKED_BY] is None, job[RANKED_BY]))


def print_jobs(jobs: list[dict[str, Any]]) -> None:
    """The ranking as a table."""
    table = Table(
        "rank", "job", Column("overrides", no_wrap=True), *(key.replace("_", " ") for key in SHOWN), title="sweep"
    )
    for rank, job in enumerate(jobs, 1):
        table.add_row(str(rank), job["job"], job["overrides"], *(str(job[key]) for key in SHOWN))
    Console().print(table)
